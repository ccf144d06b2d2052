"""The survey of all heads: what is planted survives, random weights do not, what is undefined is counted."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.checks.head_survey import VIEW, HeadSurvey, _result, _summary, survey
from probes.checks.matched_controls import HeadControls, draw_controls
from tests.tiny_models import tiny_model
from workbench.errors import InputError, RefusedError
from workbench.intervene import Ablate, Head
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import observe


def toy(seed: int = 0, n_heads: int = 24):
    import torch

    torch.manual_seed(seed)
    return wrap(ToyTransformer(ToyConfig(2, n_heads, 48, 4, 48, 48)), None, name=f"toy-{seed}")


def prompts(model, n: int, seed: int = 0):
    random = np.random.default_rng(seed)
    return [tokenise(model, Prompt.ids(random.integers(1, 48, 7).tolist())) for _ in range(n)]


METRIC = {"kind": "logit difference", "target": "#31"}


def test_effects_and_contrasts_equal_plain_passes():
    model = toy()
    some = prompts(model, 6)
    *_, result = survey(model, some, [METRIC] * 6)
    one = some[2]
    plain = observe(model, one).logits[0][0, 31]
    without = lambda head: float(observe(model, one, interventions=[Ablate(head)]).logits[0][0, 31] - plain)
    assert float(result["effect_by_prompt"][2, 1, 5]) == pytest.approx(without(Head(1, 5)), abs=1e-5)
    norms = np.log(result["norm"].values)
    controls = [one[0] for one in draw_controls(norms, [(1, 5)]).sets]
    effects = result["effect_by_prompt"].values
    by_hand = effects[:, 1, 5] - np.mean([effects[:, a, b] for a, b in controls], axis=0)
    assert float(result["contrast"][1, 5]) == pytest.approx(by_hand.mean(), abs=1e-6)
    assert int(result["n_controls"][1, 5]) == len(controls) >= 19
    ratios = [np.exp(norms[place] - norms[1, 5]) for place in controls]
    assert float(result["control_norm_low"][1, 5]) == pytest.approx(min(ratios), rel=1e-6)
    assert float(result["control_norm_high"][1, 5]) == pytest.approx(max(ratios), rel=1e-6)


def made(effects: np.ndarray, norms: np.ndarray | None = None, smallest: float = 0.1):
    norms = np.zeros(effects.shape[1:]) if norms is None else norms
    return _result(effects, norms, HeadControls.of(norms, 1.5), "nats", "loss", 1.5, smallest, 0)


def noise(n: int, seed: int = 0, layers: int = 4, heads: int = 10):
    return np.random.default_rng(seed).normal(size=(n, layers, heads))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_head_survives_on_either_side_and_the_rest_does_not(sign):
    effects = noise(16)
    effects[:, 2, 3] += sign * 6
    result = made(effects)
    assert np.argwhere(result["matters"].values == 1).tolist() == [[2, 3]]
    assert "1 changes the loss otherwise than heads as loud" in result.attrs["summary"]
    assert f"L2H3 {float(result['contrast'][2, 3]):+.2f}" in result.attrs["summary"]
    assert float(result["contrast_low"][2, 3]) * float(result["contrast_high"][2, 3]) > 0


def test_without_a_plant_a_survey_names_a_head_once_in_twenty():
    named = [bool((made(noise(8, seed))["matters"] == 1).any()) for seed in range(120)]
    assert np.mean(named) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def test_undefined_heads_are_left_out_and_counted_and_infinite_ones_are_never_first():
    effects, norms = noise(12), np.zeros((4, 10))
    norms[0, 0] = 5.0  # louder than all others
    effects[:, 0, 0] += 1e6
    effects[3, 1, 1] = np.inf
    result = made(effects, norms)
    assert np.isnan(result["contrast_p"].values[0, 0]) and np.isnan(result["contrast_p"].values[1, 1])
    # Whoever had the infinite head among its controls has no contrast either.
    tested, undefined = int(result["n_tested"]), int(result["n_undefined"])
    assert tested + undefined == 40 and undefined >= 2
    more = "1 more is" if undefined == 1 else f"{undefined} more are"
    assert f"{more} left out" in result.attrs["summary"] or tested == 0
    before, after = result.attrs["summary"].split("left out") if tested else ("", "")
    assert "L0H0" not in before and "L1H1" not in result.attrs["summary"]
    assert not tested or "effects of these are those of L0H0" in after
    finite = noise(12)
    finite[:, 0, 0] += 1e6
    said = made(finite, norms).attrs["summary"]
    assert "Of 39 heads tested on n = 12 prompts" in said and "within a factor 1.5 of its norm, or its contrast" in said
    assert " 1 more is left out: " in said and "; the largest effect there is that of L0H0 (" in said


def test_cannot_tell_is_not_does_not_matter():
    few, many = made(noise(8) * 2, smallest=0.5), made(noise(400) * 0.2, smallest=0.5)
    assert "it cannot be told with n = 8" in few.attrs["summary"] and "not matter" not in few.attrs["summary"]
    assert "40 do not matter" in many.attrs["summary"] and "cannot be told" not in many.attrs["summary"]


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_the_sentence_counts_what_the_table_holds(seed, planted):
    effects = noise(10, seed) * 0.3
    effects.reshape(10, -1)[:, :planted] += np.where(np.arange(planted) % 2, 3.0, -3.0)
    result = made(effects, smallest=0.6)
    said, matters = _summary(result), result["matters"].values
    n = int((matters == 1).sum())
    assert f"{n or 'none'} change" in said
    named = re.findall(r"L\dH\d", said)
    assert len(named) == min(n, 8) == len(set(named))
    assert all(matters[int(name[1]), int(name[3])] == 1 for name in named)
    n_not, unknown = int((matters == 0).sum()), int(np.isnan(matters).sum())
    assert (f"{n_not} do" in said and "not matter" in said) == (n_not > 0)
    assert (f"Of {unknown} it cannot be told" in said) == (unknown > 0)


def test_too_few_different_prompts_are_refused_before_anything_runs():
    model = toy()
    same = [prompts(model, 1)[0]] * 20
    with pytest.raises(RefusedError, match="1 different prompts"):
        next(survey(model, same, [METRIC] * 20))
    with pytest.raises(RefusedError, match=r"5 different prompts, whose smallest p is 0\.062"):
        next(survey(model, prompts(model, 5), [METRIC] * 5))
    with pytest.raises(InputError):
        HeadSurvey(n_prompts=5)
    with pytest.raises(InputError, match="no tokenizer"):
        HeadSurvey().run(model)


def test_prompts_of_your_own_are_not_passed_over():
    """A survey of the default task read as one of these."""
    with pytest.raises(InputError, match=r"prompts of your own, and on='indirect object'.*on='prompts'"):
        HeadSurvey(prompts="a b|c d|e f|g h|i j|k l").run(toy())


def test_it_runs_by_name_on_repeated_tokens_and_on_prompts_and_is_drawn():
    model = tiny_model("llama", n_layers=8)  # 32 heads
    result = HeadSurvey(on="repeated tokens", n_prompts=6, caliper=50.0).run(model)
    assert result.sizes["prompt"] == 6 and int(result["n_tested"]) == 32
    assert "repetition" in result.attrs["summary"] or result.attrs["metric"] == "repetition"
    for figure in VIEW.figures:
        assert figure(result).data
    frame = VIEW.tables[0](result)
    assert len(frame) == 32 and frame["contrast_p"].is_monotonic_increasing
    with pytest.raises(RefusedError, match="different prompts"):
        HeadSurvey(on="prompts").run(model)


@pytest.mark.slow
def test_on_the_default_model_induction_and_indirect_objects_name_heads(default_model):
    """Golden, 16 prompts each: see docs/pages/calibration.md for what the correction holds."""
    repeated = HeadSurvey(on="repeated tokens").run(default_model)
    names = re.findall(r"L\d+H\d+", repeated.attrs["summary"])
    assert names and int(repeated["n_tested"]) > 200
    objects = HeadSurvey().run(default_model)
    assert "L23H3" in re.findall(r"L\d+H\d+", objects.attrs["summary"])
