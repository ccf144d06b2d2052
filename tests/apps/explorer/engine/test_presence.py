"""Which windows are open, as far as a server can know."""

import time

from apps.explorer.engine import presence
from apps.explorer.engine.presence import Presence


def test_a_window_that_said_farewell_is_gone_even_if_its_last_look_comes_later():
    windows = Presence()
    windows.looked("me", "one")
    assert windows.gone() == set()
    windows.left("me", "one")
    windows.looked("me", "one")
    assert windows.gone() == {"me"}
    windows.looked("me", "after a reload")
    assert windows.gone() == set()


def test_a_copy_of_a_tab_keeps_its_session_open():
    windows = Presence()
    windows.looked("me", "one")
    windows.looked("me", "its copy")
    windows.left("me", "one")
    assert windows.gone() == set()
    windows.left("me", "its copy")
    assert windows.gone() == {"me"}


def test_a_window_that_has_not_looked_for_long_is_gone_and_one_that_never_looked_is_not(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    windows = Presence()
    windows.looked("me", "one")
    now[0] = 61.0  # a browser lets a hidden tab look once a minute
    assert windows.gone() == set()
    now[0] = 200.0
    assert windows.gone() == {"me"}


def test_what_is_remembered_of_windows_has_a_bound(monkeypatch):
    monkeypatch.setattr(presence, "_REMEMBERED", 3)
    windows = Presence()
    for i in range(10):
        windows.looked(f"s{i}", "w")
        windows.left(f"s{i}", f"w{i}")
    assert len(windows._looked) == len(windows._closed) == 3
