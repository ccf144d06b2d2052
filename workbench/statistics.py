"""How sure a number is: intervals, null tests and multiple comparisons, over whole arrays of heads at once.

Thin over scipy where scipy has it. Resampling is written here because scipy's materialises every resample of every
column, while the mean of a resample is a product with a matrix of counts. All functions take numpy arrays (or what
`numpy.asarray` takes) and work in float64; an interval has the unit of its values, p and q lie in 0 to 1.

NaN means missing: a text without a value is left out of its own column, and the answer for that column is the one for
the shorter column. A column that keeps too few values answers NaN. The answer for a column does not depend on the
columns beside it, and the same seed gives the same answer.

Sources: Efron and Tibshirani 1993 (percentile bootstrap); Phipson and Smyth 2010, doi 10.2202/1544-6115.1585 (why a
Monte Carlo p is (1 + count) / (1 + draws)); Benjamini and Hochberg 1995; Wilson 1927.
"""

from collections.abc import Iterator
from itertools import chain, combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from workbench.errors import InputError

__all__ = [
    "EXACT_LIMIT",
    "benjamini_hochberg",
    "bootstrap_interval",
    "difference_interval",
    "monte_carlo_p",
    "permutation_test",
    "ratio_interval",
    "sign_flip_test",
    "spearman",
    "wilson_interval",
]

Array = NDArray[np.float64]

EXACT_LIMIT = 65_536  # up to this many rearrangements a null is enumerated, not sampled
_BLOCK = 4_000_000  # numbers held at once while resampling: 32 MB
_TIE = 1e-12  # of the sum of magnitudes: equal sums taken in another order must still count as equal


def bootstrap_interval(
    values: ArrayLike, axis: int = 0, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of the mean over `axis`: resamples the entries of that axis with replacement.

    values: (n, ...). Returns (low, high), each of the shape without `axis`; NaN where fewer than two values are left.
    With few texts it is too short: at n = 16 it holds a normal mean about 93 times in 100, not 95.
    """
    columns, shape = _columns(values, axis)
    low, high = np.full((2, columns.shape[1]), np.nan)
    for which, (sample,) in _groups(columns, width=_width(draws, level)):
        if len(sample) >= 2:
            low[which], high[which] = _percentiles(_resampled_means(sample, draws, (seed, 0)), level)
    return low.reshape(shape)[()], high.reshape(shape)[()]


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    axis: int = 0,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of mean(numerator) / mean(denominator), both means from the same resample.

    numerator, denominator: (n, ...), paired along `axis`; a pair with a NaN is left out. Returns (low, high), NaN where
    fewer than two pairs are left or where a resampled denominator reaches zero: the ratio is then unbounded.
    """
    (over, shape), (under, other) = _columns(numerator, axis), _columns(denominator, axis)
    _need_alike(over.shape[:1] + shape, under.shape[:1] + other, "numerator and denominator of one shape")
    missing = np.isnan(over) | np.isnan(under)
    over, under = np.where(missing, np.nan, over), np.where(missing, np.nan, under)
    low, high = np.full((2, over.shape[1]), np.nan)
    for which, pair in _groups(over, under, width=_width(draws, level)):
        if len(pair[0]) >= 2:
            top, bottom = (_resampled_means(sample, draws, (seed, 0)) for sample in pair)
            bottom[:, (bottom.min(axis=0) <= 0) & (bottom.max(axis=0) >= 0)] = np.nan
            low[which], high[which] = _percentiles(top / bottom, level)
    return low.reshape(shape)[()], high.reshape(shape)[()]


def difference_interval(
    a: ArrayLike, b: ArrayLike, axis: int = 0, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[Array, Array]:
    """Percentile bootstrap interval of mean(a) - mean(b), the two samples resampled independently.

    a: (n_a, ...), b: (n_b, ...), the other axes alike. Returns (low, high), NaN where either sample keeps fewer than
    two values.
    """
    (first, shape), (second, other) = _columns(a, axis), _columns(b, axis)
    _need_alike(shape, other, "two samples that differ only in the number of texts")
    low, high = np.full((2, first.shape[1]), np.nan)
    for which, pair in _groups(first, second, width=_width(draws, level)):
        if min(map(len, pair)) >= 2:
            means = [_resampled_means(sample, draws, (seed, stream)) for stream, sample in enumerate(pair)]
            low[which], high[which] = _percentiles(means[0] - means[1], level)
    return low.reshape(shape)[()], high.reshape(shape)[()]


def sign_flip_test(differences: ArrayLike, axis: int = 0, draws: int = 10_000, seed: int = 0) -> Array:
    """One-sided p that the mean of paired differences is above zero, against flipping the sign of each at random.

    differences: (n, ...). Exact over all 2^n sign patterns while there are at most `EXACT_LIMIT` (n <= 16), else
    (1 + count) / (1 + draws). Valid when the differences are symmetric about zero under the null. Returns p of the
    shape without `axis`: at least 2^-n, or 1 / (1 + draws); NaN for a column without values.
    """
    _need_draws(draws)
    columns, shape = _columns(differences, axis)
    p = np.full(columns.shape[1], np.nan)
    for which, (sample,) in _groups(columns, width=_BLOCK):
        if len(sample):
            exact = 2 ** len(sample) <= EXACT_LIMIT
            signs = _all_signs(len(sample)) if exact else _random_signs(len(sample), draws, seed)
            p[which] = _share_at_least(sample.sum(axis=0), signs, sample, exact)
    return p.reshape(shape)[()]


def permutation_test(a: ArrayLike, b: ArrayLike, axis: int = 0, draws: int = 10_000, seed: int = 0) -> Array:
    """Two-sided p that two samples of texts have different means, against dealing the texts out anew.

    a: (n_a, ...), b: (n_b, ...), the other axes alike. The statistic is |mean(a) - mean(b)|. Exact over all splits
    while there are at most `EXACT_LIMIT`, else (1 + count) / (1 + draws). Returns p of the shape without `axis`; NaN
    where a sample has no values.
    """
    (first, shape), (second, other) = _columns(a, axis), _columns(b, axis)
    _need_draws(draws)
    _need_alike(shape, other, "two samples that differ only in the number of texts")
    p = np.full(first.shape[1], np.nan)
    for which, pair in _groups(first, second, width=_BLOCK):
        n, total = len(pair[0]), len(pair[0]) + len(pair[1])
        if 0 < n < total:
            pooled = np.concatenate(pair)
            pooled = pooled - pooled.mean(axis=0)  # then the sum of one part alone orders |mean(a) - mean(b)|
            exact = comb(total, n) <= EXACT_LIMIT
            splits = _all_splits(n, total) if exact else _random_splits(n, total, draws, seed)
            p[which] = _share_at_least(np.abs(pooled[:n].sum(axis=0)), splits, pooled, exact, np.abs)
    return p.reshape(shape)[()]


def monte_carlo_p(observed: ArrayLike, controls: ArrayLike, side: str = "greater", axis: int = 0) -> Array:
    """p of an observed effect among control effects: (1 + controls at least as extreme) / (1 + controls).

    observed: (...); controls: (B, ...) along `axis`, for example the effects of ablating B random heads. side:
    "greater", "less", or "two-sided" (twice the smaller of the two, at most 1). NaN controls are left out of B; the
    answer is NaN where the observed value is, or where no control is left.
    """
    _need(side in ("greater", "less", "two-sided"), f"side={side!r}", '"greater", "less" or "two-sided"', "Name a side")
    columns, shape = _columns(controls, axis)
    value = np.asarray(observed, dtype=np.float64)
    _need_alike(value.shape, shape, "one observed value for each column of controls")
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
    _need(not np.any((tested < 0) | (tested > 1)), "a p outside 0 to 1", "probabilities", "Pass p, not its logarithm")
    if known.any():
        q[known] = stats.false_discovery_control(tested[known], method="bh")
    return q[()]


def wilson_interval(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Wilson score interval of a share `successes / n`, which stays inside 0 to 1 and is honest near its ends.

    successes, n: counts, broadcast against each other. Returns (low, high); NaN where n is 0. scipy has it for one
    count at a time (`binomtest(k, n).proportion_ci(method="wilson")`); this is the same formula over arrays.
    """
    _need_level(level)
    k, total = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
    _need(not np.any((k < 0) | (k > total)), "more successes than trials", "0 <= successes <= n", "Check the counts")
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
    _need_alike(first.shape, second.shape, "two arrays of one shape")
    known = ~(np.isnan(first) | np.isnan(second))
    first, second = first[known], second[known]
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan")
    result = stats.spearmanr(first, second)
    return float(result.statistic), float(result.pvalue)


def _columns(values: ArrayLike, axis: int) -> tuple[Array, tuple[int, ...]]:
    """`axis` first and everything else flattened: (n, columns), and the shape to give the columns back."""
    array = np.asarray(values, dtype=np.float64)
    fits = -array.ndim <= axis < array.ndim
    _need(fits, f"axis {axis} of an array of shape {array.shape}", "an axis it has", "Check the axis")
    array = np.moveaxis(array, axis, 0)
    return array.reshape(len(array), int(np.prod(array.shape[1:]))), array.shape[1:]


def _groups(*samples: Array, width: int) -> Iterator[tuple[NDArray[np.intp], list[Array]]]:
    """Columns that keep equally many values, at most `width` at once, with their missing values taken out.

    So a column with gaps is treated exactly as the shorter column, and there are at most as many groups as counts.
    """
    order = [np.argsort(np.isnan(sample), axis=0, kind="stable") for sample in samples]
    counts = np.stack([(~np.isnan(sample)).sum(axis=0) for sample in samples])  # sample column
    for kept in np.unique(counts, axis=1).T:
        columns = np.flatnonzero((counts == kept[:, None]).all(axis=0))
        for start in range(0, len(columns), width):
            which = columns[start : start + width]
            rows = [rank[:count, which] for rank, count in zip(order, kept, strict=True)]
            yield which, [np.take_along_axis(s[:, which], r, axis=0) for s, r in zip(samples, rows, strict=True)]


def _resampled_means(sample: Array, draws: int, seed: tuple[int, int]) -> Array:
    """Means of `draws` resamples with replacement, (draws, columns); one resample serves all columns."""
    n, random = len(sample), np.random.default_rng(seed)
    means, step = np.empty((draws, sample.shape[1])), max(1, _BLOCK // n)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        picks = random.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = counts.astype(np.float64) @ sample
    return means / n


def _percentiles(draws: Array, level: float) -> Array:
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _share_at_least(
    observed: Array, arrangements: Iterator[Array], sample: Array, exact: bool, size: np.ufunc = np.positive
) -> Array:
    """Share of rearranged sums at least as large as the observed one, which counts itself when sampled."""
    bar = observed - _TIE * np.abs(sample).sum(axis=0)
    total, count = 0, np.zeros(sample.shape[1])
    for arrangement in arrangements:
        step = max(1, _BLOCK // sample.shape[1])
        for start in range(0, len(arrangement), step):
            sums = arrangement[start : start + step] @ sample
            count += (size(sums) >= bar).sum(axis=0)
        total += len(arrangement)
    return count / total if exact else (1 + count) / (1 + total)


def _all_signs(n: int) -> Iterator[Array]:
    yield np.asarray(1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1), np.float64)


def _random_signs(n: int, draws: int, seed: int) -> Iterator[Array]:
    random = np.random.default_rng(seed)
    for rows in _block_rows(n, draws):
        yield np.asarray(1.0 - 2.0 * random.integers(0, 2, (rows, n)), np.float64)


def _all_splits(n: int, total: int) -> Iterator[Array]:
    chosen = np.fromiter(chain.from_iterable(combinations(range(total), n)), np.intp).reshape(-1, n)
    splits = np.zeros((len(chosen), total))
    np.put_along_axis(splits, chosen, 1.0, axis=1)
    yield splits


def _random_splits(n: int, total: int, draws: int, seed: int) -> Iterator[Array]:
    random = np.random.default_rng(seed)
    for rows in _block_rows(total, draws):
        yield (random.random((rows, total)).argsort(axis=1) < n).astype(np.float64)


def _block_rows(n: int, draws: int) -> Iterator[int]:
    step = max(1, _BLOCK // n)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def _need(holds: bool, got: str, expected: str, remedy: str) -> None:
    if not holds:
        raise InputError(got, expected, remedy)


def _need_level(level: float) -> None:
    _need(0 < level < 1, f"level={level}", "a share between 0 and 1, such as 0.95", "Pass the level as a share")


def _need_draws(draws: int) -> None:
    _need(draws >= 1, f"draws={draws}", "at least one", "Ask for 1000 or more")


def _width(draws: int, level: float) -> int:
    """How many columns of resampled means fit one block."""
    _need_draws(draws)
    _need_level(level)
    return max(1, _BLOCK // draws)


def _need_alike(first: tuple[int, ...], second: tuple[int, ...], expected: str) -> None:
    _need(first == second, f"shapes {first} and {second}", expected, "Align the arrays before comparing them")
