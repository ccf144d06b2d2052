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

from workbench import resampling, statistics
from workbench.errors import InputError
from workbench.statistics import (
    ENOUGH,
    benjamini_hochberg,
    bootstrap_interval,
    difference_interval,
    max_statistic,
    monte_carlo_p,
    percentile_interval,
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


def student(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    found = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(level)
    return float(found.low), float(found.high)


def slow_bootstrap_t(values: np.ndarray, draws: int, level: float, seed: int) -> tuple[float, float]:
    """By a plain loop, without the guard of Student's interval."""
    random, n = np.random.default_rng(seed), len(values)
    ratios = []
    for _ in range(draws):
        drawn = values[random.integers(n, size=n)]
        ratios.append((drawn.mean() - values.mean()) / scipy.stats.sem(drawn))
    below, above = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    error = scipy.stats.sem(values)
    return values.mean() - above * error, values.mean() - below * error


def test_bootstrap_interval_of_normal_values_is_students():
    values = np.random.default_rng(0).normal(3.0, 2.0, 4000)
    half = (student(values)[1] - student(values)[0]) / 2
    # The 2.5 percentile of 4000 draws has a standard error of about 0.042 sigma: 4 % of the half-width is 2 of them.
    assert bootstrap_interval(values, draws=4000) == pytest.approx(student(values), abs=0.08 * half)


def test_bootstrap_interval_agrees_with_a_plain_loop_where_that_reaches_beyond_students():
    values = np.random.default_rng(3).exponential(size=40)
    low, high = bootstrap_interval(values, draws=8000, level=0.9)
    slow, (_, other) = slow_bootstrap_t(values, 8000, 0.9, 4), student(values, 0.9)
    error = 0.1 * scipy.stats.sem(values)  # four standard errors of a 5 percentile of 8000 draws, skewed
    assert slow[1] > other + error  # the long tail is to the right, and so is the interval
    assert high == pytest.approx(slow[1], abs=error)
    assert low == pytest.approx(min(slow[0], student(values, 0.9)[0]), abs=error)


@given(arrays(np.float64, st.tuples(st.integers(16, 24), st.integers(1, 3)), elements=FINITE))
@settings(max_examples=50, deadline=None)
def test_bootstrap_interval_holds_the_mean_and_moves_with_the_values(values):
    low, high = bootstrap_interval(values, draws=400)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert np.all(low <= values.mean(axis=0) + slack) and np.all(values.mean(axis=0) - slack <= high)
    bounded = bootstrap_interval(values, draws=400, bounds=(values.min(), None))
    assert np.all(bounded[0] >= values.min()) and np.array_equal(bounded[1], np.maximum(high, values.min()))
    moved = bootstrap_interval(-4 * values, draws=400)  # a power of two, so that no rounding moves a tie
    np.testing.assert_allclose(moved, (-4 * high, -4 * low), atol=100 * slack)


def test_bootstrap_interval_of_a_column_depends_on_that_column_alone():
    values = np.random.default_rng(5).normal(size=(4, 18, 5))
    values[1, 3, 2] = NAN
    low, high = bootstrap_interval(values, axis=1)
    assert low.shape == high.shape == (4, 5)
    kept = np.delete(values[1, :, 2], 3)
    np.testing.assert_allclose((low[1, 2], high[1, 2]), bootstrap_interval(kept), rtol=1e-12)
    np.testing.assert_allclose((low[2, 0], high[2, 0]), bootstrap_interval(values[2, :, 0]), rtol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 8, 15])
def test_there_is_no_interval_for_fewer_than_sixteen_units(n):
    values = np.append(np.random.default_rng(0).normal(size=n), NAN)
    assert np.isnan(bootstrap_interval(values)).all() and np.isnan(ratio_interval(values, values)).all()
    assert np.isnan(difference_interval(values, np.arange(20.0))).all()
    assert np.isnan(percentile_interval(np.arange(100.0), n)).all()
    assert np.isfinite(bootstrap_interval(np.arange(float(ENOUGH)))).all()


def test_bootstrap_interval_does_not_depend_on_the_block_size(monkeypatch):
    values = np.random.default_rng(6).normal(size=(17, 11))
    whole = bootstrap_interval(values, draws=150)
    monkeypatch.setattr(resampling, "BLOCK", 160)  # one column at a time, a few draws at a time
    np.testing.assert_allclose(bootstrap_interval(values, draws=150), whole, rtol=1e-12)


FAMILIES = {
    "normal": (lambda r, s: r.normal(size=s), 0.0),
    "uniform": (lambda r, s: r.uniform(size=s), 0.5),
    "exponential": (lambda r, s: r.exponential(size=s), 1.0),
    "log-normal": (lambda r, s: r.lognormal(size=s), np.exp(0.5)),
    "heavy tails": (lambda r, s: r.standard_t(3, size=s), 0.0),
    "shares": (lambda r, s: (r.random(s) < 0.3).astype(float), 0.3),
}


@pytest.mark.parametrize("n", [16, 32])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_interval_that_is_given_covers_within_three_points_of_what_it_says(name, n):
    """From 95 down to 92 in 100, with three standard errors of 2000 columns for the count; a plain percentile interval
    held a log-normal mean 85 times in 100 at n = 16."""
    draw, mean = FAMILIES[name]
    low, high = bootstrap_interval(draw(np.random.default_rng(7), (n, 2000)), draws=800)
    covered = ((low <= mean) & (mean <= high)).mean()
    assert covered >= 0.92 - 3 * sqrt(0.92 * 0.08 / 2000)


@pytest.mark.parametrize("name", ["normal", "log-normal"])
def test_differences_and_ratios_cover_as_well(name):
    draw, mean = FAMILIES[name]
    random = np.random.default_rng(8)
    low, high = difference_interval(draw(random, (16, 1500)), 2 * draw(random, (20, 1500)), draws=800)
    assert ((low <= -mean) & (-mean <= high)).mean() >= 0.92 - 3 * sqrt(0.92 * 0.08 / 1500)
    under = random.uniform(1, 2, (16, 1500))
    low, high = ratio_interval(under * draw(random, (16, 1500)), under, draws=800)
    assert ((low <= mean) & (mean <= high)).mean() >= 0.92 - 3 * sqrt(0.92 * 0.08 / 1500)


def test_percentile_interval_reaches_as_far_as_students_for_a_normal_mean():
    values = np.random.default_rng(9).normal(size=16)
    random = np.random.default_rng(10)
    drawn = [values[random.integers(16, size=16)].mean() for _ in range(20_000)]
    low, high = percentile_interval(drawn, 16)
    half = (student(values)[1] - student(values)[0]) / 2
    assert (low, high) == pytest.approx(student(values), abs=0.12 * half)  # plain ones are 11 % shorter at either end
    assert np.isnan(percentile_interval([[1.0, NAN], [2.0, 3.0]], 16)).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.95])
@pytest.mark.parametrize("n", [16, 30, 64])
def test_intervals_of_rare_shares_hold_them(share, n):
    """All units alike had an interval without width, and with one among 64 it ended in front of 5 %: 55 of 100 held a
    share of 5 % at n = 16, 79 at n = 30, 84 at n = 64."""
    random = np.random.default_rng(5)
    flags = lambda p: (random.random((n, 1500)) < p).astype(float)
    low, high = bootstrap_interval(flags(share), draws=400, bounds=(0, 1))
    assert ((low <= share) & (share <= high)).mean() >= 0.92
    low, high = difference_interval(flags(share), flags(0.02), draws=400, bounds=(-1, 1))
    assert ((low <= share - 0.02 + 1e-12) & (share - 0.02 <= high + 1e-12)).mean() >= 0.92


def test_units_of_one_value_reach_as_far_as_their_bounds_let_an_unseen_one():
    ones, reach = np.ones((20, 2)), 1 - 0.05 ** (1 / 20)
    low, high = bootstrap_interval(0.5 * ones, bounds=(np.array([0, -1]), np.array([1, np.inf])))
    np.testing.assert_allclose(low, [0.5 - 0.5 * reach, 0.5 - 1.5 * reach])
    np.testing.assert_allclose(high, [0.5 + 0.5 * reach, 0.5])  # no bound: as far as is known
    np.testing.assert_allclose(bootstrap_interval(ones), ([1, 1], [1, 1]))
    np.testing.assert_allclose(
        ratio_interval(3 * ones, 4 * ones, bounds=(0, 1)), bootstrap_interval(0.75 * ones, bounds=(0, 1))
    )
    np.testing.assert_allclose(percentile_interval(ones, 20, bounds=(0, 1)), ([1 - reach] * 2, [1, 1]))
    low, high = difference_interval(ones, 0 * ones[:18], bounds=(-1, 1))
    np.testing.assert_allclose(low, 1 - np.hypot(reach, 1 - 0.05 ** (1 / 18)))
    assert (high == 1).all()


def test_same_seed_same_interval_other_seed_another():
    values = np.random.default_rng(8).normal(size=20)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_ratio_interval_of_proportional_pairs_is_their_ratio():
    under = np.random.default_rng(9).uniform(1, 2, (20, 2))
    np.testing.assert_allclose(ratio_interval(3 * under, under), np.full((2, 2), 3.0), rtol=1e-12)


def test_ratio_interval_over_ones_is_the_interval_of_the_mean():
    values = np.random.default_rng(10).normal(size=(18, 3))
    np.testing.assert_allclose(ratio_interval(values, np.ones_like(values)), bootstrap_interval(values), rtol=1e-9)


def test_ratio_interval_leaves_out_incomplete_pairs():
    random = np.random.default_rng(11)
    over, under = random.normal(size=20), random.uniform(1, 2, 20)
    over[2], under[5] = NAN, NAN
    kept = np.delete(np.arange(20), [2, 5])
    assert ratio_interval(over, under) == ratio_interval(over[kept], under[kept])


def test_ratio_interval_is_nan_where_the_denominator_reaches_zero():
    over = np.arange(20.0)
    assert np.isnan(ratio_interval(over, np.where(over % 2, 1.0, -1.0))).all()
    assert np.isnan(ratio_interval(over, np.zeros(20))).all()


def test_difference_interval_of_normal_samples_is_welchs():
    random = np.random.default_rng(12)
    a, b = random.normal(1.0, 1.0, 300), random.normal(0.0, 2.0, 200)
    found = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    error = 0.12 * sqrt(a.var() / 300 + b.var() / 200)  # twice the Monte Carlo error of a 2.5 percentile of 4000
    assert difference_interval(a, b, draws=4000) == pytest.approx((found.low, found.high), abs=error)


def test_difference_interval_resamples_the_two_samples_apart():
    values = np.random.default_rng(26).normal(size=30)
    low, high = difference_interval(values, values)
    half = 1.96 * values.std() * sqrt(2 / 30)
    assert (low, high) == pytest.approx((-half, half), rel=0.15)  # one resample for both would give (0, 0)


def test_difference_interval_leaves_missing_texts_out():
    random = np.random.default_rng(13)
    a, b = random.normal(size=(20, 3)), random.normal(size=(18, 3))
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


@pytest.mark.parametrize("n", [6, 8])
def test_max_statistic_against_a_plain_loop_over_all_signs(n):
    values = np.random.default_rng(n).normal(size=(n, 3)) * [1.0, 10.0, 0.01] + [0.9, 0.0, 0.02]
    t = lambda x: np.abs(x.mean(0) / (x.std(0, ddof=1) / sqrt(n)))
    largest = np.array([t(values * np.array(signs)[:, None]).max() for signs in product([1, -1], repeat=n)])
    p, widest = max_statistic(values)
    np.testing.assert_allclose(p, [(largest >= one - 1e-9).mean() for one in t(values)])
    rest = values - values.mean(0)
    centred = np.array([t(rest * np.array(signs)[:, None]).max() for signs in product([1, -1], repeat=n)])
    assert widest == pytest.approx(max(np.quantile(x, 0.95) for x in (largest, centred))) and p.min() >= 2 / 2**n


@pytest.mark.parametrize("n", [6, 10])
@pytest.mark.parametrize(("means", "shared"), [(3.0, 0.0), (3.0, 2.0), (0.0, 1.0)])
def test_the_intervals_of_all_columns_hold_all_means_at_once(n, means, shared):
    """By flips of the rows as they are, 55 to 86 families in 100 were held where all means are large. 300 families:
    three standard errors of 0.95 are 0.038."""
    random, held = np.random.default_rng(n), 0
    for _ in range(300):
        values = means + shared * random.normal(size=(n, 1)) + random.normal(size=(n, 40))
        _, widest = max_statistic(values)
        held += bool((np.abs(values.mean(0) - means) <= widest * values.std(0, ddof=1) / sqrt(n)).all())
    assert held / 300 >= 0.95 - 3 * sqrt(0.05 * 0.95 / 300)


def test_max_statistic_calls_one_family_in_twenty_whatever_its_size_and_scale():
    """200 families of 60 columns, one loud; three standard errors of 0.05 are 0.046."""
    random = np.random.default_rng(1)
    smallest = []
    for _ in range(200):
        values = random.normal(size=(8, 60))
        values[:, 0] *= 1000
        smallest.append(max_statistic(values)[0].min())
    assert np.mean(np.array(smallest) <= 0.05) <= 0.05 + 3 * sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loud_column_does_not_hide_a_quiet_steady_one_on_either_side(sign):
    random = np.random.default_rng(2)
    values = random.normal(size=(12, 50))
    values[:, 3] *= 1e4
    values[:, 7] = sign * 1e-3 * (1 + 0.1 * random.normal(size=12))
    p, _ = max_statistic(values)
    assert p[7] == 2 / 2**12 and p[3] > 0.05


def test_undefined_columns_are_left_out_of_the_largest():
    random = np.random.default_rng(3)
    values = random.normal([0.8, 0, 0, 0], size=(10, 4))
    alone, _ = max_statistic(values)
    wider = np.column_stack([values, np.full(10, 5.0), np.full(10, NAN), np.append(np.ones(9), np.inf), np.zeros(10)])
    p, _ = max_statistic(wider)
    np.testing.assert_array_equal(p[:4], alone)
    assert np.isnan(p[4:]).all()
    assert np.isnan(max_statistic(np.ones((5, 2)))[0]).all() and np.isnan(max_statistic(np.ones((5, 2)))[1])


def test_many_prompts_are_sampled():
    values = np.random.default_rng(4).normal([1.0, 0, 0, 0, 0], size=(20, 5))
    p, _ = max_statistic(values, draws=2000)
    assert p[0] < 0.05 and p.min() >= 1 / 2001


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
