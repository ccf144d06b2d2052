"""What is said of the selection: in words, by the open view, by the attention of its head, and what can be tested."""

from collections.abc import Mapping
from typing import Any

import xarray as xr
from dash import Dash, Input, Output, State, dcc, html, no_update

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.intervene import items, nameable
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import sentence
from apps.explorer.engine.request import Request
from apps.explorer.page import checks, swaps, views
from apps.explorer.page import comparison as comparing
from apps.explorer.page import components as parts
from apps.explorer.page.attributes import attributes
from apps.explorer.page.graphs import graph
from apps.explorer.page.news import request_of, woken
from apps.explorer.page.results import BUSY, at_selection, result_of, slice_result
from apps.explorer.page.selection import headline
from apps.explorer.page.state import Choice, Clicks, Display, Seen, Selection, Session, Shown, Text
from workbench.analysis.view import Claim, View
from workbench.errors import WorkbenchError

__all__ = ["detail_panel", "following", "open_claims", "register"]

_DRAG = "A cell of the compared prompt can be dragged onto one of this prompt: its state is swapped in."
_SEEN = 2  # figures that the panel holds without a fold


def register(app: Dash, engine: Engine) -> None:
    """The right panel."""
    answer = Answers(app, engine)

    @answer(
        {
            "headline": Output("headline", "children"),
            "details": Output("details", "children"),
            "items": Output("intervene-items", "children"),
            "follow": Output("follow", "data"),
            "woken": Output("woken", "data", allow_duplicate=True),
        },
        inputs={
            "selection": Input("selection", "data"),
            "drawn": Input("rested", "data"),
            "late": Input("late", "data"),
            "other": Input("shown-b", "data"),
        },
        state={
            "shown": State("shown", "data"),
            "view": State("view", "data"),
            "scheme": State("scheme", "data"),
            "session": State("session", "data"),
            "display": State("display", "data"),
            "followed": State("follow", "data"),
        },
        prevent_initial_call=True,
    )
    def details(
        selection: Selection,
        drawn: Text | None,
        late: Clicks,
        other: Shown | None,
        shown: Shown | None,
        view: Seen,
        scheme: Choice,
        session: Session,
        display: Display | None,
        followed: Selection,
    ) -> Answer:
        if not shown:
            return {"headline": [], "details": [], "items": items(selection, None)}
        shown = shown.displayed(display)
        engine.presence.chose(shown.text, selection)
        chips = [html.Span(text, className="chip") for text in headline(selection, shown.tokens, shown.sizes.neuron)]
        nothing = [html.Span("Nothing: click a token or a cell.", className="quiet")]
        panel = detail_panel(engine, shown, view.name, selection, scheme == "dark", session, other)
        if other and comparing.is_comparable(engine, view, shown, other):
            find = lambda run: result_of(engine, run, view.name, selection, session)
            panel = [*comparing.both_values(find, shown, other, selection), *panel]
        follows = view.name in engine.slices and selection != followed
        return {
            "headline": chips or nothing,
            "details": panel,
            "items": items(selection, shown.sizes),
            "follow": selection if follows else no_update,
            "woken": woken(),
        }


def detail_panel(
    engine: Engine,
    shown: Shown,
    name: str,
    selection: Mapping[str, Any],
    dark: bool,
    session: str,
    other: Shown | None = None,
) -> list[Any]:
    """What the chosen view says about the selection, and the pattern of the selected head. other: the run that the
    shown one is held against."""
    panel: list[Any] = []
    try:
        request = request_of(engine, shown)
    except WorkbenchError as error:
        return [html.Div(str(error), className="quiet")]
    if name in engine.slices:
        result, _ = slice_result(engine, request, name, selection, session)
    else:
        found = at_selection(engine, request, name, selection, session)
        result = found if isinstance(found, xr.Dataset) else None
        panel += [html.Div(found, className="quiet")] if isinstance(found, str) else []
    if result is not None:
        display = shown.display.get(name)
        figures, said = views.detail_figures(engine.views[name], result, selection, dark, display)
        panel += [graph(f"detail {i}", figure) for i, figure in enumerate(figures)]
        panel += [html.Div(sentence, className="quiet") for sentence in said]
    if engine.views[name].follow is not None:
        panel += following(engine, request, engine.views[name], selection, dark, session)
    elif name != "attention":
        panel.append(pattern_panel(engine, request, selection, dark, session))
    claims = open_claims(engine, shown, name, selection, session, other)
    gives = result is not None and {"depth", "pos"} <= set(result.dims) and swaps.can_give(engine, shown, other)
    hint = [html.Div(_DRAG, className="quiet beside-only")] if gives else []
    return [*check_buttons(claims), *hint, *folded(panel)]


def folded(panel: list[Any]) -> list[Any]:
    """Up to two figures as they are; more of them behind their titles, where the browser keeps two open."""
    graphs: list[Any] = [part for part in panel if isinstance(part, dcc.Graph)]
    if len(graphs) <= _SEEN:
        return panel
    folds: list[Any] = []
    for part in panel:
        if any(part is one for one in graphs):
            is_open = part is graphs[0] or part is graphs[-1]
            folds.append(
                html.Details(
                    parts.fold(part), open=is_open, className="fold", **attributes({"data-fold": part.id["name"]})
                )
            )
        elif folds:
            folds[-1].children.append(part)
        else:
            folds.append(part)
    return folds


def open_claims(
    engine: Engine,
    shown: Shown,
    name: str,
    selection: Mapping[str, Any],
    session: str,
    other: Shown | None = None,
) -> list[Claim]:
    """What the open view claims of the selection, what the attention of the selected head does, and what can be changed
    to see. other: the run that the shown one is held against."""
    seen = {view: result_of(engine, shown, view, selection, session)[0] for view in dict.fromkeys((name, "attention"))}
    there = {view: result for view, result in seen.items() if result is not None}
    change = checks.change_of(engine, nameable(selection, shown.sizes))
    swapped = swaps.offered(engine, shown, other, selection)
    return [*checks.claims_of(engine, there, selection, shown.display), *change, *swapped]


def check_buttons(claims: list[Claim]) -> list[Any]:
    """A button for every claim."""
    found: list[Any] = checks.buttons(claims)
    return [html.Div(found, className="chips")] if found else []


def following(
    engine: Engine, request: Request, view: View, selection: Mapping[str, Any], dark: bool, session: str
) -> list[Any]:
    """What an analysis has recomputed of one layer for the selection, from the kept state."""
    panel: list[Any] = []
    try:
        followed = view.follow(request.analyses[view.name], selection) if view.follow else ()
    except Exception as error:  # a mistake in one view must not take the page with it
        return [html.Div(sentence(view.title, error), className="quiet")]
    for place, (one, analysis) in enumerate(followed):
        try:
            found = engine.of_layer(request, analysis, session)
            figures = [] if found is None else [views.drawn(one, found, i, dark) for i in range(len(one.figures))]
        except WorkbenchError as error:
            panel.append(html.Div(str(error), className="quiet"))
            continue
        panel += [graph(f"follows {place} {i}", views.narrow(figure)) for i, figure in enumerate(figures)]
        panel.append(html.Div(BUSY if found is None else one.said(found), className="quiet"))
    return panel


def pattern_panel(engine: Engine, request: Request, selection: Mapping[str, Any], dark: bool, session: str) -> Any:
    """The attention of the selected head, recomputed from the kept state of its layer."""
    if not {"layer", "head"} <= set(selection):
        return html.Div("Click a head to see its attention pattern.", className="quiet")
    found, why = slice_result(engine, request, "attention", selection, session)
    if found is None:
        return html.Div(why, className="quiet")
    return graph("pattern", views.narrow(views.drawn(engine.slices["attention"], found, 0, dark)))
