"""How often a 95 % interval holds the mean that it is about, by the shape of the values and their number."""

from collections.abc import Callable

import numpy as np

from apps.calibration.counts import Counts
from workbench.statistics import bootstrap_interval, difference_interval, percentile_interval, ratio_interval

__all__ = ["FAMILIES", "SIZES", "count_coverage", "count_documents", "count_rare"]

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
FAMILIES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda random, size: random.normal(size=size), 0.0),
    "uniform": (lambda random, size: random.uniform(size=size), 0.5),
    "exponential": (lambda random, size: random.exponential(size=size), 1.0),
    "log-normal": (lambda random, size: random.lognormal(size=size), float(np.exp(0.5))),
    "heavy tails (t, 3 degrees)": (lambda random, size: random.standard_t(3, size=size), 0.0),
    "0 or 1, 30 %": (lambda random, size: (random.random(size) < 0.3).astype(float), 0.3),
}


def _flags(share: float) -> tuple[Draw, float]:
    return lambda random, size: (random.random(size) < share).astype(float), share


RARE: dict[str, tuple[Draw, float]] = {
    "0 or 1, 2 %": _flags(0.02), "0 or 1, 5 %": _flags(0.05), "0 or 1, 10 %": _flags(0.1), "0 or 1, 95 %": _flags(0.95),
}  # fmt: skip
OUTLIERS: dict[str, tuple[Draw, float]] = {  # what few units do not show, no interval from them holds
    "0, one in ten exponential": (
        lambda random, size: (random.random(size) < 0.1) * random.exponential(size=size), 0.1
    ),
    "normal, one in ten by 10 larger": (
        lambda random, size: random.normal(size=size) + 10 * (random.random(size) < 0.1), 1.0
    ),
    "log-normal, sigma 2": (lambda random, size: random.lognormal(0, 2, size), float(np.exp(2))),
}  # fmt: skip
SIZES = (16, 24, 32, 64)
_COLUMNS = 2000


def count_coverage(counts: Counts, name: str, n: int, seed: int) -> None:
    """2000 intervals of the mean, of the difference of two and of the ratio of two."""
    draw, mean = FAMILIES[name]
    random = np.random.default_rng(seed)
    size = (n, _COLUMNS)
    low, high = bootstrap_interval(draw(random, size))
    counts.add("coverage: mean", name, f"n = {n}", ((low <= mean) & (mean <= high)).sum(), _COLUMNS)
    low, high = difference_interval(draw(random, size), 2 * draw(random, size))
    counts.add("coverage: difference", name, f"n = {n}", ((low <= -mean) & (-mean <= high)).sum(), _COLUMNS)
    under = random.uniform(1, 2, size)
    low, high = ratio_interval(under * draw(random, size), under)
    counts.add("coverage: ratio", name, f"n = {n}", ((low <= mean) & (mean <= high)).sum(), _COLUMNS)


def count_rare(counts: Counts, n: int, seed: int) -> None:
    """2000 intervals of a rare or nearly certain share, and of means that hang on few units."""
    random = np.random.default_rng(seed)
    for table, families, bounds in (("rare", RARE, (0, 1)), ("outliers", OUTLIERS, (None, None))):
        for name, (draw, mean) in families.items():
            low, high = bootstrap_interval(draw(random, (n, _COLUMNS)), bounds=bounds)
            counts.add(f"coverage: {table}", name, f"n = {n}", ((low <= mean) & (mean <= high)).sum(), _COLUMNS)


def count_documents(counts: Counts, n: int, seed: int) -> None:
    """Of a share of tokens named over n documents of unequal length and unequal ease, by expanded percentiles."""
    random = np.random.default_rng(seed)
    size = (n, _COLUMNS)
    tokens = np.ceil(random.lognormal(3, 0.8, size)).astype(int)
    hits = random.binomial(tokens, random.beta(6, 4, size))
    times = random.multinomial(n, np.full(n, 1 / n), size=1000).astype(float)
    low, high = percentile_interval((times @ hits) / (times @ tokens), n)
    counts.add("coverage: share", "tokens named", f"n = {n}", int(((low <= 0.6) & (high >= 0.6)).sum()), _COLUMNS)
