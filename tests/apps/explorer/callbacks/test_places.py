"""What was set beside one prompt is not taken for the next."""

from types import SimpleNamespace

import pytest

from apps.explorer.callbacks import places
from probes import CATALOG

ENGINE = SimpleNamespace(standing={view.name: view for view in CATALOG.views})


@pytest.fixture
def fields(monkeypatch):
    """What is written into the fields of the open form, by name."""
    written = {}
    monkeypatch.setattr(places, "set_props", lambda identity, props: written.update({identity["name"]: props["value"]}))
    return written


@pytest.mark.parametrize(
    ("view", "name", "value", "goes"),
    [
        ("attention-knockout", "query", 5, True),
        ("attention-knockout", "query", -2, False),  # from the end: there is one in the next prompt, too
        ("attention-knockout", "subject", " Paris", True),
        ("attention-knockout", "window", 3, False),
        ("logit-lens", "positions", "last", False),
        ("logit-lens", "positions", "-3,-1", False),
        ("logit-lens", "positions", "0,-1", True),
        ("logit-lens", "target", " Paris", False),  # words, which a figure names in its title
        ("explain", "corrupt", "The cat sat", True),
        ("circuit-evaluation", "corrupt", "The cat sat", True),
        ("change-and-see", "giver", "The cat sat", True),
        ("flow-route-part", "key", 0, True),
        ("head-survey", "prompts", "one|two", False),
    ],
)
def test_what_is_of_one_prompt_goes_with_it(fields, view, name, value, goes):
    kept, drawn, said = places.forget(ENGINE, {view: {name: value}}, {}, "none")
    assert kept == {view: {} if goes else {name: value}} and drawn == {}
    assert (f"{name} {value!r} ({CATALOG.view(view).title})" in said) == goes == bool(said)
    assert fields == {}  # another view is open


def test_the_open_form_shows_what_is_left(fields):
    params = {"attention-knockout": {"query": 5, "subject": "1,2", "window": 3}, "gone": {"x": 1}}
    display = {"flow-routes": {"start": 3, "coverage": 0.4}}
    kept, drawn, said = places.forget(ENGINE, params, display, "attention-knockout")
    assert kept == {"attention-knockout": {"window": 3}, "gone": {"x": 1}}
    assert drawn == {"flow-routes": {"coverage": 0.4}}
    assert fields == {"query": None, "subject": ""}
    assert said.startswith("Of the prompt before, and not kept for this one: ") and "start 3" in said
    assert places.forget(ENGINE, kept, drawn, "flow-routes") == (kept, drawn, "")


def test_every_place_and_every_pair_is_known_as_one():
    of_prompt = {"corrupt", "giver", "key", "pos", "positions", "query", "start", "subject"}
    marked = {
        (param.name in of_prompt, param.paired or param.dim is not None)
        for view in CATALOG.views
        for param in view.analysis.parameters()
        if param.name not in view.follows
    }
    assert marked == {(True, True), (False, False)}
