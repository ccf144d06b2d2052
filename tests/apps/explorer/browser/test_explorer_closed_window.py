"""A study goes on when its window is closed, and is found again, waited for and stopped from another one."""

import threading
import time

import numpy as np
import pytest
from apps.explorer.engine.news import look

from apps.explorer.callbacks import run as running
from apps.explorer.engine import engine as engines
from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import start
from tests.tiny_analyses import tiny_study
from workbench.analysis.results import dataset

pytestmark = pytest.mark.browser


class Steps:
    """A study of three steps, each of which waits until the test lets it go on."""

    def __init__(self):
        self.gates = [threading.Event() for _ in range(3)]

    def study(self, model, tokens, *, progress=None):
        for step, gate in enumerate(self.gates):
            while not gate.wait(0.05):
                progress(step / 3)  # raises where it was cancelled
            yield dataset(loss=("step", np.arange(step + 1.0), "nats", (0, None), "loss")).assign_attrs(
                summary=f"{step + 1} steps are done."
            )

    @staticmethod
    def figure(result):
        from workbench.figures import series

        return series(result, "loss", "step", title="Loss")


@pytest.fixture
def steps(browser, tmp_path):
    """The study, and a function that opens a window on its view."""
    made = Steps()
    entry = tiny_study("steps", made.study, figures=(made.figure,))
    server = start(Settings(models=("toy-induction",), port=0, directory=tmp_path), [entry])
    threading.Thread(target=server.run, daemon=True).start()
    contexts = []

    def window():
        contexts.append(browser.new_context())
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)
        page.goto(f'{server.address}#model=toy-induction&prompt=3+7+9+3&view={{"name":"steps","figure":0}}')
        page.wait_for_selector("#tokens [data-pos]")
        return page

    yield made, window
    for context in contexts:
        context.close()
    for gate in made.gates:
        gate.set()
    server.close()


def wait_for_said(page, words: str) -> None:
    """Wait for words under the figure; a page that is being loaded has none."""
    page.wait_for_function("w => document.querySelector('#said')?.textContent.includes(w)", arg=words)


def begin(page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_selector(".job progress")


def begin_and_close(study, page) -> None:
    """Start the study and close its window after the first step."""
    begin(page)
    study.gates[0].set()
    wait_for_said(page, "So far: 1 steps are done.")
    page.context.close()


def test_a_study_whose_window_was_closed_ends_in_the_next_one(steps):
    study, window = steps
    begin_and_close(study, window())
    again, beside = window(), window()
    for page in (again, beside):
        page.wait_for_selector(".job progress")  # not begun a second time: it would wait at the first gate
        wait_for_said(page, "So far: 1 steps are done.")
    study.gates[1].set()
    again.reload()
    for page in (again, beside):
        wait_for_said(page, "So far: 2 steps are done.")
    study.gates[2].set()
    for page in (again, beside):
        wait_for_said(page, "3 steps are done.")
        page.wait_for_selector(".job", state="detached")
        assert page.inner_text("#said") == "3 steps are done."


def test_a_window_that_was_closed_does_not_keep_its_study_from_being_stopped(steps, monkeypatch):
    study, window = steps
    begin_and_close(study, window())
    monkeypatch.setattr(engines, "_GONE", 1.0)
    page = window()
    page.wait_for_selector(".job progress")
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Cancel").click()
    wait_for_said(page, "Stopped before its end; so far: 1 steps are done.")
    page.get_by_role("button", name="Start again").click()
    study.gates[1].set()
    study.gates[2].set()
    page.wait_for_function("() => document.querySelector('#said').textContent === '3 steps are done.'")


def test_a_view_can_be_turned_while_something_runs_and_looks_are_slow(steps, monkeypatch):
    def slow(*given):
        time.sleep(0.4)  # longer than from one look to the next
        return look(*given)

    monkeypatch.setattr(running, "look", slow)
    _, window = steps
    page = window()
    begin(page)
    page.get_by_role("tab", name="Surprisal").click()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Surprisal'", timeout=30_000)
    page.wait_for_selector("#main-figure:not(.stale) .js-plotly-plot .nsewdrag", timeout=30_000)
    assert page.locator(".job progress").count()
