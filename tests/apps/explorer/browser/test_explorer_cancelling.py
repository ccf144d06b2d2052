"""Start and Cancel, pressed at any moment: the page says what became of the study, once and truly."""

import random
import re
import subprocess
import sys

import pytest

from apps.explorer.callbacks import poll
from apps.explorer.page import constants, stores
from tests.apps.explorer.browser.stepped import LIMIT, STEPS, Steps, Windows, wait_for_said

pytestmark = pytest.mark.browser

TIMES = (10, pytest.param(50, marks=pytest.mark.slow))
# Other work, which ends with the test also where that is killed.
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
# Whatever may stand in the study's place at any time, and under it.
SENTENCES = re.compile(
    r"Steps: computed only when asked for\. Press Start to compute it for this prompt\..* about [^.]*\.Start"
    r"|Steps: waits for its turn; \d+ are before it\..* about [^.]*\."
    r"|Steps: (waits until the model is free|being computed)\..* about [^.]*\.|Stopping \.\.\."
    r"|Stopped before its first result\.Start again"
    r"|Stopped before its end; so far: [123] steps are done\. Start again"
    r"|(So far: |Stopping \.\.\.; so far: )?[123] steps are done\."
)
# What stands there now, as one text.
SAID = "['#main-message', '#said'].map(place => document.querySelector(place).textContent).join('').trim()"
LISTEN = """() => {
  window.heard = new Set(); window.noticed = new Set();
  const listen = () => {
    window.heard.add(SAID);
    window.noticed.add(document.querySelector('#notice-list').textContent);
  };
  const everything = { childList: true, subtree: true, characterData: true };
  for (const place of ['#main-message', '#said', '#notice-list'])
    new MutationObserver(listen).observe(document.querySelector(place), everything);
}""".replace("SAID", SAID)


@pytest.fixture
def steps(browser, tmp_path, monkeypatch):
    """The study, and a function that opens a window on its view, which looks often."""
    for module in (constants, poll, stores):
        monkeypatch.setattr(module, "POLL", 50)
    made = Steps()
    windows = Windows(browser, made, tmp_path)
    yield made, windows
    made.is_deaf = False
    windows.close()


@pytest.fixture
def busy():
    """Other work beside the test."""
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    yield
    other.kill()
    other.wait()


def press(page, kind: str) -> bool:
    """Press a button if it is there at this moment."""
    return page.evaluate("kind => { const b = document.querySelector(kind); if (b) b.click(); return !!b }", kind)


def wait_for_text(page, text: str) -> None:
    page.wait_for_function(f"text => {SAID} === text", arg=text)


def wait_for_begun(page) -> None:
    """Until the study can be cancelled, or has come to its end already."""
    page.wait_for_function(f"() => document.querySelector('[data-cancel]') || {SAID} === '{STEPS} steps are done.'")


def cancel_at_some_moment(page, study, moment: str, draw: random.Random) -> None:
    """Start, let it do some steps, and press Cancel."""
    study.anew()
    page.wait_for_selector("[data-start]", state="attached")
    assert press(page, "[data-start]")
    wait_for_begun(page)
    if moment == "before its first result":
        page.wait_for_function(f"() => {SAID}.startsWith('Steps: being computed.')")
    elif moment in ("between results", "near its end"):
        parts = 2 if moment == "near its end" else draw.randint(1, 2)
        study.let(parts)
        wait_for_text(page, f"So far: {parts} steps are done.")
    elif moment == "some time":
        study.let(draw.randint(0, STEPS))
        page.wait_for_timeout(draw.uniform(0, 60))
    is_first = moment == "near its end" and draw.random() < 0.5  # whether the last step is let before the cancel
    study.let(is_first)
    press(page, "[data-cancel]")
    study.let(moment == "near its end" and not is_first)


def truth(study) -> str:
    """What became of the study, as it knows itself."""
    if study.is_over:
        return f"{STEPS} steps are done."
    if not study.parts:
        return "Stopped before its first result.Start again"
    return f"Stopped before its end; so far: {study.parts} steps are done. Start again"


def jobs_of(windows) -> list:
    """The study's jobs that wait or run."""
    return [job for job in windows.server.engine.hosted("toy-induction").worker.jobs() if job.alive]


def wait_for_fate(page, windows) -> None:
    """Until what stands there is of the study's latest job, as it ended; before, it may be that of an earlier one."""
    jobs = windows.server.engine.hosted("toy-induction").worker.jobs()
    latest = [job for job in jobs if job.title == "steps"][-1]
    page.wait_for_function(
        "fate => (document.querySelector('#main-figure').dataset.stands || '').includes(fate)",
        arg=f" {latest.state} {latest.id} ",
    )


def new_prompt(page, number: int) -> None:
    """Run another prompt, of which nothing is known: the study of the one before has come to its end."""
    page.fill("#prompt", f"3 {number // 8 + 1} {number % 8 + 1} 3")
    page.press("#prompt", "Control+Enter")
    page.wait_for_function(f"() => {SAID}.startsWith('Steps: computed only when asked for.')")


@pytest.mark.parametrize("times", TIMES)
def test_what_became_of_a_study_is_said_whenever_it_is_stopped(steps, busy, times):
    study, window = steps
    page = window()
    page.wait_for_function(f"() => {SAID}.startsWith('Steps: computed only when asked for.')")
    page.evaluate(LISTEN)
    draw, told, ended = random.Random(7), {}, 0
    moments = ("at once", "before its first result", "between results", "near its end", "some time")
    for time in range(times):
        moment = moments[time % len(moments)]
        cancel_at_some_moment(page, study, moment, draw)
        window.until(lambda: not jobs_of(window))
        expected = truth(study)
        if not study.is_over:
            wait_for_fate(page, window)
        wait_for_text(page, expected)
        page.wait_for_selector(".job", state="detached")
        assert page.evaluate(SAID) == expected  # and it stays
        told.setdefault(moment, []).append(expected)
        if study.is_over:
            new_prompt(page, ended)
            ended += 1
    print({moment: {text: texts.count(text) for text in texts} for moment, texts in told.items()})
    assert set(told["before its first result"]) == {"Stopped before its first result.Start again"}
    assert all(text.startswith("Stopped before its end") for text in told["between results"])
    heard, noticed = page.evaluate("() => [[...window.heard], [...window.noticed]]")
    assert not [text for text in heard if text and not SENTENCES.fullmatch(text)]
    assert not any(noticed), noticed


def test_what_is_being_stopped_says_so_at_once(steps):
    study, window = steps
    page = window()
    study.is_deaf = True  # as in a long pass, within which nothing can be stopped
    page.get_by_role("button", name="Start", exact=True).click()
    study.let()
    wait_for_said(page, "So far: 1 steps are done.")
    page.get_by_role("button", name="Cancel").click()
    wait_for_said(page, "Stopping ...; so far: 1 steps are done.")
    assert page.inner_text(".job .share") == "Stopping ..."
    assert not page.locator("[data-cancel]").count()
    study.is_deaf = False
    wait_for_said(page, "Stopped before its end; so far: 1 steps are done.")
    page.wait_for_selector(".job", state="detached", timeout=LIMIT)
