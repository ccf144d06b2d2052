"""Change points: found where one was planted, and not in lines, noise, or halves of a change."""

import numpy as np
import pytest

from probes.formation.change_points import change_point

STEPS = np.array(sorted({0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, *range(0, 501, 10)}), float)


def planted(at, width, low=0.05, high=0.95, noise=0.0, seed=0):
    """A logistic curve on the axis log10(1 + step)."""
    x = np.log10(1 + STEPS)
    curve = low + (high - low) / (1 + np.exp(-(x - np.log10(1 + at)) / width))
    return curve + noise * np.random.default_rng(seed).normal(size=len(STEPS))


@pytest.mark.parametrize("at", [20, 90, 240])
@pytest.mark.parametrize(("low", "high"), [(0.05, 0.95), (4.2, 0.1)])
def test_a_planted_change_is_found_where_it_is(at, low, high):
    """Within a tenth of the step: noise of a twentieth of the change, checkpoints a tenth of a decade apart."""
    found = change_point(STEPS, planted(at, 0.03, low, high, noise=0.02 * abs(high - low), seed=at))
    assert found is not None and found.step == pytest.approx(at, rel=0.1)
    assert found.first < found.step < found.last and found.before == pytest.approx(low, abs=0.1 * abs(high - low))


@pytest.mark.parametrize("seed", range(10))
def test_noise_has_none(seed):
    assert change_point(STEPS, np.random.default_rng(seed).normal(size=len(STEPS))) is None


@pytest.mark.parametrize(
    "values",
    [STEPS / 500, 1 - STEPS / 500, np.log10(1 + STEPS), 4 - np.log10(1 + STEPS), np.sqrt(STEPS), np.ones_like(STEPS),
     np.exp(-STEPS / 100), planted(480, 0.03), planted(3, 0.01, 0, 0.05), np.full_like(STEPS, np.nan)],
    ids=["line", "falling", "log", "falling log", "root", "flat", "decay", "unfinished", "small", "missing"],
)  # fmt: skip
def test_what_does_not_change_at_once_has_none(values):
    assert change_point(STEPS, values) is None


def test_missing_values_are_left_out_and_few_points_say_nothing():
    values = planted(90, 0.03)
    values[::3] = np.nan
    found = change_point(STEPS, values)
    assert found is not None and found.step == pytest.approx(90, rel=0.1)
    assert change_point(STEPS[:7], np.array([0, 0, 0, 1, 1, 1, 1.0])) is None
