"""Checks of a prompt are counted over calls and restarts, each once; what they make of a p is said."""

import numpy as np
import pytest
import xarray as xr

from apps.explorer.callbacks.figure import large_view
from apps.explorer.callbacks.run import ask
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.engine.tally import Tally
from apps.explorer.page.checks import made_so_far
from apps.explorer.page.news import look
from apps.explorer.page.state import Seen
from probes import CATALOG
from tests.another_user import as_another_user
from tests.tiny_models import tiny_model
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


def test_damage_makes_no_check_fewer(tmp_path):
    """A last line that was torn, one that is no text any more, and a line that lost its end."""
    first = Tally(tmp_path)
    first.add(ONE, KEYS[0])
    file = tmp_path / f"{ONE}.checks"
    file.write_bytes(file.read_bytes()[:-9])
    Tally(tmp_path).add(ONE, KEYS[1])
    assert len(Tally(tmp_path).of(ONE)) == 2
    content = bytearray(file.read_bytes())
    content[3] = 0xFF
    content[-1] ^= 0x40
    file.write_bytes(content)
    Tally(tmp_path).add(ONE, KEYS[2])
    assert len(Tally(tmp_path).of(ONE)) == 3


def test_checks_that_only_another_user_may_read_stop_nobody(tmp_path):
    tally = Tally(tmp_path)
    tally.add(ONE, KEYS[0])
    fresh = Tally(tmp_path)
    with as_another_user(tmp_path / f"{ONE}.checks"):
        fresh.add(ONE, KEYS[1])
        assert fresh.of(ONE) == {KEYS[1]}  # what it can count
    assert fresh.of(ONE) == {KEYS[0], KEYS[1]}


def test_a_key_of_a_browser_names_no_other_file(tmp_path):
    with pytest.raises(InputError):
        Tally(tmp_path).of("../../etc/passwd")


@pytest.mark.parametrize(
    ("n", "p", "expected"),
    [
        (3, 0.04, "its p is 0.12 (among so many it is not shown), and the smallest"),  # the check alone says that it is
        (40, 0.04, "its p is 1 (among so many it is not shown), and the smallest"),
        (3, 0.2, "its p is 0.6, and the smallest"),
        (2, 0.02, "its p is 0.04, and the smallest"),
    ],
)
def test_the_corrected_p_and_floor_are_said(n, p, expected):
    check = xr.Dataset({"p": p, "p_floor": 1 / 51, "control_effect": ("draw", np.zeros(50))})
    said = made_so_far(check, n)
    assert f"Checks made on this prompt: {n}." in said and expected in said
    assert f"controls can give is {n / 51:.2g}" in said
    assert "only check" in made_so_far(check, 1) and "Corrected" not in made_so_far(check, 1)
    assert made_so_far(xr.Dataset({"p": 0.1}), 3) == ""  # no check
    refused = xr.Dataset({"p": np.nan, "p_floor": np.nan, "control_effect": ("draw", np.zeros(0))})
    assert made_so_far(refused, 3) == "Checks made on this prompt: 3."


def test_the_page_counts_the_checks_of_a_prompt_and_says_what_they_make_of_a_p(tmp_path):
    """Two checks by clicks, one of them twice, and a restart of the server in between."""
    view = CATALOG.view("causal-check")
    settings = Settings(models=("tiny",), directory=tmp_path)
    said = {}
    for units in ("L1N5", "L1N5", "L2N3"):  # each on a server of its own
        engine = Engine(settings, [view], load=lambda name, progress: tiny_model("llama", n_layers=4))
        try:
            assert engine.hosted("tiny").loading.finished.wait(60)
            params = {"causal-check": {"units": units, "caliper": 9.0, "peers": 0}}
            request = engine.request("tiny", "5 9 5 7 9 31 40 2", params)
            job = engine.submit_entry(request, "causal-check", "me")
            assert job is None or job.finished.wait(60)
            assert len(engine.tally.of(request.states)) == len(said) + (units not in said)
            asked, _ = ask(engine, "me", "tiny", "5 9 5 7 9 31 40 2", params)
            if asked.job:
                assert engine.hosted("tiny").worker.get(asked.job).finished.wait(60)
            shown = look(engine, "me", asked, None, {}).shown
            _, _, said[units] = large_view(engine, Seen(name="causal-check"), shown, {}, False, "me")
        finally:
            engine.close()
    assert said["L1N5"].endswith("This is the only check made on this prompt so far.")
    assert "Checks made on this prompt: 2. Corrected for all of them, its p is" in said["L2N3"]
