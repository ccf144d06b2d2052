"""How arrays of heads are laid out, resampled and rearranged, for `statistics`, in blocks."""

from collections.abc import Iterator
from itertools import chain, combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from workbench.errors import InputError

__all__ = [
    "BLOCK", "Array", "all_signs", "all_splits", "columns_of", "ends_of", "error_of", "groups", "need", "need_alike",
    "need_draws", "need_level", "one_value", "product", "random_signs", "random_splits", "resamples", "studentised",
    "unseen", "width",
]  # fmt: skip

Array = NDArray[np.float64]

BLOCK = 4_000_000  # numbers held at once while resampling: 32 MB


def columns_of(values: ArrayLike, axis: int) -> tuple[Array, tuple[int, ...]]:
    """`axis` first and everything else flattened: (n, columns), and the shape to give the columns back."""
    array = np.asarray(values, dtype=np.float64)
    fits = -array.ndim <= axis < array.ndim
    need(fits, f"axis {axis} of an array of shape {array.shape}", "an axis it has", "Check the axis")
    array = np.moveaxis(array, axis, 0)
    return array.reshape(len(array), int(np.prod(array.shape[1:]))), array.shape[1:]


def groups(*samples: Array, width: int) -> Iterator[tuple[NDArray[np.intp], list[Array]]]:
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


def resamples(n: int, draws: int, seed: tuple[int, int]) -> NDArray[np.unsignedinteger]:
    """How often each of n entries is drawn, (draws, n); one resample serves all columns."""
    random, found = np.random.default_rng(seed), np.empty((draws, n), np.uint16 if n < 1 << 16 else np.uint32)
    step = max(1, BLOCK // 4 // n)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        picks = random.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        found[start : start + rows] = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)
    return found


def product(counts: NDArray[np.number], sample: Array) -> Array:
    """Sums of resampled rows: (draws, n) times (n, columns); of many entries some draws at a time, to be held as
    numbers that can be multiplied."""
    step = len(counts) if counts.size <= BLOCK else max(1, BLOCK // 4 // counts.shape[1])
    parts = [
        counts[start : start + step].astype(np.float64, copy=False) @ sample for start in range(0, len(counts), step)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, sample.shape[1]))


def all_signs(n: int) -> Iterator[Array]:
    """Every choice of signs of n entries, (2 ** n, n), in one block."""
    yield np.asarray(1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1), np.float64)


def random_signs(n: int, draws: int, seed: int) -> Iterator[Array]:
    """Random signs of n entries, (rows, n) a block, `draws` rows in all."""
    random = np.random.default_rng(seed)
    for rows in block_rows(n, draws):
        yield np.asarray(1.0 - 2.0 * random.integers(0, 2, (rows, n)), np.float64)


def all_splits(n: int, total: int) -> Iterator[Array]:
    """Every choice of n of `total` entries as rows of 0 and 1, in one block."""
    chosen = np.fromiter(chain.from_iterable(combinations(range(total), n)), np.intp).reshape(-1, n)
    splits = np.zeros((len(chosen), total))
    np.put_along_axis(splits, chosen, 1.0, axis=1)
    yield splits


def random_splits(n: int, total: int, draws: int, seed: int) -> Iterator[Array]:
    """Random choices of n of `total` entries as rows of 0 and 1, in blocks, `draws` rows in all."""
    random = np.random.default_rng(seed)
    for rows in block_rows(total, draws):
        yield (random.random((rows, total)).argsort(axis=1) < n).astype(np.float64)


def block_rows(n: int, draws: int) -> Iterator[int]:
    """How many rows of n numbers each block holds, `draws` in all."""
    step = max(1, BLOCK // n)
    for start in range(0, draws, step):
        yield min(step, draws - start)


def ends_of(bounds: tuple[ArrayLike | None, ArrayLike | None], shape: tuple[int, ...]) -> Array:
    """Least and most of every column, (2, columns); infinite where there is no bound."""
    ends = [other if one is None else one for one, other in zip(bounds, (-np.inf, np.inf), strict=True)]
    return np.stack([np.broadcast_to(np.asarray(end, np.float64), shape).reshape(-1) for end in ends])


def one_value(sample: Array, size: Array | float = 0.0) -> NDArray[np.bool_]:
    """Columns whose entries are all alike, but for rounding, against their largest or `size`."""
    return np.asarray(np.ptp(sample, axis=0) <= 1e-12 * np.maximum(np.abs(sample).max(axis=0), size), bool)


def unseen(
    found: tuple[Array | float, Array | float],
    alike: NDArray[np.bool_],
    n: int | Array,
    level: float,
    ends: Array | tuple[Array | float, Array | float],
) -> tuple[Array, Array]:
    """Low and high of columns of one value (`alike`) taken out by units of another kind, of which there was none among
    n: up to a share of 1 - (1 - level) ** (1 / n), as far as the bounds. Where there is no bound they stay."""
    share = 1 - (1 - level) ** (1 / n)
    with np.errstate(invalid="ignore"):
        low, high = (value + share * (end - value) for value, end in zip(found, ends, strict=True))
    low, high = (np.where(alike & np.isfinite(end), x, v) for x, v, end in zip((low, high), found, ends, strict=True))
    return low, high


def error_of(spread: Array, n: int) -> Array:
    """Standard error of a resampled mean from its variance over the resample, (draws, columns)."""
    return np.asarray(np.sqrt(np.maximum(spread, 0.0) / (n - 1)), np.float64)


def studentised(
    value: Array, error: Array, apart: Array, errors: Array, freedom: int, level: float
) -> tuple[Array, Array]:
    """Ends of the bootstrap-t interval, or of Student's where that reaches farther.

    value, error: (columns,); apart, errors: of the resamples, (draws, columns), differences from the value and their
    standard errors. A resample of one entry over and over has none: it lies beyond all others, on its side.
    """
    missing = np.isnan(apart).any(axis=0)
    apart, errors = np.where(missing, 0.0, apart), np.where(missing, 1.0, errors)
    tiny = 1e-9 * np.maximum(error, 1e-300)
    ratios = np.where(errors > tiny, apart / np.maximum(errors, tiny), np.sign(apart) * 1e9)
    ratios = np.where(np.abs(apart) <= tiny, 0.0, ratios)
    below, above = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], axis=0)
    student = special.stdtrit(freedom, (1 + level) / 2)
    # An end that resamples without spread would put infinitely far is as far as those with spread reach.
    reach = np.abs(np.where(np.abs(ratios) < 1e9, ratios, 0.0)).max(axis=0)
    low = value - np.maximum(np.minimum(above, reach), student) * error
    high = value - np.minimum(np.maximum(below, -reach), -student) * error
    return np.where(missing, np.nan, low), np.where(missing, np.nan, high)


def sizes_of_t(signs: Array, sample: Array) -> Array:
    """|t| of every column under signs of its entries, (signs, columns): sums of squares do not change with them."""
    n, squares = len(sample), (sample**2).sum(axis=0)
    mean = signs @ sample / n
    return np.asarray(np.abs(mean) / np.sqrt(np.maximum(squares / n - mean**2, 1e-12 * squares) / (n - 1)))


def largest_t(sample: Array, draws: int, seed: int) -> Array:
    """The largest |t| over columns under flips of the signs of entries: all of them where these are at most `draws`,
    else so many at random."""
    n, step = len(sample), max(1, BLOCK // sample.shape[1])
    flips = all_signs(n) if 2**n <= draws else random_signs(n, draws, seed)
    parts = ((block[at : at + step], sample) for block in flips for at in range(0, len(block), step))
    return np.concatenate([sizes_of_t(*part).max(axis=1) for part in parts])


def need(holds: bool, got: str, expected: str, remedy: str) -> None:
    """InputError with these words where something does not hold."""
    if not holds:
        raise InputError(got, expected, remedy)


def need_level(level: float) -> None:
    """InputError for a level that is no share."""
    need(0 < level < 1, f"level={level}", "a share between 0 and 1, such as 0.95", "Pass the level as a share")


def need_draws(draws: int) -> None:
    """InputError for no draws."""
    need(draws >= 1, f"draws={draws}", "at least one", "Ask for 1000 or more")


def width(draws: int, level: float) -> int:
    """How many columns of resampled means fit one block."""
    need_draws(draws)
    need_level(level)
    return max(1, BLOCK // draws)


def need_alike(first: tuple[int, ...], second: tuple[int, ...], expected: str) -> None:
    """InputError for arrays of unlike shapes."""
    need(first == second, f"shapes {first} and {second}", expected, "Align the arrays before comparing them")
