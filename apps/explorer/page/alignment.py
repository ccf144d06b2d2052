"""Which tokens of several prompts stand one below the other."""

from collections import Counter
from collections.abc import Sequence

from workbench.analysis.compare import align

__all__ = ["ALIGNED", "MOST", "columns", "counterparts"]

ALIGNED = {"token": "equal tokens", "first": "the first token", "last": "the last token"}
MOST = 8  # prompts beside each other


def columns(ids: Sequence[Sequence[int]], aligned: str) -> list[tuple[int, int]]:
    """Of each prompt the first and the last position that its figure has room for; outside of it there is nothing.

    ids: their tokens. aligned: one of ALIGNED; `token`: each is moved so that most tokens stand below their counterpart
    in the first prompt (see `compare.align`). All have the same number of columns.
    """
    shifts = [_shift(ids[0], one, aligned) for one in ids]
    low = min(-shift for shift in shifts)
    high = max(len(one) - 1 - shift for one, shift in zip(ids, shifts, strict=True))
    return [(low + shift, high + shift) for shift in shifts]


def counterparts(shown: Sequence[int], one: Sequence[int], aligned: str) -> list[int]:
    """For every token of the shown prompt the position of its counterpart in another one, or -1.

    aligned: one of ALIGNED; `token`: equal tokens, and tokens that took the place of as many others (`compare.align`).
    """
    if aligned == "token":
        return align(one, shown)
    shift = 0 if aligned == "first" else len(one) - len(shown)
    return [pos + shift if 0 <= pos + shift < len(one) else -1 for pos in range(len(shown))]


def _shift(first: Sequence[int], one: Sequence[int], aligned: str) -> int:
    """By how many columns a prompt is moved to the left of the first one."""
    if aligned == "first":
        return 0
    if aligned == "last":
        return len(one) - len(first)
    pairs = [(pos, at) for pos, at in enumerate(align(first, one)) if at >= 0 and one[pos] == first[at]]
    counted = Counter(pos - at for pos, at in pairs)
    return max(counted, key=lambda shift: (counted[shift], -abs(shift)), default=0)
