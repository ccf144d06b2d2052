"""Known circuits are found: area 1 on models made by hand, one half at random."""

import numpy as np
import pytest
import torch

from probes.circuits.graph.faithfulness import Measured
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.known import KNOWN, recovery
from probes.circuits.graph.rankings import rank

SEEING_PATTERNS = ("exact", "EAP", "EAP-IG", "RelP", "RelP half", "RelP-IG", "RelP both ends", "edge pruning")


@pytest.fixture(scope="module", params=KNOWN)
def known(request):
    return KNOWN[request.param]()


@pytest.mark.parametrize("by", SEEING_PATTERNS)
def test_rankings_put_the_true_edges_first(known, by):
    found = recovery(known, rank(known.model, known.pairs, by))
    assert found == {"auc": 1.0, "precision": 1.0}


def test_what_sees_no_patterns_scores_the_way_of_values_alone(known):
    """What acts through another head's keys, such as the previous-token head of induction, scores 0."""
    scores = rank(known.model, known.pairs, "RelP constant").mean(0)
    graph = Graph.of(known.model.sizes)
    by_values = {"input->a1.h0<v>", "a1.h0->logits"} if len(known.edges) > 2 else set(known.edges)
    assert set(graph.names(np.abs(scores) > 1e-6)) == by_values


def test_random_is_one_half(known):
    """Mean over 300 seeds: its standard error is below .02."""
    areas = [recovery(known, rank(known.model, known.pairs[:1], "random", seed=seed))["auc"] for seed in range(300)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.06)


def test_the_known_circuit_does_the_task_and_nothing_else_does(known):
    measured = Measured(known.model, known.pairs)
    graph = Graph.of(known.model.sizes)
    whole, rest = measured.faithfulness([known.true, graph.exists & ~known.true])
    assert whole == pytest.approx(1.0, abs=1e-4) and rest == pytest.approx(0.0, abs=1e-4)
    for edge in known.edges:  # each is needed
        without = known.true.copy()
        without[graph.place(edge)] = False
        assert measured.faithfulness([without])[0] < 0.9


@pytest.mark.parametrize("by", ["exact", "EAP-IG", "RelP"])
def test_edges_are_ranked_and_measured_alike_where_float64_is_the_default(known, by):
    """A notebook's default mixed two formats in one product, which is an error."""
    measure = lambda: Measured(known.model, known.pairs).faithfulness([known.true])
    scores, f = rank(known.model, known.pairs, by), measure()
    torch.set_default_dtype(torch.float64)
    try:
        again, f_again = rank(known.model, known.pairs, by), measure()
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(again, scores)
    np.testing.assert_array_equal(f_again, f)
