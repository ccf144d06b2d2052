"""Prompts that are kept beside each other. The browser keeps which: see `page/assets/pins.js`."""

from collections.abc import Mapping
from typing import Any

from dash import Dash, Input, Output, State

from apps.explorer.callbacks.answer import Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page.news import woken
from apps.explorer.page.pins import Pinned, pinned
from apps.explorer.page.state import Choice, Display, PinsAsked, Session, Shown

__all__ = ["register"]


def register(app: Dash, engine: Engine) -> None:
    """The row of small multiples."""
    answer = Answers(app, engine)

    @answer(
        {"row": Output("pins", "data"), "woken": Output("woken", "data", allow_duplicate=True)},
        inputs={"asked": Input("pins-asked", "data")},
        state={
            "shown": State("shown", "data"),
            "scheme": State("scheme", "data"),
            "display": State("display", "data"),
            "session": State("session", "data"),
        },
        prevent_initial_call=True,
    )
    def row(
        asked: PinsAsked | None, shown: Shown | None, scheme: Choice, display: Display | None, session: Session
    ) -> Mapping[str, Any]:
        if not asked or not shown:
            return {}
        found = pinned(engine, shown, asked.texts, asked.view, scheme == "dark", display or {}, session, asked.aligned)
        data = {"sign": asked.sign, "said": found.said, "prompts": [drawn(one) for one in found.prompts]}
        return {"row": data, **({"woken": woken()} if any(one.waits for one in found.prompts) else {})}


def drawn(one: Pinned) -> dict[str, Any]:
    """A pinned prompt as the browser draws it."""
    figure = {"figure": one.figure.to_plotly_json()} if one.figure is not None else {"words": one.words}
    return {"text": one.text, "waits": one.waits, "at": one.at, **figure}
