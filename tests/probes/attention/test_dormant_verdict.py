"""What is concluded of an active-dormant head follows from the signs and intervals of both changes of loss."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from probes.attention.active_dormant.contrast import Difference
from probes.attention.active_dormant.verdict import NO_COST, _conclusion, summary

NUMBER = st.sampled_from([-0.5, -0.1, -0.0005, 0.0, 0.0005, 0.05, 0.3])


def head(candidate: bool, asleep: tuple[float, float], awake: tuple[float, float]) -> xr.Dataset:
    low, high = np.array([asleep, awake]).T
    return xr.Dataset(
        {
            "candidate": ((), float(candidate)),
            "ablation_dloss_low": ("domain", low),
            "ablation_dloss_high": ("domain", high),
        }
    )


@given(st.booleans(), st.tuples(NUMBER, NUMBER), st.tuples(NUMBER, NUMBER))
def test_every_conclusion_has_its_condition(candidate, asleep, awake):
    asleep, awake = tuple(sorted(asleep)), tuple(sorted(awake))
    said = _conclusion(head(candidate, asleep, awake), 0, 1)
    if "costs more where it is awake" in said or "costs something where it is awake" in said:
        assert candidate and awake[0] > NO_COST and awake[0] > asleep[1]
    if "The data support" in said:
        assert candidate and awake[0] > asleep[1] and awake[0] > NO_COST
        assert asleep[0] <= NO_COST and asleep[1] >= -NO_COST
    if "lowers the loss where it sleeps" in said:
        assert asleep[1] < 0
    if "overlap" in said:
        assert awake[0] <= asleep[1]


def test_a_removal_that_helps_less_is_not_called_mattering_more():
    """Before: 'it matters more where it is awake', of a head whose removal lowers the loss in both domains."""
    said = _conclusion(head(True, (-0.5, -0.4), (-0.2, -0.1)), 0, 1)
    assert "do not support that removing it costs anything where it is awake" in said and "more" not in said


def test_without_intervals_nothing_is_supported():
    said = _conclusion(head(True, (np.nan, np.nan), (np.nan, np.nan)), 0, 1)
    assert "cannot be told" in said and "support" not in said


@pytest.mark.parametrize("share, passes", [(0.05, False), (0.5, True)])
def test_a_sure_but_small_difference_is_none(share, passes):
    """400 texts are sure of 5 %: it is below the floor."""
    values = np.zeros((2, 400, 1, 1))
    values[0, : int(share * 400)] = 1
    found = Difference.of(values, seed=0)
    assert found.q[0, 0] < 0.001 and bool(found.passes[0, 0]) is passes


def test_the_contrast_is_corrected_over_all_heads():
    """Of 60 heads that differ by chance alone one has p = 0.02: before correction it would pass."""
    random = np.random.default_rng(1)
    values = (random.random((2, 24, 6, 10)) < 0.5).astype(float)
    values[0, :18, 0, 0], values[0, 18:, 0, 0] = 1, 0
    values[1, :10, 0, 0], values[1, 10:, 0, 0] = 1, 0
    found = Difference.of(values, seed=0)
    from workbench.statistics import permutation_test

    p = permutation_test(values[0], values[1], seed=0)
    assert p[0, 0] < 0.05 and abs(found.value[0, 0]) > 0.1
    assert found.q[0, 0] > 0.05 and not found.passes[0, 0]


@pytest.mark.parametrize("share, said", [(0.0, "on any text"), (0.3, "on more texts of one than of the other")])
def test_of_heads_that_are_dormant_as_often_in_both_none_differs_most(share, said):
    """It was another one, 'dormant on 0% of prose and 0% of code', that its attention had chosen."""
    cell, none = ("layer", "head"), np.zeros((1, 2))
    shares, sinks = np.array([[[share, 0.0]], [[share, 0.0]]]), np.array([[[0.9, 0.7]], [[0.9, 0.5]]])
    result = xr.Dataset(
        {
            "contrast": (cell, none), "contrast_q": (cell, none + 1), "candidate": (cell, none),
            "sink_contrast": (cell, np.array([[0.0, 0.2]])), "sink_contrast_q": (cell, none + 0.5),
            "dormant_share": (("domain", *cell), shares), "mean_sink_attention": (("domain", *cell), sinks),
        },
        {"domain": ["prose", "code"]},
    )  # fmt: skip
    expected = (
        f"No head is dormant {said}; L0H1 differs most in its attention to sinks: 0.70 on prose and 0.50 on code."
    )
    assert expected in summary(result) and "0%" not in summary(result)
