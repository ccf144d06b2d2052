"""Circuit evaluation: how much of a task the top share of a ranking of nodes carries.

Nodes are heads and MLPs, each at all positions. For a share k, the nodes ranked highest stay as they are and the rest
are ablated: by their output on the corrupt prompt ("counterfactual"), by their mean over a reference text, or by
zero. `faithfulness(k) = (m(circuit) - m(empty)) / (m(model) - m(empty))`, a ratio of means over prompts, m(empty)
with every node ablated. As in the MIB benchmark: CPR is the area under the curve with nodes ranked by signed score (1
where few nodes do everything, more where some hurt), CMD the area between the curve and 1 with nodes ranked by
absolute score (0 is best); trapezoid over linear k from 0.1 % to 100 %. Intervals resample prompts, from 8 prompts
on.

A faithful circuit need not be the one the model uses; a low curve at small k may mean many nodes that each do little.

Source: Mueller et al. 2025, arXiv 2504.13151 (MIB; its table ranks edges, ours nodes: not comparable number by number).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from probes import direct_logit_attribution
from probes.activation_patching import PAIR_PARAMS, pair_metric
from probes.attribution_patching import node_estimates
from probes.prompt_pairs import PromptPair, prompt_pair
from workbench.catalog import Entry, Param
from workbench.errors import InputError
from workbench.hooks import MLP_OUT, Hook, Z
from workbench.intervene import MLP, Ablate, Head, Patch
from workbench.metrics import Metric
from workbench.models.model import Model
from workbench.models.selfcheck import PADDING, READOUT
from workbench.recording import Means, Recording, measure_means, record
from workbench.results import dataset
from workbench.sweeps import Base, base_run, values_of

__all__ = [
    "ENTRY",
    "RANKINGS",
    "SHARES",
    "Task",
    "curve_figure",
    "evaluate",
    "evaluating",
    "rank",
    "run",
    "table_figure",
    "tasks_of",
]

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
ABLATIONS = ("counterfactual", "mean", "zero")
RANKINGS = ("attribution patching", "activation patching", "direct attribution", "random")
_ENOUGH = 8
_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Task:
    """One pair of prompts, its metric, and the two runs."""

    pair: PromptPair
    metric: Metric
    clean: Base
    corrupt: Base
    source: Recording


def tasks_of(model: Model, examples: Sequence[tuple[Any, Any, str, str]]) -> list[Task]:
    """Tasks from (clean, corrupt, target, against): the logit difference of the two tokens."""
    tasks = []
    for clean, corrupt, target, against in examples:
        pair = prompt_pair(model, clean, corrupt)
        runs = base_run(model, pair.clean), base_run(model, pair.corrupt)
        metric = pair_metric(model, *runs, target=target, against=against)
        tasks.append(Task(pair, metric, *runs, record(model, pair.corrupt, _sites(model))))
    return tasks


def _sites(model: Model) -> list[Hook]:
    return [Z, MLP_OUT] if model.sizes.d_mlp else [Z]


def n_nodes(model: Model) -> int:
    """Heads first, by layer, then MLPs."""
    sizes = model.sizes
    return sizes.n_layers * (sizes.n_heads + (1 if sizes.d_mlp else 0))


# --- rankings ------------------------------------------------------------------------------------------------------


def rank(model: Model, tasks: Sequence[Task], by: str, *, seed: int = 0, progress=None) -> np.ndarray:
    """Scores of all nodes, mean over tasks: what each adds to the metric of the clean run. See `n_nodes` for the order.

    by: "attribution patching" (gradient at the clean run towards the corrupt one), "activation patching" (each node
    truly set to its corrupt output), "direct attribution" (its share of the logit difference), or "random".
    """
    if by not in RANKINGS:
        raise InputError(f"the ranking {by!r}", f"one of {', '.join(RANKINGS)}", "Choose one of these")
    if by == "random":
        return np.random.default_rng(seed).normal(size=n_nodes(model))
    score = {"attribution patching": _attribution, "activation patching": _activation, "direct attribution": _direct}[
        by
    ]
    scores = []
    for index, task in enumerate(tasks):
        scores.append(score(model, task))
        if progress is not None:
            progress((index + 1) / len(tasks))
    return np.mean(scores, axis=0)


def _attribution(model: Model, task: Task) -> np.ndarray:
    heads, mlps = node_estimates(model, task.source, task.pair.clean, task.metric)
    return -np.concatenate([heads.ravel(), mlps])


def _activation(model: Model, task: Task) -> np.ndarray:
    cells = [_patches(model, task.source, [node]) for node in range(n_nodes(model))]
    return task.clean.value(model, task.metric) - values_of(model, task.clean, cells, task.metric).double().numpy()


def _direct(model: Model, task: Task) -> np.ndarray:
    if task.metric.kind != "logit difference":
        raise InputError(f"direct attribution of a {task.metric.kind}", "a logit difference", "Choose that metric")
    names = [model.vocabulary.string(t) for t in (task.metric.target, task.metric.against) if t is not None]
    found = direct_logit_attribution.run(
        model, task.pair.clean, **dict(zip(("target", "against"), names, strict=False))
    )
    mlps = found["attribution"].values[found["kind"].values == "mlp"]
    return np.concatenate([found["head_attribution"].values.ravel(), mlps])


# --- evaluation ----------------------------------------------------------------------------------------------------


def _patches(model: Model, source: Recording, nodes: Sequence[int]) -> list[Any]:
    """Nodes set to their output in another run, one patch per layer and kind."""
    sizes = model.sizes
    heads: dict[int, list[int]] = {}
    for node in nodes:
        if node < sizes.n_layers * sizes.n_heads:
            heads.setdefault(node // sizes.n_heads, []).append(node % sizes.n_heads)
    mlps = [node - sizes.n_layers * sizes.n_heads for node in nodes if node >= sizes.n_layers * sizes.n_heads]
    return [Patch(Z, layer, source, None, tuple(chosen)) for layer, chosen in heads.items()] + [
        Patch(MLP_OUT, layer, source) for layer in mlps
    ]


def _ablations(model: Model, task: Task, nodes: Sequence[int], ablation: str, means: Means | None) -> list[Any]:
    if ablation == "counterfactual":
        return _patches(model, task.source, nodes)
    sizes, how = model.sizes, ("zero",) if means is None else ("mean", means)
    split = sizes.n_layers * sizes.n_heads
    units = [Head(n // sizes.n_heads, n % sizes.n_heads) if n < split else MLP(n - split) for n in nodes]
    return [Ablate(unit, *how) for unit in units]


def circuits(scores: np.ndarray, share: float) -> tuple[frozenset[int], frozenset[int]]:
    """The top share of nodes by signed and by absolute score; round(share * nodes) of them."""
    keep = round(share * len(scores))
    signed, absolute = np.argsort(-scores, kind="stable"), np.argsort(-np.abs(scores), kind="stable")
    return frozenset(signed[:keep].tolist()), frozenset(absolute[:keep].tolist())


def evaluate(model: Model, tasks: Sequence[Task], rankings: Mapping[str, np.ndarray], **options: Any) -> xr.Dataset:
    """See `evaluating`. Returns the complete result."""
    *_, result = evaluating(model, tasks, rankings, **options)
    return result


def evaluating(
    model: Model,
    tasks: Sequence[Task],
    rankings: Mapping[str, np.ndarray],
    *,
    ablation: str = "counterfactual",
    shares: Sequence[float] = SHARES,
    means: Means | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Faithfulness of the top share of each ranking, yielding after every task; the last result is complete.

    rankings: scores `[node]` by name; rank on other prompts than `tasks` where there are several. Returns
    `faithfulness` (group, threshold) by signed score and `faithfulness_absolute`, each with its interval, `cpr` and
    `cmd` (group) with theirs, and the metric of model and empty circuit by prompt.
    """
    _check(model, tasks, rankings, ablation, shares)
    if ablation == "mean" and means is None:
        means = measure_means(model, hooks=_sites(model))
    kept = {(name, share): circuits(scores, share) for name, scores in rankings.items() for share in shares}
    every = frozenset(range(n_nodes(model)))
    distinct = sorted(
        {nodes for pair in kept.values() for nodes in pair} | {frozenset()}, key=lambda s: (len(s), sorted(s))
    )
    distinct = [nodes for nodes in distinct if nodes != every]
    rows: list[dict[frozenset[int], float]] = []
    for index, task in enumerate(tasks):
        cells = [_ablations(model, task, sorted(every - nodes), ablation, means) for nodes in distinct]
        share = (lambda done, i=index: progress((i + done) / len(tasks))) if progress is not None else None
        values = values_of(model, task.clean, cells, task.metric, progress=share).double().tolist()
        rows.append({**dict(zip(distinct, values, strict=True)), every: task.clean.value(model, task.metric)})
        yield _result(model, tasks, rankings, kept, rows, every, ablation, means, shares)


def _check(model: Model, tasks, rankings, ablation: str, shares: Sequence[float]) -> None:
    if ablation not in ABLATIONS:
        raise InputError(f"ablation={ablation!r}", f"one of {', '.join(ABLATIONS)}", "Choose one of these")
    if not tasks or not rankings:
        raise InputError(f"{len(tasks)} tasks and {len(rankings)} rankings", "at least one of each", "Give them")
    for name, scores in rankings.items():
        if np.shape(scores) != (n_nodes(model),) or not np.isfinite(scores).all():
            raise InputError(
                f"ranking {name!r} of shape {np.shape(scores)}", f"{n_nodes(model)} numbers", "Score every node"
            )
    if list(shares) != sorted(set(shares)) or not all(0 < share <= 1 for share in shares):
        raise InputError(f"shares {shares}", "rising shares above 0 and up to 1", "Correct them")


def _result(model: Model, tasks, rankings, kept, rows, every, ablation, means, shares) -> xr.Dataset:
    names, x = list(rankings), np.array(shares)
    empty = np.array([row[frozenset()] for row in rows])
    whole = np.array([row[every] for row in rows])
    n, units = len(rows), tasks[0].metric.units
    # by (mode, group, prompt, threshold): what the circuit keeps above the empty one
    gained = np.array(
        [
            [[[row[kept[name, share][mode]] for share in shares] for row in rows] - empty[:, None] for name in names]
            for mode in (0, 1)
        ]
    )
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_DRAWS) / n  # draw prompt
    variables: dict[str, tuple] = {}
    for mode, name in enumerate(("faithfulness", "faithfulness_absolute")):
        curve, drawn = _curves(gained[mode], whole - empty, weights)
        label = f"faithfulness, nodes ranked by {'absolute' if mode else 'signed'} score"
        variables |= _with_interval(name, "group threshold", curve, drawn, "share", None, label, n)
        area = (lambda f: np.trapezoid(np.abs(1 - f), x)) if mode else (lambda f: np.trapezoid(f, x))
        text = "area between curve and 1 (CMD)" if mode else "area under the curve (CPR)"
        variables |= _with_interval("cmd" if mode else "cpr", "group", area(curve), area(drawn), "area", None, text, n)
    result = dataset(
        tasks[0].clean.observation if n == 1 else None,
        coords={"group": names, "threshold": x},
        n_kept=("threshold", [round(s * len(every)) for s in shares], "nodes", (0, len(every)), "nodes kept"),
        model_metric=("prompt", whole, units, None, "metric of the model"),
        empty_metric=("prompt", empty, units, None, "metric with every node ablated"),
        **variables,
    )
    result.attrs.update(ablation=ablation if means is None else f"mean of {means}", n_prompts=n)
    result.attrs["metric"] = "logit difference" if n > 1 else tasks[0].metric.describe(model.vocabulary)
    return result


def _curves(gained: np.ndarray, gap: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of means, (group, threshold), and the same for every resample, (draw, group, threshold)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = gained.mean(1) / gap.mean()
        drawn = np.einsum("dp,gpt->dgt", weights, gained) / (weights @ gap)[:, None, None]
    return curve, drawn


def _with_interval(name: str, dims: str, value, drawn, units: str, bounds, label: str, n: int) -> dict[str, tuple]:
    enough = n >= _ENOUGH and np.isfinite(drawn).all()
    ends = np.quantile(drawn, [0.025, 0.975], axis=0) if enough else np.full((2, *np.shape(value)), np.nan)
    return {
        name: (dims, value, units, bounds, label),
        f"{name}_low": (dims, ends[0], units, bounds, f"{label}, 95 % interval over prompts, low"),
        f"{name}_high": (dims, ends[1], units, bounds, f"{label}, 95 % interval over prompts, high"),
    }


# --- the entry -----------------------------------------------------------------------------------------------------


def study(
    model: Model,
    tokens: Any,
    *,
    corrupt: str = "",
    metric: str = "logit difference",
    target: str = "",
    against: str = "",
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """All rankings on the current pair: ranked and evaluated on the same prompts, since there are no others."""
    if tokens is None:
        raise InputError("circuit-evaluation without a prompt", "a clean prompt", "Give one")
    pair = prompt_pair(model, tokens, corrupt)
    clean, other = base_run(model, pair.clean), base_run(model, pair.corrupt)
    chosen = pair_metric(model, clean, other, metric, target, against)
    tasks = [Task(pair, chosen, clean, other, record(model, pair.corrupt, _sites(model)))]
    names = [name for name in RANKINGS if name != "direct attribution" or metric == "logit difference"]
    rankings: dict[str, np.ndarray] = {}
    for index, name in enumerate(names):
        share = (lambda done, i=index: progress((i + done) / len(names))) if progress is not None else None
        rankings[name] = rank(model, tasks, name, seed=seed)
        yield from evaluating(model, tasks, rankings, ablation=ablation, progress=share)


def curve_figure(result: xr.Dataset):
    """Faithfulness by share of nodes kept, one line per ranking."""
    from workbench.figures import series

    return series(
        result, "faithfulness", "threshold", by="group", log_x=True, title="Faithfulness of the top share of nodes"
    )


def table_figure(result: xr.Dataset):
    """CPR of every ranking."""
    from workbench.figures import bars

    return bars(result, "cpr", "group", title="CPR: area under the faithfulness curve")


ENTRY = Entry(
    name="circuit-evaluation",
    title="Circuit evaluation",
    source="arXiv 2504.13151 (MIB)",
    limits="On one pair of prompts a ranking is judged on what it was made from; use several pairs for a claim.",
    definition="faithfulness(k) = (m(top share k of nodes, rest ablated) - m(all ablated)) / (m(model) - m(all "
    "ablated)); CPR its area, ranked by signed score; CMD the area between it and 1, ranked by absolute score.",
    scope="study",
    study=study,
    figures=(curve_figure, table_figure),
    params=(
        *(param for param in PAIR_PARAMS if param.name != "metric"),
        Param("metric", str, "logit difference", "what is measured", choices=("logit difference", "log-probability")),
        Param("ablation", str, "counterfactual", "how the rest is ablated", choices=ABLATIONS),
        Param("seed", int, 0, "seed of the random ranking", low=0),
    ),
    requires=(READOUT, PADDING),
    cost=lambda sizes, n_tokens, **_: 0.5 * sizes.n_layers * sizes.n_heads + 60,
)

run = ENTRY.run
