"""Circuit evaluation of edges: how much of a prediction the top share of a ranking of attention edges carries.

Every prompt has its own edges and its own ranking:

    routes                  the edge's share of what it leads into, on the routes into the prediction; 0 or more
    attention               its weight in the pattern; 0 or more
    attribution patching    pattern (value - mean value) * gradient of the metric by z, at the clean run
    random                  standard normal
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr
from einops import einsum

from probes.circuits.attribution_patching import gradients
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
from probes.circuits.prompt_pairs import unused
from probes.routes.extraction import extract
from probes.routes.flow_routes import FlowRoutes
from probes.routes.only_edges import CleanPass
from probes.stimuli import ioi_prompts, names_of
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.arguments import fitted
from workbench.errors import InputError, RefusedError
from workbench.models.hooks import V, Z
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens, tokenise
from workbench.models.selfcheck import PADDING, PARTS, READOUT, RESIDUAL
from workbench.observation.metrics import TARGET, Metric, going_on, make_metric
from workbench.observation.recording import Means, measure_means
from workbench.words import counted

__all__ = ["RANKINGS", "VIEW", "CircuitEdges", "EdgeTask", "candidates", "edge_task", "evaluate", "evaluating", "rank"]

RANKINGS = ("attribution patching", "routes", "attention", "random")
METRICS = ("log-probability", "logit difference")
TASKS = ("prompt", "indirect object")
_BYTES = 1_000_000_000
_EACH = 40  # bytes for an edge: pattern, scores, two orders, and the masks of a batch

Ranking = Callable[["EdgeTask"], np.ndarray]


class CircuitEdges(
    Study, name="circuit-edges", title="Circuit evaluation of edges", requires=(READOUT, PADDING, RESIDUAL, PARTS)
):
    """How much of a prediction the top share of a ranking of attention edges carries.

    Definition: faithfulness(k) = (m(top share k of edges, the rest bring mean values) - m(all do)) / (m(model) - m(all
    do)); CPR its area, ranked by signed score; CMD the area between it and 1, ranked by absolute score (see
    `probes.circuits.curves`). An edge (layer, head, query, key) is value flow, as in the faithfulness of routes:
    patterns stay those of the prompt, a removed edge brings its head's mean value over a reference text instead of its
    own, and everything else is computed anew (see `probes.routes.only_edges`). Position 0 brings its own value in any
    case, so edges from it are no candidates; neither are those of the last layer into other positions than the one that
    predicts, which nothing reads, and those that bring nothing because no attention is on them, such as from beyond a
    window. m(all do) is with every candidate removed. Every prompt has its own edges and its own ranking, by routes,
    attention, attribution patching or at random.

    Limits: Value flow only: which edges made the attention patterns is not asked. Mean values are unlike anything the
    model has seen. Attribution alone has seen the metric, and is judged on the prompts that it was made from. Other
    edges than MIB's: its numbers are not comparable.

    Source: curves of arXiv 2504.13151 (MIB); routes of arXiv 2403.00824; edges and their removal are ours, and not
    those of MIB, whose edges lead from node to node at all positions.

    Returns: what `probes.circuits.curves.faithfulness_curves` does, one group for each ranking.
    """

    task: Annotated[str, Choice(TASKS), "the prompt, or prompts of indirect objects"] = "prompt"
    prompts: Annotated[int, Range(1, 200), "prompts of a task with its own"] = 16
    metric: Annotated[str, Choice(METRICS), "what is measured at the last position"] = METRICS[0]
    target: Annotated[str, f"{TARGET}; empty: the model's top token"] = ""
    against: Annotated[str, "token it is compared with"] = ""
    first_layer: Annotated[
        int, Range(0), "layers below it keep every edge: mean values there may make attention sinks"
    ] = 0
    seed: Annotated[int, Range(0, 2**31 - 1), "seed of the prompts and of the random ranking"] = 0

    def reads_prompt(self) -> bool:
        """A task brings prompts of its own."""
        return self.task == "prompt"

    def idle(self) -> dict[str, str]:
        """The prompt is one."""
        return {"prompts": "a task with prompts of its own"} if self.task == "prompt" else {}

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """All rankings on the current prompt, or on prompts of a task with its own, where the metric is fixed."""
        asked: list[tuple[Any, str, str, str]] = [(tokens, self.metric, self.target, self.against)]
        if self.task != "prompt":
            found = ioi_prompts(self.prompts, self.seed, names=names_of(model))
            asked = [(one["task"], "logit difference", one["answer"], one["wrong"]) for one in found]
        means = measure_means(model, hooks=(V,))
        tasks = [
            edge_task(
                model, prompt, kind=kind, target=target, against=against, means=means, first_layer=self.first_layer
            )
            for prompt, kind, target, against in asked
        ]
        rankings = {name: (lambda one, by=name: rank(one, by, seed=self.seed)) for name in RANKINGS}
        metric = tasks[0].metric
        about = {"metric": metric.describe(model.vocabulary), **metric.tokens(model.vocabulary)}
        for result in evaluating(tasks, rankings, progress=progress):
            if self.task == "prompt":
                result = result.assign_attrs(about, summary=metric.noted(summary(result, about["metric"])))
            else:
                said = f"{summary(result)} {unused(self.task, self.target, self.against)}".rstrip()
                result = result.assign_attrs(summary=said)
            yield result.assign_attrs(task=self.task)

    def fits(self, model: Model, tokens: Tokens) -> None:
        """Targets that the model can say."""
        if self.task == "prompt":
            going_on(model, self.metric, self.target, self.against)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A pass and a half for every circuit."""
        return 100.0 * (1 if self.task == "prompt" else self.prompts)


@dataclass(frozen=True, eq=False)
class EdgeTask:
    """One prompt, what is measured of its prediction, and its clean pass; layers below first_layer keep every edge."""

    metric: Metric
    clean: CleanPass = field(repr=False)
    first_layer: int = 0

    @property
    def at(self) -> int:
        """The position that predicts."""
        return self.metric.position % len(self.clean.tokens)

    @property
    def value(self) -> float:
        """The metric of the model."""
        return float(self.metric.of_logits(self.clean.seen.logits[0][None])[0])


def edge_task(
    model: Model,
    prompt: Any,
    *,
    kind: str = METRICS[0],
    target: str = "",
    against: str = "",
    means: Means | None = None,
    first_layer: int = 0,
) -> EdgeTask:
    """Run a prompt and fix its metric at the last position; see `make_metric`.

    means: of `measure_means(model, hooks=(V,))`, measured here if they are not given.

    RefusedError where the edges of the prompt would not fit.
    """
    tokens, sizes = tokenise(model, prompt), model.sizes
    if kind not in METRICS:
        raise InputError(f"the metric {kind!r}", f"one of {', '.join(METRICS)}", "Choose one of these")
    if not 0 <= first_layer < sizes.n_layers:
        raise InputError(f"first_layer={first_layer}", f"a layer from 0 to {sizes.n_layers - 1}", "Choose one it has")
    if len(tokens) < 3:
        raise InputError(
            f"a prompt of {counted(len(tokens), 'token')}", "three or more: position 0 is no candidate", "Add some"
        )
    size = _EACH * sizes.n_layers * sizes.n_heads * len(tokens) ** 2
    if size > _BYTES:
        longest = int((_BYTES / (_EACH * sizes.n_layers * sizes.n_heads)) ** 0.5)
        raise RefusedError(
            f"all edges of {len(tokens)} tokens, about {size / 1e9:.1f} GB",
            f"at most {_BYTES / 1e9:.0f} GB, which is {longest} tokens of {model.name}",
            "Shorten the prompt",
        )
    if going_on(model, kind, target, against):
        raise InputError("a target of several tokens", "one token, or a set of single ones", "Mind the space")
    means = means or measure_means(model, hooks=(V,))
    clean = CleanPass.of(model, tokens, means, positions=[len(tokens) - 1])
    metric = make_metric(model, tokens, clean.seen.logits[0][0], kind=kind, target=target, against=against)
    return EdgeTask(metric, clean, first_layer)


def candidates(task: EdgeTask) -> np.ndarray:
    """Indices into `[layer, head, query, key]`, flattened, of the edges whose removal can change the prediction."""
    shape = task.clean.patterns.shape
    query, key = np.indices(shape[2:])
    found = (key >= 1) & (key <= query) & (query <= task.at) & (task.clean.patterns > 0).cpu().numpy()
    found[-1] &= query == task.at
    found[: task.first_layer] = False
    return np.flatnonzero(found)


# --- rankings --------------------------------------------------------------------------------------------------------


def rank(task: EdgeTask, by: str, *, seed: int = 0) -> np.ndarray:
    """Scores of all edges of a prompt, `[layer, head, query, key]`. by: one of `RANKINGS`."""
    if by not in RANKINGS:
        raise InputError(f"the ranking {by!r}", f"one of {', '.join(RANKINGS)}", "Choose one of these")
    if by == "random":
        return np.random.default_rng([seed, *task.clean.tokens.ids]).standard_normal(task.clean.patterns.shape)
    if by == "attention":
        return task.clean.patterns.float().cpu().numpy()
    return _routes(task) if by == "routes" else _attribution(task)


def _routes(task: EdgeTask) -> np.ndarray:
    """Shares of the edges that lead, through any others, into the prediction."""
    kept = FlowRoutes(min_share=0.0, min_coverage=1.0).run(task.clean.model, task.clean.tokens)
    graph = extract(kept, start=task.at, coverage=1.0)
    graph = graph.isel(edge=graph["kind"].values == "attention")
    scores = np.zeros(task.clean.patterns.shape, np.float32)
    names = ("edge_layer", "edge_head", "edge_query", "edge_key")
    scores[tuple(graph[name].values.astype(np.int64) for name in names)] = graph["weight"]
    return scores


def _attribution(task: EdgeTask) -> np.ndarray:
    """What removing each edge takes from the metric, to first order."""
    clean, rows = task.clean, []
    _, grads = gradients(clean.model, clean.tokens, task.metric, [Z], unedited=True)
    for layer, (pattern, values) in enumerate(zip(clean.patterns, clean.values, strict=True)):
        mean = clean.means.mean(V, layer, clean.model).to(values)
        lost = clean.model.weights(layer).repeated((values - mean).float(), dim=-2)  # key head d_head
        weight = einsum(lost, grads[Z, layer].to(lost), "k h e, q h e -> h q k")
        rows.append(weight * pattern.to(weight))
    return torch.stack(rows).cpu().numpy()


# --- evaluation ------------------------------------------------------------------------------------------------------


@fitted()
def evaluate(tasks: Sequence[EdgeTask], rankings: Mapping[str, Ranking], **options: Any) -> xr.Dataset:
    """See `evaluating`. Returns the complete result."""
    *_, result = evaluating(tasks, rankings, **options)
    return result


@fitted()
def evaluating(
    tasks: Sequence[EdgeTask],
    rankings: Mapping[str, Ranking],
    *,
    shares: Sequence[float] = SHARES,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """Faithfulness of the top share of each ranking, yielding after every prompt; the last result is complete.

    rankings: by name, what scores a prompt's edges, `task -> [layer, head, query, key]`; one at a time is held. Returns
    what `faithfulness_curves` does.
    """
    check_shares(shares)
    if not tasks or not rankings:
        raise InputError(f"{len(tasks)} prompts and {len(rankings)} rankings", "at least one of each", "Give them")
    found, whole, empty, counts = [], [], [], []
    for index, task in enumerate(tasks):
        edges = candidates(task)
        whole.append(task.value)
        empty.append(float(_metrics(task, edges, [edges[:0]])[0]))
        found.append([_of_ranking(task, edges, empty[-1], name, score, shares) for name, score in rankings.items()])
        counts.append(len(edges))
        if progress is not None:
            progress((index + 1) / len(tasks))
        yield _result(tasks[: index + 1], list(rankings), shares, found, whole, empty, counts)


def _of_ranking(
    task: EdgeTask, edges: np.ndarray, empty: float, name: str, score: Ranking, shares: Sequence[float]
) -> np.ndarray:
    """The metric of the top shares by signed and by absolute score, `[mode, share]`; empty: that of no edge."""
    scores = np.asarray(score(task))
    if scores.shape != task.clean.patterns.shape or not np.isfinite(scores.flat[edges]).all():
        raise InputError(
            f"ranking {name!r} of shape {scores.shape}",
            f"numbers of shape {tuple(task.clean.patterns.shape)}",
            "Score every edge",
        )
    ranked: Sequence[np.ndarray] = orders(scores.flat[edges])
    if (scores.flat[edges] >= 0).all():
        ranked = ranked[:1]  # both are the same
    kept = [edges[order[: n_kept(share, len(edges))]] for order in ranked for share in shares]
    metrics, some = np.full(len(kept), empty), [index for index, these in enumerate(kept) if len(these)]
    if some:
        metrics[some] = _metrics(task, edges, [kept[index] for index in some])
    return np.broadcast_to(metrics.reshape(len(ranked), len(shares)), (2, len(shares)))


def _metrics(task: EdgeTask, edges: np.ndarray, kept: Sequence[np.ndarray]) -> np.ndarray:
    """The metric with only some of the candidate edges, one number for each choice of them."""
    masks = torch.ones(len(kept), task.clean.patterns.numel(), dtype=torch.bool)
    masks[:, torch.from_numpy(edges)] = False
    for mask, some in zip(masks, kept, strict=True):
        mask[torch.from_numpy(some)] = True
    masks = masks.view(-1, *task.clean.patterns.shape)
    passes = task.clean.with_only(masks, positions=[task.at])
    values = [task.metric.of_logits(torch.stack(list(seen.logits)).float()) for seen in passes]
    return torch.cat(values).double().cpu().numpy()


def _result(
    tasks: Sequence[EdgeTask],
    names: Sequence[str],
    shares: Sequence[float],
    found: Sequence[Sequence[np.ndarray]],
    whole: Sequence[float],
    empty: Sequence[float],
    counts: Sequence[int],
) -> xr.Dataset:
    first, n = tasks[0], len(tasks)
    result = faithfulness_curves(
        replace(first.clean.seen, tokens=tuple(task.clean.tokens for task in tasks)),
        names,
        shares,
        np.array(found).transpose(2, 1, 0, 3),  # prompt ranking mode share -> mode ranking prompt share
        np.array(whole),
        np.array(empty),
        parts="edges",
        n_parts=round(float(np.mean(counts))),
        units=first.metric.units,
    )
    metric = first.metric.describe(first.clean.model.vocabulary) if n == 1 else first.metric.kind
    return result.assign_attrs(metric=metric, reference=str(first.clean.means))


VIEW = View(
    CircuitEdges,
    question="How few edges between tokens carry the prediction, and which ranking finds them?",
    asks=(
        Ask("task", "Rank the edges on"),
        Ask("metric", "measuring"),
        Ask("first_layer", "with every edge kept below layer"),
    ),
    figures=(curve_figure, cpr_figure, cmd_figure),
    tables=(table,),
)
