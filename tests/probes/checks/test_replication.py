"""What the README claims, on three seeds of the stimulus and on a second model of another family, made here.

The second model is a GPT-2 of three layers (LayerNorm, learned positions, no gates) that learns to repeat random
tokens: a minute of training. What does not replicate is held as such.
"""

import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from probes.attention.induction.induction_heads import InductionHeads
from probes.attention.sinks.sink_rates import SinkRates
from probes.checks.causal_check import CausalCheck
from probes.checks.head_survey import HeadSurvey
from workbench.loading.pretrained import wrap

SEEDS = (0, 1, 2)
VOCABULARY, LENGTH = 128, 48


@pytest.fixture(scope="module")
def repeater():
    """Trained until it repeats; half of its sequences repeat with a random period, the others do not."""
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(n_layer=3, n_head=16, n_embd=128, n_positions=128, vocab_size=VOCABULARY, **dropouts)
    module = AutoModelForCausalLM.from_config(config).float().train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(1500):
        ids = torch.randint(1, VOCABULARY, (32, LENGTH))
        for row in ids:
            period = int(torch.randint(8, LENGTH // 2, ()))
            row[:] = row[:period].repeat(LENGTH // period + 1)[:LENGTH]
        ids[:, 0] = 0
        loss = module(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 2.3:
            break
    return wrap(module.eval(), None, name="repeater")


def named(result) -> list[str]:
    return re.findall(r"L\d+H\d+", result.attrs["summary"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_induction_heads_of_the_default_model_replicate(default_model, seed):
    result = InductionHeads(seed=seed).run(default_model)
    assert bool(result["is_induction_head"][18, 6]) and named(result)[0] == "L18H6"
    assert float(result["induction_score"][18, 6]) == pytest.approx(0.88, abs=0.03)
    assert 12 <= int(result["is_induction_head"].sum()) <= 22


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_sinks_of_the_default_model_replicate(default_model, seed):
    result = SinkRates(samples=4, seed=seed).run(default_model)
    rate = dict(zip(result["group"].values, result["sink_rate"].values, strict=True))
    assert rate["repeated token"] < 0.01 < 0.5 < rate["repeated token after BOS"]
    assert rate["random tokens"] > rate["random tokens after BOS"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_induction_heads_of_another_family_matter_and_random_weights_have_none(repeater, seed):
    found = InductionHeads(length=LENGTH - 1, seed=seed).run(repeater)
    called = np.argwhere(found["is_induction_head"].values)
    assert len(called) >= 1
    layer, head = np.unravel_index(int(np.nanargmax(found["induction_score"].values)), (3, 16))
    unit = f"L{layer}H{head}"
    check = CausalCheck(units=unit, metric="repetition", side="lowers", on="repeated tokens", seed=seed).run(repeater)
    assert float(check["effect"]) < 0 and check.sizes["prompt"] == 16


@pytest.mark.slow
def test_a_survey_of_another_family_names_heads_on_either_side_of_the_circuit(repeater):
    result = HeadSurvey(on="repeated tokens", caliper=3.0).run(repeater)
    assert int(result["n_tested"]) >= 30 and int((result["matters"] == 1).sum()) >= 1
