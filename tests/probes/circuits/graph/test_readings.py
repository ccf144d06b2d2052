"""What targets read where zeros or means come along the edges that are out: the same as by differences, and determined
where the stream is large."""

import numpy as np
import pytest
import torch

from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources, with_edges
from tests.probes.circuits.graph.test_passes import CLEAN, OTHER, logits_of, read
from tests.tiny_models import KINDS, tiny_hf, tiny_model
from workbench.intervene import MLP, Ablate, Attention, Scale, Steer
from workbench.loading.pretrained import wrap
from workbench.models.hooks import ATTN_OUT, RESID_PRE

EDITS = (
    Ablate(Attention(1)),
    Scale(Attention(1), 3.0),
    Ablate(MLP(1)),
    Steer(1, torch.ones(32), 0.5, ATTN_OUT),
    Steer(1, torch.ones(32), 0.5, RESID_PRE),
)


def halves(graph):
    """Circuits of few edges, of half of them and of most."""
    draw = np.random.default_rng(0).random(graph.shape)
    return [graph.exists & (draw < share) for share in (0.05, 0.5, 0.95)]


@pytest.mark.parametrize("kind", [*KINDS, "phi3", "cohere", "mixtral", "falcon"])
@pytest.mark.parametrize("what", ["zeros", "means"])
def test_sums_are_what_differences_give(kind, what):
    """Two ways to the same numbers on models whose streams are small: one with what comes in place once, the other with
    it at every position. They differ by rounding, 1e-6 of what is in the stream, of which norms make up to 300 times as
    much (their epsilon is 1e-5) where a circuit leaves nothing to read."""
    model = tiny_model(kind, n_layers=3)
    graph, added = Graph.of(model.sizes), sources(model, OTHER).added
    other = added.mean((1, 2), keepdim=True) if what == "means" else torch.zeros(len(added), 1, 1, 1)
    scale = float(logits_of(model, CLEAN).abs().max())
    for mask in halves(graph):
        sums, differences = (
            read(model, with_edges(model, CLEAN, mask, one)) for one in (other, other.expand_as(added))
        )
        assert (sums - differences).abs().max() < 1e-3 * scale
    whole = read(model, with_edges(model, CLEAN, graph.exists, other))
    assert (whole - logits_of(model, CLEAN)).abs().max() < 1e-5 * scale


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3", "neox"])
@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_what_an_edit_adds_is_read_as_well(kind, edit):
    """It is of no source: neither kept nor left out."""
    model = tiny_model(kind, n_layers=3).edited([edit])
    graph, added = Graph.of(model.sizes), sources(model, OTHER).added
    nothing, scale = torch.zeros(len(added), 1, 1, 1), float(logits_of(model, CLEAN).abs().max())
    for mask in halves(graph):
        sums, differences = (
            read(model, with_edges(model, CLEAN, mask, one)) for one in (nothing, nothing.expand_as(added))
        )
        assert (sums - differences).abs().max() < 1e-3 * scale


def loud(kind, times):
    """A model that embeds the first token of both prompts this many times larger."""
    hf = tiny_hf(kind, n_layers=3)
    with torch.no_grad():
        if kind == "gpt2":
            hf.transformer.wpe.weight[0] = 0.0
        hf.get_input_embeddings().weight[7] = torch.linspace(-1, 1.5, 32).sin() * times
    return wrap(hf, None, name=f"{times} times")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("what", ["zeros", "means"])
def test_a_loud_first_token_that_is_left_out_is_not_read(kind, what):
    """The first block reads it through norms, which take its size away; nothing else reads it. So its size must not
    matter: it did, by its rounding, and on the default model a metric of 5 logits was wrong by 5.

    1e-3: beside the smaller one, what heads of the first block add is 1e-4 of what its MLP reads.
    """
    ids = CLEAN.clone()
    ids[:, 0] = 7
    found = []
    for times in (1e4, 1e7):
        model = loud(kind, times)
        graph = Graph.of(model.sizes)
        mask = halves(graph)[0] | halves(graph)[1]
        mask[0] = False
        first = np.zeros(graph.shape[1], bool)
        first[graph.inputs(0)] = first[graph.mlp_input(0)] = True
        mask[0] = first & graph.exists[0]
        other = torch.zeros(graph.shape[0], 1, 1, 1)
        if what == "means":
            other = torch.randn(graph.shape[0], 1, 1, 32, generator=torch.Generator().manual_seed(1)) * 0.1
        found.append(with_edges(model, ids, mask, other))
    gap = (found[0] - found[1]).abs().max()
    assert gap < 1e-3 * found[0].abs().max()


@pytest.mark.parametrize("kind", ["gemma3", "olmo2", "llama"])
def test_heads_that_read_nothing_write_nothing(kind):
    """So that whether their edges are kept is the same, to the bit. A post-norm divides by what is written: the
    rounding of a value that should be 0 was read as something by all behind it."""
    model = tiny_model(kind, n_layers=3)
    graph = Graph.of(model.sizes)
    mask = halves(graph)[1]
    mask[:, graph.inputs(1)] = False
    without = mask.copy()
    without[graph.heads(1)] = False
    assert (mask != without).any()
    nothing = torch.zeros(graph.shape[0], 1, 1, 1)
    kept, dropped = (with_edges(model, CLEAN, one, nothing) for one in (mask, without))
    assert torch.equal(kept, dropped)
