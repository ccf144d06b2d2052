"""The erasure score psi of every span from prefix sums, and greedy segmentation.

delta(t, i) = p_early(t, i) - p_late(t, i): how much less probable a probe finds the true token `tok[t + i]` in the late
state at t than in the early one. For a span of tokens p ... q (inclusive), s the first text position:

    psi(p, q) = [ delta(q, 0) + sum over t in p..q, i in (-1, -2), t + i >= s of sign(t, i) delta(t, i) ] / N
    sign = +1 where t + i >= p, inside the span, else -1;  N = 1 + the number of terms in the sum

Terms that would reach before s are left out and not counted, as in the authors' code (the paper divides by 1 + 2n; the
two agree from two tokens behind s on). With prefix sums each span costs a handful of additions. Segmentation takes
spans by falling psi, the longer first among equals, then the leftmost, if they overlap none that is taken; single
tokens are spans too, so every token is covered once.

Source: Feucht et al. 2024, arXiv 2406.20086, and its code.
"""

from functools import lru_cache

import numpy as np

__all__ = ["BACK", "WINDOW", "psi_of_spans", "segment", "spans", "token_psi", "triangle"]

BACK = (-1, -2)
WINDOW = 256  # tokens that are segmented together
_BLOCK = 512


@lru_cache(maxsize=8)
def spans(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (inclusive) of all spans of n tokens: the longer first, then the leftmost."""
    lengths = np.repeat(np.arange(n, 0, -1), np.arange(1, n + 1))
    starts = np.concatenate([np.arange(n - length + 1) for length in range(n, 0, -1)]) if n else lengths
    ends = starts + lengths - 1
    for array in (starts, ends):
        array.flags.writeable = False
    return starts, ends


def psi_of_spans(delta: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """psi of spans.

    delta: `[token, 3]` for offsets 0, -1, -2, from -1 to 1, NaN where t + i lies before the text (the first token at
    offset -1, the first two at -2). starts, ends: indices, inclusive. Returns float64 `[span]`, -1 to 1.
    """
    back = delta[:, 1:].astype(np.float64)
    known = ~np.isnan(back)
    back = np.where(known, back, 0.0)
    total = np.concatenate([[0.0], np.cumsum(back.sum(1))])
    terms = np.concatenate([[0], np.cumsum(known.sum(1))])
    # Only the first two tokens of a span look back past its start: one term of the second, both of the first.
    second = np.append(back[:, 1], 0.0)[np.minimum(starts + 1, len(delta))] * (ends > starts)
    outside = back[starts].sum(1) + second
    numerator = delta[ends, 0] + total[ends + 1] - total[starts] - 2.0 * outside
    return numerator / (1 + terms[ends + 1] - terms[starts])


def segment(delta: np.ndarray, window: int = WINDOW) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments by greedy choice, in reading order: starts, ends (inclusive) and psi, `[segment]`.

    delta: `[token, 3]` as in `psi_of_spans`, without the BOS token. Longer texts are cut into windows, each segmented
    alone; its first tokens still look back into the window before.
    """
    found = [_window(delta, base, min(base + window, len(delta))) for base in range(0, len(delta), window)]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    starts, ends, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return starts, ends, values


def _window(delta: np.ndarray, base: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts, ends = spans(end - base)
    psi = psi_of_spans(delta, starts + base, ends + base)
    order = np.argsort(-psi, kind="stable")
    chosen = _choose(starts[order], ends[order], end - base)
    kept = order[chosen]
    kept = kept[np.argsort(starts[kept])]
    return starts[kept] + base, ends[kept] + base, psi[kept]


def _choose(starts: np.ndarray, ends: np.ndarray, n: int) -> list[int]:
    """Indices of spans that are taken, in the order given. Every block first drops what overlaps what is taken."""
    taken = np.zeros(n, dtype=bool)
    left = np.arange(len(starts))
    chosen: list[int] = []
    while len(left):
        for index in left[:_BLOCK].tolist():
            start, end = starts[index], ends[index]
            if not taken[start : end + 1].any():
                taken[start : end + 1] = True
                chosen.append(index)
        covered = np.concatenate([[0], np.cumsum(taken)])
        left = left[_BLOCK:]
        left = left[covered[ends[left] + 1] == covered[starts[left]]]
    return chosen


def token_psi(n: int, starts: np.ndarray, ends: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """psi of the segment that every one of n tokens lies in, `[token]`."""
    found = np.full(n, np.nan)
    for start, end, value in zip(starts, ends, psi, strict=True):
        found[start : end + 1] = value
    return found


def triangle(delta: np.ndarray) -> np.ndarray:
    """psi of all spans, `[start, end]`, NaN where the end lies before the start."""
    n = len(delta)
    starts, ends = spans(n)
    grid = np.full((n, n), np.nan)
    grid[starts, ends] = psi_of_spans(delta, starts, ends)
    return grid
