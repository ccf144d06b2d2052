"""The compiled loops behind `workbench.kernels`. Imported only when they are used, and only where numba is installed.

They are plain loops that let go of Python's global lock; threads are ordinary ones, started by the caller. numba's own
(`parallel=True`) are not used: on its workqueue layer a process dies when two of its threads enter a loop at once.
Full `fastmath` would make isnan(nan) false; these three flags only let sums be reordered and products be fused.
"""

from typing import Any

import numpy as np
from numba import njit

__all__ = ["exact_proximity", "row_norms", "row_proximity", "strongest_of_rows"]

_LOOP: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp"},
}
_KEYS = 64  # keys of one block: their parts stay in the second-level cache while queries pass by
_SHIFT = 20  # of the bits of a float32: what stays is its exponent and three bits of its mantissa
_BINS = 1 << (31 - _SHIFT)


@njit(**_LOOP)
def row_norms(x: np.ndarray) -> np.ndarray:
    """L1 norms of rows: (row, d_model) to (row,) float32. Of a few hundred thousand numbers: more threads cost more."""
    norms = np.empty(x.shape[0], np.float32)
    for row in range(x.shape[0]):
        norm = np.float32(0)
        for d in range(x.shape[1]):
            norm += abs(x[row, d])
        norms[row] = norm
    return norms


@njit(**_LOOP)
def row_proximity(part: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`max(0, ||y||_1 - ||y - z||_1)` of rows: both (row, d_model), part also of one row for all; float64 (row,)."""
    gained = np.empty(target.shape[0])
    for row in range(target.shape[0]):
        z, y, gain = part[row % part.shape[0]], target[row], 0.0
        for d in range(target.shape[1]):
            gain += abs(y[d]) - abs(y[d] - z[d])
        gained[row] = max(gain, 0.0)
    return gained


@njit(**_LOOP)
def exact_proximity(
    out: np.ndarray,
    pattern: np.ndarray,
    parts: np.ndarray,
    part_norms: np.ndarray,
    target: np.ndarray,
    target_norms: np.ndarray,
    eps: float,
    first: int,
    last: int,
) -> None:
    """Turn first-order slopes into proximities, in place, for queries first ... last-1.

    out: (head, query, key), on entry `<sign(target), part>`. pattern: (head, query, key). parts: (head, key, d_model).
    part_norms: (head, key). target: (query, d_model). Pairs whose part is at most eps of the target stay at first
    order, which never lies below the exact value: where it is not positive, the exact value is 0.
    """
    for head in range(out.shape[0]):
        _one_head(out[head], pattern[head], parts[head], part_norms[head], target, target_norms, eps, first, last)


@njit(**_LOOP)
def _one_head(
    out: np.ndarray,
    pattern: np.ndarray,
    parts: np.ndarray,
    part_norms: np.ndarray,
    target: np.ndarray,
    target_norms: np.ndarray,
    eps: float,
    first: int,
    last: int,
) -> None:
    d_model = target.shape[1]
    for low in range(0, last, _KEYS):
        high = min(low + _KEYS, last)
        for query in range(max(first, low), last):
            bound = np.float32(eps * target_norms[query])
            for key in range(low, min(high, query + 1)):
                slope, weight = out[query, key], pattern[query, key]
                if slope <= 0 or weight == 0:
                    out[query, key] = 0
                elif abs(weight) * part_norms[key] <= bound:
                    out[query, key] = max(weight * slope, np.float32(0))
                else:
                    gained = np.float32(0)
                    for d in range(d_model):
                        gained += abs(target[query, d]) - abs(target[query, d] - weight * parts[key, d])
                    out[query, key] = max(gained, np.float32(0))
    for query in range(first, last):
        out[query, query + 1 :] = 0


@njit(**_LOOP)
def strongest_of_rows(
    proximity: np.ndarray, others: np.ndarray, min_share: float, min_coverage: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parts of each row that are worth keeping, the strongest first.

    proximity: (head, query, key), causal. others: (query,) float64, what the row's other parts bring. Keeps a part
    whose share of the row's total is above min_share, or without which the stronger ones hold less than min_coverage
    of the row's attention. Returns (query, key, head) and share of the kept parts, and each row's attention total.
    """
    n_heads, n_pos, _ = proximity.shape
    totals = np.zeros(n_pos)
    mass, held = np.zeros(_BINS), np.zeros(_BINS, np.int64)
    values = np.empty(n_heads * n_pos, np.float32)
    keys, heads = np.empty(n_heads * n_pos, np.int32), np.empty(n_heads * n_pos, np.int32)
    size, room = 0, 64 * n_pos
    kept = np.empty((room, 3), np.int32)
    shares = np.empty(room, np.float32)
    for query in range(n_pos):
        total, low, high = _histogram(proximity, query, mass, held)
        totals[query] = total
        whole = total + others[query]
        if total <= 0:
            continue
        floor = _floor(mass, held, low, high, min_coverage * total, min_share * whole)
        found = 0
        for head in range(n_heads):
            for key in range(query + 1):
                if proximity[head, query, key] >= floor and proximity[head, query, key] > 0:
                    values[found], keys[found], heads[found] = proximity[head, query, key], key, head
                    found += 1
        order = np.argsort(-values[:found], kind="mergesort")
        while size + found > room:
            room *= 2
            kept, shares = _grown(kept, room), _grown_flat(shares, room)
        before = 0.0
        for place in order:
            if before >= min_coverage * total and values[place] <= min_share * whole:
                break
            kept[size, 0], kept[size, 1], kept[size, 2] = query, keys[place], heads[place]
            shares[size] = values[place] / whole
            before += values[place]
            size += 1
    return kept[:size].copy(), shares[:size].copy(), totals


@njit(**_LOOP)
def _histogram(proximity: np.ndarray, query: int, mass: np.ndarray, held: np.ndarray) -> tuple[float, int, int]:
    """Sum a row into bins of like magnitude, all empty before; returns its total and the lowest and highest bin."""
    total, low, high = 0.0, _BINS, -1
    for head in range(proximity.shape[0]):
        row = proximity[head, query, : query + 1]
        bits = row.view(np.int32)
        for key in range(query + 1):
            if row[key] > 0:
                bin_ = bits[key] >> _SHIFT
                mass[bin_] += row[key]
                held[bin_] += 1
                total += row[key]
                low, high = min(low, bin_), max(high, bin_)
    return total, low, high


@njit(**_LOOP)
def _floor(mass: np.ndarray, held: np.ndarray, low: int, high: int, wanted: float, least: float) -> Any:
    """The low end of the bin in which the strongest parts reach the wanted mass, or `least` where that is lower.

    Leaves the bins empty.
    """
    reached, edge = 0.0, high + 1
    for bin_ in range(high, low - 1, -1):
        if held[bin_] > 0 and reached < wanted:
            reached += mass[bin_]
            edge = bin_
    mass[low : high + 1] = 0
    held[low : high + 1] = 0
    bits = np.empty(1, np.int32)
    bits[0] = edge << _SHIFT
    return min(np.float32(least), bits.view(np.float32)[0])


@njit(**_LOOP)
def _grown(table: np.ndarray, room: int) -> np.ndarray:
    bigger = np.empty((room, table.shape[1]), table.dtype)
    bigger[: len(table)] = table
    return bigger


@njit(**_LOOP)
def _grown_flat(values: np.ndarray, room: int) -> np.ndarray:
    bigger = np.empty(room, values.dtype)
    bigger[: len(values)] = values
    return bigger
