"""One analysis that fails costs itself alone, and says why in a sentence."""

import pickle

import pytest
import torch
import xarray as xr

from probes.lens.logit_lens import LogitLens
from tests.example_probe import AttentionEntropy
from tests.tiny_models import tiny_model
from tests.tiny_runs import BROKEN, IDS, BrokenReducer, ModelNorms, Norms, Silent, StudyNorms
from workbench.analysis.run import Failure, run
from workbench.errors import InputError, RefusedError
from workbench.intervene import Ablate, Head
from workbench.models.selfcheck import READOUT, ROWS, Item, SelfCheck
from workbench.observation import observe


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen2", n_layers=3)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.name)
def test_one_that_fails_costs_itself_alone(model, broken):
    others = [Norms, AttentionEntropy, ModelNorms, StudyNorms]
    found = run(model, IDS, [*others[:1], broken, *others[1:]])
    assert list(found) == ["norms", broken.name, "attention-entropy", "model-norms", "study-norms"]
    failure = found.pop(broken.name)
    assert isinstance(failure, Failure) and (failure.name, failure.title) == (broken.name, broken.title)
    for kind in others:
        xr.testing.assert_identical(found[kind.name], kind().run(model, IDS))
    with pytest.raises(type(failure.error)):
        failure["norm"]
    with pytest.raises(type(failure.error)):  # alone, it raises
        broken().run(model, IDS)
    with pytest.raises(type(failure.error)):
        run(model, IDS, [broken])


def test_all_may_fail(model):
    found = run(model, IDS, BROKEN)
    assert [type(found[kind.name].error) for kind in BROKEN] == [
        ZeroDivisionError, KeyError, AttributeError, InputError, ZeroDivisionError,
    ]  # fmt: skip


def test_a_failure_says_why_in_a_sentence(model):
    found = run(model, IDS, [*BROKEN, Norms])
    assert (
        found["broken-needs"].sentence
        == str(found["broken-needs"])
        == (
            "Broken needs broke, which is a mistake in it and not yours: AttributeError: no such thing. "
            "Please report this."
        )
    )
    assert "'nonsense'" in found["broken-result"].sentence and "mistake" not in found["broken-result"].sentence


def test_a_bug_in_a_reducer_leaves_no_hook(model):
    before = observe(model, IDS).logits[0]
    run(model, IDS, [BrokenReducer, Norms], interventions=[Ablate(Head(0, 0))])
    assert torch.equal(observe(model, IDS).logits[0], before)


def test_what_a_model_does_not_show_costs_its_analysis_alone():
    neox = tiny_model("neox")
    found = run(neox, IDS, [Silent, Norms])
    assert isinstance(found["silent"].error, RefusedError) and "rot_q" in str(found["silent"])
    xr.testing.assert_identical(found["norms"], Norms().run(neox, IDS))


@pytest.mark.parametrize(("kind", "said"), [("gpt2", "silent, which needs rot_q"), ("neox", "to fire for silent")])
def test_a_missing_activation_is_said_of_the_analysis(kind, said):
    """Not of the reducer, whose name its user never typed; and the sentence survives a worker's pipe."""
    error = run(tiny_model(kind), IDS, [Silent, Norms])["silent"].error
    assert said in str(error) and "keep" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_failed_self_check_refuses_what_relies_on_it():
    model = tiny_model("llama")
    model.selfcheck = SelfCheck((Item(ROWS, 0.3, 1e-5, False), Item(READOUT, 0.0, 1e-5, True)))
    found = run(model, IDS, [Norms, LogitLens, ModelNorms])
    assert isinstance(found["norms"].error, RefusedError) and "'attention rows sum to 1' does not hold: 0.3" in str(
        found["norms"]
    )
    assert "top_token" in found["logit-lens"] and "norm" in found["model-norms"]
    with pytest.raises(RefusedError, match="norms on tiny-llama"):
        Norms().run(model, IDS)
