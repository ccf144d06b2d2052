"""Callbacks of the page: thin wrappers that hand its stores to plain functions and their answers back.

The browser keeps the state (what is asked, what is shown, the selection); the server knows only keys and results, so a
restart loses nothing and two windows cannot disturb each other. One callback serves every analysis of the catalog.
Read `answer`, by which all of them name what they take and give; then one file a concern. `browser` needs no server.
"""

from dash import Dash

from apps.explorer.callbacks import (
    batches,
    browser,
    card,
    continuation,
    details,
    display,
    export,
    figure,
    intervene,
    notices,
    params,
    pins,
    poll,
    run,
    selection,
    sheet,
    view,
    visit,
)
from apps.explorer.engine.engine import Engine

__all__ = ["register"]

_CONCERNS = (
    run, poll, notices, continuation, view, params, figure, selection, details, display, intervene, export, visit,
    batches, card, sheet, pins,
)  # fmt: skip


def register(app: Dash, engine: Engine) -> None:
    """All callbacks of the page."""
    browser.register(app)
    for concern in _CONCERNS:
        concern.register(app, engine)
