"""A unit that is made louder or quieter is no unit that is gone: analyses say what they say of weights so scaled."""

import numpy as np
import pytest
import torch

from probes import DirectLogitAttribution, FlowRouteFaithfulness, FlowRoutePart, FlowRoutes, Neurons
from probes.checks.norms import output_norms
from probes.routes.one_layer import FlowRouteNeurons
from tests.tiny_models import tiny_hf, tiny_model
from workbench.errors import InputError
from workbench.intervene import (
    MLP,
    Ablate,
    Attention,
    AttentionEdge,
    AttentionKey,
    Head,
    Knockout,
    Patch,
    Residual,
    Scale,
    units_of,
)
from workbench.intervene import Neurons as NeuronUnits
from workbench.loading.pretrained import wrap
from workbench.models.hooks import PATTERN, RESID_MID, K, Q
from workbench.models.prompt import Prompt
from workbench.observation import observe
from workbench.observation.recording import measure_means, record

PROMPT = Prompt.ids([4, 33, 80, 33, 12, 7, 50, 51, 52, 3])


def scaled_weights(kind, layer, factor, head=None):
    """The same model whose weights write so much of an attention block, or of one head (8 wide)."""
    hf = tiny_hf(kind)
    with torch.no_grad():
        if kind == "gpt2":
            out = hf.transformer.h[layer].attn.c_proj
            out.weight[slice(None) if head is None else slice(8 * head, 8 * head + 8)] *= factor
        elif kind == "neox":
            out = hf.gpt_neox.layers[layer].attention.dense
            out.weight[:, slice(None) if head is None else slice(8 * head, 8 * head + 8)] *= factor
        else:  # no model whose norm behind it would take the factor away again
            out = hf.model.layers[layer].self_attn.o_proj
            out.weight[:, slice(None) if head is None else slice(8 * head, 8 * head + 8)] *= factor
        if head is None and out.bias is not None:
            out.bias *= factor
    return wrap(hf, None, name=f"scaled-{kind}")


def same(ours, theirs, *names):
    for name in names:
        np.testing.assert_allclose(ours[name].values, theirs[name].values, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "kind, head, factor", [("gpt2", 1, 0.5), ("gpt2", None, -2.0), ("llama", 1, -2.0), ("neox", 1, 2.0)]
)
def test_what_is_scaled_is_what_scaled_weights_say(kind, head, factor):
    """Of routes every share of a scaled head was 0, and of faithfulness it kept all of its edges. 2e-5: a factor in
    front of a product or behind it."""
    edit = Scale(Attention(0) if head is None else Head(0, head), factor)
    model, other = tiny_model(kind), scaled_weights(kind, 0, factor, head)
    ours, theirs = (
        [a.run(one, PROMPT, interventions=edits) for a in (FlowRoutes(min_share=0.0, min_coverage=1.0),
         DirectLogitAttribution(target="#5"), FlowRouteFaithfulness(draws=1))]
        for one, edits in ((model, [edit]), (other, []))
    )  # fmt: skip
    same(ours[0], theirs[0], "weight", "edge_head", "edge_key", "resid_attn", "bias_attn", "residue")
    assert float(ours[0]["residue"].max()) < 1e-5
    same(ours[1], theirs[1], "head_attribution", "origin", "total")
    if head is not None:
        same(ours[2], theirs[2], "faithfulness")


def test_what_is_overwritten_at_some_positions_is_gone_there_alone():
    """Bias and heads were counted, and the residue was as large as the state."""
    edit = Ablate(Attention(0), positions=(-2, 4))
    found = FlowRoutes(min_share=0.0, min_coverage=1.0).run(tiny_model("gpt2"), PROMPT, interventions=[edit])
    assert float(found["residue"].max()) < 1e-5
    first = found["attention"].sel(layer=0)
    assert not first.sel(pos=[4, 8]).values.any() and (first.sel(pos=[3, 5, 9]) > 0).all()


def test_neurons_of_a_scaled_mlp_are_not_called_lost():
    model = tiny_model("llama")
    for factor, lost in ((3.0, False), (0.0, True)):
        said = Neurons().run(model, PROMPT, interventions=[Scale(MLP(0), factor)]).attrs["summary"]
        assert ("nothing of it arrives" in said) is lost


def test_what_is_scaled_contradicts_nothing_that_leads_to_it():
    """A hidden edge of a head that is then halved: half of what it moves without that edge."""
    model, half = tiny_model("llama"), Scale(Head(1, 1), 0.5)
    edge = Knockout((9,), (3,), (1,), (1,))
    both = [observe(model, PROMPT, interventions=pair).logits[0] for pair in ([half, edge], [edge, half])]
    quiet = observe(scaled_weights("llama", 1, 0.5, 1), PROMPT, interventions=[edge]).logits[0]
    torch.testing.assert_close(both[0], both[1])
    torch.testing.assert_close(both[0], quiet, atol=1e-5, rtol=1e-5)
    for inner in (edge, Ablate(AttentionEdge(1, 1, 9, 3))):
        with pytest.raises(InputError, match="do not contradict"):
            observe(model, PROMPT, interventions=[inner, Scale(Head(1, 1), 0.0)])


def test_queries_and_keys_behind_a_pattern_that_is_set_are_void():
    """They were written, and nothing came of it, without a word."""
    model = tiny_model("llama")
    source = record(model, Prompt.ids([9, 3, 80, 33, 12, 7, 50, 51, 2, 5]), [PATTERN, Q, K])
    pattern = Patch(PATTERN, 0, source)
    for void in (Patch(Q, 0, source, units=(1,)), Patch(K, 0, source, positions=(2,)), Patch(Q, 0, source)):
        for pair in ([pattern, void], [void, pattern]):
            with pytest.raises(InputError, match="do not contradict"):
                observe(model, PROMPT, interventions=pair)
    one = Patch(PATTERN, 0, source, units=(2,))
    for kept in (Patch(Q, 0, source, units=(1,)), Patch(K, 0, source), Patch(Q, 1, source)):
        observe(model, PROMPT, interventions=[one, kept])


@pytest.mark.parametrize("unit", [Head, AttentionEdge, AttentionKey])
@pytest.mark.parametrize("head", [1, None])
def test_how_loud_a_unit_of_a_scaled_head_or_block_is(unit, head):
    edit = Scale(Attention(0) if head is None else Head(0, head), -0.5)
    edited, other = tiny_model("llama").edited([edit]), scaled_weights("llama", 0, -0.5, head)
    ours, theirs = (output_norms(one, [PROMPT], unit, queries=(9,)) for one in (edited, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def scaled_mlp(kind, layer, factor):
    """The same model whose weights write so much of an MLP."""
    hf = tiny_hf(kind)
    with torch.no_grad():
        if kind == "gemma3":  # whose norm behind it would take the factor away again; its gain is 1 + weight
            gain = hf.model.layers[layer].post_feedforward_layernorm.weight
            gain.copy_((1 + gain) * factor - 1)
            return wrap(hf, None, name=f"scaled-{kind}")
        block = (hf.transformer.h if kind == "gpt2" else hf.gpt_neox.layers if kind == "neox" else hf.model.layers)[
            layer
        ]
        out = {"gpt2": "c_proj", "neox": "dense_4h_to_h", "llama": "down_proj"}[kind]
        for parameter in getattr(block.mlp, out).parameters():
            parameter *= factor
    return wrap(hf, None, name=f"scaled-{kind}")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "gemma3"])
@pytest.mark.parametrize("factor", [3.0, -0.5])
def test_neurons_of_a_scaled_mlp_write_what_scaled_weights_do(kind, factor):
    """What each adds was that of the unscaled MLP, in every analysis that tells of neurons."""
    edited, other = tiny_model(kind).edited([Scale(MLP(1), factor)]), scaled_mlp(kind, 1, factor)
    asked = [
        (Neurons(layer=1, pos=3, top_k=64), ("contribution", "promoted_logit", "suppressed_logit", "share")),
        (DirectLogitAttribution(target="#5", neurons=1), ("neuron_attribution", "neuron_bias")),
        (FlowRoutePart(layer=1, pos=3, neuron=4), ("promoted_logit", "target_logit", "norm")),
        (FlowRouteNeurons(layer=1, pos=3), ("neuron_share",)),
    ]
    for analysis, names in asked:
        ours, theirs = (analysis.run(one, PROMPT) for one in (edited, other))
        same(ours, theirs, *names)
        assert ours.attrs["summary"] == theirs.attrs["summary"]
    ours, theirs = (output_norms(one, [PROMPT], NeuronUnits) for one in (edited, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("edit", [Ablate(Head(1, 2)), Scale(Head(1, 2), -0.7), Scale(Attention(1), 2.0)], ids=str)
def test_a_head_promotes_what_an_intervention_leaves_of_it(edit):
    """A head that writes nothing added as much to a logit as without the intervention."""
    factor = {"Ablate": 0.0}.get(type(edit).__name__, getattr(edit, "factor", 0.0))
    model, other = tiny_model("gpt2"), scaled_weights("gpt2", 1, factor, None if "attention" in str(edit) else 2)
    for part in (FlowRoutePart(layer=1, head=2, pos=9), FlowRoutePart(layer=1, head=2, pos=9, key=3)):
        ours, theirs = part.run(model, PROMPT, interventions=[edit]), part.run(other, PROMPT)
        same(ours, theirs, "target_logit", "norm", "promoted_logit", "share")
        assert bool(ours["norm"] == 0) == ("adds nothing" in ours.attrs["summary"]) == (factor == 0)
    whole = DirectLogitAttribution().run(model, PROMPT, interventions=[edit])
    head = FlowRoutePart(layer=1, head=2, pos=9).run(model, PROMPT, interventions=[edit])
    assert float(head["target_logit"]) == pytest.approx(float(whole["head_attribution"].sel(layer=1, head=2)), abs=1e-4)


def test_a_head_at_its_mean_writes_that_and_its_edges_bring_nothing():
    model = tiny_model("llama")
    means = measure_means(model)
    edit = Ablate(Head(1, 2), "mean", means)
    head, edge = (
        FlowRoutePart(layer=1, head=2, pos=9, key=key, target="#5").run(model, PROMPT, interventions=[edit])
        for key in (None, 3)
    )
    written = means.mean(Head.hook, 1, model)[2] @ model.weights(1).W_O[2]
    assert float(head["norm"]) == pytest.approx(float(written.norm()), rel=1e-5) and float(edge["norm"]) == 0
    lost = Ablate(MLP(1), "mean", means)
    for pos, said in ((0, False), (3, True)):  # position 0 keeps its own
        for analysis in (Neurons(layer=1, pos=pos), FlowRouteNeurons(layer=1, pos=pos)):
            found = analysis.run(model, PROMPT, interventions=[lost])
            assert ("nothing of it arrives" in found.attrs["summary"]) is said
    assert (found["neuron_share"] == 0).all()
    plain = FlowRouteNeurons(layer=1, pos=0)
    same(plain.run(model, PROMPT, interventions=[lost]), plain.run(model, PROMPT), "neuron_share")


@pytest.mark.parametrize("kind", ["gemma3", "olmo2"])
def test_behind_a_post_norm_neurons_add_what_its_scale_leaves(kind):
    """Logits of what neurons promote were those in front of it; at the last layer two analyses say the same."""
    model = tiny_model(kind)
    found = Neurons(layer=1, pos=3, top_k=3).run(model, PROMPT)
    for neuron in found["neuron"].values.tolist():
        part = FlowRoutePart(layer=1, pos=3, neuron=neuron).run(model, PROMPT)
        row = found.sel(neuron=neuron)
        assert float(row["contribution"]) == pytest.approx(float(part["norm"]), rel=1e-5)
        assert float(row["promoted_logit"][0]) == pytest.approx(float(part["promoted_logit"][0]), rel=1e-5)


def test_shares_in_front_of_a_state_are_what_is_left_of_it():
    """A state that is halved takes half of all that had been added along; a state between attention and MLP that is
    another run's brings nothing of what stood in front."""
    model, ask = tiny_model("llama"), DirectLogitAttribution(target="#5", against="#7", neurons=0)
    half = ask.run(model, PROMPT, interventions=[Scale(Residual(1, 9), 0.5)])
    at = {
        str(label): float(share) for label, share in zip(half["label"].values, half["attribution"].values, strict=True)
    }
    assert abs(at["interventions"]) < 1e-4  # all of the logit is of its parts
    assert at["L0 MLP"] == pytest.approx(float(half["neuron_attribution"].sum() + half["neuron_bias"]), abs=1e-4)
    behind = ask.run(model, PROMPT, interventions=[Scale(Residual(1, 3), 0.5)])
    assert behind["head_attribution"].sel(layer=0).any() and abs(float(behind["attribution"][-1])) < 1e-4
    source = record(model, Prompt.ids([9, 3, 80, 33, 12, 7, 50, 51, 2, 5]), [RESID_MID])
    found = ask.run(model, PROMPT, interventions=[Patch(RESID_MID, 1, source, (9,))])
    at = dict(zip(found["label"].values.tolist(), found["attribution"].values.tolist(), strict=True))
    shown = observe(model, PROMPT, interventions=[Patch(RESID_MID, 1, source, (9,))]).logits[0][0]
    assert {name for name, share in at.items() if abs(share) > 1e-6} <= {
        "L1 MLP",
        "interventions",
        "final norm and unembedding",
    }
    assert sum(at.values()) == pytest.approx(float(shown[5] - shown[7]), abs=1e-4)


@pytest.mark.parametrize("edit", [Scale(MLP(1), 3.0), Ablate(MLP(1), positions=(2, 3, 4, 5))], ids=str)
def test_neurons_are_as_loud_as_what_arrives_of_them(edit):
    model = tiny_model("llama")
    loud, plain = (output_norms(one, [PROMPT], NeuronUnits) for one in (model.edited([edit]), model))
    unit = units_of("L1N5")[0]
    need_by_hand = FlowRoutePart(layer=1, neuron=5)
    sizes = [
        float(need_by_hand.replaced(pos=pos).run(model, PROMPT, interventions=[edit])["norm"]) for pos in range(1, 10)
    ]
    assert loud[1, unit.neurons[0]] == pytest.approx(float(np.log(np.sqrt(np.mean(np.square(sizes))))), abs=1e-4)
    np.testing.assert_allclose(loud[0], plain[0], atol=1e-5)
    assert np.abs(loud[1] - plain[1]).max() > 0.05
