"""Which tokens of several prompts stand one below the other."""

from collections import Counter
from collections.abc import Sequence

from workbench.analysis.compare import align, pieces

__all__ = ["ALIGNED", "MOST", "columns", "counterparts", "roles"]

ALIGNED = {
    "token": "equal tokens",
    "role": "equal roles",
    "first": "the first token",
    "last": "the last token",
}
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


def counterparts(shown: Sequence[int], prompts: Sequence[Sequence[int]], aligned: str) -> list[list[int]]:
    """Of every prompt, for every token of the shown one, the position of its counterpart, or -1.

    aligned: one of ALIGNED; `role`: what stands in its column (see `roles`; the shown one may be one of the prompts);
    `token`: equal tokens, and tokens that took the place of as many others (`compare.align`).
    """
    if aligned == "token":
        return [align(one, shown) for one in prompts]
    if aligned == "role":
        *others, own = roles([*prompts, shown])[0]
        places = [{column: pos for pos, column in enumerate(one)} for one in others]
        return [[place.get(column, -1) for column in own] for place in places]
    shifts = [0 if aligned == "first" else len(one) - len(shown) for one in prompts]
    return [
        [pos + shift if 0 <= pos + shift < len(one) else -1 for pos in range(len(shown))]
        for one, shift in zip(prompts, shifts, strict=True)
    ]


def roles(ids: Sequence[Sequence[int]]) -> tuple[list[list[int]], int]:
    """The column of every token of every prompt, so that those of one role stand below each other, and how many columns
    there are; a prompt without a token of some role has a gap there.

    A role is a place between the tokens that a prompt shares with the first one: names of two and of five tokens end in
    the same column, since the last token of a name is where a model has read it.
    """
    regions = [pieces(ids[0], one) for one in ids]
    room = [0] * (len(ids[0]) + 1)  # columns in front of every token of the first one, and behind it
    for region in regions:
        for start, end, first, last in region:
            room[start] = max(room[start], (last - first) - (end - start))
    at, taken = [], 0
    for pos in range(len(room)):
        taken += room[pos]
        at.append(taken + pos)
    found = []
    for region in regions:
        own: list[int] = []
        for start, end, first, last in region:
            new = max(0, (last - first) - (end - start))
            own += range(at[start] - new, at[start])
            own += at[end - (last - first - new) : end]
        found.append(own)
    return found, at[-1]


def _shift(first: Sequence[int], one: Sequence[int], aligned: str) -> int:
    """By how many columns a prompt is moved to the left of the first one."""
    if aligned == "first":
        return 0
    if aligned == "last":
        return len(one) - len(first)
    pairs = [(pos, at) for pos, at in enumerate(align(first, one)) if at >= 0 and one[pos] == first[at]]
    counted = Counter(pos - at for pos, at in pairs)
    return max(counted, key=lambda shift: (counted[shift], -abs(shift)), default=0)
