"""Interventions reach every pass of the analyses of heads: as by hand, and named in key and provenance."""

import json

import numpy as np
import pytest
import xarray as xr

from probes.attention.head_table import HeadTable
from probes.attention.induction.induction_heads import InductionHeads
from probes.attention.induction.induction_on_prompt import InductionOnPrompt
from probes.attention.sinks.attention_sinks import AttentionSinks
from probes.attention.sinks.sink_conditions import SinkConditions
from probes.attention.sinks.sink_rates import SinkRates
from tests.tiny_models import tiny_model
from workbench.intervene import Ablate, Head
from workbench.loading.pretrained import load
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import observe

IDS = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31, 64, 12, 90, 45, 3, 18, 77])
EDITS = [Ablate(Head(0, 1))]


def assert_named(edited: xr.Dataset, plain: xr.Dataset) -> None:
    assert json.loads(edited.attrs["provenance"])["interventions"] == [str(edit) for edit in EDITS]
    assert json.loads(plain.attrs["provenance"])["interventions"] == []
    assert edited.attrs["spec_key"] != plain.attrs["spec_key"]


def numbers(result: xr.Dataset) -> xr.Dataset:
    return result.drop_attrs(deep=False)


@pytest.mark.parametrize("analysis", [InductionOnPrompt(), AttentionSinks()], ids=lambda a: a.name)
def test_an_analysis_of_the_prompt(analysis):
    model = tiny_model("llama")
    tokens = tokenise(model, IDS)
    plain, edited = analysis.run(model, IDS), analysis.run(model, IDS, interventions=EDITS)
    by_hand = analysis.analyse(observe(model, tokens, analysis.needs(model, tokens), interventions=EDITS))
    xr.testing.assert_identical(numbers(edited), numbers(by_hand))
    assert not numbers(edited).identical(numbers(plain))
    assert_named(edited, plain)


ON_MODEL = [InductionHeads(length=24), SinkRates(samples=2, length=32), HeadTable(n_sequences=2, texts=2)]


@pytest.mark.parametrize("analysis", ON_MODEL, ids=lambda a: a.name)
def test_an_analysis_on_a_stimulus_of_its_own(analysis):
    model = tiny_model("llama")
    plain, edited = analysis.run(model), analysis.run(model, interventions=EDITS)
    made = analysis.stimulus(model)
    options = {"positions": "none", "fields": made.fields, "interventions": EDITS}
    by_hand = analysis.analyse(observe(model, made.tokens, analysis.needs(model, made.tokens), **options))
    xr.testing.assert_identical(numbers(edited), numbers(by_hand))
    assert not numbers(edited).identical(numbers(plain))
    assert_named(edited, plain)


def test_a_study_of_several_passes():
    """Each condition is the analysis of one prompt with the edit, the last one with the hidden key beside it."""
    model = tiny_model("llama")
    plain, edited = SinkConditions().run(model, IDS), SinkConditions().run(model, IDS, interventions=EDITS)
    given = AttentionSinks().run(model, IDS, interventions=EDITS)
    for name in ("sink_rate", "layer_drain", "peak_ratio", "peak_pos"):
        np.testing.assert_array_equal(edited[name].values[0], given[name])
    assert all(abs(edited["layer_drain"] - plain["layer_drain"]).max(["layer"]) > 1e-3)
    assert_named(edited, plain)


def test_without_its_previous_token_head_the_circuit_does_no_induction():
    toy = load("toy-induction")
    result = InductionHeads().run(toy, interventions=[Ablate(Head(0, 0))])
    assert float(result["induction_score"].max()) < 0.1 and not result["is_induction_head"].any()
