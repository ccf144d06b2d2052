"""Nothing that somebody did is lost where a newer call of a callback overtakes an older one.

Dash then drops the older answer, and the newer call is told only of its own cause.
"""

import pytest

from probes import CATALOG
from tests.apps.explorer.callbacks.test_start import MODEL, NAME, type_in, until, visit
from tests.apps.explorer.tiny_browser import key_of

MAIN = f"{key_of({'type': 'figure', 'name': 'main'})}.figure"


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    engine, page = visit([CATALOG.view("logit-lens"), CATALOG.view(NAME)], tmp_path_factory.mktemp("overtaken"))
    yield engine, page
    engine.close()


def overtaken(page, identity, prop="data"):
    """The calls that follow a change are made, and their answers dropped."""
    answers = [page.send(given).status_code for given in page.bodies(identity, prop)]
    assert answers and set(answers) <= {200, 204}


def test_run_is_not_lost(window):
    _, page = window
    page.put("go", {"text": "5 5 7", "clicks": "second"})
    overtaken(page, "go")
    page.put("params", {NAME: {"window": 2}})
    page.fire("params")
    until(page, lambda: page.get("shown")["text"] == "5 5 7")
    page.put("params", {})
    page.put("prompt", "5 5 7 5", "value")
    page.fire("params")  # nobody pressed Run since: what is typed is not run
    until(page, lambda: page.get("shown")["params"] == {})
    assert page.get("shown")["text"] == "5 5 7"


def test_start_is_not_lost(window):
    engine, page = window
    page.put("view", {"name": NAME, "figure": 0})
    page.fire("view")
    type_in(page, "window", 3)
    page.put("started", {"start": NAME, "clicks": 10})
    overtaken(page, "started")
    assert page.get("checking") is None
    page.fire("params")
    until(page, lambda: page.get("shown")["params"] == {NAME: {"window": 3}})
    page.fire("shown")
    until(page, lambda: page.get("done").get(NAME) == "ok")
    began = len(engine.hosted(MODEL).worker.jobs())
    page.fire("shown")
    assert len(engine.hosted(MODEL).worker.jobs()) == began  # it was answered: not pressed again


def test_a_figure_is_not_lost(window):
    _, page = window
    page.put("view", {"name": "logit-lens", "figure": 0})
    page.put("drawn", "logit-lens 0 other")
    overtaken(page, "drawn")
    page.put("late", 1)
    assert page.fire("late")[MAIN]["data"]
    page.put("late", 2)
    assert MAIN not in page.fire("late")  # it stands there


def test_the_way_of_the_selection_to_a_figure_is_not_lost(window):
    engine, page = window
    name = next(iter(engine.slices))
    page.put("view", {"name": name, "figure": 0})
    page.put("selection", {"pos": 1, "layer": 0, "head": 1})
    overtaken(page, "selection")
    page.put("rested", f"{name} 0 other")
    page.fire("rested")
    assert page.get("follow") == page.get("selection")
