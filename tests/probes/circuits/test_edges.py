"""Circuits of edges: fixed ends, one plain pass, the planted circuit, and a ranking against true removal."""

import numpy as np
import pytest
import torch

from probes.circuits import edges as circuit_edges
from probes.circuits.curves import table
from probes.circuits.edges import RANKINGS, CircuitEdges, candidates, edge_task, evaluate, rank
from probes.routes.one_layer import FlowRouteHead
from tests.tiny_models import tiny_model
from workbench.errors import InputError, RefusedError
from workbench.loading.pretrained import load
from workbench.models.prompt import Prompt
from workbench.observation import observe
from workbench.statistics import spearman

PROMPT = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])


@pytest.fixture(scope="module")
def model():
    """Two layers of four heads, two key/value heads."""
    return tiny_model("llama")


@pytest.fixture(scope="module")
def task(model):
    return edge_task(model, PROMPT, kind="logit difference", target="#31", against="#7")


def by_name(names):
    return {name: (lambda task, by=name: rank(task, by)) for name in names}


def with_only(task, kept):
    """The metric of one pass with the kept edges, flat indices, and whatever is no candidate."""
    mask = torch.ones(task.clean.patterns.shape, dtype=torch.bool).flatten()
    mask[candidates(task)] = False
    mask[kept] = True
    (seen,) = task.clean.with_only(mask.view(1, *task.clean.patterns.shape), positions=[task.at])
    return float(seen.logits[0][0, 31] - seen.logits[0][0, 7])


@pytest.mark.usefixtures("two_threads")
def test_all_edges_are_the_model_and_none_is_zero(model, task):
    result = evaluate([task], by_name(RANKINGS))
    logits = observe(model, PROMPT).logits[0][0]
    assert float(result["model_metric"][0]) == pytest.approx(float(logits[31] - logits[7]), abs=1e-5)
    np.testing.assert_allclose(result["faithfulness"].sel(threshold=1.0), 1.0, atol=1e-4)
    assert int(result["n_kept"][0]) == 0 and (result["faithfulness"][:, 0] == 0).all()
    assert float(result["empty_metric"][0]) == pytest.approx(with_only(task, []), abs=1e-5)


def test_candidates_are_those_whose_removal_can_change_the_prediction(task):
    """No edge from position 0, none to the future, and of the last layer only those into the last position."""
    at = [np.unravel_index(i, task.clean.patterns.shape) for i in candidates(task)]
    assert len(at) == 4 * 45 + 4 * 9  # heads x pairs with 1 <= key <= query
    assert all(1 <= key <= query and (layer == 0 or query == 9) for layer, _, query, key in at)
    whole = torch.ones(task.clean.patterns.shape, dtype=torch.bool)
    without_first = whole.clone()
    without_first[..., 0] = False
    (seen,) = task.clean.with_only(torch.stack([whole, without_first]), positions=[9])
    torch.testing.assert_close(seen.logits[0], seen.logits[1], atol=1e-5, rtol=1e-5)


def test_what_a_window_hides_is_no_candidate():
    """Of 14 tokens behind a window of 6 a third of the edges were none, and took their share of every budget."""
    ids = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9, 3, 4, 5, 6])
    task = edge_task(tiny_model("mistral"), ids, target="#31")
    at = [np.unravel_index(i, task.clean.patterns.shape) for i in candidates(task)]
    visible = [min(query, 6) for query in range(14)]  # itself and five before it, but for position 0
    assert len(at) == 4 * sum(visible) + 4 * visible[-1] and all(query - key < 6 for *_, query, key in at)
    kept = evaluate([task], by_name(["random"]))["n_kept"].values
    assert kept[-1] == len(at) and kept[-2] == round(len(at) / 2)


def test_a_circuit_against_one_plain_pass(task):
    scores = np.random.default_rng(3).normal(size=task.clean.patterns.shape)
    result = evaluate([task], {"mine": lambda one: scores}, shares=(0.25, 1.0))
    edges = candidates(task)
    full, empty = with_only(task, edges), with_only(task, [])
    for name, order in (("faithfulness", scores), ("faithfulness_absolute", np.abs(scores))):
        top = edges[np.argsort(-order.flat[edges])[:54]]  # a quarter of 216
        expected = (with_only(task, top) - empty) / (full - empty)
        assert float(result[name].sel(threshold=0.25)[0]) == pytest.approx(expected, abs=1e-3)


def test_the_planted_circuit_beats_random_edges():
    """Three edges make the toy repeat itself; they alone are enough, and attribution puts them first."""
    toy, planted = load("toy-induction"), [(1, 0, 5, 2), (0, 0, 5, 4), (0, 0, 2, 1)]
    tasks = [edge_task(toy, Prompt.ids([3, 9, a, b, 3, 9]), target=f"#{a}") for a, b in ((27, 50), (33, 12))]
    scores = np.zeros(tasks[0].clean.patterns.shape)
    scores[tuple(np.transpose(planted))] = 1.0
    names = ("attribution patching", "random")
    result = evaluate(tasks, by_name(names) | {"planted": lambda one: scores}, shares=(0.075, 0.5, 1.0))
    assert int(result["n_kept"][0]) == 3 and result["group"].values.tolist() == [*names, "planted"]
    first = result["faithfulness"].sel(threshold=0.075).values
    assert first[2] == pytest.approx(1.0, abs=1e-2) and first[1] < 0.2
    attributed, random, plant = result["cpr"].values
    assert plant > random + 0.2 and attributed > random


def test_attribution_is_what_removing_an_edge_takes(task):
    """Of the last layer's edges, where only an MLP and a norm stand behind it."""
    edges = candidates(task)
    last = edges[edges >= task.clean.patterns[0].numel()]
    true = [with_only(task, edges) - with_only(task, np.setdiff1d(edges, one)) for one in last]
    estimated = rank(task, "attribution patching").flat[last]
    assert spearman(estimated, np.array(true))[0] > 0.95
    assert np.corrcoef(estimated, true)[0, 1] > 0.95


def test_routes_and_attention_score_edges_by_their_weights(model, task):
    routes = rank(task, "routes")
    head = FlowRouteHead(layer=1, head=2).run(model, PROMPT)["share"].values
    np.testing.assert_allclose(routes[1, 2, 9], head[9], atol=1e-5)
    assert (routes[1, :, :9] == 0).all() and routes[0, :, 4].any()  # only the last position predicts
    np.testing.assert_array_equal(rank(task, "attention"), task.clean.patterns)
    assert not np.array_equal(rank(task, "random"), rank(task, "random", seed=1))


def test_the_first_layers_may_keep_every_edge(model):
    later = edge_task(model, PROMPT, target="#31", first_layer=1)
    assert len(candidates(later)) == 4 * 9
    assert float(evaluate([later], by_name(["random"]))["faithfulness"][0, -1]) == pytest.approx(1.0, abs=1e-4)


def test_bad_input_is_refused(model, task, monkeypatch):
    bad = [{"kind": "loss"}, {"target": "#400"}, {"first_layer": 2}]
    for options in bad:
        with pytest.raises(InputError):
            edge_task(model, PROMPT, **options)
    with pytest.raises(InputError):
        edge_task(model, Prompt.ids([5, 17]))
    with monkeypatch.context() as patched, pytest.raises(RefusedError, match="which is 5 tokens"):
        patched.setattr(circuit_edges, "_BYTES", 40 * 8 * 25)
        edge_task(model, PROMPT)
    with pytest.raises(InputError):
        evaluate([task], {"short": lambda one: np.ones(3)})
    with pytest.raises(InputError):
        rank(task, "by heart")
    with pytest.raises(InputError):
        CircuitEdges().run(model)


def test_the_entry_on_a_prompt_and_on_a_task(model, default_model, monkeypatch):
    shares = []
    result = CircuitEdges(target="#31", against="#7", metric="logit difference").run(model, PROMPT)
    assert tuple(result["group"].values) == RANKINGS and "216 edges on 1 prompt" in result.attrs["summary"]
    assert "faithfulness to the logit of '#31' minus '#7' (CPR)" in result.attrs["summary"]
    assert table(result).loc["random", "cpr"] == float(result["cpr"].sel(group="random"))
    monkeypatch.setattr(circuit_edges, "RANKINGS", ("attention",))
    study = CircuitEdges(task="indirect object", prompts=1, target=" Mary")
    parts = list(study.partials(default_model, None, progress=shares.append))
    assert shares == [1.0] and len(parts) == 1 and float(parts[-1]["model_metric"][0]) > 0.1
    assert np.abs(parts[-1]["faithfulness"][:, -1] - 1).max() < 1e-3
    said = parts[-1].attrs["summary"]
    assert "faithfulness (CPR)" in said and "target" not in parts[-1].attrs
    assert said.endswith("' Mary' was not used: the task 'indirect object' has its own.")
