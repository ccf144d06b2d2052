"""Drawing what is shown: the large view, the small ones, the tokens, and the details of the selection."""

from collections.abc import Mapping
from typing import Any

import xarray as xr
from dash import MATCH, Dash, Input, Output, State, ctx, dcc, html, no_update

from apps.explorer.callbacks.display import forget_places, lacking, with_display
from apps.explorer.engine.engine import Engine, Request
from apps.explorer.engine.jobs import Fate
from apps.explorer.engine.jobs import State as JobState
from apps.explorer.engine.news import fate_of, request_of, woken
from apps.explorer.page import checks, tables, views
from apps.explorer.page import comparison as comparing
from apps.explorer.page import components as parts
from apps.explorer.page.layout import figure_id, graph
from apps.explorer.page.selection import clean, headline, settle, strongest_head
from workbench.analysis.run import Failure
from workbench.analysis.view import Claim, View
from workbench.errors import WorkbenchError

__all__ = ["detail_panel", "first_head", "large_view", "open_claims", "register", "small_view", "token_strip"]

_SEEN = 2  # figures that the panel holds without a fold
_BUSY = "The model is busy with something longer; this follows in a moment."


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
        Input("compare-mode", "value"),
        State("view", "data"),
        State("shown", "data"),
        State("selection", "data"),
        State("scheme", "data"),
        State("session", "data"),
        State("display", "data"),
        State("done", "data"),
    )
    def main(_, follow, late, other, mode, view, shown, selection, scheme, session, display, done):
        if ctx.triggered_id in ("follow", "late") and view["name"] not in engine.slices:
            return [no_update] * 5  # only these views change with the selection
        selection, dark = clean(selection), scheme == "dark"
        shown, other = with_display(shown, display), with_display(other, display)
        if mode == "difference" and comparing.is_comparable(engine, view, shown, other):
            find = lambda run: result_of(engine, run, view["name"], selection, session)
            return *comparing.difference_view(engine, view, find, shown, other, dark), no_update, "hidden"

        def draw(run):
            told = (done or {}).get(view["name"], "") if run is shown else ""
            figure, *words = large_view(engine, view, run, selection, dark, session, told)
            return (figure if figure is no_update else views.marked(figure, selection), *words)

        drawn, word = draw(shown), comparing.word_for(shown, other) if shown and other else ""
        return *drawn, *comparing.second_view(engine, view, drawn, shown, other, draw, word)

    @app.callback(
        Output("compare-mode", "className"), Input("shown-b", "data"), Input("view", "data"), State("shown", "data")
    )
    def modes(other, view, shown):
        return "compare-mode" if comparing.is_comparable(engine, view, shown, other) else "hidden"

    @app.callback(
        Output("table-holder", "children"),
        Output("table-holder", "data-of"),
        Input("rested", "data"),
        State("view", "data"),
        State("shown", "data"),
        State("done", "data"),
        State("table-holder", "data-of"),
    )
    def table(_, view, shown, done, before):
        of = table_of(view, shown, done or {})
        return (no_update, no_update) if of == before else (table_view(engine, view, shown) if shown else [], of)

    @app.callback(
        Output({"type": "thumb-figure", "name": MATCH}, "children"),
        Input({"type": "drawn", "name": MATCH}, "data"),
        State({"type": "drawn", "name": MATCH}, "id"),
        State("shown", "data"),
        State("scheme", "data"),
        State("display", "data"),
    )
    def thumb(_, this, shown, scheme, display):
        return small_view(engine, with_display(shown, display), this["name"], scheme == "dark") if shown else ""


def _register_selection(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("selection", "data"),
        Output("settled", "data"),
        Output("display", "data", allow_duplicate=True),
        Input("shown", "data"),
        Input("done", "data"),
        State("selection", "data"),
        State("settled", "data"),
        State("display", "data"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def choose(shown, done, selection, before, display, view):
        if not shown:
            return no_update, no_update, no_update
        kept = display
        if before is not None and before != shown["text"]:  # a position of another text means nothing here
            selection = {k: v for k, v in selection.items() if k not in ("pos", "query", "key")}
            kept = forget_places(engine, display or {}, view["name"])
        head = None if "head" in selection else first_head(engine, shown, done or {})
        settled = settle(selection, len(shown["tokens"]), head=head, **shown["sizes"])
        changed = settled != selection and (selection or ctx.triggered_id == "shown")
        return settled if changed else no_update, shown["text"], kept if kept != display else no_update

    @app.callback(
        Output("headline", "children"),
        Output("details", "children"),
        Output("follow", "data"),
        Output("woken", "data", allow_duplicate=True),
        Input("selection", "data"),
        Input("rested", "data"),
        Input("late", "data"),
        Input("shown-b", "data"),
        State("shown", "data"),
        State("view", "data"),
        State("scheme", "data"),
        State("session", "data"),
        State("display", "data"),
        prevent_initial_call="initial_duplicate",
    )
    def details(selection, drawn, late, other, shown, view, scheme, session, display):
        if not shown:
            return [], [], no_update, no_update
        shown = with_display(shown, display)
        selection = clean(selection)
        chips = [html.Span(text, className="chip") for text in headline(selection, shown["tokens"])]
        nothing = [html.Span("Nothing: click a token or a cell.", className="quiet")]
        panel = detail_panel(engine, shown, view["name"], selection, scheme == "dark", session)
        if comparing.is_comparable(engine, view, shown, other):
            find = lambda run: result_of(engine, run, view["name"], selection, session)
            panel = [*comparing.both_values(find, shown, other, selection), *panel]
        follows = view["name"] in engine.slices and ctx.triggered_id == "selection"
        return chips or nothing, panel, selection if follows else no_update, woken()


def large_view(
    engine: Engine,
    view: Mapping[str, Any],
    shown: Mapping[str, Any] | None,
    selection: dict,
    dark: bool,
    session: str,
    told: str = "",
) -> tuple[Any, Any, Any]:
    """Figure, message over it, and the line under it. told: what the page last heard of the analysis."""
    if not shown:
        return no_update, html.Div("No prompt has been computed yet."), ""
    try:
        request, name = request_of(engine, shown), view["name"]
    except WorkbenchError as error:  # the server was restarted and the model is loading again
        return no_update, html.Div(str(error)), ""
    if name in engine.slices:
        found, why = slice_result(engine, request, name, selection, session)
        if found is None:
            return no_update, html.Div(why), ""
        return shown_result(engine.slices[name], found, view["figure"], dark, {})
    fate = fate_of(engine, request, name, told)  # before the result: what has just ended has one
    found = engine.found(request, name)
    if not isinstance(found, xr.Dataset):
        return no_update, message(engine, name, found, fate), ""
    display = shown.get("display", {}).get(name, {})
    missing = lacking(engine.standing[name], request.analyses[name], display)
    if missing:
        return no_update, html.Div(missing), ""
    figure, words, said = shown_result(engine.standing[name], found, view["figure"], dark, display)
    return figure, words, so_far(name, said, fate) if found.attrs.get("partial") else said


def so_far(name: str, said: str, fate: Fate | None) -> Any:
    """The line under a figure of a study that has not come to its end."""
    if fate is not None and fate.state == JobState.CANCELLING:
        return f"Stopping ...; so far: {said}" if said else "Stopping ..."
    if fate is not None and fate.state.alive:
        return f"So far: {said}" if said else "Not complete yet."
    begins = "Stopped before its end" if fate is not None and fate.state == JobState.CANCELLED else "Not complete"
    stopped = f"{begins}; so far: {said} " if said else f"{begins}. "
    return [stopped, start_button(name, "Start again")]


def shown_result(
    view: View, result: xr.Dataset, index: int, dark: bool, display: Mapping[str, Any]
) -> tuple[Any, Any, str]:
    """Figure, nothing over it, and the line under it; or why it cannot be drawn. A table is put in its own place."""
    try:
        said = view.said(result, display)
        figure = no_update if tables.is_table(view, index) else views.drawn(view, result, index, dark, display)
        return figure, [], said
    except WorkbenchError as error:
        return no_update, html.Div(str(error)), ""


def table_of(view: Mapping[str, Any], shown: Mapping[str, Any] | None, done: Mapping[str, str]) -> str:
    """What a table is made of. Not of light or dark, nor of what is only drawn: it keeps its order, filters and place.

    Neither how far a study is, only how many parts of it are there.
    """
    if not shown:
        return ""
    name = view["name"]
    parts = done.get(name, "").split()[:3]  # state, job, number of parts
    return " ".join([name, str(view["figure"]), shown["keys"].get(name) or shown["id"], *parts])


def table_view(engine: Engine, view: Mapping[str, Any], shown: Mapping[str, Any]) -> Any:
    """The table that the view shows, why there is none, or nothing where it shows a figure."""
    seen = engine.views[view["name"]]
    if not tables.is_table(seen, view["figure"]):
        return []
    try:
        result = engine.found(request_of(engine, shown), seen.name)
        if not isinstance(result, xr.Dataset):
            return []  # the message over it says why
        return tables.grid(tables.frame_of(seen, result, view["figure"]), result)
    except WorkbenchError as error:
        return html.Div(str(error), className="quiet")


def result_of(
    engine: Engine, shown: Mapping[str, Any], name: str, selection: dict, session: str
) -> tuple[xr.Dataset | None, str]:
    """The result of a view of a run, or why there is none."""
    try:
        request = request_of(engine, shown)
    except WorkbenchError as error:
        return None, str(error)
    if name in engine.slices:
        return slice_result(engine, request, name, selection, session)
    fate = engine.fate(request, name)  # before the result, as above
    found = engine.found(request, name)
    return (found, "") if isinstance(found, xr.Dataset) else (None, views.waiting(engine.standing[name], found, fate))


def slice_result(
    engine: Engine, request: Request, name: str, selection: dict, session: str
) -> tuple[xr.Dataset | None, str]:
    """The result of a view that follows the selection, or why there is none."""
    try:
        analysis = engine.slice_of(request, name, selection)
        if analysis is None:
            return None, "Select a head or a layer: click a cell of any view of heads."
        found = engine.of_layer(request, analysis, session)
    except WorkbenchError as error:
        return None, str(error)
    return found, _BUSY


def message(engine: Engine, name: str, found: Failure | None, fate: Fate | None) -> html.Div:
    """What stands in place of a figure, with a button where it can be started and one to what is to be run first."""
    inside: list[Any] = [html.Div(views.waiting(engine.standing[name], found, fate))]
    if found is not None and found.first in engine.standing:
        inside.append(turn_button(engine.standing[found.first]))
    if fate is None or not fate.state.alive:
        inside.append(start_button(name, "Start" if fate is None else "Start again"))
    return html.Div(inside)


def turn_button(view: View) -> html.Button:
    """What opens a view."""
    return html.Button(f"Open {view.title}", id={"type": "turn", "name": view.name}, className="plain", n_clicks=0)


def start_button(name: str, words: str) -> html.Button:
    """What starts an analysis; the browser reads the click, since the button may be drawn anew meanwhile."""
    return html.Button(words, className="plain", **{"data-start": name})


def small_view(engine: Engine, shown: Mapping[str, Any], name: str, dark: bool) -> Any:
    """A small multiple, or the words in its place."""
    try:
        figure = views.small(engine, request_of(engine, shown), name, dark, shown.get("display", {}).get(name))
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
        display = shown.get("display", {}).get(name)
        figures, said = views.detail_figures(engine.views[name], found, selection, dark, display)
        panel += [graph(f"detail {i}", figure) for i, figure in enumerate(figures)]
        panel += [html.Div(sentence, className="quiet") for sentence in said]
    if engine.views[name].follow is not None:
        panel += following(engine, request, engine.views[name], selection, dark, session)
    elif name != "attention":
        panel.append(pattern_panel(engine, request, selection, dark, session))
    claims = open_claims(engine, shown, name, selection, session)
    return [*check_buttons(claims), *folded(panel)]


def folded(panel: list[Any]) -> list[Any]:
    """Up to two figures as they are; more of them behind their titles, where the browser keeps two open."""
    graphs = [part for part in panel if isinstance(part, dcc.Graph)]
    if len(graphs) <= _SEEN:
        return panel
    folds: list[Any] = []
    for part in panel:
        if isinstance(part, dcc.Graph):
            is_open = part is graphs[0] or part is graphs[-1]
            folds.append(
                html.Details(parts.fold(part), open=is_open, className="fold", **{"data-fold": part.id["name"]})
            )
        elif folds:
            folds[-1].children.append(part)
        else:
            folds.append(part)
    return folds


def open_claims(engine: Engine, shown: Mapping[str, Any], name: str, selection: dict, session: str) -> list[Claim]:
    """What the open view claims of the selection, and what the attention of the selected head does."""
    seen = {view: result_of(engine, shown, view, selection, session)[0] for view in dict.fromkeys((name, "attention"))}
    there = {view: result for view, result in seen.items() if result is not None}
    return checks.claims_of(engine, there, selection, shown.get("display", {}))


def check_buttons(claims: list[Claim]) -> list[Any]:
    """A button for every claim."""
    found: list[Any] = checks.buttons(claims)
    return [html.Div(found, className="chips")] if found else []


def following(engine: Engine, request: Request, view: View, selection: dict, dark: bool, session: str) -> list[Any]:
    """What an analysis has recomputed of one layer for the selection, from the kept state."""
    panel: list[Any] = []
    for place, (one, analysis) in enumerate(view.follow(request.analyses[view.name], selection)):
        try:
            found = engine.of_layer(request, analysis, session)
            figures = [] if found is None else [views.drawn(one, found, i, dark) for i in range(len(one.figures))]
        except WorkbenchError as error:
            panel.append(html.Div(str(error), className="quiet"))
            continue
        panel += [graph(f"follows {place} {i}", views.narrow(figure)) for i, figure in enumerate(figures)]
        panel.append(html.Div(_BUSY if found is None else one.said(found), className="quiet"))
    return panel


def pattern_panel(engine: Engine, request: Request, selection: dict, dark: bool, session: str) -> Any:
    """The attention of the selected head, recomputed from the kept state of its layer."""
    if not {"layer", "head"} <= set(selection):
        return html.Div("Click a head to see its attention pattern.", className="quiet")
    found, why = slice_result(engine, request, "attention", selection, session)
    if found is None:
        return html.Div(why, className="quiet")
    return graph("pattern", views.narrow(views.drawn(engine.slices["attention"], found, 0, dark)))
