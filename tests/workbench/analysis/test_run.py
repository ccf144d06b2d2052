"""The one runner: one pass for all of the prompt, and what else is observed in it."""

import json

import pytest
import torch
import xarray as xr

from probes.lens.logit_lens import LogitLens
from tests.example_probe import AttentionEntropy
from tests.tiny_models import tiny_model
from tests.tiny_runs import EDITS, IDS, NORMS, BrokenReducer, Fixed, Idle, ModelNorms, Norms, StudyNorms
from workbench.analysis.run import Failure, Outcome, outcomes, run
from workbench.errors import InputError
from workbench.models.hooks import RESID_POST
from workbench.observation import Need, keep, observe


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen2", n_layers=3)


def test_a_run_returns_every_result_by_name_in_the_order_asked(model):
    asked = [StudyNorms(), Norms, ModelNorms, AttentionEntropy(first=2), Fixed]
    found = run(model, IDS, asked)
    assert list(found) == ["study-norms", "norms", "model-norms", "attention-entropy", "fixed"]
    for one in asked:
        made = one() if isinstance(one, type) else one
        xr.testing.assert_identical(found[made.name], made.run(model, IDS))


def test_all_of_the_prompt_share_one_pass(model):
    passes = []
    handle = model.adapter.bridge.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    try:
        run(model, IDS, [Norms, AttentionEntropy, LogitLens])
    finally:
        handle.remove()
    assert len(passes) == 1


def test_a_result_has_key_and_provenance(model):
    result = run(model, IDS, [Norms])["norms"]
    record_ = json.loads(result.attrs["provenance"])
    assert result.attrs["title"] == "Norms" and len(result.attrs["spec_key"]) == 64 == len(record_["spec_key"])
    assert record_["token_ids"] == list(IDS.token_ids) and record_["source"] == "s." and record_["analysis"] == "norms"
    assert record_["model"]["weights_hash"] == model.identity.weights_hash and record_["interventions"] == []


def test_what_cannot_be_run_is_said(model):
    with pytest.raises(InputError, match="no analyses"):
        run(model, IDS)
    with pytest.raises(InputError, match="norms twice"):
        run(model, IDS, [Norms, ModelNorms, Norms()])
    with pytest.raises(InputError, match="an empty prompt"):
        run(tiny_speller(), "", [Norms])
    with pytest.raises(InputError, match="norms without a prompt"):
        run(model, None, [Norms])
    assert list(run(model, None, [ModelNorms])) == ["model-norms"]
    found = run(model, None, [StudyNorms, ModelNorms, Norms])
    assert "study-norms without a prompt" in str(found["study-norms"]) and "norm" in found["model-norms"]


def tiny_speller():
    from tests.tiny_probes import speller

    return speller()


def test_the_network_is_used_where_it_is_allowed(model):
    assert float(Fixed().run(model, IDS)["allowed"]) == 0
    assert float(Fixed().run(model, IDS, allow_network=True)["allowed"]) == 1


# --- more of the pass -------------------------------------------------------------------------------------------------

STATES = Need((RESID_POST,), keep, dims="pos d_model")


def test_more_can_be_observed_in_the_pass_of_the_prompt(model):
    seen, order = [], []
    for outcome in outcomes(
        model, IDS, [Norms()], also=[STATES], seen=lambda o: (seen.append(o), order.append("seen"))
    ):
        order.append(outcome.analysis.name)
    assert order == ["seen", "norms"]
    assert torch.equal(seen[0][STATES], observe(model, IDS, [STATES, NORMS])[STATES]) and NORMS in seen[0]


def test_it_is_observed_without_analyses_of_the_prompt_too_and_edited(model):
    seen = []
    found = list(outcomes(model, IDS, [ModelNorms()], also=[STATES], seen=seen.append, interventions=EDITS[2:]))
    assert [o.analysis.name for o in found] == ["model-norms", "model-norms"] and isinstance(found[0], Outcome)
    assert torch.equal(seen[0][STATES], observe(model, IDS, [STATES], interventions=EDITS[2:])[STATES])


def test_it_is_seen_where_an_analysis_fails(model):
    """The page keeps the states of a prompt whatever becomes of its views."""
    seen = []
    found = {o.analysis.name: o.result for o in outcomes(
        model, IDS, [BrokenReducer(), Norms()], also=[STATES], seen=seen.append
    )}  # fmt: skip
    assert len(seen) == 1 and STATES in seen[0]
    assert isinstance(found["broken-reducer"], Failure) and "norm" in found["norms"]


def test_a_study_that_yields_nothing_says_so_and_costs_itself_alone(model):
    found = run(model, IDS, [Norms, Idle])
    assert "no result of idle" in str(found["idle"]) and "norms" in found and not isinstance(found["norms"], Failure)
    with pytest.raises(InputError, match="no result of idle"):
        Idle().run(model, IDS)


def test_what_a_caller_does_to_a_partial_result_reaches_no_other(model):
    """The last one so far is the result; and earlier ones stay what they were when they were shown."""
    shown, copies = [], []

    def spoil(result):
        shown.append(result)
        copies.append(result.copy(deep=True))
        if len(shown) > 1:
            for variable in result.data_vars.values():
                variable.values[...] = 0

    plain = StudyNorms().run(model, IDS)
    xr.testing.assert_identical(StudyNorms().run(model, IDS, partial=spoil), plain)
    assert len(shown) > 1
    xr.testing.assert_identical(shown[0], copies[0])
