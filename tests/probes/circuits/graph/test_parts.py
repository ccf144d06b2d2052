"""Nodes of circuits, what each is worth, and how stable a choice is."""

import numpy as np
import pytest

from probes.circuits.attribution_patching import gradients
from probes.circuits.graph.circuit import Circuit
from probes.circuits.graph.faithfulness import Measured
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.known import KNOWN
from probes.circuits.graph.parts import minimality, node_scores, of_top_nodes, stability
from probes.circuits.graph.rankings import rank
from tests.probes.circuits.graph.test_gradients import pairs_of
from tests.tiny_models import tiny_model
from workbench.errors import InputError
from workbench.models.hooks import MLP_OUT, Z
from workbench.observation.recording import record


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_eap_of_all_edges_of_a_node_is_attribution_patching_of_the_node(kind):
    """By another route, one gradient at the node's output (`attribution_patching`). float32: 1e-4 of the largest."""
    model = tiny_model(kind)
    graph, (pair,) = Graph.of(model.sizes), pairs_of(model, n=1)
    found = node_scores(graph, rank(model, [pair], "EAP"))[0]
    activations, grads = gradients(model, pair.clean, pair.metric, [Z, MLP_OUT])
    source = record(model, pair.corrupt, [Z, MLP_OUT])
    for layer in range(2):
        change = activations[Z, layer] - source.take(Z, layer, model)
        heads = (change * grads[Z, layer]).sum((0, 2))
        np.testing.assert_allclose(found[graph.heads(layer)], heads, atol=1e-4 * np.abs(found).max())
        change = activations[MLP_OUT, layer] - source.take(MLP_OUT, layer, model)
        mlp = float((change * grads[MLP_OUT, layer]).sum())
        assert found[graph.mlp(layer)] == pytest.approx(mlp, abs=1e-4 * float(np.abs(found).max()))


def test_circuits_of_nodes_hold_all_edges_among_them():
    graph = Graph(2, 2)
    scores = np.array([9.0, 0, 0.5, -2, 0, 1, 0])  # input, two heads, an MLP, two heads, an MLP
    names = graph.names(of_top_nodes(graph, scores, 0.34))
    assert set(names) == {
        "input->m0", "input->a1.h1<q>", "input->a1.h1<k>", "input->a1.h1<v>", "m0->a1.h1<q>", "m0->a1.h1<k>",
        "m0->a1.h1<v>", "input->logits", "m0->logits", "a1.h1->logits",
    }  # fmt: skip
    assert "m0->logits" not in graph.names(of_top_nodes(graph, scores, 0.34, signed=True))


def test_each_node_of_the_known_circuit_is_needed_and_no_other():
    known = KNOWN["induction"]()
    graph = Graph.of(known.model.sizes)
    wide = known.true | graph.circuit(["input->a0.h1<v>", "a0.h1->logits"])
    worth = minimality(Measured(known.model, known.pairs), Circuit(graph, wide, np.zeros(graph.shape)))
    assert set(worth) == {"a0.h0", "a1.h0", "a0.h1"}
    assert worth["a1.h0"] > 0.9 and worth["a0.h0"] > 0.1 and abs(worth["a0.h1"]) < 1e-4


def test_stability_of_what_all_pairs_agree_on_is_one_and_of_noise_is_chance():
    random, shape = np.random.default_rng(0), (12, 30, 30)
    choose = lambda scores: [scores.mean(0) >= np.quantile(scores.mean(0), 0.8)]
    same = np.broadcast_to(random.standard_normal(shape[1:]), shape)
    assert stability(same, choose)[0] == 1.0
    # Two independent choices of a fifth share .04 of .36.
    assert stability(random.standard_normal(shape), choose, draws=20)[0] == pytest.approx(1 / 9, abs=0.03)
    with pytest.raises(InputError, match="two halves"):
        stability(same[:1], choose)
    # Two empty circuits share nothing and differ in nothing: no number, and the other budget's stands.
    some = lambda scores: [np.zeros(shape[1:], bool), scores.mean(0) > 0]
    empty, whole = stability(same, some)
    assert np.isnan(empty) and whole == 1.0
