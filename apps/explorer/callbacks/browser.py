"""What needs no server: clicks into the selection, marks on the figures, the address, light and dark."""

from collections.abc import Callable
from functools import partial
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State

__all__ = ["register"]

Local = Callable[..., None]


def register(app: Dash) -> None:
    """All of them."""
    local = partial(_local, app)
    _register_spine(local)
    _register_links(local)
    _register_forms(local)


def _local(app: Dash, space: str, function: str, *given: Any, initial: bool = True) -> None:
    app.clientside_callback(ClientsideFunction(space, function), *given, prevent_initial_call=not initial)


def _register_spine(local: Local) -> None:
    clicks = Input({"type": "figure", "name": ALL}, "clickData")
    local("spine", "clicked", Output("selection", "data", allow_duplicate=True), clicks, initial=False)
    rows = Input("table", "selectedRows")
    local("spine", "row", Output("selection", "data", allow_duplicate=True), rows, initial=False)
    local("spine", "show", Output("headline", "className"), Input("selection", "data"))
    local("spine", "told", Output("details", "className"), Input("details", "children"))
    local("spine", "run", Output("go", "data"), Input("run", "n_clicks"))
    local(
        "spine", "example",
        Output("prompt", "value", allow_duplicate=True), Output("go", "data", allow_duplicate=True),
        Input("example", "value"),
        initial=False,
    )  # fmt: skip
    local("spine", "scheme", Output("scheme", "data"), Input("scheme-toggle", "n_clicks"), State("scheme", "data"))
    local("spine", "same", Output("provider", "forceColorScheme"), Input("scheme", "data"))
    local("connection", "known", Input("session", "data"), Input("window", "data"))
    local("spine", "opened", Output("keys-help", "opened"), Input("keys-open", "n_clicks"))
    local(
        "spine", "rest", Output("poll", "disabled"),
        Input("idle", "data"), Input("woken", "data"),
        initial=False,
    )  # fmt: skip


def _register_links(local: Local) -> None:
    local("links", "read", Output("link", "data"), Input("place", "hash"))
    local(
        "links", "write", Output("headline", "title"),
        Input("shown", "data"), Input("shown-b", "data"), Input("view", "data"), Input("selection", "data"),
        Input("compare-mode", "value"), Input("display", "data"), Input("pinned", "data"),
        Input("aligned", "data"),
    )  # fmt: skip
    drawn = Input({"type": "figure", "name": "main"}, "figure")
    kept = State("visit", "data")
    about = [State(name, "data") for name in ("shown", "shown-b", "view", "selection")]
    more = [State("compare-mode", "value"), State("display", "data"), kept]
    seen = [Input("said", "children"), drawn, Input("pinned", "data"), Input("aligned", "data")]
    noted = Output("visit-open", "title")
    local("visit", "note", noted, *seen, *about, *more, initial=False)
    local("visit", "taken", Output("visit-open", "lang"), Input("download", "data"), initial=False)
    local(
        "links", "remember",
        Output("history", "data"), Output("example", "data"),
        Input("shown", "data"), State("history", "data"), State("example", "data"),
    )  # fmt: skip
    local("links", "copy", Output("link-copy", "children"), Input("link-copy", "n_clicks"), initial=False)
    local(
        "links", "drawn",
        Output("drawn", "data"), Output("rested", "data"),
        Input("shown", "data"), Input("done", "data"), Input("view", "data"), Input("scheme", "data"),
        Input("display", "data"),
        State("drawn", "data"), State("rested", "data"),
    )  # fmt: skip
    local("rooms", "known", Output("question", "lang"), Input("loaded", "data"))
    of = Input("asked", "data"), Input("shown", "data"), Input("view", "data")
    local("links", "waits", Output("tokens", "lang"), *of, initial=False)
    local("links", "whose", Output("tokens-b", "lang"), Input("loaded", "data"), Input("shown", "data"), initial=False)
    pins = Input("pinned", "data"), Input("aligned", "data")
    local("pins", "kept", Output("pins-row", "lang"), *pins, initial=False)
    local("pins", "drawn", Output("pins-row", "title"), Input("pins", "data"), initial=False)
    local("thumbs", "draw", Input("thumbs", "data"), initial=False)
    local(
        "links",
        "fresh",
        Output("said", "className"),
        Input({"type": "figure", "name": "main"}, "figure"),
        Input("main-message", "children"),
        Input("table-holder", "children"),
        State("main-figure", "data-stands"),
    )
    # The list is written by hand, no output: a ring of callbacks (view, list, view) waits for ever in Dash once one of
    # it is asked for anew while it runs and nothing else is under way.
    local("links", "turned", Output("tabs", "value"), Input("view", "data"))
    local("links", "turn", Output("view", "data"), Input("view-list", "value"), State("view", "data"), initial=False)


def _register_forms(local: Local) -> None:
    params = {"type": "param", "entry": ALL, "name": ALL}
    displays = {"type": "display", "entry": ALL, "name": ALL, "control": ALL}
    local("forms", "changed", Output("typed", "data"), Input(params, "value"), initial=False)
    local("forms", "changed", Output("moved", "data"), Input(displays, "value"), initial=False)
    local("forms", "begin", Output("params-form", "title"), State(params, "id"), State(displays, "id"))
