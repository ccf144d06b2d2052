"""Change points: whether a score changes at once along a run, and at which step.

A run is seen on a logarithmic axis of steps, log10(1 + step). An S-shaped curve (logistic, two levels, a midpoint, a
width) is fitted by least squares. It is a change where the curve explains nine tenths of the variance, what lies
between a tenth and nine tenths of the change takes at most a third of the axis, both levels are seen (a tenth of the
axis before; after it as much, or the last tenth of the steps), and they differ by a floor. A straight line, on either
axis, noise, and a run that ends in the middle of a change have none.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit

__all__ = ["FEWEST", "FLOOR", "Change", "change_point"]

EXPLAINED, WIDEST, SEEN = 0.9, 1 / 3, 0.1
FLOOR = 0.1  # levels that differ by less are no change, for shares; of losses in nats as well
_TENTHS = 2 * np.log(9)  # from a tenth to nine tenths of a logistic curve, in its widths
FEWEST = 8  # points that a change can be told from


class Change(NamedTuple):
    """A change. step: of its midpoint; first, last: a tenth and nine tenths of it; before, after: the levels."""

    step: float
    first: float
    last: float
    before: float
    after: float


def change_point(steps: NDArray[np.float64], values: NDArray[np.float64], floor: float = FLOOR) -> Change | None:
    """The one change of a run, or None. steps, values: (n,), missing values left out."""
    known = np.isfinite(values)
    x, y = np.log10(1 + np.asarray(steps, float)[known]), np.asarray(values, float)[known]
    if len(x) < FEWEST or np.ptp(y) < floor:
        return None
    fitted = _fitted(x, y)
    if fitted is None:
        return None
    before, after, middle, width = fitted
    left = ((y - _logistic(x, *fitted)) ** 2).sum()
    whole, first, last = np.ptp(x), middle - _TENTHS * width / 2, middle + _TENTHS * width / 2
    sharp = last - first <= WIDEST * whole
    seen = first >= x.min() + SEEN * whole and last <= x.max() - _seen_after(x, whole)
    if not (sharp and seen and abs(after - before) >= floor and left <= (1 - EXPLAINED) * ((y - y.mean()) ** 2).sum()):
        return None
    step, low, high = (float(10**at - 1) for at in (middle, first, last))
    return Change(step, low, high, float(before), float(after))


def _seen_after(x: NDArray[np.float64], whole: float) -> float:
    """How much of the axis must follow a change: a tenth, or a tenth of the run where that is less of this axis."""
    return float(min(SEEN * whole, x.max() - np.log10(1 + 0.9 * (10 ** x.max() - 1))))


def _logistic(x: NDArray[np.float64], before: float, after: float, middle: float, width: float) -> NDArray[np.float64]:
    return before + (after - before) / (1 + np.exp(-np.clip((x - middle) / width, -500, 500)))


def _fitted(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float, float] | None:
    """The curve of least squares, started from each third of the axis."""
    whole, best = np.ptp(x), (np.inf, (np.nan,) * 4)
    ends = float(np.median(y[: max(2, len(y) // 5)])), float(np.median(y[-max(2, len(y) // 5) :]))
    low, high = y.min() - np.ptp(y), y.max() + np.ptp(y)
    bounds = ([low, low, x.min(), whole / 1000], [high, high, x.max(), whole])
    for share in (0.3, 0.5, 0.7, 0.85):
        start = (*ends, x.min() + share * whole, whole / 20)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OptimizeWarning)  # a step between two points has no one width
                found, _ = curve_fit(_logistic, x, y, start, bounds=bounds, maxfev=2000)
        except RuntimeError:  # not converged from here: the other starts are tried
            continue
        error = ((y - _logistic(x, *found)) ** 2).sum()
        if error < best[0]:
            before, after, middle, width = map(float, found)
            best = (error, (before, after, middle, width))
    return best[1] if np.isfinite(best[0]) else None
