"""Start takes what the fields say, and nothing that was cancelled begins by itself."""

import time

import pytest
from dash import html

from apps.explorer.callbacks.figure import message
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import make_app
from probes import CATALOG
from tests.apps.explorer.tiny_browser import TinyBrowser
from tests.tiny_analyses import tiny_view
from workbench.analysis.kinds import OnModel
from workbench.analysis.results import dataset
from workbench.analysis.run import Failure
from workbench.errors import InputError

MODEL = "toy-induction"
NAME = "attention-knockout"


def visit(views, directory):
    """An engine over views, and a window of it whose prompt is shown."""
    engine = Engine(Settings(models=(MODEL,), directory=directory), views)
    assert engine.hosted(MODEL).loading.finished.wait(120)
    page = TinyBrowser(make_app(engine).server.test_client())
    page.put("poll", 1, "n_intervals")
    look(page)
    page.put("go", {"text": "3 7 9 5 3 7 9", "clicks": 1})
    page.fire("go")
    until(page, lambda: page.get("shown"))
    return engine, page


def look(page):
    page.put("poll", page.get("poll", "n_intervals") + 1, "n_intervals")
    return page.fire("poll", "n_intervals")


def until(page, holds):
    """Look until something holds; two minutes are for loaded machines."""
    for _ in range(600):
        look(page)
        if holds():
            return
        time.sleep(0.2)
    raise AssertionError("what was waited for did not come")


@pytest.fixture
def study(tmp_path):
    engine, page = visit([CATALOG.view("logit-lens"), CATALOG.view(NAME)], tmp_path)
    page.put("view", {"name": NAME, "figure": 0})
    page.fire("view")
    yield engine, page
    engine.close()


def type_in(page, name, value):
    page.put("typed", {"type": "param", "entry": NAME, "name": name, "value": value})
    page.fire("typed")


def started_with(engine):
    """The key of the study's job, None where there is none."""
    jobs = [job for job in engine.hosted(MODEL).worker.jobs() if job.title == "attention knockout"]
    return jobs[-1].key if jobs else None


def test_start_waits_for_what_was_just_typed(study):
    engine, page = study
    type_in(page, "window", 1)
    assert page.get("shown")["params"] == {} != page.get("params")  # it is on its way
    page.put("started", {"start": NAME, "clicks": 1})
    page.fire("started")
    assert page.get("checking") == {"name": NAME, "params": {NAME: {"window": 1}}}
    assert started_with(engine) is None  # the old value is not computed
    page.fire("params")
    until(page, lambda: page.get("shown")["params"] == page.get("params"))
    page.fire("shown")
    assert page.get("checking") is None
    asked = engine.request(MODEL, page.get("shown")["text"], page.get("params"))
    until(page, lambda: page.get("done").get(NAME) == "ok")
    assert engine.found(asked, NAME).sizes["layer"]
    assert engine.found(engine.request(MODEL, page.get("shown")["text"], {}), NAME) is None


def test_a_value_that_is_no_good_is_marked_in_its_field(study):
    _, page = study
    field = {"type": "param", "entry": NAME, "name": "window"}
    type_in(page, "window", "many")
    assert "window" in page.get(field, "error") and page.get("params") == {}
    type_in(page, "window", 3)
    assert page.get(field, "error") is None and page.get("params") == {NAME: {"window": 3}}


def test_what_cannot_run_is_said_before_start(study):
    """In the study's own sentence; Start waits until it can."""
    engine, _ = study
    shown = lambda params: message(engine, NAME, None, None, engine.request(MODEL, "3 7 9 5 3 7 9", {NAME: params}))
    fine, unfit = (list(shown(params)._traverse()) for params in ({}, {"subject": "a word"}))
    starts = lambda parts: [part for part in parts if isinstance(part, html.Button)]
    assert [button.disabled for button in starts(fine)] == [False]
    assert [button.disabled for button in starts(unfit)] == [True]
    assert any("Got the text 'a word'; expected a part of the prompt" in str(part) for part in unfit)
    assert any("Press Start" in str(part) for part in fine) and not any("Press Start" in str(part) for part in unfit)
    request = engine.request(MODEL, "3 7 9 5 3 7 9", {NAME: {"subject": "a word"}})
    known = message(engine, NAME, Failure(NAME, "Attention knockout", InputError("this", "that", "Go")), None, request)
    buttons = starts(list(known._traverse()))  # known from before, and no job of it is remembered
    assert [(button.children, button.disabled) for button in buttons] == [("Start again", True)]


def test_what_was_cancelled_begins_only_when_it_is_asked_for(tmp_path):
    """Also where nobody started it: an analysis of the model is computed when its view is opened."""
    begun, ended = [], []

    def slow(self, model, tokens, *, progress=None, allow_network=False):
        begun.append(1)
        while not ended:
            progress(0.1)
            time.sleep(0.02)
        yield dataset(loss=("", 1.0, "nats", (0, None), "loss"))

    view = tiny_view(OnModel, "slow", {"partials": slow})
    engine, page = visit([CATALOG.view("logit-lens"), view], tmp_path)
    try:
        job = next(job for job in engine.hosted(MODEL).worker.jobs() if job.alive)
        until(page, lambda: begun)
        page.put("stopped", {"cancel": job.id, "clicks": 1})
        page.fire("stopped")
        assert job.finished.wait(60) and len(begun) == 1
        look(page)
        for text in ("3 7 9 5 3 7 9", "5 5 7"):  # another prompt, and the view itself
            page.put("go", {"text": text, "clicks": text})
            page.fire("go")
            until(page, lambda text=text: page.get("shown")["text"] == text)
            page.put("view", {"name": "slow", "figure": 0})
            page.fire("view")
            page.fire("shown")
        assert len(begun) == 1
        page.put("started", {"start": "slow", "clicks": 2})
        page.fire("started")
        ended.append(1)
        until(page, lambda: page.get("done").get("slow") == "ok")
        assert len(begun) == 2
    finally:
        ended.append(1)
        engine.close()


def test_run_takes_the_compared_text_as_it_stands(study):
    """What the page knew of the field was older than what stood in it, and nothing was compared."""
    _, page = study
    page.put("other", "2 4 6", "value")
    page.put("go", {"text": "3 7 9 5 3 7 9", "other": "5 6 7", "clicks": 2})
    page.fire("go")
    assert page.get("asked-b")["text"] == "5 6 7"
    page.put("go", {"text": "3 7 9 5 3 7 9", "clicks": 3})  # an example, which is of the prompt alone
    page.fire("go")
    assert page.get("asked-b")["text"] == "2 4 6"
