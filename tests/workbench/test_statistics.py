"""Statistics against planted values, laws, slower routes and their own claims about error rates.

Calibration: a rate over N independent null columns has a standard deviation of sqrt(p (1 - p) / N); three of them are
allowed, with a fixed seed.
"""

from itertools import product
from math import sqrt

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workbench import statistics
from workbench.errors import InputError
from workbench.statistics import (
    benjamini_hochberg,
    bootstrap_interval,
    difference_interval,
    monte_carlo_p,
    permutation_test,
    ratio_interval,
    sign_flip_test,
    spearman,
    wilson_interval,
)

NAN = np.nan
FINITE = st.floats(-100, 100, allow_subnormal=False)
SAMPLES = arrays(np.float64, st.tuples(st.integers(2, 8), st.integers(1, 3)), elements=FINITE)


def within_sigmas(count: int, total: int, rate: float, sigmas: float = 3.0) -> bool:
    return abs(count / total - rate) <= sigmas * sqrt(rate * (1 - rate) / total)


# Bootstrap intervals


def test_bootstrap_interval_of_two_values_is_their_range():
    # Resampled means are 0 (1/4), 1/2 (1/2), 1 (1/4): the 2.5 and 97.5 percentiles are the ends.
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)


def test_bootstrap_interval_follows_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(3.0, 2.0, 4000)
    low, high = bootstrap_interval(values, draws=4000)
    half = 1.96 * values.std() / sqrt(len(values))
    # The 2.5 percentile of 4000 draws has a standard error of about 0.042 sigma: 4 % of the half-width is 2 of them.
    assert low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_bootstrap_interval_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=(25, 3))
    low, high = bootstrap_interval(values, draws=20_000)
    scipys = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    spread = values.std(axis=0) / sqrt(25)
    assert np.all(np.abs(low - scipys.low) < 0.06 * spread)  # twice the Monte Carlo error of a 2.5 percentile
    assert np.all(np.abs(high - scipys.high) < 0.06 * spread)


def test_bootstrap_interval_agrees_with_a_plain_loop():
    values = np.random.default_rng(3).normal(size=9)
    random = np.random.default_rng(4)
    means = [np.mean([values[random.integers(9)] for _ in range(9)]) for _ in range(4000)]
    low, high = bootstrap_interval(values, draws=4000, level=0.8)
    error = 0.1 * values.std() / 3  # four standard errors of a 10 percentile of 4000 draws
    assert (low, high) == pytest.approx(np.quantile(means, [0.1, 0.9]), abs=error)


@given(SAMPLES)
@settings(max_examples=50, deadline=None)
def test_bootstrap_interval_holds_the_mean_and_moves_with_the_values(values):
    low, high = bootstrap_interval(values, draws=400)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert np.all(values.min(axis=0) - slack <= low)
    assert np.all(low <= values.mean(axis=0) + slack)
    assert np.all(values.mean(axis=0) - slack <= high)
    moved = bootstrap_interval(-3 * values + 7, draws=400)
    np.testing.assert_allclose(moved, (7 - 3 * high, 7 - 3 * low), atol=100 * slack)


def test_bootstrap_interval_of_a_column_depends_on_that_column_alone():
    values = np.random.default_rng(5).normal(size=(4, 12, 5))
    values[1, 3, 2] = NAN
    low, high = bootstrap_interval(values, axis=1)
    assert low.shape == high.shape == (4, 5)
    kept = np.delete(values[1, :, 2], 3)
    np.testing.assert_allclose((low[1, 2], high[1, 2]), bootstrap_interval(kept), rtol=1e-12)
    np.testing.assert_allclose((low[2, 0], high[2, 0]), bootstrap_interval(values[2, :, 0]), rtol=1e-12)


@pytest.mark.parametrize("values", [[1.0], [], [NAN, 2.0], [NAN, NAN]])
def test_bootstrap_interval_of_fewer_than_two_values_is_nan(values):
    assert np.isnan(bootstrap_interval(values)).all()


def test_bootstrap_interval_does_not_depend_on_the_block_size(monkeypatch):
    values = np.random.default_rng(6).normal(size=(7, 11))
    whole = bootstrap_interval(values, draws=150)
    monkeypatch.setattr(statistics, "_BLOCK", 160)  # one column at a time, 22 draws at a time
    np.testing.assert_allclose(bootstrap_interval(values, draws=150), whole, rtol=1e-12)


def test_bootstrap_interval_covers_the_mean_as_often_as_its_docstring_says():
    values = np.random.default_rng(7).normal(size=(16, 4000))
    low, high = bootstrap_interval(values)
    assert within_sigmas(int(((low <= 0) & (high >= 0)).sum()), 4000, 0.93)


def test_same_seed_same_interval_other_seed_another():
    values = np.random.default_rng(8).normal(size=20)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_ratio_interval_of_proportional_pairs_is_their_ratio():
    under = np.random.default_rng(9).uniform(1, 2, (10, 2))
    np.testing.assert_allclose(ratio_interval(3 * under, under), np.full((2, 2), 3.0), rtol=1e-12)


def test_ratio_interval_over_ones_is_the_interval_of_the_mean():
    values = np.random.default_rng(10).normal(size=(12, 3))
    np.testing.assert_allclose(ratio_interval(values, np.ones_like(values)), bootstrap_interval(values), rtol=1e-9)


def test_ratio_interval_leaves_out_incomplete_pairs():
    random = np.random.default_rng(11)
    over, under = random.normal(size=8), random.uniform(1, 2, 8)
    over[2], under[5] = NAN, NAN
    kept = np.delete(np.arange(8), [2, 5])
    assert ratio_interval(over, under) == ratio_interval(over[kept], under[kept])


def test_ratio_interval_is_nan_where_the_denominator_reaches_zero():
    assert np.isnan(ratio_interval([1.0, 2.0, 3.0], [1.0, -1.0, 0.5])).all()
    assert np.isnan(ratio_interval([1.0, 2.0], [0.0, 0.0])).all()


def test_difference_interval_covers_and_agrees_with_scipy():
    random = np.random.default_rng(12)
    a, b = random.normal(1.0, 1.0, 30), random.normal(0.0, 2.0, 20)
    low, high = difference_interval(a, b, draws=20_000)
    scipys = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        n_resamples=20_000,
        method="percentile",
        rng=random,
    ).confidence_interval
    error = 0.06 * sqrt(a.var() / 30 + b.var() / 20)
    assert (low, high) == pytest.approx((scipys.low, scipys.high), abs=error)


def test_difference_interval_resamples_the_two_samples_apart():
    values = np.random.default_rng(26).normal(size=30)
    low, high = difference_interval(values, values)
    half = 1.96 * values.std() * sqrt(2 / 30)
    assert (low, high) == pytest.approx((-half, half), rel=0.1)  # one resample for both would give (0, 0)


def test_difference_interval_leaves_missing_texts_out_and_needs_two_of_each():
    random = np.random.default_rng(13)
    a, b = random.normal(size=(6, 3)), random.normal(size=(5, 3))
    a[0, 1], b[1:, 2] = NAN, NAN
    low, high = difference_interval(a, b)
    assert np.isnan([low[2], high[2]]).all()
    np.testing.assert_allclose((low[1], high[1]), difference_interval(a[1:, 1], b[:, 1]), rtol=1e-12)


# Null tests


@pytest.mark.parametrize(
    ("differences", "p"),
    [([1.0, 2.0, 3.0], 1 / 8), ([-1.0, -2.0, -3.0], 1.0), ([0.0, 0.0], 1.0), ([1.0, 1.0, -1.0], 1 / 2), ([5.0], 1 / 2)],
)
def test_sign_flip_test_on_hand_counted_cases(differences, p):
    assert sign_flip_test(differences) == p


def test_sign_flip_test_agrees_with_a_plain_loop_and_with_scipy():
    differences = np.random.default_rng(14).normal(0.4, 1, (8, 5))
    p = sign_flip_test(differences)
    for column in range(5):
        sums = [np.dot(signs, differences[:, column]) for signs in product((1, -1), repeat=8)]
        assert p[column] == np.mean(np.array(sums) >= sums[0] - 1e-9)
        scipys = scipy.stats.permutation_test(
            (differences[:, column],), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
        )
        assert p[column] == pytest.approx(scipys.pvalue)


def test_sign_flip_test_is_exact_to_sixteen_texts_and_sampled_beyond():
    sixteen, many = np.ones(16), np.ones(40)
    assert sign_flip_test(sixteen) == 2.0**-16
    assert sign_flip_test(many, draws=999) == 1 / 1000  # never 0: the observed order counts itself


def test_sampled_sign_flips_agree_with_the_exact_ones(monkeypatch):
    differences = np.random.default_rng(15).normal(0.3, 1, (12, 6))
    exact = sign_flip_test(differences)
    monkeypatch.setattr(statistics, "EXACT_LIMIT", 1)
    sampled = sign_flip_test(differences, draws=20_000)
    assert np.all(np.abs(sampled - exact) <= 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


@given(SAMPLES)
@settings(max_examples=50, deadline=None)
def test_sign_flip_test_ignores_scale_and_order(values):
    p = sign_flip_test(values)
    assert np.all((p >= 2.0 ** -len(values)) & (p <= 1))
    np.testing.assert_array_equal(sign_flip_test(4 * values[::-1]), p)


def test_missing_differences_leave_the_shorter_column():
    values = np.random.default_rng(16).normal(0.5, 1, (20, 4))
    values[5:13, 1], values[:, 2] = NAN, NAN
    p = sign_flip_test(values)
    assert p[1] == sign_flip_test(np.delete(values[:, 1], np.s_[5:13]))  # 12 left: exact, though others are sampled
    assert np.isnan(p[2])


@pytest.mark.parametrize("n", [10, 24])
def test_sign_flip_test_calls_one_null_in_twenty(n):
    # n = 10 exact, n = 24 sampled. The exact p is a multiple of 1/1024: 51 of them lie at or below 0.05.
    p = sign_flip_test(np.random.default_rng(17).normal(size=(n, 3000)), draws=9999)
    assert within_sigmas(int((p <= 0.05).sum()), 3000, 51 / 1024 if n == 10 else 0.05)


def test_permutation_test_on_a_hand_counted_case():
    # Of the 20 splits of six different numbers in halves only the observed one and its mirror are this far apart.
    assert permutation_test([1.0, 2.0, 3.0], [11.0, 12.0, 13.0]) == 2 / 20
    assert permutation_test([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert permutation_test([7.0], [7.0, 7.0]) == 1.0


def test_permutation_test_agrees_with_scipy_for_unequal_samples():
    random = np.random.default_rng(18)
    a, b = random.normal(0.8, 1, (4, 3)), random.normal(0, 1, (7, 3))
    p = permutation_test(a, b)
    for column in range(3):
        scipys = scipy.stats.permutation_test(
            (a[:, column], b[:, column]),
            lambda x, y: abs(np.mean(x) - np.mean(y)),
            alternative="greater",
            n_resamples=np.inf,
        )
        assert p[column] == pytest.approx(scipys.pvalue)
    np.testing.assert_array_equal(permutation_test(b, a), p)


def test_sampled_permutations_agree_with_all_of_them(monkeypatch):
    random = np.random.default_rng(19)
    a, b = random.normal(0.6, 1, (7, 6)), random.normal(0, 1, (6, 6))
    exact = permutation_test(a, b)
    monkeypatch.setattr(statistics, "EXACT_LIMIT", 1)
    sampled = permutation_test(a, b, draws=20_000)
    assert np.all(np.abs(sampled - exact) <= 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_permutation_test_leaves_missing_texts_out():
    random = np.random.default_rng(20)
    a, b = random.normal(size=(5, 2, 2)), random.normal(size=(6, 2, 2))
    a[1, 0, 1], b[:, 1, 1] = NAN, NAN
    p = permutation_test(a, b)
    assert p[0, 1] == permutation_test(np.delete(a[:, 0, 1], 1), b[:, 0, 1])
    assert np.isnan(p[1, 1])


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_permutation_test_calls_one_null_in_twenty(scale):
    random = np.random.default_rng(21)
    a, b = scale * random.standard_t(3, (12, 3000)), scale * random.standard_t(3, (15, 3000))
    assert within_sigmas(int((permutation_test(a, b, draws=9999) <= 0.05).sum()), 3000, 0.05)


def test_monte_carlo_p_counts_controls_and_the_observation():
    controls = [0.0, 1.0, 2.0, 3.0]
    assert monte_carlo_p(2.0, controls) == 3 / 5
    assert monte_carlo_p(9.0, controls) == 1 / 5
    assert monte_carlo_p(-9.0, controls, side="less") == 1 / 5
    assert monte_carlo_p(9.0, controls, side="two-sided") == 2 / 5
    assert monte_carlo_p(1.5, controls, side="two-sided") == 1.0


def test_monte_carlo_p_leaves_missing_controls_out():
    p = monte_carlo_p([1.0, 1.0, NAN], [[0.0, NAN, 0.0], [NAN, NAN, 2.0], [0.5, NAN, 0.0]])
    np.testing.assert_array_equal(p, [1 / 3, NAN, NAN])


# Many comparisons, shares, ranks


def test_benjamini_hochberg_on_a_hand_counted_case():
    q = benjamini_hochberg([[0.01, 0.04], [0.03, NAN], [0.5, 0.02]])
    np.testing.assert_allclose(q, [[0.05, 0.05], [0.05, NAN], [0.5, 0.05]])
    assert np.isnan(benjamini_hochberg([NAN, NAN])).all()


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_benjamini_hochberg_agrees_with_its_definition(p):
    q, n = benjamini_hochberg(p), len(p)
    for index in range(n):
        larger = [value for value in p if value >= p[index]]
        by_definition = min(min(1.0, value * n / sum(other <= value for other in p)) for value in larger)
        assert q[index] == pytest.approx(by_definition, abs=1e-12)


def test_benjamini_hochberg_holds_the_false_discovery_rate():
    # 200 families of 50 tests, 10 of them real. Expected share of false calls: 0.1 * 40 / 50 = 0.08.
    random = np.random.default_rng(22)
    shares = []
    for _ in range(200):
        z = random.normal(size=50) + 3.0 * (np.arange(50) < 10)
        called = benjamini_hochberg(scipy.stats.norm.sf(z)) <= 0.1
        shares.append(called[10:].sum() / max(1, called.sum()))
    assert abs(np.mean(shares) - 0.08) <= 3 * np.std(shares) / sqrt(200)


def test_wilson_interval_agrees_with_scipy_and_stays_inside():
    k, n = np.array([[0, 1, 5], [10, 3, 7]]), 10
    low, high = wilson_interval(k, n, level=0.9)
    for index in np.ndindex(k.shape):
        scipys = scipy.stats.binomtest(int(k[index]), n).proportion_ci(0.9, method="wilson")
        assert (low[index], high[index]) == pytest.approx((scipys.low, scipys.high), abs=1e-12)
    assert low[0, 0] == 0 and high[1, 0] == 1
    assert np.isnan(wilson_interval(0, 0)).all()


def test_spearman_sees_monotone_relations_and_skips_missing_pairs():
    x = np.arange(12.0)
    assert spearman(x, np.exp(x))[0] == pytest.approx(1.0)
    assert spearman(x, -(x**3))[0] == pytest.approx(-1.0)
    a, b = np.random.default_rng(23).normal(size=(2, 5, 4))
    a[2, 1] = NAN
    kept = np.delete(np.arange(20), 9)
    expected = scipy.stats.pearsonr(scipy.stats.rankdata(a.ravel()[kept]), scipy.stats.rankdata(b.ravel()[kept]))
    assert spearman(a, b) == pytest.approx((expected.statistic, expected.pvalue))
    assert np.isnan(spearman(x, np.ones(12))).all()
    assert np.isnan(spearman([1.0, 2.0], [2.0, 1.0])).all()


# Bad input and size


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval([1.0, 2.0], level=95),
        lambda: bootstrap_interval([1.0, 2.0], draws=0),
        lambda: bootstrap_interval([1.0, 2.0], axis=1),
        lambda: sign_flip_test([1.0, 2.0], draws=0),
        lambda: permutation_test(np.ones((3, 2)), np.ones((3, 4))),
        lambda: ratio_interval([1.0, 2.0], [1.0, 2.0, 3.0]),
        lambda: benjamini_hochberg([-3.0]),
        lambda: wilson_interval(3, 2),
        lambda: monte_carlo_p(1.0, [1.0], side="up"),
        lambda: spearman([1.0], [1.0, 2.0]),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(InputError):
        call()


def test_inputs_are_left_as_they_were():
    values = np.random.default_rng(24).normal(size=(6, 2))
    values[0, 0] = NAN
    before = values.copy()
    bootstrap_interval(values), sign_flip_test(values), permutation_test(values, values), ratio_interval(values, values)
    np.testing.assert_array_equal(values, before)


def test_a_whole_model_of_heads_is_one_call():
    values = np.random.default_rng(25).normal(size=(16, 30, 9)).astype(np.float32)
    low, high = bootstrap_interval(values, draws=500)
    assert low.shape == sign_flip_test(values[:8]).shape == (30, 9)
    assert np.all(low < high)
