"""The one runner: one pass for all of the prompt, one failure costs itself alone, interventions reach every pass."""

import json
from contextlib import suppress

import numpy as np
import pytest
import torch
import xarray as xr

from probes.lens.logit_lens import LogitLens
from tests.example_probe import AttentionEntropy
from tests.tiny_models import tiny_model
from workbench.analysis.kinds import OnModel, OnPrompt, Stimulus, Study
from workbench.analysis.results import dataset
from workbench.analysis.run import Failure, Outcome, outcomes, run
from workbench.errors import Cancelled, InputError, RefusedError
from workbench.intervene import Ablate, Head, Knockout, Steer
from workbench.models.hooks import PATTERN, RESID_POST, ROT_Q, Z
from workbench.models.prompt import Prompt, tokenise
from workbench.models.selfcheck import READOUT, ROWS, Item, SelfCheck
from workbench.observation import Need, keep, observe
from workbench.observation.metrics import make_metric
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run, values_of

IDS = Prompt.ids([4, 33, 80, 33, 12, 7])
SECTIONS = "\n\nDefinition: d.\nLimits: l.\nSource: s.\n"


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen2", n_layers=3)


def head_norm(z, site):
    """Length of every head's output at the last position."""
    return z[torch.arange(len(z)), site.lengths - 1].float().norm(dim=-1)


def broken_reducer(pattern, site):
    """Divides by zero."""
    return pattern / (1 // 0)


NORMS = Need((Z,), head_norm, dims="head")


def norms(values):
    """A result."""
    return dataset(None, norm=("layer head", values, "length", (0, None)))


class Norms(OnPrompt, name="norms", title="Norms", requires=(ROWS,)):
    __doc__ = "Of the prompt." + SECTIONS

    def needs(self, model, tokens):
        return (NORMS,)

    def analyse(self, observation):
        return norms(observation[NORMS][:, 0])


class ModelNorms(OnModel, name="model-norms", title="Model norms"):
    __doc__ = "Of a stimulus." + SECTIONS

    def stimulus(self, model, progress=None):
        return Stimulus((tokenise(model, IDS), tokenise(model, Prompt.ids([4, 5, 6]))))

    def needs(self, model, tokens):
        return (NORMS,)

    def analyse(self, observation):
        return norms(observation[NORMS].mean(1))


class StudyNorms(Study, name="study-norms", title="Study norms"):
    """By every way that passes are made.

    Definition: d.
    Limits: l.
    Source: s.
    """

    parts: int = 3
    closed = []  # noqa: RUF012 - seen by the tests

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        seen = observe(model, tokens, [NORMS])[NORMS][:, 0]
        kept = record(model, tokens, [Z]).values
        recorded = torch.stack([kept[Z, layer][-1].norm(dim=-1) for layer in range(model.sizes.n_layers)])
        base = base_run(model, tokens)
        metric = make_metric(model, tokens, base.logits(model), target="#9")
        values = values_of(model, base, [[], [Ablate(Head(2, 0))]], metric)
        try:
            for part in range(self.parts):
                if progress is not None:
                    progress((part + 1) / self.parts)
                done = seen.clone()
                done[part + 1 :] = torch.nan
                found = norms(done)
                found["recorded"] = found["norm"].copy(data=recorded.numpy())
                found["values"] = ("target", values.numpy(), dict(found["norm"].attrs, valid_min=-np.inf))
                yield found
        except GeneratorExit:
            self.closed.append(part)
            raise


class Fixed(Study, name="fixed", title="Fixed"):
    __doc__ = "Stands on the model as it is." + SECTIONS
    editable = False

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        yield dataset(None, allowed=("", float(allow_network), "flag", (0, 1)))


class BrokenReducer(OnPrompt, name="broken-reducer", title="Broken reducer"):
    __doc__ = "A bug where it reduces." + SECTIONS

    def needs(self, model, tokens):
        return (Need((PATTERN,), broken_reducer, dims="head query key"),)

    def analyse(self, observation):
        raise AssertionError("never reached")


class BrokenAnalysis(OnPrompt, name="broken-analysis", title="Broken analysis"):
    __doc__ = "A bug where it analyses." + SECTIONS

    def needs(self, model, tokens):
        return (NORMS,)

    def analyse(self, observation):
        return {}["nothing"]


class BrokenNeeds(BrokenAnalysis, name="broken-needs", title="Broken needs"):
    __doc__ = "A bug where it says what it needs." + SECTIONS

    def needs(self, model, tokens):
        raise AttributeError("no such thing\nand a second line")


class BrokenResult(BrokenAnalysis, name="broken-result", title="Broken result"):
    __doc__ = "A result beside the conventions." + SECTIONS

    def analyse(self, observation):
        return xr.Dataset({"x": ("nonsense", [1.0])})


class BrokenStudy(Study, name="broken-study", title="Broken study"):
    __doc__ = "A bug after its first result." + SECTIONS

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        yield dataset(None, one=("", 1.0, "count", (0, None)))
        raise ZeroDivisionError("half way")


class Silent(OnPrompt, name="silent", title="Silent"):
    __doc__ = "Needs what this model has not." + SECTIONS

    def needs(self, model, tokens):
        return (Need((ROT_Q,), keep, dims="pos head d_head"),)

    def analyse(self, observation):
        raise AssertionError("never reached")


BROKEN = (BrokenReducer, BrokenAnalysis, BrokenNeeds, BrokenResult, BrokenStudy)


# --- what a run returns -----------------------------------------------------------------------------------------------


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


# --- failures ---------------------------------------------------------------------------------------------------------


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


# --- interventions ----------------------------------------------------------------------------------------------------

EDITS = [Ablate(Head(0, 1)), Knockout((5,), (1, 2), (0, 1, 2)), Steer(1, torch.linspace(-1, 2, 32))]


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


# --- progress, partial results, and stopping --------------------------------------------------------------------------


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
