"""Progress of parts: they meet end to end, and nobody listens to none."""

import pytest

from workbench.analysis.progress import part


def test_parts_fill_the_whole_and_end_at_one():
    shares: list[float] = []
    for index in range(3):
        tell = part(shares.append, index / 3, (index + 1) / 3)
        for done in (0.0, 0.5, 1.0):
            tell(done)
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 1.0
    assert shares[4] == pytest.approx(0.5) and shares[2] == shares[3] == 1 / 3


def test_nobody_listens():
    assert part(None, 0.0, 0.5) is None
