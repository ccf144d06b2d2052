"""Measures of circuits against their definitions, by plain loops."""

import numpy as np
import pytest
import torch

from probes.circuits.graph.faithfulness import Measured, areas, curves, metrics, outside
from probes.circuits.graph.gradients import readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources, with_edges
from probes.circuits.graph.tasks import Pair
from tests.probes.circuits.graph.test_gradients import ids_of, pairs_of
from tests.tiny_models import tiny_model
from workbench.errors import InputError
from workbench.models.target import Target

SHARES = (0.1, 0.4, 1.0)


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


def value(model, last):
    with torch.no_grad():
        logits = readout_logits(model, last[:, -1])
    return (logits[:, 31] - logits[:, 7]).double().numpy()


def masks_of(graph, n=2, seed=0):
    random = np.random.default_rng(seed)
    drawn = [graph.exists & (random.random(graph.shape) < share) for share in SHARES[:-1]]
    return [*drawn, graph.exists]


def test_metrics_of_pairs_of_several_lengths_are_those_of_each_alone(model):
    pairs = [*pairs_of(model, 2, 7), *pairs_of(model, 2, 5, seed=1), *pairs_of(model, 1, 7, seed=2)]
    masks = masks_of(Graph.of(model.sizes))
    found = metrics(model, pairs, masks)
    for place, pair in enumerate(pairs):
        clean, corrupt = ids_of([pair])
        for mask, values in zip(masks, found, strict=True):
            alone = value(model, with_edges(model, clean, mask, sources(model, corrupt).added))
            assert values[place] == pytest.approx(alone[0], abs=1e-4)


def test_zero_and_mean_ablation(model):
    pairs, graph = pairs_of(model), Graph.of(model.sizes)
    nothing = np.zeros(graph.shape, bool)
    # With nothing added to the stream only biases are read out, and this model has none.
    assert metrics(model, pairs, [nothing], "zero") == pytest.approx(0.0, abs=1e-5)
    _, corrupt = ids_of(pairs)
    mean = sources(model, corrupt).added[:, :, 1:].mean((1, 2))
    torch.testing.assert_close(outside(model, pairs)[:, 0, 0], mean, atol=1e-5, rtol=1e-4)
    expected = value(model, mean.sum(0)[None, None].expand(1, 7, -1))
    assert metrics(model, pairs, [nothing], "mean")[0] == pytest.approx(np.repeat(expected, 2), abs=1e-4)
    with pytest.raises(InputError, match="the ablation"):
        Measured(model, pairs, "median")


def test_curves_are_quotients_of_means_and_areas_their_trapezoids(model):
    pairs, graph = pairs_of(model, n=20), Graph.of(model.sizes)
    found = Measured(model, pairs)
    if (found.whole - found.empty).mean() < 0:  # mirrored, so that there is something to be faithful to
        pairs = [Pair(p.clean, p.corrupt, p.wrong, p.answers) for p in pairs]
        found = Measured(model, pairs)
    result = curves(found, {"a": masks_of(graph), "b": masks_of(graph, seed=1)}, SHARES)
    inside = metrics(model, pairs, [np.zeros(graph.shape, bool), *masks_of(graph, seed=1)])
    f = (inside[1:].mean(1) - inside[0].mean()) / (inside[3].mean() - inside[0].mean())
    if np.isfinite(result["faithfulness"].values).all():
        np.testing.assert_allclose(result["faithfulness"].sel(group="b"), f, atol=1e-6)
        assert float(result["cpr"].sel(group="b")) == pytest.approx(0.3 * (f[0] + f[1]) / 2 + 0.6 * (f[1] + f[2]) / 2)
    assert result["n_kept"].values[0].tolist() == [int(m.sum()) for m in masks_of(graph)]
    assert result["n_asked"].values.tolist() == [int(s * graph.n_edges + 1e-9) for s in SHARES]


def test_areas_by_hand():
    found = areas((0.01, 0.1, 1.0), np.array([[0.5, 1.2, 1.0]]))
    assert found["cpr"][0] == pytest.approx(0.09 * 0.85 + 0.9 * 1.1)
    assert found["cmd"][0] == pytest.approx(0.09 * 0.35 + 0.9 * 0.1)
    assert found["cmd_log"][0] == pytest.approx((0.35 + 0.1) / 2)


def test_without_a_difference_there_is_no_f(model):
    """Answers dealt at random: the model's mean difference is not clearly above none."""
    random, pairs = np.random.default_rng(3), []
    for pair in pairs_of(model, n=24, seed=4):
        answers, wrong = (Target.one(int(t)) for t in random.choice(np.arange(1, 96), 2, replace=False))
        pairs.append(Pair(pair.clean, pair.corrupt, answers, wrong))
    graph = Graph.of(model.sizes)
    result = curves(Measured(model, pairs), {"a": masks_of(graph)}, SHARES)
    assert np.isnan(result["faithfulness"]).all() and np.isnan(result["cmd_log"]).all()
    assert np.isfinite(result["model_metric"]).all() and 0 <= float(result["accuracy"]) <= 1


def test_nothing_is_measured_twice(model):
    found, graph = Measured(model, pairs_of(model)), Graph.of(model.sizes)
    first = found.of(masks_of(graph))
    assert found.passes == 3
    assert (found.of(masks_of(graph)) == first).all() and (found.whole == first[2]).all() and found.passes == 3
