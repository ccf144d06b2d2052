"""The sheet of the model."""

from typing import Any

from dash import Dash, Input, Output, State, html

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page.sheet import TITLE, sheet_of
from apps.explorer.page.state import ModelName, SheetAsked
from workbench.card import model_card
from workbench.errors import WorkbenchError

__all__ = ["model_sheet", "register"]


def register(app: Dash, engine: Engine) -> None:
    """The buttons that open it."""
    answer = Answers(app, engine)

    @answer(
        {
            "opened": Output("card", "opened", allow_duplicate=True),
            "title": Output("card", "title", allow_duplicate=True),
            "children": Output("card", "children", allow_duplicate=True),
        },
        inputs={"asked": Input("sheet", "data")},
        state={"model": State("model", "value")},
        prevent_initial_call=True,
    )
    def opened(asked: SheetAsked | None, model: ModelName) -> Answer:
        if not asked:
            return {}
        return {"opened": True, "title": f"{TITLE}: {model}", "children": model_sheet(engine, model)}


def model_sheet(engine: Engine, name: str) -> Any:
    """What is known of a model of the page; why nothing is, while it loads or where it did not."""
    try:
        views = engine.views.values()
        card = model_card(
            engine.hosted(name).ready, [view.analysis for view in views], results=engine.settings.directory
        )
        return sheet_of(engine, card)
    except WorkbenchError as error:
        return html.P(str(error))
