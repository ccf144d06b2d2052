"""Numbers along one dim as lines, with their intervals and what chance would give."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import InputError
from workbench.figures.axes import Axis, need_dims, value_axis
from workbench.figures.heatmap import finish
from workbench.figures.quantity import interval_text, label, numbers, pick, units
from workbench.figures.text import number, show_text
from workbench.figures.theme import LINES, NEUTRAL, faded

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["series"]

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
_MARKED = 64  # points of a line up to which each is marked


def series(
    result: "xr.Dataset",
    variables: str | Sequence[str],
    x: str,
    *,
    title: str,
    by: str | None = None,
    null: bool = True,
    log_x: bool = False,
    log_y: bool = False,
) -> "go.Figure":
    """Lines of one or more variables over the dim `x`, one for each value of the dim `by` where it is given.

    `variable_low` and `_high` become a band and `variable_null` (null=True) a grey dotted line, where the result has
    them. Lines differ by dash and marker beside colour. Numbered dims other than tokens are drawn at their values, so
    a threshold or a training step may be logarithmic (log_x). The y axis is named after the variable, of several after
    their units.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [variables] if isinstance(variables, str) else list(variables)
    axis = value_axis(pick(result, names[0]), x)
    lines = list(_lines(result, names, x, by))
    for index, (part, name, caption) in enumerate(lines):
        _add_band(figure, part, name, axis, LINES[index % len(LINES)])
        _add_line(figure, part, name, axis, index, caption if len(lines) > 1 else "")
    if null:
        _add_nulls(figure, [part[f"{name}_null"] for part, name, _ in lines if f"{name}_null" in part], axis)
    finish(figure, title, axis, None)
    figure.update_yaxes(title_text=_height(result, names), type="log" if log_y else "linear")
    if log_x:
        _make_logarithmic(figure, axis)
    return figure


def _height(result: "xr.Dataset", names: list[str]) -> str:
    """What is drawn upwards: of several variables none stands for the others, but their units do."""
    found = dict.fromkeys(filter(None, (units(pick(result, name)) for name in names)))
    return ", ".join(found) if len(names) > 1 and found else label(pick(result, names[0]))


def _make_logarithmic(figure: "go.Figure", axis: Axis) -> None:
    values = [value for value in axis.drawn if value > 0]
    if not values:
        raise InputError(f"no {axis.dim} above 0", "positive values on a logarithmic axis", "Draw it with log_x=False")
    shown = _apart(values)
    ends = [float(np.log10(min(values))) - 0.05, float(np.log10(max(values))) + 0.05]
    figure.update_xaxes(type="log", range=ends, tickvals=shown, ticktext=[number(value) for value in shown])


def _apart(values: list[float], most: int = 8) -> list[float]:
    """Values to label on a logarithmic axis, rising: so far apart that at most so many labels stand side by side, the
    last one among them; the n-th of evenly spaced steps lie over each other at their end."""
    logs = np.log10(sorted(values))
    step, taken = (logs[-1] - logs[0]) / most, [0]
    for at in range(1, len(logs) - 1):
        if logs[at] - logs[taken[-1]] >= step and logs[-1] - logs[at] >= step:
            taken.append(at)
    return [sorted(values)[at] for at in dict.fromkeys((*taken, len(logs) - 1))]


def _lines(result: "xr.Dataset", names: list[str], x: str, by: str | None) -> Iterator[tuple["xr.Dataset", str, str]]:
    """Every line to draw: the part of the result it lies in, its variable, and its caption."""
    for name in names:
        caption = str(pick(result, name).attrs.get("long_name") or name)
        if by is None:
            need_dims(result[name], x)
            yield result, name, caption
            continue
        need_dims(result[name], by, x)
        for index, value in enumerate(result[by].values):
            yield (
                result.isel({by: index}),
                name,
                f"{caption}, {_caption(by, value)}" if len(names) > 1 else _caption(by, value),
            )


def _caption(by: str, value: object) -> str:
    return str(value) if isinstance(value, str) else f"{by} {value}"


def _add_band(figure: "go.Figure", part: "xr.Dataset", name: str, axis: Axis, colour: str) -> None:
    """The interval as one polygon for every run of known ends."""
    if f"{name}_low" not in part or f"{name}_high" not in part:
        return
    low, high = numbers(part[f"{name}_low"]), numbers(part[f"{name}_high"])
    xs: list[float | None] = []
    ys: list[float | None] = []
    known = np.flatnonzero(~np.isnan(low) & ~np.isnan(high))
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        there = [axis.drawn[i] for i in run]
        xs += [*there, *there[::-1], None]
        ys += [*low[run].tolist(), *high[run][::-1].tolist(), None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        line_width=0,
        fill="toself",
        fillcolor=faded(colour, 0.18),
        hoverinfo="skip",
        showlegend=False,
    )


def _add_line(figure: "go.Figure", part: "xr.Dataset", name: str, axis: Axis, index: int, caption: str) -> None:
    colour = LINES[index % len(LINES)]
    texts = interval_text(part, part[name])
    head = f"{show_text(caption)}<br>" if caption else ""
    figure.add_scatter(
        x=list(axis.drawn),
        y=numbers(part[name]),
        mode="lines+markers" if len(axis) <= _MARKED else "lines",
        line={"color": colour, "width": 2, "dash": _DASHES[index % len(_DASHES)]},
        marker={"symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": 5},
        name=show_text(caption),
        showlegend=bool(caption),
        hovertext=[f"{head}{axis.dim} {show_text(str(v))}: {t}" for v, t in zip(axis.values, texts, strict=True)],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _add_nulls(figure: "go.Figure", arrays: list["xr.DataArray"], axis: Axis) -> None:
    """What chance would give, once for lines that share it."""
    distinct = {numbers(array).tobytes(): numbers(array) for array in arrays}
    for index, values in enumerate(distinct.values()):
        figure.add_scatter(
            x=list(axis.drawn),
            y=np.broadcast_to(values, len(axis)).copy(),
            mode="lines",
            name="null",
            legendgroup="null",
            showlegend=index == 0,
            line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
            hovertemplate="null %{y:.3g}<extra></extra>",
        )
