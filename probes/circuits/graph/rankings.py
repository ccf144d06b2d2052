"""Rankings of edges: scores `[pair, source, target]`, high where an edge raises the metric of the clean run.

EAP                  (own - other) * gradient at the clean run
EAP-IG               the gradient is averaged over runs between counterfactual and clean embeddings
RelP                 as EAP, with the local derivatives of relevance propagation; patterns pass their gradient on
RelP constant        the same with constant patterns: edges into queries and keys have no score
RelP half            the same; patterns and values get half of their product each
RelP-IG              EAP-IG with the derivatives of RelP
edge pruning         what stays longest of a circuit that shrinks, scored anew in each step: see `pruning`; of all pairs
                     together
exact                metric(clean) - metric(clean run with the edge from the counterfactual); a pass an edge
routes               how much closer to what a target reads its source brings it, on the clean prompt; 0 or more
direct attribution   share of the logit difference that a source writes itself; edges into the logits only
random               standard normal

Own and other are what the source adds in the clean and in the counterfactual run. Sums over positions.

Source: arXiv 2310.10348 (EAP), 2403.17806 (EAP-IG on inputs: step k of n stands k/n of the way from the counterfactual
to the clean embedding), 2508.21258 (RelP), 2403.00824 (routes; aggregated to edges as in 2504.13151).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probes.circuits.graph.gradients import EAP, RELP, RELP_CONSTANT, Rules, input_gradients, readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources, with_edges
from probes.circuits.graph.pruning import let_go, n_passes
from probes.circuits.graph.tasks import Pair, PairSet, batches
from workbench.analysis.run import Progress
from workbench.errors import InputError, RefusedError
from workbench.models.model import Model

__all__ = ["RANKINGS", "TOGETHER", "Ranking", "combined", "forwards", "rank", "rows_of"]

Ranking = Callable[[Model, Sequence[Pair]], np.ndarray]
_BYTES = 400_000_000  # of sources and gradients held at once
PRUNING = "edge pruning"
TOGETHER = (PRUNING, "random")  # of all pairs at once: the same scores for each
_GATED = 5.0
_MOST = 5000  # edges that are patched one by one


@dataclass(frozen=True)
class _Gradient:
    """A ranking by gradients: rules, and where between counterfactual (0) and clean (1) they are taken."""

    rules: Rules
    points: tuple[float, ...] = (1.0,)


def _steps(n: int) -> tuple[float, ...]:
    return tuple(k / n for k in range(n))


_BY_GRADIENT = {
    "EAP": _Gradient(EAP),
    "EAP-IG": _Gradient(EAP, _steps(5)),
    "RelP": _Gradient(RELP),
    "RelP constant": _Gradient(RELP_CONSTANT),
    "RelP half": _Gradient(Rules(frozen=True, pattern="half")),
    "RelP-IG": _Gradient(RELP, _steps(5)),
    "RelP both ends": _Gradient(RELP, (0.0, 1.0)),
}
RANKINGS = (*_BY_GRADIENT, PRUNING, "exact", "routes", "direct attribution", "random")


def forwards(by: str, n_edges: int = 0, n_pairs: int = 20) -> float:
    """What a ranking costs for each of so many pairs, in bare forward passes: a backward pass counts two, a gated pass
    there and back five (measured; see `gates`: its heads read states of their own)."""
    if by in _BY_GRADIENT:
        return 2.0 + 3 * len(_BY_GRADIENT[by].points) - (1.0 in _BY_GRADIENT[by].points)
    if by == PRUNING:
        return 2.0 + _GATED * n_passes(n_edges, n_pairs)
    return {"exact": float(n_edges + 2), "routes": 1.0, "direct attribution": 1.0}.get(by, 0.0)


def rank(
    model: Model,
    pairs: Sequence[Pair],
    by: "str | Ranking",
    *,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Scores float32 `[pair, source, target]`, 0 where there is no edge.

    by: one of `RANKINGS`, or a function of (model, pairs) that gives such scores, with or without the axis of pairs.
    steps: of the integrated gradient, instead of 5.
    """
    graph = Graph.of(model.sizes)
    if callable(by):
        return _users(graph, by(model, pairs), len(pairs))
    if by not in RANKINGS:
        raise InputError(f"the ranking {by!r}", f"one of {', '.join(RANKINGS)}", "Choose one of these")
    if by == "random":
        drawn = np.random.default_rng(seed).standard_normal((1, *graph.shape))
        return np.repeat(np.where(graph.exists, drawn, 0), len(pairs), 0).astype(np.float32)
    if by == PRUNING:
        found = let_go(model, pairs, rows_of(model, pairs), progress=progress)
        return np.repeat(found[None], len(pairs), 0)
    if by in _BY_GRADIENT:
        how = _BY_GRADIENT[by]
        if steps is not None and len(how.points) > 1:
            how = _Gradient(how.rules, _steps(steps))
        score: Callable[[Model, Graph, PairSet], np.ndarray] = lambda m, g, some: _by_gradient(m, g, some, how)
    else:
        score = {"exact": _exact, "routes": _routes, "direct attribution": _direct}[by]
    found, done = np.zeros((len(pairs), *graph.shape), np.float32), 0
    for some in batches(pairs, rows_of(model, pairs)):
        found[list(some.places)] = np.where(graph.exists, score(model, graph, some), 0)
        done += len(some.pairs)
        if progress is not None:
            progress(done / len(pairs))
    return found


def rows_of(model: Model, pairs: Sequence[Pair], *, gradients: bool = True) -> int:
    """How many pairs fit one batch: sources of two runs and, with gradients, those of all targets."""
    graph, longest = Graph.of(model.sizes), max(len(pair.clean) for pair in pairs)
    each = 4 * longest * model.sizes.d_model * (2 * graph.shape[0] + gradients * graph.shape[1])
    return max(1, _BYTES // each)


def combined(scores: Mapping[str, np.ndarray], how: str = "mean") -> np.ndarray:
    """An ensemble: mean, min or max of several rankings' scores `[..., source, target]`, each divided by the sum of its
    absolute values; min and max are by absolute score and keep the sign."""
    scaled = np.stack([one / max(float(np.abs(one.mean(0) if one.ndim == 3 else one).sum()), 1e-30)
                       for one in scores.values()])  # fmt: skip
    if how == "mean":
        return np.asarray(scaled.mean(0))
    if how not in ("min", "max"):
        raise InputError(f"an ensemble by {how!r}", "mean, min or max", "Choose one of these")
    chosen = np.abs(scaled).argmin(0) if how == "min" else np.abs(scaled).argmax(0)
    return np.take_along_axis(scaled, chosen[None], 0)[0]


def _users(graph: Graph, scores: Any, n: int) -> np.ndarray:
    found = np.asarray(scores, np.float32)
    if found.ndim == 2:
        found = np.repeat(found[None], n, 0)
    if found.shape != (n, *graph.shape) or not np.isfinite(found[:, graph.exists]).all():
        raise InputError(f"scores of shape {found.shape}", f"numbers of shape {(n, *graph.shape)}", "Score every edge")
    return np.where(graph.exists, found, 0)


def _by_gradient(model: Model, graph: Graph, some: PairSet, how: _Gradient) -> np.ndarray:
    corrupt = sources(model, some.corrupt).added
    clean = torch.empty_like(corrupt) if 1.0 in how.points else sources(model, some.clean).added
    first, last = corrupt[0], clean[0]
    total: dict[int, torch.Tensor] = {}
    slices: dict[int, Any] = {}
    for point in sorted(how.points, key=lambda point: point != 1.0):  # the clean run's own pass brings its sources
        start, added = (None, clean) if point == 1.0 else (first + point * (last - first), None)
        for targets, grad in input_gradients(model, some.clean, some.values, how.rules, start, added=added):
            at = targets.start
            slices[at] = targets
            total[at] = grad if at not in total else total[at].add_(grad)
    change = clean.sub_(corrupt).permute(1, 0, 2, 3).flatten(2)  # row source (pos d_model)
    found = np.zeros((len(some.pairs), *graph.shape), np.float32)
    for at, grad in total.items():
        n = max(1, int(graph.exists[:, at].sum()))
        grads = grad.permute(1, 2, 3, 0).flatten(1, 2)  # row (pos d_model) target
        found[:, :n, slices[at]] = (torch.bmm(change[:, :n], grads) / len(how.points)).numpy()
    return found


def _exact(model: Model, graph: Graph, some: PairSet) -> np.ndarray:
    if graph.n_edges > _MOST:
        raise RefusedError(
            f"exact patching of the {graph.n_edges} edges of {model.name}",
            f"at most {_MOST}: a pass each",
            "Take EAP-IG or RelP",
        )
    own, other = sources(model, some.clean), sources(model, some.corrupt).added
    read = lambda last: some.values(readout_logits(model, last[:, -1])).detach()
    whole = read(own.last)
    found = np.zeros((len(some.pairs), *graph.shape), np.float32)
    for source, target in np.argwhere(graph.exists):
        mask = graph.exists.copy()
        mask[source, target] = False
        found[:, source, target] = (whole - read(with_edges(model, some.clean, mask, other))).numpy()
    return found


def _routes(model: Model, graph: Graph, some: PairSet) -> np.ndarray:
    """Shares of what a target reads, mean over positions."""
    added = sources(model, some.clean).added
    found = np.zeros((len(some.pairs), *graph.shape), np.float32)
    for targets in _readers(graph):
        n = int(graph.exists[:, targets.start].sum())
        whole = added[:n].sum(0)
        near = (whole.abs().sum(-1) - (whole - added[:n]).abs().sum(-1)).clamp(min=0)  # source row pos
        shares = near / near.sum(0).clamp(min=1e-30)
        found[:, :n, targets] = shares.mean(-1).T.numpy()[:, :, None]
    return found


def _readers(graph: Graph) -> list[slice]:
    """Targets that read the same."""
    found = []
    for layer in range(graph.n_layers):
        found.append(graph.inputs(layer))
        if graph.mlps:
            found.append(slice(graph.mlp_input(layer), graph.mlp_input(layer) + 1))
    return [*found, slice(graph.shape[1] - 1, graph.shape[1])]


def _direct(model: Model, graph: Graph, some: PairSet) -> np.ndarray:
    """Through the final norm with its scale as it is."""
    own = sources(model, some.clean)
    last = own.last[:, -1].float().detach().requires_grad_()
    with torch.enable_grad():
        values = some.values(readout_logits(model, last, frozen=True))
        (grad,) = torch.autograd.grad(values.sum(), last)
    found = np.zeros((len(some.pairs), *graph.shape), np.float32)
    found[:, :, -1] = (own.added[:, :, -1] * grad).sum(-1).T.numpy()
    return found
