"""How arrays of heads are laid out, resampled and rearranged, for `statistics`, in blocks."""

from collections.abc import Iterator
from itertools import chain, combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import InputError

__all__ = [
    "BLOCK", "Array", "all_signs", "all_splits", "columns_of", "groups", "need", "need_alike", "need_draws",
    "need_level", "product", "random_signs", "random_splits", "resamples", "width",
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
