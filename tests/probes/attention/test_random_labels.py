"""Random weights deserve no label: previous-token and duplicate-token heads were found in most random models."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from probes.attention.induction.figures import duplicate_token_figure, previous_token_figure
from probes.attention.induction.induction_heads import EFFECT_FLOOR, InductionHeads
from workbench.loading.pretrained import load, wrap
from workbench.statistics import benjamini_hochberg, sign_flip_test

LABELS = ("is_induction_head", "is_previous_token_head", "is_duplicate_token_head")


def random_gpt2(seed: int):
    """Weights as GPT-2 is initialised, three times as large: preferences for a distance are real, and tiny."""
    torch.manual_seed(seed)
    config = GPT2Config(n_layer=3, n_head=8, n_embd=64, n_positions=128, vocab_size=256)
    module = AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3.0 if parameter.ndim > 1 else 1.0)
    return wrap(module, None, name=f"random-gpt2-{seed}")


@pytest.fixture(scope="module")
def results():
    return [InductionHeads(length=32).run(random_gpt2(seed)) for seed in range(6)]


def test_random_weights_get_no_label(results):
    """Stated rate: 0.05 of false discoveries over all heads; 6 models of 24 heads, none above the floor."""
    for name in LABELS:
        assert not any(result[name].values.any() for result in results)


def test_they_do_prefer_a_distance_by_less_than_the_floor(results):
    """So the label stands on its floor, not on luck: tested against zero, some heads would pass."""
    effects = np.stack([result["previous_token_score_d"].values for result in results])
    assert np.abs(effects).max() < EFFECT_FLOOR
    steady = benjamini_hochberg(sign_flip_test(effects[:1].repeat(16, 0) + 1e-9, axis=0))
    assert (steady <= 0.05).any()


def test_a_planted_previous_token_head_gets_its_label_and_is_ringed():
    result = InductionHeads().run(load("toy-induction"))
    assert result["is_previous_token_head"].values.tolist() == [[True, False], [False, False]]
    assert result["is_induction_head"].values.tolist() == [[False, False], [True, False]]
    assert not result["is_duplicate_token_head"].values.any()
    assert previous_token_figure(result).data and duplicate_token_figure(result).data
