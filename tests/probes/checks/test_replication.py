"""What the README claims, on three seeds of the stimulus and on models of two other families, trained here.

What does not replicate is held as such.
"""

import re

import numpy as np
import pytest

from probes.attention.active_dormant.active_dormant import ActiveDormant
from probes.attention.induction.induction_heads import InductionHeads
from probes.attention.sinks.sink_rates import SinkRates
from probes.checks.causal_check import CausalCheck
from probes.checks.head_survey import HeadSurvey
from probes.erasure.accuracy import TokenErasureAccuracy
from tests import trained_models
from tests.trained_models import LENGTH

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def repeater():
    """A GPT-2 that repeats random tokens."""
    return trained_models.repeater()


@pytest.fixture(scope="module")
def reader():
    """A GPT-NeoX that has read the interpreter's documentation."""
    return trained_models.reader()


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
    """That one token repeated makes no sink, and that BOS in front of it brings some; not how many: by the tokens drawn
    62, 34 and 31 % of the heads (of 24 texts 48 and 24 %)."""
    result = SinkRates(samples=4, seed=seed).run(default_model)
    rate = dict(zip(result["group"].values, result["sink_rate"].values, strict=True))
    assert rate["repeated token"] < 0.01 < 0.2 < rate["repeated token after BOS"]
    assert rate["random tokens"] > rate["random tokens after BOS"] > max(0.5, rate["repeated token after BOS"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_induction_heads_of_another_family_matter(repeater, seed):
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_head_of_another_family_is_active_dormant_or_sinks(reader, seed):
    """As on the default model no head passes; unlike there none sinks."""
    assert "0 of 32 heads pass" in ActiveDormant(length=64, seed=seed, ablate="none").run(reader).attrs["summary"]
    rate = SinkRates(samples=4, seed=seed).run(reader)
    assert float(rate["sink_rate"].sel(group="natural text after BOS")) < 0.05


@pytest.mark.slow
def test_on_another_family_there_is_nothing_to_erase(reader, tmp_path):
    """The token before is hardly read early (0.17 of others, 0.01 of last tokens), so nothing can be lost."""
    study = TokenErasureAccuracy(depths="two", control=False)
    *_, result = study.over(reader, None, folder=tmp_path)
    at = {"offset": -1, "component": "type-matched"}
    assert float(result["probe_accuracy"].sel(offset=-1, group="last").max()) < 0.05
    assert float(result["excess_drop_low"].sel(at)) < 0 < float(result["excess_drop_high"].sel(at))
