"""What a test can call at all, held against the test itself on samples that could not speak more clearly."""

import numpy as np
import pytest

from workbench.reach import smallest_flip_p, smallest_split_p, together, too_few
from workbench.statistics import benjamini_hochberg, draws_for, permutation_test, sign_flip_test


@pytest.mark.parametrize("n", [3, 6, 16, 24])
def test_the_smallest_p_of_sign_flips_is_what_the_clearest_sample_gets(n):
    clearest = 1 + 0.1 * np.random.default_rng(0).random((n, 1))
    assert sign_flip_test(clearest, draws=draws_for(40))[0] == pytest.approx(smallest_flip_p(n, 40))


@pytest.mark.parametrize(("n", "other"), [(2, 2), (5, 5), (3, 6), (16, 16)])
def test_the_smallest_p_of_splits_is_what_the_clearest_samples_get(n, other):
    random = np.random.default_rng(1)
    a, b = random.random((n, 1)), 100 + random.random((other, 1))
    assert permutation_test(a, b, draws=draws_for(40))[0] == pytest.approx(smallest_split_p(n, other, 40))


@pytest.mark.parametrize(
    ("smallest", "tests"), [(2.0**-16, 3276), (2.0**-16, 3277), (2 / 252, 64), (0.001, 50), (0.2, 9)]
)
def test_so_many_together_can_be_called_and_one_fewer_cannot(smallest, tests):
    def called(k):
        return bool((benjamini_hochberg(np.r_[np.full(k, smallest), np.ones(tests - k)]) <= 0.05).any())

    needed = together(smallest, tests)
    assert needed > tests or called(needed)
    assert needed == 1 or not called(needed - 1)
    assert bool(too_few(smallest, tests, "5 texts", "head", "Take more")) is (needed > 1)


def test_the_sentence_says_how_many_and_what_to_do():
    said = too_few(smallest_flip_p(16, 4096), 4096, "16 sequences", "head", "Take 17 or more")
    assert said == (
        "With 16 sequences no test can call fewer than 2 heads at once of 4,096: p is at least 1.5e-05, and q that "
        "times 4,096 over their number. Take 17 or more."
    )
    assert not too_few(smallest_flip_p(17, 4096), 4096, "17 sequences", "head", "Take more")
    assert "can call any head of 9" in too_few(0.2, 9, "3 texts", "head", "Take more")
