"""Numbers in sentences."""

import pytest

from workbench.words import change, counted, hundredths, signed


@pytest.mark.parametrize("n, said", [(0, "0 prompts"), (1, "1 prompt"), (2, "2 prompts"), (2219, "2,219 prompts")])
def test_one_of_them_is_one(n, said):
    assert counted(n, "prompt") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (-0.0, "0"), (0.254, "+0.25"), (-1.0, "-1.00"), (-0.0031, "-0.0031"), (0.0049, "+0.0049"),
     (-2.5e-6, "0")],
)  # fmt: skip
def test_a_change_has_a_sign_and_never_one_of_nothing(value, said):
    assert change(value) == said


@pytest.mark.parametrize(("value", "said"), [(-0.004, "0.00"), (0.0, "0.00"), (-0.005001, "-0.01"), (3.14159, "3.14")])
def test_what_rounds_to_nothing_has_no_sign(value, said):
    assert hundredths(value) == said


@pytest.mark.parametrize(("value", "said"), [(-3e-5, "0.0000"), (0.0, "0.0000"), (-7e-5, "-0.0001"), (0.5, "+0.5000")])
def test_a_signed_value_that_rounds_to_nothing_has_no_sign(value, said):
    assert signed(value, 4) == said
