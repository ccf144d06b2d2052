"""The result of a view of a run, or the words that stand in its place."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.request import Request
from apps.explorer.page import views
from apps.explorer.page.news import request_of
from apps.explorer.page.state import Asked
from workbench.analysis.kinds import Analysis
from workbench.analysis.run import Failure
from workbench.errors import WorkbenchError

__all__ = ["BUSY", "analysis_of", "at_selection", "result_of", "slice_result", "unfit", "window_of"]

BUSY = "The model is busy with something longer; this follows in a moment."


def result_of(
    engine: Engine, shown: Asked, name: str, selection: Mapping[str, Any], session: str
) -> tuple[xr.Dataset | None, str]:
    """The result of a view of a run, or why there is none."""
    try:
        request = request_of(engine, shown)
    except WorkbenchError as error:
        return None, str(error)
    if name in engine.slices:
        return slice_result(engine, request, name, selection, session)
    fate = engine.fate(request, name)  # before the result: what has just ended has one
    found = at_selection(engine, request, name, selection, session)
    if isinstance(found, str):
        return None, found
    return (found, "") if isinstance(found, xr.Dataset) else (None, views.waiting(engine.standing[name], found, fate))


def at_selection(
    engine: Engine, request: Request, name: str, selection: Mapping[str, Any], session: str
) -> xr.Dataset | Failure | str | None:
    """As `Engine.found`, or the words that stand in its place: of a view that reads some tokens the result that reads
    the selected one."""
    found = engine.found(request, name)
    if not isinstance(found, xr.Dataset) or "pos" not in selection:
        return found
    try:
        is_outside, there = engine.around(request, name, int(selection["pos"]), session)
    except WorkbenchError as error:
        return str(error)
    return found if not is_outside else BUSY if there is None else there


def analysis_of(engine: Engine, request: Request, name: str, selection: Mapping[str, Any]) -> Analysis | None:
    """The analysis that makes what `result_of` gives; None where the selection leaves one of its parameters open."""
    if name in engine.slices:
        return engine.slice_of(request, name, selection)
    given, view = request.analyses[name], engine.standing[name]
    if view.around is None or "pos" not in selection:
        return given
    return view.around(given, int(selection["pos"]), len(request.tokens)) or given


def unfit(engine: Engine, request: Request, name: str) -> str:
    """Why a study cannot run with its parameters, as far as that is known before it starts; "" where it can."""
    hosted = engine.hosted(request.model)
    try:
        with hosted.tokenising:
            request.analyses[name].fits(hosted.ready, request.tokens)
    except WorkbenchError as error:
        return str(error)
    except Exception:  # a mistake in one view must not take the page with it; running it says what it is
        return ""
    return ""


def window_of(engine: Engine, shown: Asked | None, name: str, selection: Mapping[str, Any]) -> str:
    """Which tokens a view reads for this selection, "" where it is not another result for each."""
    view = engine.standing.get(name)
    if view is None or view.around is None or not shown or "pos" not in selection:
        return ""
    try:
        request = request_of(engine, shown)
    except WorkbenchError:
        return ""
    analysis = view.around(request.analyses[name], int(selection["pos"]), len(request.tokens))
    return "" if analysis is None else str(analysis.values())


def slice_result(
    engine: Engine, request: Request, name: str, selection: Mapping[str, Any], session: str
) -> tuple[xr.Dataset | None, str]:
    """The result of a view that follows the selection, or why there is none."""
    try:
        analysis = engine.slice_of(request, name, selection)
        if analysis is None:
            return None, "Select a head or a layer: click a cell of any view of heads."
        found = engine.of_layer(request, analysis, session)
    except WorkbenchError as error:
        return None, str(error)
    return found, BUSY
