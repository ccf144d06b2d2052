"""How much more often probes fail at the last tokens of words than at tokens that are like them otherwise.

Controls, each a way of being like the last tokens ("last") without being one:

    others              every other token
    frequency-matched   others, weighted so that their targets are as frequent in the training text as the last tokens'
    type-matched        tokens with the same target type, outside any word or identifier of several tokens; the last
                        tokens they stand for ("last, typed") are those whose target type occurs so

The excess drop is (last early - last late) - (control early - control late), in shares of tokens named; its interval
resamples documents, with the probes as they are.
"""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["CONTROLS", "GROUPS", "Cells", "accuracies", "cells_of", "excess_drop", "resampled"]

GROUPS = ("last", "others", "frequency-matched", "last, typed", "type-matched", "mid")
CONTROLS = {"others": "last", "frequency-matched": "last", "type-matched": "last, typed"}


@dataclass(frozen=True, eq=False)
class Cells:
    """Counts of one group over (document, cell), and its hits over (depth, document, cell).

    A cell is a kind of target (all alike, a frequency, a type). weights: counts of the last tokens over (document,
    cell), which the group's cells are weighted by.
    """

    counts: np.ndarray = field(repr=False)
    hits: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)

    def accuracy(self, draws: np.ndarray | None = None) -> np.ndarray:
        """Weighted accuracy `[depth]`; with draws `[draw, document]` (how often each document counts) `[draw, depth]`.

        Cells without a token of the group in a draw are left out of it; NaN where none is left.
        """
        times = np.ones((1, len(self.counts))) if draws is None else draws
        counts, weights = times @ self.counts, times @ self.weights  # draw cell
        known = counts > 0
        share = np.where(known, weights / np.maximum(counts, 1), 0.0)
        total = (weights * known).sum(1)
        found = np.stack([((times @ hits) * share).sum(1) for hits in self.hits], axis=1)
        found = np.where(total[:, None] > 0, found / np.maximum(total, 1)[:, None], np.nan)
        return found[0] if draws is None else found


def cells_of(
    hits: np.ndarray,
    document: np.ndarray,
    last: np.ndarray,
    mid: np.ndarray,
    free: np.ndarray,
    frequency: np.ndarray,
    types: np.ndarray,
) -> dict[str, Cells]:
    """The groups of one offset.

    hits: `[depth, token]`; everything else `[token]`: document index; last and mid of words; free of any word of
    several tokens (state and target); the target's frequency class and type.
    """
    n_documents = int(document.max()) + 1 if len(document) else 0
    frequency, n_frequency = np.unique(frequency, return_inverse=True)[1], len(np.unique(frequency))
    shared = np.intersect1d(types[last], types[free & ~last])
    typed, kind = np.isin(types, shared), np.searchsorted(shared, types)
    kind = np.where(typed, kind, 0)
    one = np.zeros(len(document), dtype=np.int64)

    def tabled(values: np.ndarray, which: np.ndarray, cell: np.ndarray, width: int) -> np.ndarray:
        flat = np.bincount(document[which] * width + cell[which], values[which], n_documents * width)
        return flat.reshape(n_documents, width)

    def group(which: np.ndarray, like: np.ndarray, cell: np.ndarray, width: int) -> Cells:
        ones = np.ones(len(document))
        counts = tabled(ones, which, cell, width)
        named = np.stack([tabled(row.astype(np.float64), which, cell, width) for row in hits])
        return Cells(counts, named, tabled(ones, like, cell, width))

    width = max(1, len(shared))
    return {
        "last": group(last, last, one, 1),
        "others": group(~last, ~last, one, 1),
        "frequency-matched": group(~last, last, frequency, n_frequency),
        "last, typed": group(last & typed, last & typed, kind, width),
        "type-matched": group(free & ~last & typed, last & typed, kind, width),
        "mid": group(mid & ~last, mid & ~last, one, 1),
    }


def resampled(n_documents: int, draws: int, seed: int = 0) -> np.ndarray:
    """How often each document counts in each draw, `[draw, document]`."""
    random = np.random.default_rng(seed)
    return random.multinomial(n_documents, np.full(n_documents, 1 / n_documents), size=draws).astype(np.float64)


def accuracies(cells: dict[str, Cells], draws: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy of every group with its 95 % interval: `value`, `low`, `high` `[depth, group]`, and `n` `[group]`."""
    value = np.stack([cells[name].accuracy() for name in GROUPS], axis=1)
    spread = np.stack([cells[name].accuracy(draws) for name in GROUPS], axis=2)  # draw depth group
    low, high = _interval(spread)
    return {"value": value, "low": low, "high": high, "n": np.array([cells[g].counts.sum() for g in GROUPS])}


def excess_drop(cells: dict[str, Cells], early: int, late: int, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Excess drop of last tokens over every control: `value`, `low`, `high` `[control]`. early, late: depth indices."""

    def drops(times):
        found = {name: group.accuracy(times) for name, group in cells.items()}
        drop = {name: values[..., early] - values[..., late] for name, values in found.items()}
        return np.stack([drop[last] - drop[control] for control, last in CONTROLS.items()], axis=-1)

    low, high = _interval(drops(draws))
    return {"value": drops(None), "low": low, "high": high}


def _interval(spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles over draws, NaN where a draw has none."""
    gaps = np.isnan(spread).any(0)
    filled = np.where(np.isnan(spread), 0.0, spread)
    low, high = np.quantile(filled, [0.025, 0.975], axis=0)
    return np.where(gaps, np.nan, low), np.where(gaps, np.nan, high)
