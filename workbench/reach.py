"""What a test of many units can call at all with so many samples: known before it runs, and said beside what it finds.

"Cannot tell with so few" and "no unit does" are different sentences. With n sequences the smallest p by sign flips is
2 ** -n; Benjamini-Hochberg multiplies it by the number of units over the number of those that have it.
"""

from math import ceil, comb, floor

from workbench.statistics import EXACT_LIMIT, draws_for
from workbench.words import counted

__all__ = ["smallest_flip_p", "smallest_split_p", "together", "too_few"]


def smallest_flip_p(n: int, tests: int) -> float:
    """The smallest one-sided p that `sign_flip_test` can give of n differences, with `draws_for` so many tests."""
    return 2.0**-n if 2**n <= EXACT_LIMIT else 1 / (1 + draws_for(tests))


def smallest_split_p(n: int, other: int, tests: int) -> float:
    """The smallest two-sided p that `permutation_test` can give of two samples, with `draws_for` so many tests."""
    splits = comb(n + other, n)
    if splits > EXACT_LIMIT:
        return 1 / (1 + draws_for(tests))
    return min(1.0, (2 if n == other else 1) / splits)


def together(smallest: float, tests: int, level: float = 0.05) -> int:
    """How many tests must have the smallest p for Benjamini-Hochberg to call any at `level`; more than all: none."""
    if smallest > level:
        return tests + 1
    return max(1, ceil(floor(1e9 * smallest * tests / level) / 1e9))  # a quotient that is whole but for rounding is


def too_few(smallest: float, tests: int, samples: str, unit: str, more: str, level: float = 0.05) -> str:
    """A sentence where the smallest p cannot call a single unit, else "". samples: what they were, such as
    "16 sequences"; more: what to take instead."""
    needed = together(smallest, tests, level)
    if needed == 1:
        return ""
    none = needed > tests
    what = f"any {unit}" if none else f"fewer than {counted(needed, unit)} at once"
    return (
        f"With {samples} no test can call {what} of {tests:,}: p is at least {smallest:.2g}, and q that times "
        f"{tests:,}{'' if none else ' over their number'}. {more}."
    )
