"""Selection: orders by hand, and circuits that fill their budget with what is connected."""

import numpy as np
import pytest

from probes.circuits.graph.graph import Graph
from probes.circuits.graph.selection import BUDGETS, calibrated, n_edges, ordered, select
from workbench.errors import InputError

SMALL = Graph(1, 1, mlps=False)  # input -> q, k, v; input, head -> logits: five edges


def scores_of(values):
    scores = np.zeros(SMALL.shape)
    scores[SMALL.exists] = values
    return scores


def taken(how, values, **options):
    """Ranks of the edges, as places among the five."""
    order = ordered(SMALL, scores_of(values), how, **options)
    places = np.flatnonzero(SMALL.exists).tolist()
    return [places.index(place) for place in order]


def test_orders_by_hand():
    values = [0.5, -3.0, 2.0, -0.1, 1.0]
    assert taken("absolute", values) == [1, 2, 4, 0, 3]
    assert taken("signed", values) == [2, 4, 0, 3, 1]
    # Half of every beginning by score: absolute, signed, ...; what is taken already is passed over.
    assert sorted(taken("mixed", values)[:2]) == [1, 2]
    assert taken("mixed", values, ratio=0.0) == taken("absolute", values)
    assert taken("mixed", values, ratio=1.0) == taken("signed", values)
    # All sum to .4: 2 is above it, -3 brings it below, then 1 and .5 bring it up, and the last is left.
    assert taken("balanced", values) == [2, 1, 4, 0, 3]
    assert taken("absolute", [0, 0, 1.0, 0, -1.0]) == [2, 4, 0, 1, 3]  # ties by place
    with pytest.raises(InputError, match="the selection"):
        taken("best", values)


def test_stable_signs_come_first():
    """An edge whose sign turns with the pairs that are drawn stands behind weaker ones that keep theirs."""
    random = np.random.default_rng(0)
    by_pair = np.stack([scores_of([1.0, 0.8, 0.6, 0.4, 0.2]) for _ in range(16)])
    by_pair[:, SMALL.exists.nonzero()[0][0], SMALL.exists.nonzero()[1][0]] = 1 + 40 * random.standard_normal(16)
    order = ordered(SMALL, by_pair, "stable").tolist()
    assert order.index(np.flatnonzero(SMALL.exists)[0]) == 4


def test_every_order_holds_every_edge_once():
    graph = Graph(3, 2)
    scores = np.where(graph.exists, np.random.default_rng(1).standard_normal((4, *graph.shape)), 0)
    for how in ("absolute", "signed", "mixed", "balanced", "stable"):
        order = ordered(graph, scores, how, ratio=0.3)
        assert sorted(order) == np.flatnonzero(graph.exists).tolist()


@pytest.mark.parametrize(("true", "expected"), [(0.3, 0.3), (0.9, 0.9), (-0.4, 0.0), (1.5, 1.0)])
def test_calibration_finds_the_share_that_brings_f_to_one(true, expected):
    """f rises by 1 with the share by score and is 1 at `true`; the circuits are those of the mixed selection there."""
    graph, random = Graph(4, 3), np.random.default_rng(5)
    scores = np.where(graph.exists, random.standard_normal(graph.shape), 0)
    budgets, shares = (0.1, 0.3), np.linspace(0, 1, 101)
    known = {}
    for share in shares:
        for b in budgets:
            mask = select(graph, ordered(graph, scores, "mixed", ratio=share), n_edges(b, graph))
            known.setdefault(mask.tobytes(), share)
    asked = []

    def faithfulness(circuits):
        asked.append(len(circuits))
        return np.array([1 + known[mask.tobytes()] - true for mask in circuits])

    found = calibrated(graph, scores, faithfulness, budgets, anchors=budgets)
    assert asked == [2, 2]
    for mask, b in zip(found, budgets, strict=True):
        near = [select(graph, ordered(graph, scores, "mixed", ratio=expected + d), n_edges(b, graph)) for d in
                np.arange(-0.12, 0.121, 0.02) if 0 <= expected + d <= 1]  # fmt: skip
        assert any((mask == one).all() for one in near)


def test_budgets_are_floors_as_in_the_benchmark():
    assert [n_edges(b, Graph(30, 9)) for b in BUDGETS] == [123, 246, 616, 1232, 2464, 6160, 12321, 24642, 61605, 123211]


def test_every_budget_of_a_small_graph_comes_to_an_end():
    """Half of all edges among them, where doubling meets their number."""
    graph = Graph(2, 2)
    order = np.random.default_rng(4).permutation(np.flatnonzero(graph.exists))
    for n in range(graph.n_edges + 1):
        assert select(graph, order, n).sum() <= n


def test_a_circuit_fills_its_budget_with_connected_edges():
    graph, random = Graph(4, 3), np.random.default_rng(2)
    for n in (6, 20, 60):
        order = random.permutation(np.flatnonzero(graph.exists))
        pruned, filled = (select(graph, order, n, refill=refill) for refill in (False, True))
        assert (graph.pruned(filled) == filled).all()
        assert pruned.sum() <= filled.sum() <= n
        top = np.zeros(graph.exists.size, bool)
        top[order[:n]] = True
        assert (pruned == graph.pruned(top.reshape(graph.shape))).all() and not (pruned & ~filled).any()
    assert not select(graph, order, 0).any()
    assert filled.sum() >= n - 3  # one more edge may connect several
    assert (select(graph, order, graph.n_edges) == graph.exists).all()
