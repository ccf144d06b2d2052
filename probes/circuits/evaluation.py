"""Circuit evaluation: how much of a task the top share of a ranking of nodes carries."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import xarray as xr

from probes.circuits.curves import (
    SHARES,
    check_shares,
    cmd_figure,
    cpr_figure,
    curve_figure,
    faithfulness_curves,
    n_kept,
    orders,
    summary,
    table,
)
from probes.circuits.prompt_pairs import Against, Corrupt, TargetText, need_pair, pair_runs, unused
from probes.circuits.rankings import (
    RANKINGS,
    Task,
    ioi_tasks,
    n_nodes,
    node_patches,
    node_sites,
    rank,
    task_of,
)
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.progress import part
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.arguments import fitted
from workbench.errors import InputError
from workbench.intervene import MLP, Ablate, Head
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, READOUT
from workbench.observation.recording import Means, measure_means
from workbench.observation.sweeps import values_of

__all__ = ["VIEW", "CircuitEvaluation", "circuits", "evaluate", "evaluating"]

ABLATIONS = ("counterfactual", "mean", "zero")
TASKS = ("prompt", "indirect object")


class CircuitEvaluation(Study, name="circuit-evaluation", title="Circuit evaluation", requires=(READOUT, PADDING)):
    """How much of a task the top share of a ranking of nodes carries.

    Definition: faithfulness(k) = (m(top share k of nodes, rest ablated) - m(all ablated)) / (m(model) - m(all
    ablated)); CPR its area, ranked by signed score; CMD the area between it and 1, ranked by absolute score (see
    `probes.circuits.curves`). Nodes are heads and MLPs, each at all positions (see `probes.circuits.rankings`). For a
    share k, the nodes ranked highest stay as they are and the rest are ablated: by their output on the corrupt prompt
    ("counterfactual"), by their mean over a reference text, or by zero.

    Limits: On one pair of prompts a ranking is judged on what it was made from; use a task with pairs for a claim. A
    faithful circuit need not be the one the model uses; a low curve at small k may mean many nodes that each do little.

    Source: Mueller et al. 2025, arXiv 2504.13151 (MIB; its table ranks edges, ours nodes: not comparable number by
    number).

    Returns: what `probes.circuits.curves.faithfulness_curves` does, one group for each ranking.
    """

    task: Annotated[str, Choice(TASKS), "the prompt with its corrupt one, or prompts of indirect objects"] = "prompt"
    pairs: Annotated[int, Range(1, 200), "pairs to rank on, and as many to evaluate on, of a task with its own"] = 8
    corrupt: Corrupt = ""
    target: TargetText = ""
    against: Against = ""
    metric: Annotated[str, Choice(("logit difference", "log-probability")), "what is measured"] = "logit difference"
    ablation: Annotated[str, Choice(ABLATIONS), "how the rest is ablated"] = ABLATIONS[0]
    seed: Annotated[int, Range(0, 2**31 - 1), "seed of the pairs and of the random ranking"] = 0

    def reads_prompt(self) -> bool:
        """A task brings prompts of its own."""
        return self.task == "prompt"

    def idle(self) -> dict[str, str]:
        """The prompt and its corrupt one are one pair."""
        return {"pairs": "a task with pairs of its own"} if self.task == "prompt" else {}

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """All rankings, one after the other.

        On the current pair they are made and evaluated on the same prompts, since there are no others; on a task with
        prompts of its own, made on `pairs` pairs and evaluated on as many others.
        """
        noted: Callable[[str], str] = str
        about: dict[str, str] = {}
        if self.task == "prompt":
            runs = pair_runs(model, tokens, self.corrupt, self.metric, self.target, self.against)
            ranked = held_out = [task_of(model, runs)]
            noted = lambda said: runs.pair.noted(runs.metric.noted(said))
            about = {"metric": runs.metric.describe(model.vocabulary), **runs.metric.tokens(model.vocabulary)}
        else:
            tasks = ioi_tasks(model, 2 * self.pairs, self.seed)
            ranked, held_out = tasks[: self.pairs], tasks[self.pairs :]
            metric = self.metric if self.metric != held_out[0].metric.kind else ""
            aside = unused(self.task, self.corrupt, self.target, self.against, metric)
            noted = lambda said: f"{said} {aside}".rstrip()
        one = held_out[0].metric
        if any(task.metric.length > 1 for task in held_out):
            raise InputError("a target of several tokens", "one token, or a set of single ones", "Mind the space")
        linear = one.kind == "logit difference" and one.target.token is not None
        linear = linear and (one.against is None or one.against.token is not None)
        names = [name for name in RANKINGS if linear or name != "direct attribution"]
        rankings: dict[str, np.ndarray] = {}
        measured: list[dict[frozenset[int], float]] = [{} for _ in held_out]
        for index, name in enumerate(names):
            first, half, last = ((index + share) / len(names) for share in (0, 0.5, 1))
            rankings[name] = rank(model, ranked, name, seed=self.seed, progress=part(progress, first, half))
            evaluated = evaluating(
                model,
                held_out,
                rankings,
                ablation=self.ablation,
                measured=measured,
                progress=part(progress, half, last),
            )
            *_, result = evaluated
            said = noted(summary(result, about.get("metric", "")))
            yield result.assign_attrs(task=self.task, ranked_on=len(ranked), summary=said, **about)

    def fits(self, model: Model, tokens: Tokens) -> None:
        """A corrupt prompt as long as the shown one, and targets that the model can say."""
        if self.task == "prompt":
            need_pair(model, tokens, self.corrupt, self.metric, self.target, self.against)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Half a pass for every node that is patched, and a pass for every circuit."""
        each = 0.5 * sizes.n_layers * (sizes.n_heads + 1) + 80
        return each * (1 if self.task == "prompt" else self.pairs)


def _ablations(model: Model, task: Task, nodes: Sequence[int], ablation: str, means: Means | None) -> list[Any]:
    if ablation == "counterfactual":
        return node_patches(model, task.source, nodes)
    sizes, how = model.sizes, ("zero",) if means is None else ("mean", means)
    split = sizes.n_layers * sizes.n_heads
    units = [Head(n // sizes.n_heads, n % sizes.n_heads) if n < split else MLP(n - split) for n in nodes]
    return [Ablate(unit, *how) for unit in units]


def circuits(scores: np.ndarray, share: float) -> tuple[frozenset[int], frozenset[int]]:
    """The top share of nodes by signed and by absolute score; round(share * nodes) of them."""
    signed, absolute = (order[: n_kept(share, len(scores))] for order in orders(scores))
    return frozenset(signed.tolist()), frozenset(absolute.tolist())


@fitted()
def evaluate(model: Model, tasks: Sequence[Task], rankings: Mapping[str, np.ndarray], **options: Any) -> xr.Dataset:
    """See `evaluating`. Returns the complete result."""
    *_, result = evaluating(model, tasks, rankings, **options)
    return result


@fitted("measured")
def evaluating(
    model: Model,
    tasks: Sequence[Task],
    rankings: Mapping[str, np.ndarray],
    *,
    ablation: str = ABLATIONS[0],
    shares: Sequence[float] = SHARES,
    means: Means | None = None,
    measured: list[dict[frozenset[int], float]] | None = None,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """Faithfulness of the top share of each ranking, yielding after every task; the last result is complete.

    rankings: scores `[node]` by name; rank on other prompts than `tasks` where there are several. measured: metrics of
    circuits by task, of an earlier call with the same tasks and ablation; they are not measured again, and new ones are
    added. Returns what `faithfulness_curves` does.
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
        share = part(progress, index / len(tasks), (index + 1) / len(tasks))
        values = values_of(model, task.clean, cells, task.metric, progress=share).double().tolist()
        row |= {**dict(zip(fresh, values, strict=True)), every: task.clean.value(model, task.metric)}
        yield _result(model, tasks, rankings, kept, rows[: index + 1], every, ablation, means, shares)


def _check(
    model: Model, tasks: Sequence[Task], rankings: Mapping[str, np.ndarray], ablation: str, shares: Sequence[float]
) -> None:
    if ablation not in ABLATIONS:
        raise InputError(f"ablation={ablation!r}", f"one of {', '.join(ABLATIONS)}", "Choose one of these")
    if not tasks or not rankings:
        raise InputError(f"{len(tasks)} tasks and {len(rankings)} rankings", "at least one of each", "Give them")
    for name, scores in rankings.items():
        if np.shape(scores) != (n_nodes(model),) or not np.isfinite(scores).all():
            raise InputError(
                f"ranking {name!r} of shape {np.shape(scores)}", f"{n_nodes(model)} numbers", "Score every node"
            )
    check_shares(shares)


def _result(
    model: Model,
    tasks: Sequence[Task],
    rankings: Mapping[str, np.ndarray],
    kept: Mapping[tuple[str, float], tuple[frozenset[int], frozenset[int]]],
    rows: Sequence[Mapping[frozenset[int], float]],
    every: frozenset[int],
    ablation: str,
    means: Means | None,
    shares: Sequence[float],
) -> xr.Dataset:
    metrics = [
        [[[row[kept[name, share][mode]] for share in shares] for row in rows] for name in rankings] for mode in (0, 1)
    ]
    none: frozenset[int] = frozenset()
    whole, empty = (np.array([row[nodes] for row in rows]) for nodes in (every, none))
    n, metric = len(rows), tasks[0].metric
    seen = replace(tasks[0].clean.observation, tokens=tuple(task.pair.clean for task in tasks[:n]))
    result = faithfulness_curves(
        seen,
        list(rankings),
        shares,
        np.array(metrics),
        whole,
        empty,
        parts="nodes",
        n_parts=len(every),
        units=metric.units,
    )
    result.attrs.update(ablation=ablation if means is None else f"mean of {means}")
    result.attrs["metric"] = "logit difference" if n > 1 else metric.describe(model.vocabulary)
    return result


VIEW = View(
    CircuitEvaluation,
    question="How few heads and MLPs carry the task, and which ranking finds them?",
    asks=(
        Ask("task", "Rank heads and MLPs on"),
        Ask("ablation", "and take out the rest by"),
        Ask("metric", "measuring"),
    ),
    figures=(curve_figure, cpr_figure, cmd_figure),
    tables=(table,),
)
