"""Interventions given to a study reach every pass of it: as if the weights had been edited to the same effect."""

import json

import numpy as np
import pytest
import torch

from probes.circuits.activation_patching import ActivationPatching
from probes.circuits.attention_knockout import AttentionKnockout
from probes.circuits.attribution_patching import AttributionPatching, gradients
from probes.circuits.causal_tracing import CausalTracing
from probes.circuits.direct_logit_attribution import DirectLogitAttribution
from probes.circuits.edges import CircuitEdges
from probes.circuits.evaluation import CircuitEvaluation
from tests.tiny_models import tiny_hf, tiny_model, tiny_model_without_head
from workbench.errors import InputError, RefusedError
from workbench.intervene import (
    MLP,
    Ablate,
    Add,
    Attend,
    Attention,
    Clamp,
    Expert,
    Force,
    FreezeNormScale,
    FreezePatterns,
    Head,
    Knockout,
    Neurons,
    Patch,
    Residual,
    Scale,
    Steer,
)
from workbench.intervene.units import AttentionEdge, AttentionKey, ExpertNeurons
from workbench.loading.pretrained import wrap
from workbench.models.hooks import LN_FINAL_SCALE, PATTERN, RESID_MID, RESID_POST, RESID_PRE, K, Q, V, Z
from workbench.models.prompt import Prompt, tokenise
from workbench.models.target import Target
from workbench.observation import observe
from workbench.observation.metrics import Metric
from workbench.observation.recording import measure_means, record

CLEAN = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])
CORRUPT = Prompt.ids([5, 17, 40, 23, 60, 8, 70, 30, 12, 9])
EDIT = Ablate(Head(1, 2))
ASKED = {"metric": "logit difference", "target": "#31", "against": "#7"}
CARRIED = {**ASKED, "target": "#8", "against": "#22"}  # what every one of these models does better than without parts
STUDIES = [
    ActivationPatching(**ASKED),
    ActivationPatching(site="z", **ASKED),
    ActivationPatching(site="pattern", pos=-1, **ASKED),
    AttributionPatching(checked=8, **ASKED),
    AttentionKnockout(subject="3,4", window=1, **ASKED),
    CausalTracing(subject="3,4", draws=1, **ASKED),
    CausalTracing(restore="attn_out", window=1, draws=2, **ASKED),
    CircuitEvaluation(**CARRIED),
    CircuitEvaluation(ablation="mean", **CARRIED),
    CircuitEvaluation(ablation="zero", **CARRIED),
    CircuitEdges(**CARRIED),
]
studies = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def both(request):
    """A model, and one without a head."""
    return tiny_model(request.param), tiny_model_without_head(request.param, EDIT.unit.layer, EDIT.unit.head)


@pytest.fixture(scope="module")
def model():
    """One of them."""
    return tiny_model("llama")


def difference(model, *edits, target="#31", against="#7"):
    logits = observe(model, CLEAN, interventions=edits).logits[0][0]
    return float(logits[int(target[1:])] - logits[int(against[1:])])


def largest_gap(one, other):
    """Over all numbers of two results; missing ones are missing in both."""
    assert set(one.data_vars) == set(other.data_vars)
    found = 0.0
    for name in one.data_vars:
        a, b = one[name].values, other[name].values
        assert a.shape == b.shape and (np.isnan(a) == np.isnan(b)).all(), name
        found = max(found, float(np.abs(np.nan_to_num(a) - np.nan_to_num(b)).max()))
    return found


@studies
def test_a_study_of_an_edited_run_is_one_of_edited_weights(both, study):
    model, without = both
    plain, edited = study.run(model, CLEAN), study.run(model, CLEAN, interventions=[EDIT])
    by_hand = study.run(without, CLEAN)
    # ratios of small differences: faithfulness divides by the metric's gap
    assert largest_gap(edited, by_hand) < 1e-3 < 1e-2 < largest_gap(edited, plain)
    assert edited.attrs.get("summary") == by_hand.attrs.get("summary") != plain.attrs.get("summary")
    assert json.loads(edited.attrs["provenance"])["interventions"][0] == str(EDIT)
    assert edited.attrs["spec_key"] == study.spec_key(model, tokenise(model, CLEAN), [EDIT])
    assert edited.attrs["spec_key"] != plain.attrs["spec_key"]


@studies
def test_a_study_runs_on_top_of_edits_of_every_kind(model, study):
    """What it measures of the run as it is, is what a plain pass with the same edits gives."""
    means = measure_means(model)
    direction = torch.linspace(-1, 1, model.sizes.d_model)
    edits = [
        Ablate(Head(1, 2), "mean", means),
        Ablate(MLP(0)),
        Ablate(Neurons(1, (3, 4))),
        Knockout((9,), (3,), (0, 1)),
        Steer(0, direction, 0.5),
    ]
    for given in (edits, [Ablate(Attention(0)), Ablate(Attention(1))]):
        result = study.run(model, CLEAN, interventions=given)
        own = result["clean"] if "clean" in result else result["model_metric"][0]
        plain = difference(model, *given, target=study.target, against=study.against)
        assert float(own) == pytest.approx(plain, abs=1e-4)


def test_a_patch_into_an_ablated_head_does_what_it_does_there(model):
    """The study's edit comes on top: from the edited clean run, which has nothing to bring; from another, all of it."""
    effect = ActivationPatching(site="z", **ASKED).run(model, CLEAN, interventions=[EDIT])["effect"]
    assert abs(float(effect.sel(layer=1, head=2))) < 1e-6
    source = record(model, CORRUPT, [Z])
    edits = Patch(Z, 1, source, None, (2,))
    on_top = observe(model.edited([EDIT]), CLEAN, interventions=[edits]).logits[0]
    torch.testing.assert_close(on_top, observe(model, CLEAN, interventions=[edits]).logits[0])


def test_gradients_in_front_of_an_edit_and_behind_it(model):
    """Nothing that an ablated head is given matters; what is put in its place would."""
    metric, tokens = Metric("logit difference", Target.one(31), Target.one(7)), tokenise(model, CLEAN)
    edited = model.edited([EDIT])
    _, before = gradients(edited, tokens, metric, [Z], unedited=True)
    _, behind = gradients(edited, tokens, metric, [Z])
    assert not before[Z, 1][:, 2].any() and behind[Z, 1][9, 2].abs().max() > 1e-3
    for head in (0, 1, 3):
        torch.testing.assert_close(before[Z, 1][:, head], behind[Z, 1][:, head])


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_gradients_go_through_every_edit(kind):
    """As the metric moves with a small step of the embedding. The forced expert's score was written over what its own
    derivative is taken of, which torch refuses."""
    model, metric = tiny_model(kind), Metric("logit difference", Target.one(31), Target.one(7))
    source = record(model, CORRUPT, [Z, Q, K, V, PATTERN, RESID_MID])
    given = [
        Ablate(Head(1, 2)), Scale(Head(1, 2), -0.7), Ablate(MLP(1)), Scale(MLP(0), 2.0), Scale(Attention(0), 0.5),
        Ablate(Head(1, 2), "mean", measure_means(model)), Ablate(Residual(1, 4)), Ablate(AttentionEdge(1, 1, 9, 3)),
        Ablate(AttentionKey(0, 1, 4)), Knockout((9,), (3,), (0, 1)), Attend(Head(0, 1), "previous-token"),
        Steer(0, torch.linspace(-1, 1, 32), 0.5), Steer(1, torch.linspace(-1, 1, 32), 0.5, RESID_MID),
        FreezePatterns(source), Patch(Z, 0, source, (4,)), Patch(Q, 1, source), Patch(K, 0, source),
        Patch(V, 1, source, (2,)), Patch(RESID_MID, 0, source, (9,)),
    ]  # fmt: skip
    if kind == "mixtral":
        given += [Ablate(Expert(0, 1)), Force(Expert(0, 3)), Scale(ExpertNeurons(1, 0, (3, 5)), 3.0)]
    else:
        given += [Ablate(Neurons(1, (3, 4))), Clamp(Neurons(1, (5,)), 1.5), Add(Neurons(0, (5,)), 0.8)]
    step = torch.randn(10, model.sizes.d_model, generator=torch.Generator().manual_seed(0))
    for edit in given:
        edited = model.edited([edit])
        _, grads = gradients(edited, tokenise(model, CLEAN), metric, [RESID_PRE])
        moved = lambda size, edited=edited: difference(edited, Steer(0, size * step, 1.0, RESID_PRE, tuple(range(10))))
        slope, told = (moved(3e-5) - moved(-3e-5)) / 6e-5, float((grads[RESID_PRE, 0] * step).sum())
        assert told == pytest.approx(slope, rel=0.02, abs=0.05), str(edit)  # embeddings are about 0.02 long


def test_what_lies_behind_the_blocks_is_refused(model):
    """Last states are read out without it."""
    frozen = FreezeNormScale(record(model, CORRUPT, [LN_FINAL_SCALE]))
    with pytest.raises(InputError, match="inside the blocks"):
        model.edited([frozen])
    with pytest.raises(InputError, match="FreezeNormScale"):
        ActivationPatching().run(model, CLEAN, interventions=[frozen])


def test_means_say_why_a_text_cannot_carry_an_intervention(model):
    with pytest.raises(RefusedError, match="positions of the prompt"):
        CircuitEdges().run(model, CLEAN, interventions=[Patch(Z, 1, record(model, CORRUPT, [Z]), None, (2,))])


# direct logit attribution, which shares the prompt's pass


def test_shares_of_an_edited_run_are_those_of_edited_weights(both):
    model, without = both
    ask = DirectLogitAttribution(target="#31", against="#7")
    edited, by_hand = ask.run(model, CLEAN, interventions=[EDIT]), ask.run(without, CLEAN)
    np.testing.assert_allclose(edited["attribution"][:-1], by_hand["attribution"], atol=1e-4)
    np.testing.assert_allclose(edited["origin"], by_hand["origin"], atol=1e-4)
    assert edited["kind"].values[-1] == "intervention" and abs(float(edited["attribution"][-1])) < 1e-4
    assert float(edited["head_attribution"].sel(layer=1, head=2)) == 0.0
    assert largest_gap(ask.run(model, CLEAN), by_hand) > 1e-2


def test_shares_sum_to_the_edited_runs_own_value(model):
    """A direction that is added behind the last block is no part's: it is the interventions' own."""
    direction, means = torch.linspace(-1, 1, model.sizes.d_model), measure_means(model)
    edits = [Ablate(Head(1, 2), "mean", means), Steer(1, direction, 0.7, RESID_POST)]
    ask = DirectLogitAttribution(target="#31", against="#7")
    result = ask.run(model, CLEAN, interventions=edits)
    assert float(result["attribution"].sum()) == pytest.approx(float(result["total"]), abs=1e-5)
    assert float(result["total"]) == pytest.approx(difference(model, *edits), abs=1e-5)
    last = observe(model, CLEAN, ask.needs(model, range(10)), interventions=edits)
    rows = model.readout.directions(torch.tensor([31, 7])) / model.readout.scale(
        next(last[need] for need in last.results if need.hooks == (RESID_POST,))[0, 0, 0]
    )
    assert float(result["attribution"][-1]) == pytest.approx(float(0.7 * direction @ (rows[0] - rows[1])), abs=1e-4)


def test_parts_whose_place_is_set_bring_nothing(model):
    """The largest part against a logit was a head of a layer whose attention had been taken away."""
    ask = DirectLogitAttribution(target="#31", against="#7")
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.layers[1].self_attn.o_proj.weight.zero_()
    edited = ask.run(model, CLEAN, interventions=[Ablate(Attention(1))])
    by_hand = ask.run(wrap(hf, None, name="by hand"), CLEAN)
    np.testing.assert_allclose(edited["attribution"][:-1], by_hand["attribution"], atol=1e-4)
    assert abs(float(edited["attribution"][-1])) < 1e-4 and not edited["head_attribution"].sel(layer=1).any()
    assert not edited["origin"].sel(layer=1).any() and edited["head_attribution"].sel(layer=0).all()
    source = record(model, CORRUPT, [RESID_POST])
    for positions, told in (((-1,), 0), ((9,), 0), (None, 0), ((3,), 5)):  # where it is elsewhere, all parts are
        patched = ask.run(model, CLEAN, interventions=[Patch(RESID_POST, 0, source, positions)])
        first = patched["attribution"].values[:6]  # embedding, four heads, MLP
        assert (np.abs(first) > 0).sum() >= told and (told or not first.any())
        assert float(patched["attribution"].sum()) == pytest.approx(float(patched["total"]), abs=1e-5)
