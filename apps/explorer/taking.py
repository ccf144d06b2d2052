"""Exports of the large view, as downloads and as code."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from dash import Dash, Input, Output, State, dcc, html, no_update

from apps.explorer import comparing, exports, tables, views
from apps.explorer.displaying import with_display
from apps.explorer.drawing import result_of
from apps.explorer.engine import Engine
from apps.explorer.progress import request_of
from apps.explorer.running import notice
from apps.explorer.selection import clean
from workbench.errors import InputError, WorkbenchError

__all__ = ["HOME", "register", "take"]

# Entries that live beside the page and not in the catalog: where code finds them.
HOME: dict[str, tuple[str, str]] = {}


def register(app: Dash, engine: Engine) -> None:
    """The export menu."""

    @app.callback(
        Output("download", "data"),
        Output("code", "children"),
        Output("code", "opened"),
        Output("notices", "data", allow_duplicate=True),
        Input("take", "data"),
        State("shown", "data"),
        State("view", "data"),
        State("selection", "data"),
        State("scheme", "data"),
        State("notices", "data"),
        State("session", "data"),
        State("display", "data"),
        State("shown-b", "data"),
        State("compare-mode", "value"),
        prevent_initial_call=True,
    )
    def export(taken, shown, view, selection, scheme, notices, session, display, other, mode):
        if not taken or not shown:
            return [no_update] * 4
        shown, kind, selection = with_display(shown, display), taken["kind"], clean(selection)
        try:
            dark, rows = scheme == "dark", taken.get("rows")
            if mode == "difference" and comparing.is_comparable(engine, view, shown, other):
                content, name = take_difference(engine, kind, (other, shown), view, selection, dark, session)
            else:
                content, name = take(engine, kind, shown, view, selection, dark, session, rows)
        except WorkbenchError as error:
            return no_update, no_update, no_update, [*notices, notice(str(error))]
        if taken["kind"] == "py":
            return no_update, code_box(content.decode()), True, no_update
        return dcc.send_bytes(content, name), no_update, no_update, no_update


def take(
    engine: Engine,
    kind: str,
    shown: Mapping[str, Any],
    view: Mapping[str, Any],
    selection: dict[str, Any],
    dark: bool,
    session: str,
    rows: Sequence[int] | None = None,
) -> tuple[bytes, str]:
    """Content and file name of an export; rows: those of a table that are shown, in their order.

    Raises InputError where there is nothing to export yet.
    """
    request, name = request_of(engine, shown), view["name"]
    entry, params = engine.views[name], request.params[name]
    display = shown.get("display", {}).get(name, {})
    if name in engine.slices:
        params = engine.slice_params(request, name, selection)
        result = None if params is None else engine.slice(request, name, params, session)
    else:
        result = engine.found(request, name)
    if not isinstance(result, xr.Dataset):
        raise InputError(
            f"an export of {entry.title}, which has no result yet", "a drawn view", "Wait until it is drawn"
        )
    stem = re.sub(r"[^a-z0-9-]+", "-", f"{name}-{request.model}".lower()).strip("-")
    if tables.is_table(entry, view["figure"]) and kind in ("html", "csv"):
        frame = tables.frame_of(entry, result, view["figure"])
        content = tables.csv(frame, rows) if kind == "csv" else tables.html(frame, entry.title)
        return content.encode(), f"{stem}.{kind}"
    if kind in ("png", "svg"):
        raise InputError(f"a picture of a table of {entry.title}", "a figure", "Take the table as CSV or HTML")
    if kind == "html":
        return exports.html(views.drawn(entry, result, view["figure"], dark, display)).encode(), f"{stem}.html"
    if kind == "nc":
        return exports.netcdf(result), f"{stem}.nc"
    if kind == "csv":
        content, ending = exports.csv(result)
        return content, f"{stem}.{ending}"
    if kind == "py":
        return exports.code(entry, request, params, view["figure"], HOME, display).encode(), f"{stem}.py"
    raise InputError(f"an export as {kind!r}", "html, nc, csv or py", "Choose one of these")


def take_difference(
    engine: Engine,
    kind: str,
    runs: tuple[Mapping[str, Any], Mapping[str, Any]],
    view: Mapping[str, Any],
    selection: dict[str, Any],
    dark: bool,
    session: str,
) -> tuple[bytes, str]:
    """As `take`, of the second run minus the first."""
    entry, (before, after) = engine.views[view["name"]], runs
    display = after.get("display", {}).get(entry.name, {})
    if kind == "py":
        requests = [request_of(engine, run) for run in runs]
        of = lambda request: (
            engine.slice_params(request, entry.name, selection) or {}
            if entry.name in engine.slices
            else request.params[entry.name]
        )
        pairs = [(request, of(request)) for request in requests]
        code = exports.difference_code(entry, pairs, view["figure"], HOME, display)
        return code.encode(), f"{entry.name}-difference.py"
    change = comparing.change(lambda run: result_of(engine, run, entry.name, selection, session), after, before)
    if kind == "html":
        figure = views.changed(entry, change, view["figure"], dark, display)
        return exports.html(figure).encode(), f"{entry.name}-difference.html"
    if kind == "nc":
        return exports.netcdf(change), f"{entry.name}-difference.nc"
    content, ending = exports.csv(change)
    return content, f"{entry.name}-difference.{ending}"


def code_box(text: str) -> list[Any]:
    """The code, and a button that copies it."""
    copy = dcc.Clipboard(content=text, title="Copy the code", className="copy")
    return [html.Pre(text, className="code", tabIndex=0), html.Div([copy, "Copy"], className="row quiet")]
