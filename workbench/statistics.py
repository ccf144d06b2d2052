"""How sure a number is: intervals, null tests and multiple comparisons, over whole arrays of heads at once.

Thin over scipy where scipy has it. Resampling is written here because scipy's materialises every resample of every
column, while the mean of a resample is a product with a matrix of counts, and because scipy has no bootstrap-t.
Intervals of means are bootstrap-t intervals, and at least as wide as Student's: percentile and BCa intervals hold a
skewed mean too rarely. None is given for fewer than `ENOUGH` units, where even these do (`docs/pages/calibration.md`
has the rates). Units that all have one value show no spread: with bounds, their interval reaches as far as a mean can
lie that gives n such units in a row one time in twenty (at 95 %); without, it is the value. All functions take numpy
arrays (or what `numpy.asarray` takes) and work in float64; an interval has the unit of its values, p and q lie in 0 to
1.

NaN means missing: a text without a value is left out of its own column, and the answer for that column is the one for
the shorter column. A column that keeps too few values answers NaN. The answer for a column does not depend on the
columns beside it, and the same seed gives the same answer.

Sources: Efron and Tibshirani 1993, section 12.5 (bootstrap-t); Phipson and Smyth 2010, doi 10.2202/1544-6115.1585 (why
a Monte Carlo p is (1 + count) / (1 + draws)); Benjamini and Hochberg 1995; Wilson 1927.
"""

from collections.abc import Iterator
from math import comb

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from workbench.resampling import (
    BLOCK,
    Array,
    all_signs,
    all_splits,
    columns_of,
    ends_of,
    error_of,
    groups,
    largest_t,
    need,
    need_alike,
    need_draws,
    need_level,
    one_value,
    product,
    random_signs,
    random_splits,
    resamples,
    sizes_of_t,
    studentised,
    unseen,
    width,
)  # fmt: skip

__all__ = [
    "ENOUGH",
    "EXACT_LIMIT",
    "Bounds",
    "benjamini_hochberg",
    "bootstrap_interval",
    "difference_interval",
    "draws_for",
    "max_statistic",
    "monte_carlo_p",
    "percentile_interval",
    "permutation_test",
    "ratio_interval",
    "sign_flip_test",
    "spearman",
    "wilson_interval",
]

ENOUGH = 16  # units from which an interval is given: measured, see the calibration table
EXACT_LIMIT = 65_536  # up to this many rearrangements a null is enumerated, not sampled
_TIE = 1e-12  # of the sum of magnitudes: equal sums taken in another order must still count as equal


Bounds = tuple[ArrayLike | None, ArrayLike | None]


def bootstrap_interval(
    values: ArrayLike,
    axis: int = 0,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    bounds: Bounds = (None, None),
) -> tuple[Array, Array]:
    """Interval of the mean over `axis`: bootstrap-t over the entries of that axis, at least as wide as Student's.

    values: (n, ...). bounds: between which a value can lie, numbers or of the answer's shape. Returns (low, high), each
    of the shape without `axis`; NaN where fewer than `ENOUGH` values are left. Of values that all lie on the bounds
    (0 or 1) it reaches at least as far as Wilson's. At 95 % it holds the mean of normal, uniform, exponential,
    log-normal and heavy-tailed values, and rare and common shares, at least 92 times in 100; one of values with an
    outlier that comes once in ten or more rarely, less often.
    """
    columns, shape = columns_of(values, axis)
    ends, (low, high) = ends_of(bounds, shape), np.full((2, columns.shape[1]), np.nan)
    for which, (sample,) in groups(columns, width=width(draws, level)):
        if len(sample) >= ENOUGH:
            mean = sample.mean(axis=0)
            error = np.sqrt(sample.var(axis=0, ddof=1) / len(sample))
            counts = resamples(len(sample), draws, (seed, 0))
            centred = sample - mean
            apart = product(counts, centred) / len(sample)
            errors = error_of(product(counts, centred**2) / len(sample) - apart**2, len(sample))
            found = studentised(mean, error, apart, errors, len(sample) - 1, level)
            found = unseen(found, one_value(sample), len(sample), level, ends[:, which])
            low[which], high[which] = _of_flags(found, sample, level, ends[:, which])
    return _shaped(low, high, ends, shape)


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    axis: int = 0,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    bounds: Bounds = (None, None),
) -> tuple[Array, Array]:
    """Interval of mean(numerator) / mean(denominator), both means from the same resample; bootstrap-t, its standard
    error that of numerator - ratio * denominator.

    numerator, denominator: (n, ...), paired along `axis`; a pair with a NaN is left out. Returns (low, high), NaN where
    fewer than `ENOUGH` pairs are left or where a resampled denominator reaches zero: the ratio is then unbounded.
    """
    (over, shape), (under, other) = columns_of(numerator, axis), columns_of(denominator, axis)
    need_alike(over.shape[:1] + shape, under.shape[:1] + other, "numerator and denominator of one shape")
    missing = np.isnan(over) | np.isnan(under)
    over, under = np.where(missing, np.nan, over), np.where(missing, np.nan, under)
    ends, (low, high) = ends_of(bounds, shape), np.full((2, over.shape[1]), np.nan)
    for which, (top, bottom) in groups(over, under, width=width(draws, level)):
        n = len(top)
        if n < ENOUGH:
            continue
        counts = resamples(n, draws, (seed, 0))
        tops, bottoms, squares = (product(counts, one) / n for one in (top, bottom, top**2))
        crosses, others = product(counts, top * bottom) / n, product(counts, bottom**2) / n
        bottoms[:, (bottoms.min(axis=0) <= 0) & (bottoms.max(axis=0) >= 0)] = np.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio, ratios = top.mean(axis=0) / bottom.mean(axis=0), tops / bottoms
            error = np.sqrt((top - ratio * bottom).var(axis=0, ddof=1) / n) / np.abs(bottom.mean(axis=0))
            spread = squares - 2 * ratios * crosses + ratios**2 * others  # its mean is zero by the ratio's definition
            apart = ratios - ratio
            found = studentised(ratio, error, apart, error_of(spread, n) / np.abs(bottoms), n - 1, level)
            alike = one_value(top - ratio * bottom, np.abs(top).max(axis=0))
            low[which], high[which] = unseen(found, alike, n, level, ends[:, which])
    return _shaped(low, high, ends, shape)


def difference_interval(
    a: ArrayLike,
    b: ArrayLike,
    axis: int = 0,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    bounds: Bounds = (None, None),
) -> tuple[Array, Array]:
    """Interval of mean(a) - mean(b), the two samples resampled independently; bootstrap-t with Welch's standard error.

    a: (n_a, ...), b: (n_b, ...), the other axes alike. bounds: between which a difference can lie. Returns (low, high),
    NaN where either sample keeps fewer than `ENOUGH` values.
    """
    (first, shape), (second, other) = columns_of(a, axis), columns_of(b, axis)
    need_alike(shape, other, "two samples that differ only in the number of texts")
    ends, (low, high) = ends_of(bounds, shape), np.full((2, first.shape[1]), np.nan)
    for which, pair in groups(first, second, width=width(draws, level)):
        if min(map(len, pair)) < ENOUGH:
            continue
        apart, squared, own = [], [], []
        for stream, sample in enumerate(pair):
            counts, centred = resamples(len(sample), draws, (seed, stream)), sample - sample.mean(axis=0)
            apart.append(product(counts, centred) / len(sample))
            spread = product(counts, centred**2) / len(sample) - apart[-1] ** 2
            squared.append(error_of(spread, len(sample)) ** 2)
            own.append(sample.var(axis=0, ddof=1) / len(sample))
        value, errors = pair[0].mean(axis=0) - pair[1].mean(axis=0), np.sqrt(squared[0] + squared[1])
        error, freedom = np.sqrt(own[0] + own[1]), min(map(len, pair)) - 1
        found = studentised(value, error, apart[0] - apart[1], errors, freedom, level)
        span = np.subtract(*ends[::-1, which]) / 2  # of one sample's values
        beyond = np.sqrt(sum(unseen((0, 0), one_value(s), len(s), level, (0, span))[1] ** 2 for s in pair))
        low[which], high[which] = value - np.hypot(value - found[0], beyond), value + np.hypot(found[1] - value, beyond)
    return _shaped(low, high, ends, shape)


def percentile_interval(
    drawn: ArrayLike, n: int, level: float = 0.95, bounds: Bounds = (None, None)
) -> tuple[Array, Array]:
    """Interval of a statistic that is no mean, from its values over resamples of n units: expanded percentiles.

    drawn: (draws, ...). bounds: between which it can lie. The percentiles are taken farther out by Student's quantile
    and the factor sqrt(n / (n - 1)) that plain ones lack (Hesterberg 2015, section 5.1). Returns (low, high); NaN below
    `ENOUGH` units, and where a resample has no value.
    """
    need_level(level)
    values = np.asarray(drawn, np.float64)
    gaps = ~np.isfinite(values).all(axis=0)
    if n < ENOUGH:
        gaps = np.ones_like(gaps)
    tail = special.ndtr(-np.sqrt(n / max(1, n - 1)) * special.stdtrit(max(1, n - 1), (1 + level) / 2))
    known, ends = np.where(np.isfinite(values), values, 0.0), ends_of(bounds, values.shape[1:])
    low, high = np.quantile(known, [tail, 1 - tail], axis=0).reshape(2, -1)
    low, high = unseen((low, high), one_value(known.reshape(len(known), -1)), max(1, n), level, ends)
    low, high = np.where(gaps.ravel(), np.nan, (low, high))
    return _shaped(low, high, ends, values.shape[1:])


def draws_for(tests: int) -> int:
    """Draws of a null with which one test alone can pass Benjamini-Hochberg at 0.05 among so many: of fewer the
    smallest p, times the number of tests, would be above that, however large the effect."""
    return max(10_000, 30 * tests)


def sign_flip_test(differences: ArrayLike, axis: int = 0, draws: int = 10_000, seed: int = 0) -> Array:
    """One-sided p that the mean of paired differences is above zero, against flipping the sign of each at random.

    differences: (n, ...). Exact over all 2^n sign patterns while there are at most `EXACT_LIMIT` (n <= 16), else
    (1 + count) / (1 + draws). Valid when the differences are symmetric about zero under the null. Returns p of the
    shape without `axis`: at least 2^-n, or 1 / (1 + draws); NaN for a column without values.
    """
    need_draws(draws)
    columns, shape = columns_of(differences, axis)
    p = np.full(columns.shape[1], np.nan)
    for which, (sample,) in groups(columns, width=BLOCK):
        if len(sample):
            exact = 2 ** len(sample) <= EXACT_LIMIT
            signs = all_signs(len(sample)) if exact else random_signs(len(sample), draws, seed)
            p[which] = _share_at_least(sample.sum(axis=0), signs, sample, exact)
    return p.reshape(shape)[()]


def max_statistic(
    values: ArrayLike, axis: int = 0, draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[Array, float]:
    """p of every column that its mean is not zero, corrected for all columns by the largest |t| under sign flips.

    values: (n, ...), one row for each independent unit; a row's sign is flipped in all columns at once, so that their
    dependence stays. Each column is studentised, so that a loud one does not hide a quiet, steady one; both tails
    count. A column with a missing value, or without spread, is undefined: its p is NaN and it is not among the largest.
    Exact while 2^n patterns are at most `EXACT_LIMIT`, else (1 + count) / (1 + draws); the smallest p is 2 / 2^n. Valid
    when rows are symmetric about zero under the null. Returns p, of the shape without `axis`, and the quantile of the
    largest |t|, from which mean +- quantile * standard error holds all means at once at `level` (NaN without a column).
    It is the larger one of flips of the rows and of what is left without their means: of rows that all lie on one side
    flips move all columns alike, and their quantile alone held 30 large means in 64 to 74 of 100 families. So an
    interval may reach over zero where p is just small enough.

    Source: Westfall and Young 1993 (max T); Nichols and Holmes 2002 (by sign flips).
    """
    need_draws(draws)
    need_level(level)
    columns, shape = columns_of(values, axis)
    n, p = len(columns), np.full(columns.shape[1], np.nan)
    finite = np.isfinite(columns).all(axis=0)
    columns = np.where(finite, columns, 0.0)
    squares = (columns**2).sum(axis=0)
    defined = finite & (n > 1) & (np.ptp(columns, axis=0) > _TIE * np.sqrt(squares)) if n else finite & False
    if not defined.any():
        return p.reshape(shape)[()], float("nan")
    sample, exact = columns[:, defined], 2**n <= EXACT_LIMIT
    largest = largest_t(sample, EXACT_LIMIT if exact else draws, seed)
    own = sizes_of_t(np.ones((1, n)), sample)[0]
    count = len(largest) - np.searchsorted(np.sort(largest), own * (1 - 1e-9))  # ties in another order are ties
    p[defined] = count / len(largest) if exact else (1 + count) / (1 + len(largest))
    centred = largest_t(sample - sample.mean(axis=0), draws, seed)
    return p.reshape(shape)[()], float(max(np.quantile(largest, level), np.quantile(centred, level)))


def permutation_test(a: ArrayLike, b: ArrayLike, axis: int = 0, draws: int = 10_000, seed: int = 0) -> Array:
    """Two-sided p that two samples of texts have different means, against dealing the texts out anew.

    a: (n_a, ...), b: (n_b, ...), the other axes alike. The statistic is |mean(a) - mean(b)|. Exact over all splits
    while there are at most `EXACT_LIMIT`, else (1 + count) / (1 + draws). Returns p of the shape without `axis`; NaN
    where a sample has no values.
    """
    (first, shape), (second, other) = columns_of(a, axis), columns_of(b, axis)
    need_draws(draws)
    need_alike(shape, other, "two samples that differ only in the number of texts")
    p = np.full(first.shape[1], np.nan)
    for which, pair in groups(first, second, width=BLOCK):
        n, total = len(pair[0]), len(pair[0]) + len(pair[1])
        if 0 < n < total:
            pooled = np.concatenate(pair)
            pooled = pooled - pooled.mean(axis=0)  # then the sum of one part alone orders |mean(a) - mean(b)|
            exact = comb(total, n) <= EXACT_LIMIT
            splits = all_splits(n, total) if exact else random_splits(n, total, draws, seed)
            p[which] = _share_at_least(np.abs(pooled[:n].sum(axis=0)), splits, pooled, exact, np.abs)
    return p.reshape(shape)[()]


def monte_carlo_p(observed: ArrayLike, controls: ArrayLike, side: str = "greater", axis: int = 0) -> Array:
    """p of an observed effect among control effects: (1 + controls at least as extreme) / (1 + controls).

    observed: (...); controls: (B, ...) along `axis`, for example the effects of ablating B random heads. side:
    "greater", "less", or "two-sided" (twice the smaller of the two, at most 1). NaN controls are left out of B; the
    answer is NaN where the observed value is, or where no control is left.
    """
    need(side in ("greater", "less", "two-sided"), f"side={side!r}", '"greater", "less" or "two-sided"', "Name a side")
    columns, shape = columns_of(controls, axis)
    value = np.asarray(observed, dtype=np.float64)
    need_alike(value.shape, shape, "one observed value for each column of controls")
    value = value.reshape(-1)
    count = (~np.isnan(columns)).sum(axis=0)
    above, below = (
        (1 + (columns >= value).sum(axis=0)) / (1 + count),
        (1 + (columns <= value).sum(axis=0)) / (1 + count),
    )
    p = {"greater": above, "less": below, "two-sided": np.minimum(1.0, 2 * np.minimum(above, below))}[side]
    return np.where(np.isnan(value) | (count == 0), np.nan, p).reshape(shape)[()]


def benjamini_hochberg(p: ArrayLike) -> Array:
    """q of every p in an array: the smallest false discovery rate at which it would be called (Benjamini-Hochberg).

    All entries are one family, whatever the shape; NaN entries are no tests and stay NaN. Returns q, 0 to 1.
    """
    tested = np.asarray(p, dtype=np.float64)
    q = np.full(tested.shape, np.nan)
    known = ~np.isnan(tested)
    need(not np.any((tested < 0) | (tested > 1)), "a p outside 0 to 1", "probabilities", "Pass p, not its logarithm")
    if known.any():
        q[known] = stats.false_discovery_control(tested[known], method="bh")
    return q[()]


def wilson_interval(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Wilson score interval of a share `successes / n`, which stays inside 0 to 1 and is honest near its ends.

    successes, n: counts, broadcast against each other. Returns (low, high); NaN where n is 0. scipy has it for one
    count at a time (`binomtest(k, n).proportion_ci(method="wilson")`); this is the same formula over arrays.
    """
    need_level(level)
    k, total = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
    need(not np.any((k < 0) | (k > total)), "more successes than trials", "0 <= successes <= n", "Check the counts")
    total = np.where(total == 0, np.nan, total)
    z, share = special.ndtri((1 + level) / 2), k / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-17 on the wrong side.
    low, high = np.where(k == 0, 0.0, centre - half), np.where(k == total, 1.0, centre + half)
    return np.where(np.isnan(total), np.nan, low)[()], np.where(np.isnan(total), np.nan, high)[()]


def spearman(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """Spearman's rank correlation of two arrays of one shape, over all entries where both are known.

    Returns (rho, p): rho in -1 to 1, p two-sided (t distribution, as scipy's; rough below ten pairs). Both NaN for
    fewer than three pairs or where one side is constant.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    need_alike(first.shape, second.shape, "two arrays of one shape")
    known = ~(np.isnan(first) | np.isnan(second))
    first, second = first[known], second[known]
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan")
    result = stats.spearmanr(first, second)
    return float(result.statistic), float(result.pvalue)


def _of_flags(found: tuple[Array, Array], sample: Array, level: float, ends: Array) -> tuple[Array, Array]:
    """Low and high, of columns that hold nothing but their bounds at least as far as Wilson's: few of one kind among
    many of the other have too little spread."""
    (low, high), (least, most), ones = found, ends, sample == ends[1]
    flags = np.isfinite(ends).all(axis=0) & (ones | (sample == least)).all(axis=0)
    span = np.where(flags, most - least, 0.0)
    wide = [np.where(flags, least, 0.0) + span * end for end in wilson_interval(ones.sum(axis=0), len(sample), level)]
    return np.where(flags, np.minimum(low, wide[0]), low), np.where(flags, np.maximum(high, wide[1]), high)


def _shaped(low: Array, high: Array, ends: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Inside the bounds, and of the answer's shape."""
    return np.clip(low, *ends).reshape(shape)[()], np.clip(high, *ends).reshape(shape)[()]


def _share_at_least(
    observed: Array, arrangements: Iterator[Array], sample: Array, exact: bool, size: np.ufunc = np.positive
) -> Array:
    """Share of rearranged sums at least as large as the observed one, which counts itself when sampled."""
    bar = observed - _TIE * np.abs(sample).sum(axis=0)
    total, count = 0, np.zeros(sample.shape[1])
    for arrangement in arrangements:
        step = max(1, BLOCK // sample.shape[1])
        for start in range(0, len(arrangement), step):
            sums = arrangement[start : start + step] @ sample
            count += (size(sums) >= bar).sum(axis=0)
        total += len(arrangement)
    return count / total if exact else (1 + count) / (1 + total)
