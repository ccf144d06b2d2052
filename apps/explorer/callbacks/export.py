"""Exports of the large view, as downloads and as code."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dash import Dash, Input, Output, State, dcc, html

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import sentence
from apps.explorer.page import comparison as comparing
from apps.explorer.page import exports, tables, views
from apps.explorer.page.news import request_of
from apps.explorer.page.results import analysis_of, result_of
from apps.explorer.page.specs import spec_text
from apps.explorer.page.state import Choice, Display, Notices, Seen, Selection, Session, Shown, Take
from workbench.errors import InputError

__all__ = ["register", "take", "take_difference"]


def register(app: Dash, engine: Engine) -> None:
    """The export menu."""
    answer = Answers(app, engine)

    @answer(
        {
            "download": Output("download", "data"),
            "code": Output("code", "children"),
            "opened": Output("code", "opened"),
            "notices": Output("notices", "data", allow_duplicate=True),
        },
        inputs={"taken": Input("take", "data")},
        state={
            "shown": State("shown", "data"),
            "view": State("view", "data"),
            "selection": State("selection", "data"),
            "scheme": State("scheme", "data"),
            "notices": State("notices", "data"),
            "session": State("session", "data"),
            "display": State("display", "data"),
            "other": State("shown-b", "data"),
            "mode": State("compare-mode", "value"),
        },
        prevent_initial_call=True,
    )
    def export(
        taken: Take | None,
        shown: Shown | None,
        view: Seen,
        selection: Selection,
        scheme: Choice,
        notices: Notices,
        session: Session,
        display: Display | None,
        other: Shown | None,
        mode: Choice,
    ) -> Answer:
        if not taken or not shown:
            return {}
        shown, dark = shown.displayed(display), scheme == "dark"
        try:
            if other and mode == "difference" and comparing.is_comparable(engine, view, shown, other):
                content, name = take_difference(engine, taken.kind, (other, shown), view, selection, dark, session)
            else:
                content, name = take(engine, taken.kind, shown, view, selection, dark, session, taken.rows)
        except Exception as error:  # a library's own too: the result is still there, and can be taken otherwise
            return {"notices": with_notices(notices, [sentence("The export", error)])}
        if taken.kind == "py":
            return {"code": code_box(content.decode()), "opened": True}
        return {"download": dcc.send_bytes(content, name)}


def take(
    engine: Engine,
    kind: str,
    shown: Shown,
    view: Seen,
    selection: Mapping[str, Any],
    dark: bool,
    session: str,
    rows: Sequence[int] | None = None,
) -> tuple[bytes, str]:
    """Content and file name of an export; rows: those of a table that are shown, in their order.

    Raises InputError where there is nothing to export yet.
    """
    request, name = request_of(engine, shown), view.name
    seen = engine.views[name]
    display = shown.display.get(name, {})
    analysis = analysis_of(engine, request, name, selection)
    if kind == "toml" and analysis is not None:  # for other prompts: what the form says, whichever token is selected
        whole = analysis if name in engine.slices else request.analyses[name]
        return spec_text(request, whole, engine.settings).encode(), f"{name}.toml"
    result, _ = result_of(engine, shown, name, selection, session)
    if analysis is None or result is None:
        raise InputError(
            f"an export of {seen.title}, which has no result yet", "a drawn view", "Wait until it is drawn"
        )
    stem = re.sub(r"[^a-z0-9-]+", "-", f"{name}-{request.model}".lower()).strip("-")
    if tables.is_table(seen, view.figure) and kind in ("html", "csv"):
        frame = tables.frame_of(seen, result, view.figure)
        made = tables.csv(frame, rows) if kind == "csv" else tables.html(frame, seen.title)
        return made.encode(), f"{stem}.{kind}"
    if kind in ("png", "svg"):
        raise InputError(f"a picture of a table of {seen.title}", "a figure", "Take the table as CSV or HTML")
    if kind == "html":
        figure = views.drawn(seen, result, view.figure, dark, display)
        return exports.html(figure, result, seen.said(result, display)).encode(), f"{stem}.html"
    if kind == "nc":
        return exports.netcdf(result), f"{stem}.nc"
    if kind == "csv":
        packed, ending = exports.csv(result)
        return packed, f"{stem}.{ending}"
    if kind == "py":
        code = exports.code(seen, request, analysis, view.figure, display, engine.settings.held)
        return code.encode(), f"{stem}.py"
    raise InputError(f"an export as {kind!r}", "html, nc, csv, py or toml", "Choose one of these")


def take_difference(
    engine: Engine,
    kind: str,
    runs: tuple[Shown, Shown],
    view: Seen,
    selection: Mapping[str, Any],
    dark: bool,
    session: str,
) -> tuple[bytes, str]:
    """As `take`, of the second run minus the first."""
    seen, (before, after) = engine.views[view.name], runs
    if kind == "toml":
        raise InputError("a batch of a difference", "a batch of one run", "Turn to both, and take it there")
    display = after.display.get(seen.name, {})
    if kind == "py":
        requests = [request_of(engine, run) for run in runs]
        found = [(request, analysis_of(engine, request, seen.name, selection)) for request in requests]
        pairs = [(request, analysis) for request, analysis in found if analysis is not None]
        if len(pairs) < len(found):
            raise InputError(f"code of {seen.title} without a selection", "one", "Click a head or a layer first")
        said = comparing.minus(after, before)
        code = exports.difference_code(seen, pairs, view.figure, said, display, engine.settings.held)
        return code.encode(), f"{seen.name}-difference.py"
    change = comparing.change(lambda run: result_of(engine, run, seen.name, selection, session), after, before)
    if kind == "html":
        figure = comparing.entitled(views.changed(seen, change, view.figure, dark, display), after, before)
        return exports.html(figure, change).encode(), f"{seen.name}-difference.html"
    if kind == "nc":
        return exports.netcdf(change), f"{seen.name}-difference.nc"
    content, ending = exports.csv(change)
    return content, f"{seen.name}-difference.{ending}"


def code_box(text: str) -> list[Any]:
    """The code, and a button that copies it."""
    copy = dcc.Clipboard(content=text, title="Copy the code", className="copy")
    return [html.Pre(text, className="code", tabIndex=0), html.Div([copy, "Copy"], className="row quiet")]
