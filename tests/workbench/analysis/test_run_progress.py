"""Progress goes from 0 to 1, partial results come with key and provenance, and who stops closes what was begun."""

import json
from contextlib import suppress

import pytest
import torch
import xarray as xr

from probes.lens.logit_lens import LogitLens
from tests.example_probe import AttentionEntropy
from tests.tiny_models import tiny_model
from tests.tiny_runs import BROKEN, EDITS, IDS, BrokenStudy, ModelNorms, Norms, StudyNorms
from workbench.analysis.run import outcomes, run
from workbench.errors import Cancelled
from workbench.observation import observe


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen2", n_layers=3)


def test_partial_results_come_with_key_and_provenance(model):
    seen = []
    result = StudyNorms().run(model, IDS, partial=seen.append)
    assert [int(part["norm"].notnull().sum()) for part in seen] == [4, 8, 12]
    assert {part.attrs["spec_key"] for part in seen} == {result.attrs["spec_key"]}
    assert all(json.loads(part.attrs["provenance"])["analysis"] == "study-norms" for part in seen)
    xr.testing.assert_identical(seen[-1], result)


def test_outcomes_come_one_by_one_and_say_when_they_are_complete(model):
    came = [(o.analysis.name, o.complete) for o in outcomes(model, IDS, [Norms(), StudyNorms(parts=2), BrokenStudy()])]
    assert came == [
        ("norms", True),
        ("study-norms", False),
        ("study-norms", False),
        ("study-norms", True),
        ("broken-study", False),
        ("broken-study", True),
    ]


@pytest.mark.parametrize(
    "asked",
    [[Norms()], [StudyNorms()], [ModelNorms()], [Norms(), LogitLens(), StudyNorms(), ModelNorms()], [*BROKEN, Norms]],
    ids=lambda asked: f"{len(asked)}",
)
def test_progress_goes_from_0_to_1_and_never_back(model, asked):
    told = []
    with suppress(ZeroDivisionError):
        run(model, IDS, asked, progress=told.append)
    assert told == sorted(told) and told[0] >= 0 and told[-1] <= 1
    if BrokenStudy not in asked:  # which stops half way
        assert told[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("others", [[], [Norms(), ModelNorms()]], ids=["alone", "beside others"])
def test_a_cancel_passes_through(model, others):
    def stop(share):
        if share > 0.7:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(model, IDS, [*others, StudyNorms(parts=10)], progress=stop)
    with pytest.raises(Cancelled):
        run(model, IDS, [*others, StudyNorms()], progress=lambda share: (_ for _ in ()).throw(Cancelled()))


def test_who_stops_at_a_partial_result_closes_the_study(model):
    StudyNorms.closed.clear()

    def stop(part):
        if part["norm"].notnull().sum() == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(model, IDS, [Norms(), StudyNorms()], partial=stop)
    assert StudyNorms.closed == [1]


def test_closing_the_outcomes_closes_the_study(model):
    StudyNorms.closed.clear()
    coming = outcomes(model, IDS, [StudyNorms()])
    assert not next(coming).complete
    coming.close()
    assert StudyNorms.closed == [0]
    with pytest.raises(StopIteration):
        next(coming)


def test_a_cancel_in_the_shared_pass_leaves_the_model_as_it_was(model):
    before = observe(model, IDS).logits[0]
    with pytest.raises(Cancelled):
        run(model, IDS, [Norms, AttentionEntropy], interventions=EDITS, progress=cancelled)
    assert torch.equal(observe(model, IDS).logits[0], before)


def cancelled(share):
    raise Cancelled
