"""A circuit as an object: searched, taken out, compared, saved, drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest

from probes.circuits import edge_rankings
from probes.circuits.circuit_search import VIEW, CircuitSearch, circuit_of, circuit_result
from probes.circuits.edge_rankings import EdgeRankings, table
from probes.circuits.graph.circuit import Circuit, against_random, random_circuits, search
from probes.circuits.graph.faithfulness import Measured
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.known import KNOWN
from probes.circuits.graph.rankings import rank
from probes.circuits.graph.tasks import Task
from workbench.errors import InputError
from workbench.observation import observe


@pytest.fixture(scope="module")
def known():
    return KNOWN["induction"]()


@pytest.fixture(scope="module")
def found(known):
    return search(Measured(known.model, known.pairs[4:]), rank(known.model, known.pairs[:4], "EAP-IG"), 0.95)


def test_the_search_finds_the_known_circuit(known, found):
    """Or less of it: with the counterfactual's queries and keys, which fit each other, the values alone will do."""
    assert {"input->a1.h0<v>", "a1.h0->logits"} <= set(found.edges) <= set(known.edges)
    assert "a1.h0" in found.nodes
    compared = against_random(Measured(known.model, known.pairs), found, draws=19)
    assert compared["faithfulness"] > 0.95 and compared["p"] == pytest.approx(1 / 20)
    assert max(compared["random"]) < 0.9


def test_the_search_says_none_where_nothing_reaches_it(known):
    pairs = [type(p)(p.clean, p.corrupt, p.answers, p.wrong) for p in known.pairs[:4]]
    scores = -rank(known.model, pairs, "exact").mean(0)  # the worst edges first
    assert search(Measured(known.model, pairs), scores, 0.95, "signed") is None


def test_where_the_model_is_no_better_than_no_edge_there_is_no_share(known, found):
    """Answers and wrong ones exchanged: f is undefined, and no sentence says a share of it."""
    worse = [type(p)(p.clean, p.corrupt, p.wrong, p.answers) for p in known.pairs[:4]]
    result = CircuitSearch()._told(
        circuit_result(found, Measured(known.model, worse), {}), Task("known", (), (), (), note="Mind.")
    )
    said = result.attrs["summary"]
    assert np.isnan(float(result["faithfulness"])) and "nan" not in said
    assert "On 4 pairs" in said and said.endswith("there is nothing that a circuit could be faithful to. Mind.")


def test_the_share_that_a_sentence_tells_is_of_what_it_names(known, found):
    """With no edge the counterfactual's answers are preferred, and "keep 0.98 of the logit difference" was of another
    difference."""
    measured = Measured(known.model, known.pairs)
    whole, empty, kept = (float(one.mean()) for one in (measured.whole, measured.empty, measured.of([found.mask])[0]))
    told = CircuitSearch()._told(circuit_result(found, measured, {}), Task("known", (), (), ()))
    n = len(known.pairs)
    share = f"keep {(kept - empty) / (whole - empty):.2f} of what all edges add to the logit difference of "
    assert share in told.attrs["summary"] and f"on {n} new pairs; without them" in told.attrs["summary"]
    assert empty < -1  # so that a share of the logit difference itself is another number


def test_random_circuits_have_its_size_and_are_connected(known, found):
    graph = Graph.of(known.model.sizes)
    for mask in random_circuits(found, 5):
        assert (graph.pruned(mask) == mask).all() and mask.sum() <= len(found)


def test_it_is_taken_out_as_one_unit(known, found):
    edited = known.model.edited(found.ablations())
    assert {str(e.unit) for e in found.ablations()} >= {"L1H0"}
    pair = known.pairs[0]
    difference = lambda one: float(pair.metric.of_logits(observe(one, pair.clean).logits[0][None])[0])
    assert difference(known.model) > 0.5 and difference(edited) == pytest.approx(0.0, abs=1e-4)


def test_what_another_file_says_of_itself_may_hold_no_number(tmp_path):
    """Python reads NaN in JSON, and strict JSON has none."""
    graph = Graph(1, 2, True, False)
    given = Circuit(graph, graph.exists.copy(), np.full(graph.shape, np.nan), {"score": float("nan")})
    assert Circuit.open(given.save(tmp_path / "c.json")).about == {"score": None}


def test_saved_and_opened_it_is_the_same(found, tmp_path):
    path = found.save(tmp_path / "circuit.json")
    again = Circuit.open(path)
    assert (again.mask == found.mask).all() and again.graph == found.graph and again.about == found.about
    np.testing.assert_allclose(again.scores[again.graph.exists], found.scores[found.graph.exists])
    assert found.overlap(again) == {"edges": 1.0, "nodes": 1.0}


def test_another_tools_file_is_read_in_either_form(tmp_path):
    """Nodes as plain truth values, as EAP-IG writes them, or as records, as MIB does."""
    edges = {
        name: {"score": 0.5 * i, "in_graph": i < 3} for i, name in enumerate(Graph(1, 2).names(Graph(1, 2).exists))
    }
    for nodes in ({"input": True, "a0.h0": True, "a0.h1": False, "m0": True, "logits": True},
                  {"input": {"in_graph": True}, "m0": {"in_graph": True}}):  # fmt: skip
        path = tmp_path / "theirs.json"
        path.write_text(
            json.dumps({"cfg": {"n_layers": 1, "n_heads": 2, "d_model": 64}, "nodes": nodes, "edges": edges})
        )
        circuit = Circuit.open(path)
        assert len(circuit) == 3 and circuit.scores[circuit.graph.place(list(edges)[2])] == 1.0
    for broken in ("{}", '{"cfg": {}, "nodes": {}, "edges": {}}', "[]"):
        path.write_text(broken)
        with pytest.raises(InputError, match="no circuit"):
            Circuit.open(path)
    path.write_text(
        json.dumps({"cfg": {"n_layers": 1, "n_heads": 2}, "nodes": {"m0": True}, "edges": {"a9.h0->m0": {}}})
    )
    with pytest.raises(InputError, match=r"a9\.h0->m0"):
        Circuit.open(path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("n_layers", 10**7), ("n_heads", float("inf")), ("n_layers", 1.5), ("n_heads", True), ("n_layers", 900),
        ("parallel_attn_mlp", "False"), ("attn_only", "no"), ("in_graph", "false"), ("in_graph", 2), ("about", "me"),
    ],
)  # fmt: skip
def test_a_strangers_file_says_each_thing_in_its_type_and_size(tmp_path, where, value):
    """The text "false" is true to Python, and a few bytes may ask for terabytes."""
    cfg, edge, about = {"n_layers": 1, "n_heads": 2}, {"in_graph": True}, {}
    given = {"cfg": cfg, "nodes": {"m0": True}, "edges": {"input->logits": edge}, "about": about}
    (edge if where == "in_graph" else given if where == "about" else cfg)[where] = value
    if value == 900:
        cfg["n_heads"] = 900
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(given))
    with pytest.raises(InputError, match="no circuit"):
        Circuit.open(path)


def test_the_view_draws_what_it_found(model):
    result = CircuitSearch(pairs=3, tested=3, draws=2, wanted=0.3).run(model)
    circuit = circuit_of(result)
    if len(circuit):
        assert circuit.edges == [
            f"{s}->{t}" for s, t in zip(result["edge_source"].values, result["edge_target"].values, strict=True)
        ]
        assert len(result["edge"]) == int(result["n_kept"]) == len(circuit)
    figure = VIEW.figures[0](result)
    assert figure.layout.meta["axes"] == {"x": "head", "y": "layer"}


def test_rankings_stand_beside_each_other(model, monkeypatch):
    pairs = edge_rankings.pairs_of
    monkeypatch.setattr(edge_rankings, "pairs_of", lambda *given, **n: replace(pairs(*given, **n), note="Mind."))
    result = EdgeRankings(rankings="RelP, exact", pairs=2, tested=3).run(model)
    assert list(table(result).index) == ["RelP", "exact"] and result.attrs["summary"].endswith(". Mind.")
    assert result["cost"].values.tolist() == [4.0, float(Graph.of(model.sizes).n_edges + 2)]
    with pytest.raises(InputError, match="the ranking 'rlp'"):
        EdgeRankings(rankings="rlp").run(model)
