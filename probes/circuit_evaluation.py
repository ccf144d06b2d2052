"""Circuit evaluation: how much of a task the top share of a ranking of nodes carries.

Nodes are heads and MLPs, each at all positions (see `circuit_rankings`). For a share k, the nodes ranked highest stay
as they are and the rest are ablated: by their output on the corrupt prompt ("counterfactual"), by their mean over a
reference text, or by zero. `faithfulness(k) = (m(circuit) - m(empty)) / (m(model) - m(empty))`, a ratio of means over
prompts, m(empty) with every node ablated. As in the MIB benchmark: CPR is the area under the curve with nodes ranked
by signed score (1 where few nodes do everything, more where some hurt), CMD the area between the curve and 1 with
nodes ranked by absolute score (0 is best); trapezoid over linear k from 0.1 % to 100 %. Intervals resample prompts,
from 8 prompts on.

A faithful circuit need not be the one the model uses; a low curve at small k may mean many nodes that each do little.

Source: Mueller et al. 2025, arXiv 2504.13151 (MIB; its table ranks edges, ours nodes: not comparable number by number).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.circuit_rankings import (
    RANKINGS,
    Task,
    ioi_tasks,
    n_nodes,
    node_patches,
    node_sites,
    rank,
    task_of,
    tasks_of,
)
from probes.prompt_pairs import PAIR_PARAMS, pair_runs
from workbench.catalog import Entry, Param
from workbench.errors import InputError
from workbench.intervene import MLP, Ablate, Head
from workbench.models.model import Model
from workbench.models.selfcheck import PADDING, READOUT
from workbench.recording import Means, measure_means
from workbench.results import dataset
from workbench.sweeps import values_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ENTRY",
    "RANKINGS",
    "SHARES",
    "curve_figure",
    "evaluate",
    "evaluating",
    "n_nodes",
    "rank",
    "run",
    "table",
    "table_figure",
    "tasks_of",
]

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
ABLATIONS = ("counterfactual", "mean", "zero")
TASKS = ("prompt", "indirect object")
_ENOUGH = 8
_DRAWS = 2000


def _ablations(model: Model, task: Task, nodes: Sequence[int], ablation: str, means: Means | None) -> list[Any]:
    if ablation == "counterfactual":
        return node_patches(model, task.source, nodes)
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
    measured: list[dict[frozenset[int], float]] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Faithfulness of the top share of each ranking, yielding after every task; the last result is complete.

    rankings: scores `[node]` by name; rank on other prompts than `tasks` where there are several. measured: metrics of
    circuits by task, of an earlier call with the same tasks and ablation; they are not measured again, and new ones are
    added. Returns
    `faithfulness` (group, threshold) by signed score and `faithfulness_absolute`, each with its interval, `cpr` and
    `cmd` (group) with theirs, and the metric of model and empty circuit by prompt.
    """
    _check(model, tasks, rankings, ablation, shares)
    if ablation == "mean" and means is None:
        means = measure_means(model, hooks=node_sites(model))
    kept = {(name, share): circuits(scores, share) for name, scores in rankings.items() for share in shares}
    every = frozenset(range(n_nodes(model)))
    distinct = sorted(
        {nodes for pair in kept.values() for nodes in pair} | {frozenset()}, key=lambda s: (len(s), sorted(s))
    )
    distinct = [nodes for nodes in distinct if nodes != every]
    rows = [{} for _ in tasks] if measured is None else measured
    for index, (task, row) in enumerate(zip(tasks, rows, strict=True)):
        fresh = [nodes for nodes in distinct if nodes not in row]
        cells = [_ablations(model, task, sorted(every - nodes), ablation, means) for nodes in fresh]
        share = (lambda done, i=index: progress((i + done) / len(tasks))) if progress is not None else None
        values = values_of(model, task.clean, cells, task.metric, progress=share).double().tolist()
        row |= {**dict(zip(fresh, values, strict=True)), every: task.clean.value(model, task.metric)}
        yield _result(model, tasks, rankings, kept, rows[: index + 1], every, ablation, means, shares)


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
    seen = replace(tasks[0].clean.observation, tokens=tuple(task.pair.clean for task in tasks[:n]))
    result = dataset(
        seen,
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
    task: str = "prompt",
    pairs: int = 8,
    corrupt: str = "",
    metric: str = "logit difference",
    target: str = "",
    against: str = "",
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Iterator[xr.Dataset]:
    """All rankings, one after the other.

    On the current pair they are made and evaluated on the same prompts, since there are no others; on a task with
    prompts of its own, made on `pairs` pairs and evaluated on as many others.
    """
    if task == "prompt":
        ranked = held_out = [task_of(model, pair_runs(model, tokens, corrupt, metric, target, against))]
    else:
        tasks = ioi_tasks(model, 2 * pairs, seed)
        ranked, held_out = tasks[:pairs], tasks[pairs:]
    linear = held_out[0].metric.kind == "logit difference"
    names = [name for name in RANKINGS if linear or name != "direct attribution"]
    rankings: dict[str, np.ndarray] = {}
    measured: list[dict[frozenset[int], float]] = [{} for _ in held_out]
    for index, name in enumerate(names):
        part = lambda low, i=index: progress and (lambda done: progress((i + low + 0.5 * done) / len(names)))
        rankings[name] = rank(model, ranked, name, seed=seed, progress=part(0.0))
        *_, result = evaluating(model, held_out, rankings, ablation=ablation, measured=measured, progress=part(0.5))
        yield result.assign_attrs(task=task, ranked_on=len(ranked), summary=_summary(result))


def _summary(result: xr.Dataset) -> str:
    """CPR in words, the best first."""
    if not np.isfinite(result["cpr"].values).all():
        return "The model does no better than with every node ablated: there is nothing to be faithful to."
    order = np.argsort(-result["cpr"].values)
    said = [f"{result['group'].values[i]} {_with_ends(result, 'cpr', i)}" for i in order]
    return f"CPR of {int(result['n_kept'].max())} nodes on {result.attrs['n_prompts']} pairs: {', '.join(said)}."


def _with_ends(result: xr.Dataset, name: str, index: int) -> str:
    """`0.81 [0.70, 0.93]`."""
    value, low, high = (float(result[n].values[index]) for n in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else "")


def table(result: xr.Dataset) -> "pd.DataFrame":
    """One row per ranking: CPR and CMD with their intervals over prompts, and faithfulness at 1, 5 and 10 %."""
    names = [f"{name}{end}" for name in ("cpr", "cmd") for end in ("", "_low", "_high")]
    frame = result[names].reset_coords(drop=True).to_pandas().rename_axis("ranking")
    for share in (0.01, 0.05, 0.1):
        if share in result["threshold"].values:
            frame[f"faithfulness at {share:.0%}"] = result["faithfulness"].sel(threshold=share).values
    return frame


def curve_figure(result: xr.Dataset):
    """Faithfulness by share of nodes kept, one line per ranking."""
    from workbench.figures import series

    return series(
        result, "faithfulness", "threshold", by="group", log_x=True, title="Faithfulness of the top share of nodes"
    )


def table_figure(result: xr.Dataset):
    """CPR of every ranking, with intervals."""
    from workbench.figures import bars

    return bars(result, "cpr", "group", title="CPR: area under the faithfulness curve")


def distance_figure(result: xr.Dataset):
    """CMD of every ranking, with intervals."""
    from workbench.figures import bars

    return bars(result, "cmd", "group", title="CMD: area between the faithfulness curve and 1")


def _cost(sizes: Any, n_tokens: int, task: str = "prompt", pairs: int = 8, **_: Any) -> float:
    """Half a pass for every node that is patched, and a pass for every circuit."""
    each = 0.5 * sizes.n_layers * (sizes.n_heads + 1) + 80
    return each if task == "prompt" else each * pairs


ENTRY = Entry(
    name="circuit-evaluation",
    title="Circuit evaluation",
    source="arXiv 2504.13151 (MIB)",
    limits="On one pair of prompts a ranking is judged on what it was made from; use a task with pairs for a claim.",
    definition="faithfulness(k) = (m(top share k of nodes, rest ablated) - m(all ablated)) / (m(model) - m(all "
    "ablated)); CPR its area, ranked by signed score; CMD the area between it and 1, ranked by absolute score.",
    scope="study",
    study=study,
    figures=(curve_figure, table_figure, distance_figure),
    tables=(table,),
    params=(
        Param("task", str, "prompt", "the prompt with its corrupt one, or prompts of indirect objects", choices=TASKS),
        Param("pairs", int, 8, "pairs to rank on, and as many to evaluate on, of a task with its own", low=1, high=200),
        *(param for param in PAIR_PARAMS if param.name != "metric"),
        Param("metric", str, "logit difference", "what is measured", choices=("logit difference", "log-probability")),
        Param("ablation", str, "counterfactual", "how the rest is ablated", choices=ABLATIONS),
        Param("seed", int, 0, "seed of the pairs and of the random ranking", low=0),
    ),
    requires=(READOUT, PADDING),
    cost=_cost,
)

run = ENTRY.run
