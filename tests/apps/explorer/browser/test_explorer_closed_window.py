"""A study goes on when its window is closed, and is found again, waited for and stopped from another one."""

import time

import pytest

from apps.explorer.callbacks import poll
from apps.explorer.page.news import look
from tests.apps.explorer.browser.actions import turn
from tests.apps.explorer.browser.stepped import Steps, Windows, wait_for_said

pytestmark = pytest.mark.browser


@pytest.fixture
def steps(browser, tmp_path):
    """The study, and a function that opens a window on its view."""
    made = Steps()
    windows = Windows(browser, made, tmp_path)
    yield made, windows
    windows.close()


def begin(page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_selector(".job progress")


def begin_and_reach_a_step(study, page) -> None:
    """Start the study and let it come to the end of its first step."""
    begin(page)
    study.let()
    wait_for_said(page, "So far: 1 steps are done.")


def begin_and_lose(study, page) -> None:
    """Start the study, let it come to the end of its first step, and lose the window before it can say that it is."""
    begin_and_reach_a_step(study, page)
    page.context.set_offline(True)
    page.context.close()


def test_a_study_whose_window_was_lost_ends_in_the_next_one(steps):
    study, window = steps
    begin_and_lose(study, window())
    again, beside = window(), window()
    for page in (again, beside):
        page.wait_for_selector(".job progress")  # not begun a second time: it would wait at the first gate
        wait_for_said(page, "So far: 1 steps are done.")
    study.let()
    again.reload()
    for page in (again, beside):
        wait_for_said(page, "So far: 2 steps are done.")
    study.let()
    for page in (again, beside):
        wait_for_said(page, "3 steps are done.")
        page.wait_for_selector(".job", state="detached")
        assert page.inner_text("#said") == "3 steps are done."


def test_a_window_that_was_closed_does_not_keep_its_study_from_being_stopped(steps):
    study, window = steps
    first = window()
    begin_and_reach_a_step(study, first)
    first.context.close()
    window.until(window.server.engine.presence.gone)  # it has said farewell
    page = window()
    page.wait_for_selector(".job progress")
    page.get_by_role("button", name="Cancel").click()
    wait_for_said(page, "Stopped before its end; so far: 1 steps are done.")
    page.get_by_role("button", name="Start again").click()
    study.let(3)
    page.wait_for_function("() => document.querySelector('#said').textContent === '3 steps are done.'")


def test_a_cancel_says_that_another_window_waits_too_and_can_stop_it_for_all(steps):
    study, window = steps
    begin_and_lose(study, window())  # for the server it is open still, since it could not say anything
    one = window()
    one.wait_for_selector(".job progress")
    one.get_by_role("button", name="Cancel").click()
    one.get_by_text("Another window also waits for this: it goes on for that one.").wait_for()
    assert "So far: 1 steps are done." in one.inner_text("#said")
    study.let()
    wait_for_said(one, "So far: 2 steps are done.")  # it does go on, and is still looked at
    one.get_by_role("button", name="Stop for all").click()
    wait_for_said(one, "Stopped before its end; so far: 2 steps are done.")
    one.wait_for_selector(".job", state="detached")


def test_a_view_can_be_turned_while_something_runs_and_looks_are_slow(steps, monkeypatch):
    def slow(*given):
        time.sleep(0.4)  # longer than from one look to the next
        return look(*given)

    monkeypatch.setattr(poll, "look", slow)
    _, window = steps
    page = window()
    begin(page)
    turn(page, "Surprisal")
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Surprisal'")
    page.wait_for_selector("#main-figure:not(.stale) .js-plotly-plot .nsewdrag")
    assert page.locator(".job progress").count()
