"""Interventions reach every pass of a run, or are refused in a sentence."""

import json

import numpy as np
import pytest
import xarray as xr

from tests.tiny_models import tiny_model
from tests.tiny_runs import EDITS, IDS, NORMS, Fixed, ModelNorms, Norms, StudyNorms
from workbench.analysis.run import run
from workbench.errors import InputError, RefusedError
from workbench.intervene import Ablate, Head, Knockout
from workbench.models.prompt import Prompt
from workbench.observation import observe


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen2", n_layers=3)


@pytest.mark.parametrize("kind", [Norms, ModelNorms, StudyNorms], ids=lambda kind: kind.name)
def test_interventions_reach_every_pass_and_stand_in_key_and_provenance(model, kind):
    edits = [edit for edit in EDITS if kind is not ModelNorms or not isinstance(edit, Knockout)]  # one prompt is short
    plain, edited = kind().run(model, IDS), kind().run(model, IDS, interventions=edits)
    for name in plain.data_vars:
        assert np.abs(plain[name] - edited[name]).max() > 1e-5, name
    assert json.loads(edited.attrs["provenance"])["interventions"] == [str(edit) for edit in edits]
    assert edited.attrs["spec_key"] != plain.attrs["spec_key"]
    prompts = [IDS, Prompt.ids([4, 5, 6])] if kind is ModelNorms else [IDS]
    given = observe(model, prompts, [NORMS], interventions=edits)[NORMS].mean(1)  # by hand
    np.testing.assert_allclose(edited["norm"], given, rtol=1e-6)
    xr.testing.assert_identical(kind().run(model.edited(edits), IDS), edited)
    xr.testing.assert_identical(kind().run(model, IDS), plain)  # nothing is left


def test_a_studys_recordings_and_sweeps_are_of_the_edited_model(model):
    edited = StudyNorms().run(model, IDS, interventions=EDITS)
    np.testing.assert_allclose(edited["recorded"], edited["norm"], rtol=1e-6)
    for value, cell in zip(edited["values"].values, ([], [Ablate(Head(2, 0))]), strict=True):
        by_hand = observe(model, IDS, interventions=[*EDITS, *cell]).logits[0][0, 9]
        assert value == pytest.approx(float(by_hand), abs=2e-5)


def test_what_cannot_honour_interventions_refuses(model):
    found = run(model, IDS, [Fixed, Norms], interventions=EDITS[:1])
    assert isinstance(found["fixed"].error, RefusedError)
    assert str(found["fixed"]).startswith(
        "Got fixed with interventions (Ablate(L0H1 by zero)); expected the model as it"
    )
    assert "norm" in found["norms"]
    with pytest.raises(RefusedError, match="Leave the interventions out"):
        Fixed().run(model.edited(EDITS[:1]), IDS)


def test_interventions_that_no_pass_could_carry_are_refused_for_all(model):
    with pytest.raises(InputError, match="all rows"):
        run(model, IDS, [Norms, ModelNorms], interventions=[Ablate(Head(0, 1), rows=(0,))])
    with pytest.raises(InputError, match="L7H0"):
        run(model, IDS, [Norms, ModelNorms], interventions=[Ablate(Head(7, 0))])


def test_an_intervention_that_fits_one_analysis_only_fails_in_the_other(model):
    """Position 5 is in the prompt, and not in the stimulus."""
    found = run(model, IDS, [Norms, ModelNorms], interventions=[Knockout((5,), (1,), (0,))])
    assert "norm" in found["norms"] and "position" in str(found["model-norms"])
