"""The card of the selected unit."""

from typing import Any

from dash import Dash, Input, Output, State, html

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page.card import card, unit_of
from apps.explorer.page.news import request_of
from apps.explorer.page.results import slice_result
from apps.explorer.page.selection import neuron_at
from apps.explorer.page.state import Clicks, Selection, Session, Shown
from workbench.errors import WorkbenchError

__all__ = ["register", "sheet"]

NOTHING = "Select a head, a layer or a neuron first: click a cell of any view of heads, or find one with Ctrl K."


def register(app: Dash, engine: Engine) -> None:
    """The button that opens it."""
    answer = Answers(app, engine)

    @answer(
        {
            "opened": Output("card", "opened"),
            "title": Output("card", "title"),
            "children": Output("card", "children"),
        },
        inputs={"clicks": Input("card-open", "n_clicks")},
        state={
            "selection": State("selection", "data"),
            "shown": State("shown", "data"),
            "session": State("session", "data"),
        },
        prevent_initial_call=True,
    )
    def opened(clicks: Clicks, selection: Selection, shown: Shown | None, session: Session) -> Answer:
        if not clicks:
            return {}
        title, children = sheet(engine, shown, selection, session)
        return {"opened": True, "title": title, "children": children}


def sheet(engine: Engine, shown: Shown | None, selection: Selection, session: Session) -> tuple[str, Any]:
    """Title and content of the card of what is selected."""
    unit = unit_of(selection, shown.sizes.neuron if shown else neuron_at)
    if unit is None or shown is None:
        return "Card", html.P(NOTHING)
    try:
        request = request_of(engine, shown)
        pattern = slice_result(engine, request, "attention", selection, session)[0] if unit.kind == "head" else None
        return f"{unit.kind} {unit.name}", html.Div(card(engine, request, unit, selection, pattern), className="card")
    except WorkbenchError as error:
        return unit.name, html.P(str(error))
