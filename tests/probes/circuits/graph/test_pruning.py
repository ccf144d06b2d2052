"""Edges let go step by step: in which order, how often the model runs, and that rivals are seen when they are gone."""

import numpy as np
import pytest

from probes.circuits.graph import pruning
from probes.circuits.graph.gates import gate_gradients
from probes.circuits.graph.gradients import readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources
from probes.circuits.graph.pruning import _leaving, _rising, let_go, n_passes, sizes_of
from probes.circuits.graph.rankings import forwards, rank
from tests.probes.circuits.graph.test_gradients import pairs_of
from tests.tiny_models import tiny_model


def test_edges_leave_that_keep_the_metric_of_each_pair():
    """By hand, with one pair: twice the squared slope, less twice the surplus times the slope. Of a surplus of 1: 0,
    -.5 and 1.12; with .5 left over, 1 and .72."""
    slopes = np.array([[1.0, 0.5, -0.4]], np.float32)
    assert _leaving(slopes, np.array([1.0]), 3).tolist() == [1, 2, 0]
    assert _leaving(slopes, np.array([-1.0]), 1).tolist() == [2]
    assert _leaving(slopes, np.array([0.0]), 2).tolist() == [2, 1]
    # By pair: of two edges that are alike on average, the one that gives where too much is and takes where too little.
    assert _leaving(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.2]], np.float32), np.array([2.0, -2.0, 0]), 1) == [0]


def test_sizes_fall_to_a_thousandth_and_every_step_is_a_pass(monkeypatch):
    sizes = sizes_of(123_211)
    assert sizes[0] == 12_321 and sizes[-1] == 123 and (np.diff(sizes) < 0).all()
    assert [sizes_of(n)[-1] for n in (1, 2, 9, 5000)] == [1, 1, 1, 5]
    model, calls = tiny_model("llama"), []
    graph = Graph.of(model.sizes)
    monkeypatch.setattr(
        pruning, "gate_gradients", lambda *asked, **how: (calls.append(len(asked[1])), gate_gradients(*asked, **how))[1]
    )
    few, many = pairs_of(model, n=3), pairs_of(model, n=21)
    let_go(model, few, 2)
    steps = len(sizes_of(graph.n_edges))
    assert calls == [2, 1] * steps
    calls.clear()
    let_go(model, many, 20)  # halves take turns
    assert calls == [11, 10] * (steps // 2) + [11] * (steps % 2) and sum(calls) / 21 == pytest.approx(
        n_passes(graph.n_edges, 21), abs=0.5
    )
    assert n_passes(graph.n_edges, 3) == steps
    assert forwards("edge pruning", graph.n_edges, 3) > 3 * n_passes(graph.n_edges, 3)


def test_scores_keep_the_order_and_follow_the_slopes():
    found = _rising(np.array([0.0, 0.0, 2.0, 1.0, 3.0], np.float32), 0).view(np.float32)
    assert (np.diff(found) > 0).all() and found[2:] == pytest.approx([2, 2, 3]) and 0 < found[0] < 1e-40
    assert _rising(np.array([1.0], np.float32), int(found[-1:].view(np.int32)[0])).view(np.float32)[0] > 3


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_every_circuit_on_the_way_is_connected_and_is_what_the_scores_put_first(kind, monkeypatch):
    model, told, masks = tiny_model(kind), [], []
    graph, pairs = Graph.of(model.sizes), pairs_of(model, n=3)
    seen = lambda *asked, **how: (masks.append(asked[2] > 0), gate_gradients(*asked, **how))[1]
    monkeypatch.setattr(pruning, "gate_gradients", seen)
    scores = rank(model, pairs, "edge pruning", progress=told.append)
    assert (scores == scores[0]).all() and len(np.unique(scores[0][graph.exists])) == graph.n_edges
    assert told[-1] == pytest.approx(1) and (np.diff(told) > 0).all()
    order = np.argsort(-scores[0].ravel(), kind="stable")
    assert (masks[0] == graph.exists).all()
    for mask, size in zip(masks[1:], sizes_of(graph.n_edges), strict=False):
        assert (graph.pruned(mask) == mask).all() and mask.sum() >= size
        assert set(order[: mask.sum()]) == set(np.flatnonzero(mask))


def test_a_rival_is_seen_when_the_other_is_gone(monkeypatch):
    """Two heads of which either does it all: beside the other neither is worth anything, so that slopes of the whole
    model put both behind an edge that does a twentieth. One leaves; the other then stays."""
    model = tiny_model("gpt2", n_layers=1)
    graph = Graph.of(model.sizes)
    small = graph.place("input->logits")
    ways = [[graph.place(f"input->a0.h{head}<v>"), graph.place(f"a0.h{head}->logits")] for head in (0, 1)]

    def either(model, ids, gates, other, metric, rules, asked):
        slopes = np.zeros((len(ids), *graph.shape), np.float32)
        carried = [gates[into] * gates[out] for into, out in ways]
        for (into, out), beside in zip(ways, carried[::-1], strict=True):
            slopes[:, *into], slopes[:, *out] = gates[out] * (1 - beside), gates[into] * (1 - beside)
        slopes[:, *small] = 0.05
        lost = (1 - carried[0]) * (1 - carried[1]) + 0.05 * (1 - gates[small])
        return metric(readout_logits(model, sources(model, ids).last[:, -1])).detach() - float(lost), slopes

    monkeypatch.setattr(pruning, "gate_gradients", either)
    scores = let_go(model, pairs_of(model), 2)
    low, high = sorted(max(scores[into], scores[out]) for into, out in ways)
    assert low < 1e-30 and high == pytest.approx(1)
    assert (scores > 0.9).sum() == 2 and scores[small] == pytest.approx(0.05) == sorted(scores[graph.exists])[-3]
