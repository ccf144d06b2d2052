"""Partials: n, mean and M2 of what was seen so far, which merge in any grouping (Chan, Golub, LeVeque 1983)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Partial"]

Array = NDArray[np.float64]


@dataclass
class Partial:
    """Of an array variable, elementwise. n: values that were not missing; mean; M2: sum of squared deviations."""

    n: Array
    mean: Array
    M2: Array

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> "Partial":
        """Of nothing."""
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> "Partial":
        """Of rows (n, ...); NaN is missing."""
        values = np.asarray(rows, np.float64)
        known = ~np.isnan(values)
        n = known.sum(axis=0).astype(np.float64)
        mean = np.where(known, values, 0).sum(axis=0) / np.maximum(n, 1)
        return cls(n, mean, (np.where(known, values - mean, 0) ** 2).sum(axis=0))

    def merged(self, other: "Partial") -> "Partial":
        """Of both."""
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        gap = other.mean - self.mean
        return Partial(n, self.mean + gap * share, self.M2 + other.M2 + gap**2 * self.n * share)

    @property
    def known_mean(self) -> Array:
        """The mean, NaN where nothing was seen."""
        return np.where(self.n > 0, self.mean, np.nan)

    @property
    def sd(self) -> Array:
        """Standard deviation (n - 1), NaN below two values."""
        return np.sqrt(np.where(self.n > 1, self.M2 / np.maximum(self.n - 1, 1), np.nan))
