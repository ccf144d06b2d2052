"""Whether the open view can be held against another run, and how."""

from typing import Any

from dash import Dash, Input, Output, State

from apps.explorer.callbacks.answer import Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page.comparison import is_comparable
from apps.explorer.page.state import Seen, Shown

__all__ = ["register"]


def register(app: Dash, engine: Engine) -> None:
    """The choice between both runs and their difference."""
    answer = Answers(app, engine)

    @answer(
        Output("compare-mode", "className"),
        inputs={"other": Input("shown-b", "data"), "view": Input("view", "data")},
        state={"shown": State("shown", "data")},
    )
    def modes(other: Shown | None, view: Seen, shown: Shown | None) -> Any:
        return "compare-mode" if is_comparable(engine, view, shown, other) else "hidden"
