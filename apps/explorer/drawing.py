"""Drawing what is shown: the large view, the small ones, the tokens, and the details of the selection."""

from collections.abc import Mapping
from typing import Any

import xarray as xr
from dash import MATCH, Dash, Input, Output, State, ctx, dcc, html, no_update

from apps.explorer import parts, tables, views
from apps.explorer.engine import Engine
from apps.explorer.layout import figure_id, graph
from apps.explorer.progress import request_of
from apps.explorer.selection import clean, headline, settle, strongest_head
from workbench.catalog import Entry
from workbench.errors import WorkbenchError
from workbench.figures import head_name

__all__ = ["detail_panel", "first_head", "large_view", "register", "small_view", "token_strip"]


def register(app: Dash, engine: Engine) -> None:
    """What is drawn when something else is shown or selected."""
    _register_views(app, engine)
    _register_selection(app, engine)


def _register_views(app: Dash, engine: Engine) -> None:
    for strip, store in (("tokens", "shown"), ("tokens-b", "shown-b")):

        @app.callback(Output(strip, "children"), Input(store, "data"))
        def tokens(shown):
            return token_strip(engine, shown) if shown else []

    @app.callback(
        Output(figure_id("main"), "figure"),
        Output("main-message", "children"),
        Output("said", "children"),
        Output(figure_id("other"), "figure"),
        Output("other-holder", "className"),
        Input("drawn", "data"),
        Input("follow", "data"),
        Input("late", "data"),
        Input("shown-b", "data"),
        State("view", "data"),
        State("shown", "data"),
        State("selection", "data"),
        State("scheme", "data"),
        State("session", "data"),
    )
    def main(_, follow, late, other, view, shown, selection, scheme, session):
        if ctx.triggered_id in ("follow", "late") and view["name"] not in engine.slices:
            return [no_update] * 5  # only these views change with the selection
        drawn = large_view(engine, view, shown, clean(selection), scheme == "dark", session)
        return *drawn, *second_view(engine, view, drawn, shown, other, clean(selection), scheme == "dark", session)

    @app.callback(
        Output("table-holder", "children"),
        Input("drawn", "data"),
        State("view", "data"),
        State("shown", "data"),
    )
    def table(_, view, shown):
        return table_view(engine, view, shown) if shown else []

    @app.callback(
        Output({"type": "thumb-figure", "name": MATCH}, "children"),
        Input({"type": "drawn", "name": MATCH}, "data"),
        State({"type": "drawn", "name": MATCH}, "id"),
        State("shown", "data"),
        State("scheme", "data"),
    )
    def thumb(_, this, shown, scheme):
        return small_view(engine, shown, this["name"], scheme == "dark") if shown else ""


def _register_selection(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("selection", "data"),
        Output("settled", "data"),
        Input("shown", "data"),
        Input("done", "data"),
        State("selection", "data"),
        State("settled", "data"),
        prevent_initial_call=True,
    )
    def choose(shown, done, selection, before):
        if not shown:
            return no_update, no_update
        if before is not None and before != shown["text"]:  # a position of another text means nothing here
            selection = {k: v for k, v in selection.items() if k not in ("pos", "query", "key")}
        head = None if "head" in selection else first_head(engine, shown, done or {})
        settled = settle(selection, len(shown["tokens"]), head=head, **shown["sizes"])
        changed = settled != selection and (selection or ctx.triggered_id == "shown")
        return settled if changed else no_update, shown["text"]

    @app.callback(
        Output("headline", "children"),
        Output("details", "children"),
        Output("follow", "data"),
        Output("poll", "disabled", allow_duplicate=True),
        Input("selection", "data"),
        Input("drawn", "data"),
        Input("late", "data"),
        State("shown", "data"),
        State("view", "data"),
        State("scheme", "data"),
        State("session", "data"),
        prevent_initial_call="initial_duplicate",
    )
    def details(selection, drawn, late, shown, view, scheme, session):
        if not shown:
            return [], [], no_update, no_update
        selection = clean(selection)
        chips = [html.Span(text, className="chip") for text in headline(selection, shown["tokens"])]
        nothing = [html.Span("Nothing: click a token or a cell.", className="quiet")]
        panel = detail_panel(engine, shown, view["name"], selection, scheme == "dark", session)
        follows = view["name"] in engine.slices and ctx.triggered_id == "selection"
        return chips or nothing, panel, selection if follows else no_update, False


def large_view(
    engine: Engine, view: Mapping[str, Any], shown: Mapping[str, Any] | None, selection: dict, dark: bool, session: str
) -> tuple[Any, Any, str]:
    """Figure, message over it, and the line under it."""
    if not shown:
        return no_update, html.Div("The first prompt is computed as soon as the model is ready."), ""
    try:
        request, name = request_of(engine, shown), view["name"]
    except WorkbenchError as error:  # the server was restarted and the model is loading again
        return no_update, html.Div(str(error)), ""
    if name in engine.slices:
        found, why = slice_result(engine, request, name, selection, session)
        if found is None:
            return no_update, html.Div(why), ""
        return shown_result(engine.slices[name], found, view["figure"], dark)
    found = engine.found(request, name)
    if not isinstance(found, xr.Dataset):
        running = engine.is_running(request, name)
        return no_update, message(name, views.waiting(engine.entries[name], found, running), not running), ""
    return shown_result(engine.entries[name], found, view["figure"], dark)


def shown_result(entry: Entry, result: xr.Dataset, index: int, dark: bool) -> tuple[Any, Any, str]:
    """Figure, nothing over it, and the line under it; or why it cannot be drawn. A table is put in its own place."""
    if tables.is_table(entry, index):
        return no_update, [], said_of(result)
    try:
        return views.drawn(entry, result, index, dark), [], said_of(result)
    except WorkbenchError as error:
        return no_update, html.Div(str(error)), said_of(result)


def table_view(engine: Engine, view: Mapping[str, Any], shown: Mapping[str, Any]) -> Any:
    """The table that the view shows, why there is none, or nothing where it shows a figure."""
    entry = engine.views[view["name"]]
    if not tables.is_table(entry, view["figure"]):
        return []
    try:
        result = engine.found(request_of(engine, shown), entry.name)
        if not isinstance(result, xr.Dataset):
            return []  # the message over it says why
        return tables.grid(tables.frame_of(entry, result, view["figure"]), result)
    except WorkbenchError as error:
        return html.Div(str(error), className="quiet")


def said_of(result: xr.Dataset) -> str:
    """What a result says in words, with its number."""
    return str(result.attrs.get("summary") or result.attrs.get("sentence") or "")


def view_text(shown: Mapping[str, Any]) -> tuple[str, bool]:
    """What the tokens come from."""
    return shown["text"], bool(shown.get("chat"))


def second_view(
    engine: Engine, view, drawn, shown, other, selection: dict, dark: bool, session: str
) -> tuple[Any, str]:
    """The same view of the prompt that is compared with, both on one colour scale; and whether it is seen."""
    if not other or engine.views[view["name"]].scope == "model":
        return no_update, "hidden"
    figure, _, _ = large_view(engine, view, other, selection, dark, session)
    if figure is no_update:
        return no_update, "hidden"
    if drawn[0] is not no_update:
        same = view_text(shown) == view_text(other)
        views.side_by_side(drawn[0], figure, "intact" if same else "compared")
    return figure, "other"


def slice_result(engine: Engine, request, name: str, selection: dict, session: str) -> tuple[xr.Dataset | None, str]:
    """The result of a view that follows the selection, or why there is none."""
    try:
        params = engine.slice_params(request, name, selection)
        if params is None:
            return None, "Select a head or a layer: click a cell of any view of heads."
        found = engine.slice(request, name, params, session)
    except WorkbenchError as error:
        return None, str(error)
    return found, "The model is busy with something longer; this follows in a moment."


def message(name: str, said: str, can_start: bool) -> html.Div:
    """What stands in place of a figure, with a button where it can be started."""
    inside: list[Any] = [html.Div(said)]
    if can_start:
        inside.append(html.Button("Start", id={"type": "start", "name": name}, className="plain", n_clicks=0))
    return html.Div(inside)


def small_view(engine: Engine, shown: Mapping[str, Any], name: str, dark: bool) -> Any:
    """A small multiple, or the words in its place."""
    try:
        figure = views.small(engine, request_of(engine, shown), name, dark)
    except WorkbenchError:
        return "waiting for the model"
    if isinstance(figure, str):
        return figure
    return dcc.Graph(figure=figure, config={"staticPlot": True, "responsive": True}, style={"height": "84px"})


def token_strip(engine: Engine, shown: Mapping[str, Any]) -> list[Any]:
    """The chips of the shown prompt with their surprisal."""
    try:
        result = engine.found(request_of(engine, shown), "surprisal")
    except WorkbenchError:
        result = None  # the tokens are shown all the same
    known = isinstance(result, xr.Dataset)
    nats = result["surprisal"].values.tolist() if known else [float("nan")] * len(shown["tokens"])
    return parts.token_chips(shown["tokens"], nats)


def first_head(engine: Engine, shown: Mapping[str, Any], done: Mapping[str, str]) -> tuple[int, int] | None:
    """The head to select before anybody chose one."""
    try:
        request = request_of(engine, shown)
    except WorkbenchError:
        return None
    found = [engine.found(request, name) for name, state in done.items() if state == "ok"]
    return strongest_head([result for result in found if isinstance(result, xr.Dataset)])


def detail_panel(
    engine: Engine, shown: Mapping[str, Any], name: str, selection: dict, dark: bool, session: str
) -> list[Any]:
    """What the chosen view says about the selection, and the pattern of the selected head."""
    try:
        request, panel = request_of(engine, shown), []
    except WorkbenchError as error:
        return [html.Div(str(error), className="quiet")]
    if name in engine.slices:
        found, _ = slice_result(engine, request, name, selection, session)
    else:
        found = engine.found(request, name)
    if isinstance(found, xr.Dataset):
        figures, said = views.detail_figures(engine.views[name], found, selection, dark)
        panel += [graph(f"detail {i}", figure) for i, figure in enumerate(figures)]
        panel += [html.Div(sentence, className="quiet") for sentence in said]
    if name != "attention":
        panel.append(pattern_panel(engine, request, selection, dark, session))
    return [*check_buttons(engine, selection), *panel]


def check_buttons(engine: Engine, selection: Mapping[str, Any]) -> list[Any]:
    """A button for every study of the catalog that takes a head: is what the head seems to do really so?"""
    if not {"layer", "head"} <= set(selection):
        return []
    name = head_name(selection["layer"], selection["head"])
    buttons = [
        html.Button(f"{entry.title} of {name}", id={"type": "check", "name": entry.name}, className="plain", n_clicks=0)
        for entry in checks(engine)
    ]
    ablate = html.Button(f"Run without {name}", id={"type": "ablate", "name": name}, className="plain", n_clicks=0)
    return [html.Div([*buttons, ablate], className="chips")]


def checks(engine: Engine) -> list[Entry]:
    """Studies with a `layer` and a `head` among their params."""
    takes = {"layer", "head"}
    return [e for e in engine.entries.values() if e.scope == "study" and takes <= {p.name for p in e.params}]


def pattern_panel(engine: Engine, request, selection: dict, dark: bool, session: str) -> Any:
    """The attention of the selected head, recomputed from the kept state of its layer."""
    if not {"layer", "head"} <= set(selection):
        return html.Div("Click a head to see its attention pattern.", className="quiet")
    found, why = slice_result(engine, request, "attention", selection, session)
    if found is None:
        return html.Div(why, className="quiet")
    return graph("pattern", views.narrow(views.drawn(engine.slices["attention"], found, 0, dark)))
