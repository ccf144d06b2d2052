"""Several prompts that are kept beside each other: the open view of each as a small multiple, and what they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import State
from apps.explorer.engine.request import Request
from apps.explorer.page import tables, views
from apps.explorer.page.alignment import columns, counterparts, roles
from apps.explorer.page.news import request_of
from apps.explorer.page.state import Asked, Seen
from workbench.analysis.agreement import agreement
from workbench.analysis.kinds import kind_of
from workbench.analysis.run import Failure
from workbench.analysis.view import View
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Pinned", "Row", "pinned"]

_TOKEN_AXES = ("pos", "query", "key")


@dataclass
class Pinned:
    """One pinned prompt: its result and figure, or the words in their place. waits: whether they are on their way. at:
    of every token of the shown prompt its counterpart here, -1 for none."""

    text: str
    request: Request | None = None
    result: xr.Dataset | None = None
    figure: "go.Figure | None" = None
    words: str = ""
    waits: bool = False
    at: list[int] = field(default_factory=list)


@dataclass
class Row:
    """All of them, in their order, and the sentence about them."""

    prompts: list[Pinned] = field(default_factory=list)
    said: str = ""


def pinned(
    engine: Engine,
    shown: Asked,
    texts: Sequence[str],
    seen: Seen,
    dark: bool,
    display: Mapping[str, Any],
    session: str | None,
    aligned: str = "token",
) -> Row:
    """The open view of prompts on the model, with the parameters and interventions, of the shown run.

    What shares the prompt's pass is begun for this session where it is not there; None: nothing is begun. A study is
    begun by hand, on the prompt itself.
    """
    view = engine.views[seen.name]
    if seen.name in engine.slices:
        return Row([Pinned(text) for text in texts], f"{view.title} follows the selection in the prompt that is shown.")
    if not view.analysis.prompted:
        return Row([Pinned(text) for text in texts], f"{view.title} is of the model: the same for every prompt.")
    row = Row([_one(engine, shown, text, seen.name, session) for text in texts])
    drawn = [one for one in row.prompts if one.result is not None]
    for one in drawn:
        _draw(one, view, seen.figure, dark, display.get(seen.name))
    _find_counterparts(engine, shown, drawn, aligned)
    figures = [(one.figure, one.request) for one in drawn if one.figure is not None and one.request is not None]
    _share_scale([figure for figure, _ in figures])
    _share_columns(figures, aligned)
    row.said = _said(row.prompts)
    return row


def _one(engine: Engine, shown: Asked, text: str, name: str, session: str | None) -> Pinned:
    """The result of one prompt, or what is to be said instead."""
    try:
        request = request_of(engine, shown.model_copy(update={"text": text}))
        found, fate = engine.found(request, name), engine.fate(request, name)
        if isinstance(found, xr.Dataset) and not found.attrs.get("partial"):
            return Pinned(text, request, found)
        if isinstance(found, Failure):
            return Pinned(text, words=found.sentence)
        alive = fate is not None and fate.state.alive
        if fate is not None and fate.state in (State.CANCELLED, State.FAILED):  # it begins again when somebody asks
            return Pinned(text, words=fate.error or "stopped")
        if not alive and session is not None and kind_of(engine.standing[name].analysis) == "prompt":
            alive = engine.submit(request, session, [name]) is not None
        words = "on its way" if alive else "not computed on this prompt"
        return Pinned(text, request, words=words, waits=alive)
    except WorkbenchError as error:
        return Pinned(text, words=str(error))


def _draw(one: Pinned, view: View, index: int, dark: bool, display: Mapping[str, Any] | None) -> None:
    if one.result is None:
        return
    try:
        one.figure = views.multiple(view, one.result, 0 if tables.is_table(view, index) else index, dark, display)
    except WorkbenchError as error:
        one.words = str(error)


def _find_counterparts(engine: Engine, shown: Asked, drawn: Sequence[Pinned], aligned: str) -> None:
    """What is selected in one prompt is selected in all of them."""
    try:
        ids = request_of(engine, shown).tokens.ids
    except WorkbenchError:
        return  # the shown run itself is gone
    there = [(one, one.request.tokens.ids) for one in drawn if one.request is not None]
    for (one, _), at in zip(there, counterparts(ids, [own for _, own in there], aligned), strict=True):
        one.at = at


def _said(prompts: Sequence[Pinned]) -> str:
    """What those share that have a result."""
    there = [number for number, one in enumerate(prompts, 1) if one.result is not None]
    missing = len(prompts) - len(there)
    if len(prompts) < 2:
        return "One prompt is pinned: run another one and pin it, and what they share is said here."
    if len(there) < 2:
        return "What they share is said here when two of them have a result."
    try:
        said = agreement([one.result for one in prompts if one.result is not None], there)
    except WorkbenchError as error:  # nothing to count in this view, or in these prompts
        return str(error)
    return f"{said} {missing} without a result {'is' if missing == 1 else 'are'} left out." if missing else said


# --- one scale, one row of columns ------------------------------------------------------------------------------------


def _share_scale(figures: Sequence["go.Figure"]) -> None:
    """Equal colours and equal heights are equal numbers."""
    ranges = [(figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) for figure in figures]
    if ranges and all(end is not None for pair in ranges for end in pair):
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        for figure in figures:
            figure.update_coloraxes(cmin=low, cmax=high)
    for axis in ("x", "y"):
        lengths = [_lengths(figure, axis) for figure in figures]
        if lengths and all(lengths):
            low, high = min(min(each) for each in lengths), max(max(each) for each in lengths)
            room = 0.05 * (high - low)
            for figure in figures:
                figure.layout[f"{axis}axis"].range = [low - room if low < 0 else low, high + room]


def _lengths(figure: "go.Figure", axis: str) -> list[float]:
    """What bars and lines reach along an axis, and 0 where there are bars; nothing where that is no number of them."""
    along = {"x": "h", "y": "v"}[axis]
    if axis in _axes(figure) or any(trace.type not in ("bar", "scatter") for trace in figure.data):
        return []
    if len({(trace.xaxis, trace.yaxis) for trace in figure.data}) > 1:
        return []
    values: list[float] = []
    for trace in figure.data:
        if (trace.orientation or "v") != along:
            return []
        try:
            reached = np.asarray(trace[axis], dtype=float)
        except (TypeError, ValueError):
            return []  # names
        values += reached[np.isfinite(reached)].tolist() + ([0.0] if trace.type == "bar" else [])
    return values


def _axes(figure: "go.Figure") -> Mapping[str, str]:
    return dict((figure.layout.meta or {}).get("axes", {}))


def _share_columns(figures: Sequence[tuple["go.Figure", Request]], aligned: str) -> None:
    """Tokens that belong together stand one below the other, and every figure has the same number of columns."""
    from workbench.figures.gaps import spread

    if not figures or any(
        _axes(figure).get("x") not in _TOKEN_AXES
        or (figure.layout.meta or {}).get("x_at")
        or list(figure.layout.meta["x_values"]) != list(range(len(request.tokens)))
        for figure, request in figures
    ):
        return
    ids = [request.tokens.ids for _, request in figures]
    if aligned == "role":
        places, n = roles(ids)
        for (figure, _), at in zip(figures, places, strict=True):
            spread(figure, at).update_xaxes(range=[-0.5, n - 0.5], autorange=False)
        return
    for (figure, _), (low, high) in zip(figures, columns(ids, aligned), strict=True):
        figure.update_xaxes(range=[low - 0.5, high + 0.5], autorange=False)
