"""How much more often probes fail at the last tokens of words than at tokens that are like them otherwise.

Controls, each a way of being like the last tokens ("last") without being one:

    others              every other token
    frequency-matched   others, weighted so that their targets are as frequent in the training text as the last tokens'
    type-matched        tokens with the same target type, outside any word or identifier of several tokens; the last
                        tokens they stand for ("last, typed") are those whose target type occurs so

The excess drop is (last early - last late) - (control early - control late), in shares of tokens named; its interval
resamples documents, 16 or more, with the probes as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.statistics import percentile_interval

__all__ = [
    "CONTROLS",
    "GROUPS",
    "Cells",
    "Groups",
    "Hits",
    "accuracies",
    "cells_of",
    "excess_drop",
    "resampled",
    "variables_of",
    "variables_over_random",
]

GROUPS = ("last", "others", "frequency-matched", "last, typed", "type-matched", "mid")
CONTROLS = {"others": "last", "frequency-matched": "last", "type-matched": "last, typed"}
_DRAWS = 2000

Groups = Mapping[int, Mapping[str, np.ndarray]]
Hits = Mapping[tuple[int, int], np.ndarray]


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
    low, high = percentile_interval(spread, draws.shape[1], bounds=(0, 1))
    return {"value": value, "low": low, "high": high, "n": np.array([cells[g].counts.sum() for g in GROUPS])}


def excess_drop(cells: dict[str, Cells], early: int, late: int, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Excess drop of last tokens over every control: `value`, `low`, `high` `[control]`. early, late: depth indices."""

    def drops(times: np.ndarray | None) -> np.ndarray:
        found = {name: group.accuracy(times) for name, group in cells.items()}
        drop = {name: values[..., early] - values[..., late] for name, values in found.items()}
        return np.stack([drop[last] - drop[control] for control, last in CONTROLS.items()], axis=-1)

    low, high = percentile_interval(drops(draws), draws.shape[1], bounds=(-2, 2))
    return {"value": drops(None), "low": low, "high": high}


def variables_of(groups: Groups, hits: Hits, done: Sequence[int], pair: tuple[int, int], ending: str) -> dict[str, Any]:
    """Accuracies and excess drops of one model, as variables of a result; NaN at depths that were not run.

    groups: by offset what `cells_of` takes beside the hits `[token]`, which are given by (depth, offset). done: depths
    of the result; pair: those that are compared. ending: of the variables' names, "" or "_random".
    """
    shape = (len(done), len(groups), len(GROUPS))
    value, low, high = (np.full(shape, np.nan) for _ in range(3))
    excess = {key: np.full((len(groups), len(CONTROLS)), np.nan) for key in ("value", "low", "high")}
    n = np.zeros(shape[1:])
    for column, offset in enumerate(groups):
        there = [d for d in done if (d, offset) in hits]
        if not there:
            continue
        cells = cells_of(np.stack([hits[d, offset] for d in there]), **groups[offset])
        draws = resampled(len(cells["last"].counts), _DRAWS)
        found = accuracies(cells, draws)
        rows = [done.index(d) for d in there]
        value[rows, column], low[rows, column], high[rows, column] = found["value"], found["low"], found["high"]
        n[column] = found["n"]
        if set(pair) <= set(there):
            drop = excess_drop(cells, there.index(pair[0]), there.index(pair[1]), draws)
            for key, values in drop.items():
                excess[key][column] = values
    what = "on random weights" if ending else "on held-out documents"
    dims, spec = "depth offset group", ("share of tokens", (0, 1), f"accuracy {what}")
    drop_spec = ("share of tokens", (-2, 2), f"excess drop, depth {pair[0]} to {pair[1]}, {what}")
    variables: dict[str, Any] = {
        f"probe_accuracy{ending}": (dims, value, *spec),
        f"probe_accuracy{ending}_low": (dims, low, *spec),
        f"probe_accuracy{ending}_high": (dims, high, *spec),
        f"excess_drop{ending}": ("offset component", excess["value"], *drop_spec),
        f"excess_drop{ending}_low": ("offset component", excess["low"], *drop_spec),
        f"excess_drop{ending}_high": ("offset component", excess["high"], *drop_spec),
    }
    if not ending:
        variables["tokens"] = ("offset group", n, "tokens", (0, None), "held-out tokens")
    return variables


def variables_over_random(groups: Groups, hits: Hits, twin_hits: Hits, pair: tuple[int, int]) -> dict[str, Any]:
    """Excess drop of the model minus that of its twin, on the same tokens: it is linear in the hits, and so is this."""
    found = {key: np.full((len(groups), len(CONTROLS)), np.nan) for key in ("value", "low", "high")}
    for column, offset in enumerate(groups):
        if not all((d, offset) in some for d in pair for some in (hits, twin_hits)):
            continue
        more = np.stack([hits[d, offset].astype(np.float64) - twin_hits[d, offset] for d in pair])
        cells = cells_of(more, **groups[offset])
        for key, values in excess_drop(cells, 0, 1, resampled(len(cells["last"].counts), _DRAWS)).items():
            found[key][column] = values
    spec = ("share of tokens", (-4, 4), "excess drop of the model minus that of random weights")
    names = {"": "value", "_low": "low", "_high": "high"}
    return {f"excess_over_random{end}": ("offset component", found[key], *spec) for end, key in names.items()}
