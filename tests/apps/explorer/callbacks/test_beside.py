"""Two runs stand beside each other only where they belong together: an edited run and the intact one of its prompt."""

import pytest

from apps.explorer.callbacks import poll
from apps.explorer.page.news import Look
from probes import CATALOG
from tests.apps.explorer.callbacks.test_start import look, until, visit


@pytest.fixture
def page(tmp_path):
    engine, page = visit([CATALOG.view("logit-lens")], tmp_path)
    page.put("edits", ["L0H0"])
    page.fire("edits")
    until(page, lambda: page.get("shown")["edits"] and page.get("shown-b"))
    yield page
    engine.close()


def begin(page, text):
    page.put("go", {"text": text, "clicks": f"{text}, {page.get('went')}"})
    page.fire("go")


def test_the_intact_run_of_the_prompt_before_goes_when_the_new_one_is_shown(page, monkeypatch):
    assert page.get("shown-b")["text"] == page.get("shown")["text"] == "3 7 9 5 3 7 9"
    monkeypatch.setattr(poll, "look_other", lambda *told: Look(busy=True))  # it takes longer than the edited one
    begin(page, "5 5 7")
    until(page, lambda: page.get("shown")["text"] == "5 5 7")
    assert page.get("shown-b") is None
    monkeypatch.undo()
    until(page, lambda: page.get("shown-b"))
    assert page.get("shown-b")["text"] == "5 5 7" and not page.get("shown-b")["edits"]


def test_what_was_computed_before_comes_with_its_own(page):
    for text in ("5 5 7", "5 5 9"):
        begin(page, text)
        until(page, lambda text=text: (page.get("shown-b") or {}).get("text") == text)
    begin(page, "5 5 7")  # as Back does
    assert page.get("shown")["text"] == page.get("shown-b")["text"] == "5 5 7"


def test_it_stays_while_the_new_run_is_on_its_way(page, monkeypatch):
    """What is shown is still the one before, and what stands beside it is its own."""
    before = page.get("shown-b")
    monkeypatch.setattr(poll, "look", lambda *told: Look(busy=True))
    begin(page, "5 5 7")
    look(page)
    assert page.get("shown")["text"] == "3 7 9 5 3 7 9" and page.get("shown-b") == before
