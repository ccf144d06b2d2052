"""The graph of edges: counted by hand, named, pruned."""

import numpy as np
import pytest

from probes.circuits.graph.graph import Graph
from workbench.errors import InputError


def test_edges_of_the_default_models_sizes_are_those_of_the_benchmark():
    """By its formula: every target times the sources before it, added up in another way than the mask is."""
    graph = Graph(30, 9)
    by_hand = sum(27 * (1 + layer * 10) + (1 + layer * 10 + 9) for layer in range(30)) + 301
    assert graph.shape == (301, 841)
    assert graph.n_edges == by_hand == 123_211


@pytest.mark.parametrize(
    ("graph", "n"),
    [
        (Graph(1, 2), 6 * 1 + 3 + 4),
        (Graph(1, 2, parallel=True), 6 * 1 + 1 + 4),
        (Graph(2, 1, mlps=False), 3 * 1 + 3 * 2 + 3),
    ],
)
def test_edges_of_small_graphs(graph, n):
    assert graph.n_edges == n


def test_names_lead_to_their_places_and_back():
    graph = Graph(3, 2)
    names = graph.names(graph.exists)
    assert len(set(names)) == graph.n_edges
    assert {"input->a0.h1<k>", "m0->a1.h0<q>", "a2.h1->m2", "m2->logits"} <= set(names)
    assert "a2.h1->m1" not in names and "m2->m2" not in names
    assert "a0.h0->m0" not in Graph(3, 2, parallel=True).names(Graph(3, 2, parallel=True).exists)
    assert (graph.circuit(names) == graph.exists).all()
    for wrong in ("a2.h1->m1", "m0->a1.h0", "nonsense"):
        with pytest.raises(InputError, match="the edge"):
            graph.place(wrong)


def test_pruning_leaves_what_lies_on_a_way():
    graph = Graph(3, 2)
    way = ["input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->m2", "m2->logits"]
    loose = [
        "m0->logits",  # nothing reaches m0
        "a0.h1->a2.h1<q>",  # leads nowhere
        "m1->a2.h0<v>",  # neither
        "a0.h0->a1.h1<q>",
        "a1.h1->logits",  # reached only from what is not reached
    ]
    assert sorted(graph.names(graph.pruned(graph.circuit(way + loose)))) == sorted(way)
    assert not graph.pruned(graph.circuit(loose)).any()
    assert (graph.pruned(graph.exists) == graph.exists).all()


def test_pruning_twice_changes_nothing_and_equals_a_plain_search():
    """networkx, edge by edge: an edge is on a way if its ends are on one from input to logits."""
    import networkx as nx

    graph, random = Graph(3, 2), np.random.default_rng(0)
    for share in (0.05, 0.15, 0.3):
        mask = graph.exists & (random.random(graph.shape) < share)
        plain = nx.DiGraph()
        plain.add_nodes_from(["input", "logits"])
        ends = {}
        for name in graph.names(mask):
            source, target = name.split("->")
            ends[name] = (source, target.split("<")[0])
            plain.add_edge(*ends[name])
        reached = nx.descendants(plain, "input") | {"input"}
        leads = nx.ancestors(plain, "logits") | {"logits"}
        expected = {name for name, (source, target) in ends.items() if source in reached and target in leads}
        pruned = graph.pruned(mask)
        assert set(graph.names(pruned)) == expected
        assert (graph.pruned(pruned) == pruned).all()


def test_circuits_of_other_shapes_are_refused():
    graph = Graph(2, 2)
    with pytest.raises(InputError):
        graph.pruned(np.ones((3, 3), bool))
    with pytest.raises(InputError):
        graph.pruned(np.ones(graph.shape, bool))  # edges that there are not
