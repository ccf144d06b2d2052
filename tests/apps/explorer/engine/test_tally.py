"""Checks of a prompt are counted over calls and restarts, each once; what they make of a p is said."""

import numpy as np
import pytest
import xarray as xr

from apps.explorer.engine.tally import Tally
from apps.explorer.page.checks import made_so_far
from workbench.errors import InputError

ONE, OTHER = "a" * 64, "b" * 64
KEYS = ["1" * 64, "2" * 64, "3" * 64]


def test_each_check_counts_once_and_for_its_prompt():
    tally = Tally()
    for key in (KEYS[0], KEYS[1], KEYS[0]):
        tally.add(ONE, key)
    tally.add(OTHER, KEYS[2])
    assert tally.of(ONE) == {KEYS[0], KEYS[1]} and tally.of(OTHER) == {KEYS[2]}


def test_they_are_counted_over_restarts_and_beside_another_explorer(tmp_path):
    first, beside = Tally(tmp_path), Tally(tmp_path)
    first.add(ONE, KEYS[0])
    beside.add(ONE, KEYS[0])
    beside.add(ONE, KEYS[1])
    assert len(first.of(ONE)) == 2 == len(Tally(tmp_path).of(ONE))
    assert (tmp_path / f"{ONE}.checks").read_text().split() == KEYS[:2]


def test_a_key_of_a_browser_names_no_other_file(tmp_path):
    with pytest.raises(InputError):
        Tally(tmp_path).of("../../etc/passwd")


@pytest.mark.parametrize("n, p, expected", [(3, 0.04, "its p is 0.12"), (40, 0.04, "its p is 1, and the smallest")])
def test_the_corrected_p_and_floor_are_said(n, p, expected):
    check = xr.Dataset({"p": p, "p_floor": 1 / 51, "control_effect": ("draw", np.zeros(50))})
    said = made_so_far(check, n)
    assert f"Checks made on this prompt: {n}." in said and expected in said
    assert f"controls can give is {n / 51:.2g}" in said
    assert "only check" in made_so_far(check, 1) and "Corrected" not in made_so_far(check, 1)
    assert made_so_far(xr.Dataset({"p": 0.1}), 3) == ""  # no check
    refused = xr.Dataset({"p": np.nan, "p_floor": np.nan, "control_effect": ("draw", np.zeros(0))})
    assert made_so_far(refused, 3) == "Checks made on this prompt: 3."
