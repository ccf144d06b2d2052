"""Display parameters on the page: answered from the kept result, carried along, and finer results where they ask."""

from types import SimpleNamespace

import pytest
from dash import no_update

from apps.explorer.callbacks import details, figure
from apps.explorer.callbacks import display as displaying
from apps.explorer.callbacks.export import take
from apps.explorer.callbacks.run import ask
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import Fate, State
from apps.explorer.engine.settings import Settings
from apps.explorer.page import news, views
from apps.explorer.page.form_state import Moved
from apps.explorer.page.forms import display_form
from apps.explorer.page.parsing import parse
from apps.explorer.page.state import Link, Seen, Shown, Sizes
from probes import CATALOG
from probes.erasure.readout import GET
from tests.tiny_models import tiny_model
from workbench.analysis.run import Failure
from workbench.errors import InputError, UnavailableError

TEXT = "5 9 5 7 9 3 5 9"
NAME = "flow-routes"
SIZES = Sizes(n_layers=2, n_heads=4, d_mlp=64)
VIEW = CATALOG.view(NAME)


@pytest.fixture(scope="module")
def engine():
    made = Engine(Settings(models=("tiny",)), [VIEW], load=lambda n, p: tiny_model("llama"))
    assert made.hosted("tiny").loading.finished.wait(60)
    yield made
    made.close()


def shown(engine, display, params=None) -> Shown:
    """What the page holds of a run that is over."""
    request = engine.request("tiny", TEXT, params or {})
    job = engine.submit(request, "me")
    assert job is None or (job.finished.wait(60) and job.state == "done")
    run = {"id": "run", "model": "tiny", "text": TEXT, "params": params or {}, "tokens": request.tokens.strings}
    return Shown(**run, sizes=SIZES).displayed({NAME: display} if display else {})


def look(engine, run, selection=None):
    return figure.large_view(engine, Seen(name=NAME), run, selection or {}, False, "me")


@pytest.fixture
def move(engine):
    """One control of the page is set: the display parameters after it, None where nothing changed."""

    def moved(name, value, display, control="number"):
        return displaying.changed(engine, Moved(entry=NAME, name=name, control=control, value=value), display)

    return moved


def test_a_control_changes_its_own_parameter(move):
    assert move("coverage", "0.5", {}) == {NAME: {"coverage": 0.5}}
    assert move("coverage", 0.8, {}) is None  # as before
    assert move("start", "3", {NAME: {"coverage": 0.5}}) == {NAME: {"coverage": 0.5, "start": 3}}
    assert move("start", None, {NAME: {"start": 3}}) == {NAME: {"start": None}}
    assert move("hide_first", "true", {}, "choice") == {NAME: {"hide_first": True}}
    with pytest.raises(InputError, match="coverage"):
        move("coverage", "1.5", {})


def test_a_slider_at_its_low_end_means_none_and_keeps_what_lies_beyond(move):
    assert move("threshold", 0.012, {}, "slider") == {NAME: {"threshold": 0.012}}
    assert move("threshold", 0.0, {NAME: {"threshold": 0.012}}, "slider") == {NAME: {"threshold": None}}
    assert move("threshold", 0.1, {NAME: {"threshold": 0.4}}, "slider") is None  # it stands at its end
    assert move("coverage", 0.30000000000000004, {}, "slider") == {NAME: {"coverage": 0.3}}


def test_a_display_is_answered_without_a_job(engine):
    run = shown(engine, {})
    jobs = len(engine.hosted("tiny").worker.jobs())
    drawn, _, said = look(engine, run)
    assert "token 7 (coverage 0.8)" in drawn.layout.title.text and "(coverage 0.8)" in said
    drawn, _, said = look(engine, shown(engine, {"coverage": 0.4, "start": 3}))
    assert "token 3 (coverage 0.4)" in drawn.layout.title.text and "token 3 (coverage 0.4)" in said
    assert len(engine.hosted("tiny").worker.jobs()) == jobs
    small = views.small(engine, engine.request("tiny", TEXT, {}), NAME, False, {"coverage": 0.4})
    assert small.to_json() != views.small(engine, engine.request("tiny", TEXT, {}), NAME, False, {}).to_json()


def test_more_than_was_kept_is_computed_again(engine):
    display = {NAME: {"threshold": 0.0002}}
    _, message, _ = look(engine, shown(engine, display[NAME]))
    assert "computed again with min_share=0.0002" in message.children
    params = displaying.fine(engine, {}, display)
    assert params == {NAME: {"min_share": 0.0002}} and displaying.fine(engine, params, display) == params
    drawn, _, said = look(engine, shown(engine, display[NAME], params))
    assert "threshold 0.0002" in drawn.layout.title.text and "Kept are shares above 0.0002" in said
    assert displaying.fine(engine, {}, {NAME: {"coverage": 0.99}}) == {NAME: {"min_coverage": 0.99}}
    assert displaying.fine(engine, {}, {NAME: {"coverage": 2}, "other": {}}) == {}  # said where it is drawn


def test_bad_values_are_said_in_the_place_of_the_figure(engine):
    drawn, message, _ = look(engine, shown(engine, {"start": 20}))
    assert drawn is no_update and "start=20" in message.children


def test_exports_draw_the_same_and_code_says_how(engine):
    run, view = shown(engine, {"coverage": 0.4, "start": 3, "hide_first": False}), Seen(name=NAME)
    code = take(engine, "py", run, view, {}, False, "me")[0].decode()
    assert "figure = routes_figure(result, start=3, coverage=0.4)" in code
    assert "token 3 (coverage 0.4)" in take(engine, "html", run, view, {}, False, "me")[0].decode()
    plain = take(engine, "py", run, Seen(name=NAME, figure=1), {}, False, "me")[0].decode()
    assert "figure = layers_figure(result)" in plain  # it takes none of them


def test_a_link_may_name_what_is_gone(engine):
    assert parse(Link, {"display": {NAME: {"start": 1}, "x": 3}}, engine=engine).display == {NAME: {"start": 1}}
    assert parse(Link, {"display": [1]}, engine=engine).display == {}


def test_a_click_is_answered_from_one_layer(engine):
    run = shown(engine, {})
    request = engine.request("tiny", TEXT, {})
    edge = {"part": "attention", "layer": 1, "head": 2, "query": 5, "key": 1, "pos": 5, "depth": 2}
    titles = lambda panel: [part.figure.layout.title.text for part in panel if hasattr(part, "figure")]
    panel = details.detail_panel(engine, run, NAME, edge, False, "me")
    assert titles(panel) == ["Heads from 1 to 5 in layer 1", "L1H2"]
    panel = details.detail_panel(engine, run, NAME, {**edge, "part": "mlp"}, False, "me")
    assert titles(panel) == ["Neurons of layer 1 at token 5"]
    node = {"depth": 2, "pos": 5, "layer": 1, "head": 2}
    assert titles(details.detail_panel(engine, run, NAME, node, False, "me")) == ["Lens at depth 2, token 5"]
    (gone,) = details.following(engine, request, VIEW, {**edge, "layer": 7}, False, "me")
    assert "layer=7" in gone.children


def test_the_form_has_a_control_for_each(engine):
    form = display_form(VIEW, {"threshold": 0.4, "start": 2}, [" a", "<b>"])
    parts = [part for row in form for part in row._traverse()]
    controls = [part for part in parts if getattr(part, "id", None)]
    ids = {(part.id["name"], part.id["control"]): part for part in controls}
    assert set(ids) == {
        ("start", "token"), ("coverage", "number"), ("coverage", "slider"), ("threshold", "number"),
        ("threshold", "slider"), ("renormalise", "choice"), ("hide_first", "choice"),
            ("edges_drawn", "number"), ("edges_drawn", "slider"),
    }  # fmt: skip
    assert ids["start", "token"].value == "2"
    assert ids["start", "token"].data[0] == {"value": "0", "label": "0 ·a"}
    assert ids["threshold", "number"].value == 0.4 and ids["threshold", "slider"].value == 0.1


def test_what_must_run_first_is_one_click_away():
    names = ("token-erasure", "token-erasure-probes")
    engine = SimpleNamespace(standing={name: CATALOG.view(name) for name in names})
    error = UnavailableError("no probes", "probes of these weights", GET["factored"], first="token-erasure-probes")
    refused = figure.message(engine, "token-erasure", Failure("token-erasure", "Token erasure", error), None)
    opens, starts = refused.children[1:]
    assert getattr(opens, "data-turn") == "token-erasure-probes"
    assert getattr(starts, "data-start") == "token-erasure" and starts.children == "Start again"
    running = Fate(State.RUNNING, "job")
    assert len(figure.message(engine, "token-erasure", None, running).children) == 1


def test_a_view_of_what_the_model_has_not_offers_no_start(tmp_path):
    engine = Engine(Settings(models=("tiny",), directory=tmp_path), [CATALOG.view("experts")], load=_llama)
    try:
        assert engine.hosted("tiny").loading.finished.wait(60)
        asked, _ = ask(engine, "me", "tiny", "5 9 5 7", {})
        assert asked.job is None or engine.hosted("tiny").worker.get(asked.job).finished.wait(60)
        page = news.look(engine, "me", asked, None, {}).shown
        _, words, _ = figure.large_view(engine, Seen(name="experts"), page, {}, False, "me")
    finally:
        engine.close()
    assert words.children == "This view is for other models: this one has one MLP in every layer and no experts."


def _llama(name, progress):
    return tiny_model("llama")
