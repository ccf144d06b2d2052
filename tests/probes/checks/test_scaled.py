"""A unit that is made louder or quieter is no unit that is gone: analyses say what they say of weights so scaled."""

import numpy as np
import pytest
import torch

from probes import DirectLogitAttribution, FlowRouteFaithfulness, FlowRoutes, Neurons
from probes.checks.norms import output_norms
from tests.tiny_models import tiny_hf, tiny_model
from workbench.errors import InputError
from workbench.intervene import MLP, Ablate, Attention, AttentionEdge, AttentionKey, Head, Knockout, Patch, Scale
from workbench.loading.pretrained import wrap
from workbench.models.hooks import PATTERN, K, Q
from workbench.models.prompt import Prompt
from workbench.observation import observe
from workbench.observation.recording import record

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
