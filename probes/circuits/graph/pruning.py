"""Edges let go one after the other, scored anew in the circuit that is left: a ranking that sees what it has removed.

Scores of the clean run say what an edge is worth beside all others; in a circuit of few edges it is worth something
else, since its rivals are gone. So a circuit shrinks in steps. In each, one gated pass a pair says how the metric of
what is left would change with every edge (`gates`), and edges leave whose loss, as far as these slopes tell, keeps each
pair's metric nearest to the model's: the mean square of

    (circuit - model) - sum of the slopes of what has left in this step

and as much again of what they would change each by itself, since slopes hold for small changes only. What a step
changed beyond its slopes, on average over pairs, the next one is taken to change as well. An edge on no way from input
to logits leaves, too. Scores are high for what stays long, never below 0: the size of an edge's slope when it left, or
of one that left before it where that was larger.

Source: ours; the aim is that of edge pruning (Bhaskar et al. 2024, arXiv 2406.16778), which learns masks by descent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from probes.circuits.graph.gates import gate_gradients
from probes.circuits.graph.gradients import EAP, Rules, readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources
from probes.circuits.graph.tasks import Pair, PairSet, batches
from workbench.analysis.progress import part
from workbench.analysis.run import Progress
from workbench.models.model import Model

__all__ = ["let_go", "n_passes", "sizes_of"]

_FIRST = 0.1  # of the edges of a large graph stay after the first step: the others hardly do anything
_LARGE = 20_000
_RATE = 0.7  # of the edges stay after every other step
_LAST = 0.001  # of all edges stay at the end
_FEWEST = 10  # pairs that take a turn by themselves
_CAUTION = 1.0  # weight of what edges change each by itself


def sizes_of(n_edges: int) -> list[int]:
    """Sizes of the circuits that are left after each step, falling."""
    last = max(1, int(_LAST * n_edges))
    sizes = [int(n_edges * (_FIRST if n_edges >= _LARGE else _RATE))]
    while sizes[-1] > last:
        sizes.append(max(last, int(_RATE * sizes[-1])))
    return [max(1, size) for size in sizes]


def n_passes(n_edges: int, n_pairs: int) -> float:
    """Gated passes for each of so many pairs."""
    return len(sizes_of(n_edges)) / (1 if n_pairs < 2 * _FEWEST else 2)


def let_go(
    model: Model, pairs: Sequence[Pair], rows: int, *, rules: Rules = EAP, progress: Progress | None = None
) -> np.ndarray:
    """Scores float32 `[source, target]` of all pairs together, 0 where there is no edge. rows: pairs of one pass."""
    graph = Graph.of(model.sizes)
    turns = [_Seen.of(model, some, rows) for some in _turns(pairs)]
    mask, scores, sizes, highest = graph.exists, np.zeros(graph.exists.size, np.float32), sizes_of(graph.n_edges), 0
    expected: float | None = None  # the mean surplus that the slopes of the last step told
    for step, size in enumerate(sizes):
        told = part(progress, step / len(sizes), (step + 1) / len(sizes))
        surplus, slopes = turns[step % len(turns)].slopes(model, mask, rules, told)
        missed = 0.0 if expected is None else float(surplus.mean()) - expected
        order, left = _smaller(graph, mask, slopes, surplus + missed, size)
        expected = float((surplus - slopes[:, ~left[mask]].sum(1)).mean())
        means = np.zeros(scores.size, np.float32)
        means[mask.ravel()] = slopes.mean(0)
        if size == sizes[-1]:  # what stays to the end, by its slope
            stay = np.flatnonzero(left)
            order = np.concatenate([order, stay[np.argsort(np.abs(means[stay]), kind="stable")]])
        bits = _rising(np.abs(means[order]), highest)
        scores[order] = bits.view(np.float32)
        mask, highest = left, int(bits[-1]) if len(bits) else highest
    return scores.reshape(graph.shape)


def _turns(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    """Halves that take turns, so that what a step has fitted to its pairs the next one sees on others; all of few."""
    return [pairs] if len(pairs) < 2 * _FEWEST else [pairs[::2], pairs[1::2]]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Pairs in batches, what sources add on their counterfactuals, and the model's metric `[pair]`."""

    some: list[PairSet]
    others: list[torch.Tensor] = field(repr=False)
    whole: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, model: Model, pairs: Sequence[Pair], rows: int) -> "_Seen":
        """One pass for either prompt of each pair."""
        some, whole = list(batches(pairs, rows)), np.empty(len(pairs))
        with torch.no_grad():
            for one in some:
                last = sources(model, one.clean).last[:, -1]
                whole[list(one.places)] = one.values(readout_logits(model, last)).double().cpu().numpy()
        return cls(some, [sources(model, one.corrupt).added for one in some], whole)

    def slopes(
        self, model: Model, mask: np.ndarray, rules: Rules, told: Progress | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far the metric of a circuit is above the model's `[pair]`, and how it changes with each of its edges,
        float32 `[pair, edge]`."""
        values, slopes = np.empty(len(self.whole)), np.empty((len(self.whole), int(mask.sum())), np.float32)
        gates = mask.astype(np.float32)
        for done, (one, other) in enumerate(zip(self.some, self.others, strict=True)):
            found, by_edge = gate_gradients(model, one.clean, gates, other, one.values, rules, asked=mask)
            values[list(one.places)], slopes[list(one.places)] = found.double().cpu().numpy(), by_edge[:, mask]
            if told is not None:
                told((done + 1) / len(self.some))
        return values - self.whole, slopes


def _smaller(
    graph: Graph, mask: np.ndarray, slopes: np.ndarray, surplus: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flat places of edges that leave, in their order, and the circuit that is left: the smallest met of `size`
    edges or more on a way from input to logits."""
    places = np.flatnonzero(mask)
    order = places[_leaving(slopes, surplus, len(places) - size)]

    def without(n: int) -> np.ndarray:
        left = mask.copy()
        left.ravel()[order[:n]] = False
        return graph.pruned(left)

    low, high, best = 0, len(order), mask
    while low < high:
        middle = (low + high + 1) // 2
        left = without(middle)
        if left.sum() >= size:
            low, best = middle, left
        else:
            high = middle - 1
    gone = mask & ~best
    gone.ravel()[order[:low]] = False
    return np.concatenate([order[:low], np.flatnonzero(gone)]), best


def _leaving(slopes: np.ndarray, surplus: np.ndarray, n: int) -> np.ndarray:
    """Which n edges leave, of `[pair, edge]`, in their order. surplus: of the circuit's metric over the model's,
    `[pair]`.

    One after the other, since many at once would together give more than the surplus; of a large graph by what they
    change each by itself, since nearly all that leave change nothing.
    """
    slopes = slopes.astype(np.float64)
    alone = (1 + _CAUTION) * (slopes**2).mean(0)
    if len(alone) >= _LARGE:
        return np.argsort(alone, kind="stable")[:n]
    order = np.empty(n, np.int64)
    worth = alone - 2 * (surplus @ slopes) / len(surplus)
    for turn in range(n):
        order[turn] = first = int(np.argmin(worth))
        worth += 2 * (slopes[:, first] @ slopes) / len(surplus)
        worth[order[: turn + 1]] = np.inf
    return order


def _rising(sizes: np.ndarray, highest: int) -> np.ndarray:
    """The bits of float32 numbers of which each is above the one before and at least what is given, from above
    `highest` on: positive numbers are in the order of their bits."""
    places = np.arange(len(sizes))
    bits = np.maximum(sizes.astype(np.float32).view(np.int32).astype(np.int64), highest + 1)
    return (np.maximum.accumulate(bits - places) + places).astype(np.int32)
