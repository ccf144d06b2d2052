"""Circuit evaluation: fixed ends, the planted circuit, and areas against their definition."""

import json

import numpy as np
import pytest
import scipy.stats
import torch

from probes.circuits import evaluation as circuit_evaluation
from probes.circuits.curves import SHARES, cpr_figure, curve_figure, faithfulness_curves, summary, table
from probes.circuits.evaluation import CircuitEvaluation, circuits, evaluate
from probes.circuits.rankings import RANKINGS, n_nodes, rank, tasks_of
from probes.routes.extraction import extract
from probes.routes.flow_routes import FlowRoutes
from tests.tiny_models import tiny_model
from workbench.errors import InputError
from workbench.intervene import MLP, Ablate, Head, Patch
from workbench.loading.pretrained import load
from workbench.models.hooks import MLP_OUT, Z
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import observe
from workbench.observation.recording import record

CLEAN = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])
CORRUPT = Prompt.ids([5, 17, 40, 23, 60, 8, 70, 30, 12, 9])


@pytest.fixture(scope="module")
def model():
    """Four layers of four heads and an MLP: twenty nodes."""
    return tiny_model("llama", n_layers=4)


@pytest.fixture(scope="module")
def tasks(model):
    return tasks_of(model, [(CLEAN, CORRUPT, "#7", "#31")])


def difference(model, *edits):
    logits = observe(model, CLEAN, interventions=edits).logits[0][0]
    return float(logits[7] - logits[31])


@pytest.mark.parametrize("ablation", ["counterfactual", "zero", "mean"])
def test_the_curve_ends_at_one_and_the_empty_circuit_at_zero(model, tasks, ablation):
    scores = {"random": rank(model, tasks, "random")}
    result = evaluate(model, tasks, scores, ablation=ablation)
    assert float(result["faithfulness"][0, -1]) == pytest.approx(1.0)
    assert float(result["faithfulness"][0, 0]) == 0.0 and int(result["n_kept"][0]) == 0
    assert float(result["model_metric"][0]) == pytest.approx(difference(model), abs=1e-5)
    if ablation == "zero":
        every = [Ablate(Head(layer, head)) for layer in range(4) for head in range(4)] + [
            Ablate(MLP(n)) for n in range(4)
        ]
        assert float(result["empty_metric"][0]) == pytest.approx(difference(model, *every), abs=1e-5)


def test_a_circuit_against_one_plain_pass(model, tasks):
    """Half of the nodes kept: the others patched one by one from the corrupt run."""
    scores = np.random.default_rng(3).normal(size=20)
    result = evaluate(model, tasks, {"mine": scores})
    kept, absolute = circuits(scores, 0.5)
    assert len(kept) == 10 and kept != absolute
    source = record(model, CORRUPT, [Z, MLP_OUT])
    edits = [
        Patch(Z, n // 4, source, None, (n % 4,)) if n < 16 else Patch(MLP_OUT, n - 16, source)
        for n in range(20)
        if n not in kept
    ]
    m, empty = difference(model, *edits), float(result["empty_metric"][0])
    expected = (m - empty) / (float(result["model_metric"][0]) - empty)
    assert float(result["faithfulness"].sel(threshold=0.5)[0]) == pytest.approx(expected, abs=1e-3)


def test_areas_are_the_trapezoids_of_the_curves(model, tasks):
    result = evaluate(model, tasks, {name: rank(model, tasks, name) for name in RANKINGS})
    curve, absolute = result["faithfulness"].values, result["faithfulness_absolute"].values
    width = np.diff(SHARES)
    np.testing.assert_allclose(result["cpr"], ((curve[:, 1:] + curve[:, :-1]) / 2) @ width, rtol=1e-6)
    gap = np.abs(1 - absolute)
    np.testing.assert_allclose(result["cmd"], ((gap[:, 1:] + gap[:, :-1]) / 2) @ width, rtol=1e-6)
    assert curve_figure(result).data and cpr_figure(result).data


def test_patching_scores_are_what_patching_costs(model, tasks):
    scores, source = rank(model, tasks, "activation patching"), record(model, CORRUPT, [Z, MLP_OUT])
    plain = difference(model)
    assert scores[6] == pytest.approx(plain - difference(model, Patch(Z, 1, source, None, (2,))), abs=1e-5)
    assert scores[18] == pytest.approx(plain - difference(model, Patch(MLP_OUT, 2, source)), abs=1e-5)


def test_route_scores_are_the_shares_on_the_route(model, tasks):
    """Summed by hand over the graph of the last token, the model's own edges."""
    scores, graph = rank(model, tasks, "routes"), extract(FlowRoutes().run(model, CLEAN))
    here = (graph["kind"] == "attention") & (graph["edge_layer"] == 2) & (graph["edge_head"] == 1)
    assert scores[2 * 4 + 1] == pytest.approx(float(graph["weight"].values[here.values].sum()))
    here = (graph["kind"] == "mlp") & (graph["edge_layer"] == 3)
    assert scores[16 + 3] == pytest.approx(float(graph["weight"].values[here.values].sum())) and scores.min() >= 0


def test_the_table_has_areas_intervals_and_three_shares(model, tasks):
    result = evaluate(model, tasks, {"random": rank(model, tasks, "random")})
    frame = table(result)
    assert list(frame.index) == ["random"]
    assert frame.loc["random", "faithfulness at 5%"] == float(result["faithfulness"].sel(threshold=0.05)[0])
    assert frame.loc["random", "cmd"] == float(result["cmd"][0]) and "cpr_low" not in frame


def test_circuits_that_were_measured_are_not_measured_again(model, tasks, monkeypatch):
    scores, measured = {"random": rank(model, tasks, "random")}, [{}]
    first = evaluate(model, tasks, scores, measured=measured)

    def none_left(model, base, cells, metric, **options):
        assert not cells
        return torch.zeros(0)

    monkeypatch.setattr(circuit_evaluation, "values_of", none_left)
    again = evaluate(model, tasks, scores, measured=measured)
    np.testing.assert_array_equal(first["faithfulness"], again["faithfulness"])


def test_the_planted_circuit_carries_the_task():
    """Two of four heads are the circuit; every causal ranking puts them first, and they are enough."""
    toy = load("toy-induction")
    examples = [
        (Prompt.ids([3, 9, a, 14, 3, 9]), Prompt.ids([3, 8, a, b, 3, 9]), f"#{a}", f"#{b}")
        for a, b in ((27, 50), (33, 12))
    ]
    tasks = tasks_of(toy, examples)
    result = evaluate(
        toy, tasks, {name: rank(toy, tasks, name) for name in ("activation patching",)}, shares=(0.25, 0.5, 1.0)
    )
    assert n_nodes(toy) == 4
    assert float(result["faithfulness"].sel(threshold=0.5)[0]) == pytest.approx(1.0, abs=1e-3)
    kept, _ = circuits(rank(toy, tasks, "activation patching"), 0.5)
    assert kept == {0, 2}


def test_intervals_come_from_eight_prompts_on(model):
    generator = np.random.default_rng(0)
    examples = []
    for _ in range(8):
        ids = generator.integers(3, 90, 6).tolist()
        examples.append((Prompt.ids(ids), Prompt.ids([*ids[:2], (ids[2] + 1) % 96, *ids[3:]]), "#31", "#7"))
    tasks = tasks_of(model, examples)
    scores = {"random": rank(model, tasks, "random", seed=4)}
    many, few = evaluate(model, tasks, scores), evaluate(model, tasks[:3], scores)
    assert np.isnan(few["cpr_low"]).all() and few.sizes["prompt"] == 3
    assert json.loads(few.attrs["provenance"])["n_prompts"] == 3
    if np.isfinite(many["cpr_low"]).all():
        assert (many["cpr_low"] <= many["cpr"]).all() and (many["cpr"] <= many["cpr_high"]).all()


def test_bad_input_is_refused(model, tasks):
    good = {"random": rank(model, tasks, "random")}
    for arguments in ((tasks, {"short": np.ones(3)}), (tasks, {}), ([], good)):
        with pytest.raises(InputError):
            evaluate(model, *arguments)
    for options in ({"ablation": "noise"}, {"shares": (0.5, 0.1)}):
        with pytest.raises(InputError):
            evaluate(model, tasks, good, **options)
    with pytest.raises(InputError):
        rank(model, tasks, "by heart")


def test_the_entry_adds_one_ranking_after_another(model):
    parts = list(CircuitEvaluation(target="#7").partials(model, tokenise(model, CLEAN)))
    assert [part.sizes["group"] for part in parts] == [1, 2, 3, 4, 5]
    assert parts[-1]["group"].values.tolist() == list(RANKINGS)
    assert all(part.attrs["summary"].endswith("with its tokens moved: none was given.") for part in parts)
    assert all("faithfulness to the logit of '#7' (CPR)" in part.attrs["summary"] for part in parts)


def test_the_model_s_own_answers_are_named(model):
    """Nothing in the result told which tokens had been taken."""
    result = CircuitEvaluation().run(model, CLEAN)
    found = observe(model, CLEAN).logits[0][-1].argmax()
    assert result.attrs["target_ids"] == f"#{int(found)}" and f"logit of '#{int(found)}'" in result.attrs["summary"]


def test_a_task_with_prompts_of_its_own_ranks_on_some_and_evaluates_on_others(default_model, monkeypatch):
    asked, names = [], ("direct attribution", "routes", "random")
    monkeypatch.setattr(circuit_evaluation, "RANKINGS", names)
    watched = circuit_evaluation.rank

    def rank_watched(model, tasks, by, **options):
        asked.append([task.pair.clean.ids for task in tasks])
        return watched(model, tasks, by, **options)

    monkeypatch.setattr(circuit_evaluation, "rank", rank_watched)
    result = CircuitEvaluation(task="indirect object", pairs=1, metric="log-probability").run(default_model)
    assert result.attrs["summary"].endswith("'log-probability' was not used: the task 'indirect object' has its own.")
    assert result.attrs["n_prompts"] == 1 and tuple(result["group"].values) == names
    assert len(set(map(str, asked))) == 1 and "(CPR) of 300 nodes on 1 prompt:" in result.attrs["summary"]
    assert float(result["model_metric"][0]) > 0.5  # the model does the task


def test_attribution_ranks_what_helps_above_what_hurts(model, tasks):
    """Truly patching every node is the slow route; a first-order estimate need not agree in size, but in sign."""
    estimate, truth = rank(model, tasks, "attribution patching"), rank(model, tasks, "activation patching")
    large = np.argsort(-np.abs(truth))[:6]
    assert np.corrcoef(estimate, truth)[0, 1] > 0.5
    assert (np.sign(estimate[large]) == np.sign(truth[large])).mean() >= 5 / 6


def test_the_intervals_of_a_curve_are_those_of_95_percent_and_of_sixteen_prompts_at_least():
    """Student's interval of a ratio by the delta method is the least that an end may reach, at 95 % and not at 90 %."""
    random = np.random.default_rng(0)
    observation = observe(tiny_model("llama"), [CLEAN])
    shares, n = (0.5, 1.0), 16
    whole, empty = 2 + 0.3 * random.normal(size=n), np.zeros(n)
    metrics = np.stack([np.stack([whole * (0.6 + 0.3 * random.normal(size=n)), whole], axis=-1)[None]] * 2)
    curves = lambda k: faithfulness_curves(
        observation, ["a"], shares, metrics[:, :, :k], whole[:k], empty[:k], parts="nodes", n_parts=4, units="nats"
    )
    result, top = curves(n), metrics[0, 0, :, 0]
    ratio = top.mean() / whole.mean()
    error = np.sqrt((top - ratio * whole).var(ddof=1) / n) / whole.mean()
    reach = scipy.stats.t.ppf(0.975, n - 1) * error
    low, high = float(result["faithfulness_low"][0, 0]), float(result["faithfulness_high"][0, 0])
    assert low <= ratio - reach + 1e-9 and high >= ratio + reach - 1e-9
    assert high - low < 2 * 1.35 * reach
    assert np.isnan(curves(15)["cpr_low"]).all() and np.isnan(curves(15)["cmd_high"]).all()
    width = float(result["cmd_high"][0] - result["cmd_low"][0])
    # CMD is here half the mean of |1 - f| at 0.5: its spread is that of the ratio, over two shares a quarter apart.
    assert width == pytest.approx(2 * reach * 0.25, rel=0.3)
    assert "n = 16" in summary(result) and "[" not in summary(curves(15))
