"""Partials: n, mean and M2 of what was seen so far, which merge in any grouping (Chan, Golub, LeVeque 1983)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from workbench.resampling import unseen
from workbench.statistics import ENOUGH, wilson_interval

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

    def interval(self, least: float, most: float, level: float = 0.95) -> tuple[Array, Array]:
        """Low and high of the mean, of as many values as nobody resamples: Student's, NaN below `ENOUGH` values.

        least, most: between which values lie. What is nothing but these two (0 and 1) gets at least Wilson's: few of
        one kind among many of the other have too little spread, and none of it none at all.
        """
        n = np.where(self.n >= ENOUGH, self.n, np.nan)
        half = special.stdtrit(n - 1, (1 + level) / 2) * self.sd / np.sqrt(n)
        low, high = self.mean - half, self.mean + half
        rounding = 1e-12 * np.abs(self.mean)
        alike = n * rounding**2 >= self.M2
        low, high = unseen((low, high), alike, n, level, (np.asarray(least), np.asarray(most)))
        if not np.isfinite(most - least):
            return low, high
        share = np.clip((self.mean - least) / (most - least), 0.0, 1.0)
        spread = n * share * (1 - share) * (most - least) ** 2  # as large as it can be, where nothing lies between
        flags = np.abs(spread - self.M2) <= 1e-9 * spread
        wide = [least + (most - least) * end for end in wilson_interval(share * self.n, self.n, level)]
        return np.where(flags, np.minimum(low, wide[0]), low), np.where(flags, np.maximum(high, wide[1]), high)
