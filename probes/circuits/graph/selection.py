"""Selection: which edges of a ranking a circuit of a given size keeps.

absolute     the highest absolute scores
signed       the highest scores
mixed        a share of the budget by score, the rest by absolute score
balanced     by absolute score, from those above and below zero in turn, so that what is kept sums to what all edges do
stable       by absolute score, among edges whose sign nearly all resamples of the pairs share

`calibrated` is the mixed one, with the share of each budget set by a few measured circuits.

All are connected: a circuit is what lies on a way from the input to the logits, and edges that do not are replaced by
the next ones, until the budget is full. `prune_only` leaves the budget part empty, as the benchmark does.

Source: arXiv 2510.25786 (mixed ratio, sign stability); the balance and the refilling are ours.
"""

from collections.abc import Callable, Sequence

import numpy as np

from probes.circuits.graph.graph import Graph
from workbench.errors import InputError

__all__ = ["BUDGETS", "SELECTIONS", "calibrated", "n_edges", "ordered", "select"]

BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SELECTIONS = ("absolute", "signed", "mixed", "balanced", "stable")
_AGREEING = 0.95  # of resamples


def n_edges(share: float, graph: Graph) -> int:
    """How many edges a budget holds: floor(share * edges), as in the benchmark."""
    return int(share * graph.n_edges + 1e-9)


def ordered(
    graph: Graph, scores: np.ndarray, how: str = "absolute", *, ratio: float = 0.5, draws: int = 200, seed: int = 0
) -> np.ndarray:
    """Flat places of all edges, from the first that is kept; equal scores by source, then target.

    scores: `[source, target]`, or by pair for "stable". ratio: of "mixed", the share by score.
    """
    if how not in SELECTIONS:
        raise InputError(f"the selection {how!r}", f"one of {', '.join(SELECTIONS)}", "Choose one of these")
    places = np.flatnonzero(graph.exists)
    by_pair = scores if scores.ndim == 3 else scores[None]
    values = by_pair.mean(0, dtype=np.float64).ravel()[places]
    absolute = np.argsort(-np.abs(values), kind="stable")
    if how == "absolute":
        return places[absolute]
    signed = np.argsort(-values, kind="stable")
    if how == "signed":
        return places[signed]
    if how == "mixed":
        return places[_interleaved(signed, absolute, ratio)]
    if how == "balanced":
        return places[_balanced(values, absolute)]
    flat = by_pair.reshape(len(by_pair), -1)[:, places]
    counts = np.random.default_rng(seed).multinomial(len(flat), np.full(len(flat), 1 / len(flat)), draws)
    agreeing = np.zeros(len(places))
    for some in np.array_split(counts.astype(np.float32), max(1, draws // 20)):
        agreeing += (np.sign(some @ flat) == np.sign(values)).sum(0)
    firm = agreeing >= _AGREEING * draws
    return places[np.concatenate([absolute[firm[absolute]], absolute[~firm[absolute]]])]


def _interleaved(first: np.ndarray, second: np.ndarray, ratio: float) -> np.ndarray:
    """A share of every beginning from the first order, the rest from the second; none twice."""
    n = len(first)
    turn = np.floor(np.arange(1, n + 1) * ratio) > np.floor(np.arange(n) * ratio)
    merged = np.empty(2 * n, first.dtype)
    # Candidates in the order of their turns; what was taken before is left out, which `unique` does.
    keys = np.concatenate([_turns(turn, n), _turns(~turn, n)])
    merged = np.concatenate([first, second])[np.argsort(keys, kind="stable")]
    _, at = np.unique(merged, return_index=True)
    return merged[np.sort(at)]


def _turns(mine: np.ndarray, n: int) -> np.ndarray:
    """When the k-th of an order is due; those without a turn come last."""
    due = np.flatnonzero(mine)
    return np.concatenate([due, n + np.arange(n - len(due))])


def _balanced(values: np.ndarray, absolute: np.ndarray) -> np.ndarray:
    """Above zero while the kept sum is below that of all edges, else below zero."""
    total = values.sum()
    sign = 1.0 if total >= 0 else -1.0
    helping = absolute[sign * values[absolute] > 0]
    hurting = absolute[sign * values[absolute] <= 0]
    order, kept, i, j = np.empty(len(values), absolute.dtype), 0.0, 0, 0
    for at in range(len(order)):
        take_helping = i < len(helping) and (kept < abs(total) or j >= len(hurting))
        if take_helping:
            order[at], i = helping[i], i + 1
        else:
            order[at], j = hurting[j], j + 1
        kept += sign * values[order[at]]
    return order


def calibrated(
    graph: Graph,
    scores: np.ndarray,
    faithfulness: Callable[[Sequence[np.ndarray]], np.ndarray],
    budgets: Sequence[float] = BUDGETS,
    anchors: Sequence[float] = (0.001, 0.005, 0.02, 0.1),
) -> list[np.ndarray]:
    """Circuits by budget, of the mixed selection whose share by score brings f near 1 on the pairs of `faithfulness`
    (those of neither ranking nor test).

    At each anchor two circuits are measured: half by score, then a fifth where that is too much and four fifths where
    it is too little; the share is where the line through both meets 1, within 0 and 1, and in between it is linear in
    the logarithm of the budget.
    """
    mixed = lambda share, b: select(graph, ordered(graph, scores, "mixed", ratio=share), n_edges(b, graph))
    first = faithfulness([mixed(0.5, b) for b in anchors])
    tried = np.where(first > 1, 0.2, 0.8)
    second = faithfulness([mixed(share, b) for share, b in zip(tried.tolist(), anchors, strict=True)])
    slope = (second - first) / (tried - 0.5)
    found = np.where(slope > 0, 0.5 + (1 - first) / np.where(slope > 0, slope, 1), np.where(
        np.abs(second - 1) < np.abs(first - 1), tried, 0.5))  # fmt: skip
    shares = np.interp(np.log(budgets), np.log(anchors), np.clip(np.nan_to_num(found, nan=0.5), 0, 1))
    return [mixed(share, b) for share, b in zip(shares.tolist(), budgets, strict=True)]


def select(graph: Graph, order: np.ndarray, n: int, *, refill: bool = True) -> np.ndarray:
    """The circuit of n edges, pruned; see above. refill: edges on no way are replaced by the next ones of the order."""
    if n >= graph.n_edges:
        return graph.exists.copy()

    def circuit(taken: int) -> np.ndarray:
        mask = np.zeros(graph.exists.size, bool)
        mask[order[:taken]] = True
        return graph.pruned(mask.reshape(graph.shape))

    best = circuit(n)
    if not refill or n == 0:
        return best
    low, high = n, graph.n_edges
    while high - low > max(1, n // 200):
        middle = (low + high) // 2 if high < graph.n_edges or 2 * low >= graph.n_edges else low * 2
        found = circuit(middle)
        if found.sum() <= n:
            low, best = middle, found
        else:
            high = middle
    return best
