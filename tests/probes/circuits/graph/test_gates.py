"""Gates on edges: with 0 and 1 the pass with some edges, with all open the scores of EAP and RelP, and true slopes."""

import gc

import numpy as np
import pytest
import torch

from probes.circuits.graph.gates import gate_gradients
from probes.circuits.graph.gradients import EAP, RELP, readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources, with_edges
from probes.circuits.graph.rankings import rank
from tests.contract.case import hooks_left
from tests.probes.circuits.graph.test_gradients import ids_of, metric, pairs_of
from tests.tiny_models import KINDS, tiny_model
from workbench.errors import InputError


def drawn(graph, seed=0, low=0.0):
    return np.where(graph.exists, np.random.default_rng(seed).uniform(low, 1, graph.shape), 0)


@pytest.mark.parametrize("kind", [*KINDS, "gpt_neo", "gemma2", "qwen3", "falcon"])
def test_gates_of_zero_and_one_are_the_pass_with_some_edges(kind):
    """float32, sums in another order: 1e-5."""
    model = tiny_model(kind, n_layers=3)
    graph, (clean, corrupt) = Graph.of(model.sizes), ids_of(pairs_of(model))
    other = sources(model, corrupt).added
    for share in (0.0, 0.3, 0.7, 1.0):
        mask = graph.exists & (np.random.default_rng(1).random(graph.shape) < share)
        with torch.no_grad():
            plain = metric(readout_logits(model, with_edges(model, clean, mask, other)[:, -1]))
        for rules in (EAP, RELP) if kind in ("llama", "gpt2", "gemma3") else (EAP,):
            found, every = gate_gradients(model, clean, mask.astype(float), other, metric, rules)
            torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)
            again, some = gate_gradients(model, clean, mask.astype(float), other, metric, rules, asked=mask)
            torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-4)
            np.testing.assert_allclose(some, np.where(mask, every, 0), atol=1e-5 * max(np.abs(every).max(), 1e-6))
    assert hooks_left(model) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["EAP", "RelP"])
def test_all_gates_open_give_the_scores_of_the_clean_run(kind, by):
    model = tiny_model(kind)
    pairs = pairs_of(model)
    clean, corrupt = ids_of(pairs)
    graph, scores = Graph.of(model.sizes), rank(model, pairs, by)
    rules = {"EAP": EAP, "RelP": RELP}[by]
    _, found = gate_gradients(model, clean, graph.exists.astype(float), sources(model, corrupt).added, metric, rules)
    np.testing.assert_allclose(found, scores, atol=2e-5 * np.abs(scores).max())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_slopes_of_the_gated_pass(kind):
    """Central differences of half-open gates; rounding and curvature are below 1 % of the largest slope, and a wrong
    share of a head, a norm or a sign is as large as that."""
    model, part = tiny_model(kind), 2e-2
    graph, (clean, corrupt) = Graph.of(model.sizes), ids_of(pairs_of(model))
    other, gates = sources(model, corrupt).added, drawn(graph, low=0.1)
    value = lambda gates: gate_gradients(model, clean, gates, other, metric)[0].double().numpy()
    _, found = gate_gradients(model, clean, gates, other, metric)
    edges = np.argwhere(graph.exists)
    strongest = np.argsort(-np.abs(found.mean(0)[graph.exists]))[:20]
    for source, target in edges[[*strongest, *np.random.default_rng(1).permutation(len(edges))[:20]]]:
        up, down = gates.copy(), gates.copy()
        up[source, target] += part
        down[source, target] -= part
        slope = (value(up) - value(down)) / (2 * part)
        np.testing.assert_allclose(found[:, source, target], slope, atol=1e-2 * np.abs(found).max())


def test_what_cannot_be_gated_says_so_and_nothing_stays():
    model = tiny_model("llama")
    graph, (clean, corrupt) = Graph.of(model.sizes), ids_of(pairs_of(model))
    other = sources(model, corrupt).added
    once, again = (gate_gradients(model, clean, drawn(graph), other, metric) for _ in range(2))
    assert torch.equal(once[0], again[0]) and (once[1] == again[1]).all() and not once[1][:, ~graph.exists].any()
    assert hooks_left(model) == 0 and not any("forward" in b.attn.__dict__ for b in model.adapter.bridge.blocks)
    parameters = [tensor for _, tensor in model.adapter.bridge.original_model.named_parameters()]
    assert all(p.grad is None and p.requires_grad for p in parameters)
    with pytest.raises(InputError, match="Gate every edge"):
        gate_gradients(model, clean, drawn(graph)[1:], other, metric)
    with pytest.raises(InputError, match="sources of shape"):
        gate_gradients(model, clean, drawn(graph), other[1:], metric)


@pytest.mark.parametrize("by", ["edge pruning", "EAP", "RelP-IG", "exact"])
def test_a_ranking_leaves_no_memory_behind(by):
    """Its buffers and its graph could hold each other, and on the default model both are gigabytes: all goes when it
    returns, without a collection of garbage."""
    model = tiny_model("llama")
    pairs = pairs_of(model)
    rank(model, pairs, by)  # what libraries keep from a first time
    gc.collect()
    gc.disable()
    try:
        before = sum(type(one) is torch.Tensor for one in gc.get_objects())
        rank(model, pairs, by)
        assert sum(type(one) is torch.Tensor for one in gc.get_objects()) == before
    finally:
        gc.enable()
