"""One point per text in every group: what a mean of a domain is made of."""

from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import InputError
from workbench.figures.axes import coord_axis, need_dims
from workbench.figures.heatmap import finish
from workbench.figures.quantity import label, numbers, pick
from workbench.figures.text import number, shorten, show_text
from workbench.figures.theme import LINES, NEUTRAL

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["strip"]

_GOLDEN = 0.618033988749895  # spreads neighbours apart, and every drawing alike
_TEXT_WIDTH = 60


def strip(result: "xr.Dataset", variable: str, group: str, *, title: str, text: str | None = None) -> "go.Figure":
    """Points of a variable over (group, another dim) such as (domain, prompt), one column for each group.

    A bar marks the mean of the points; `variable_low` and `_high` over (group) become its whiskers where the result has
    them. text: a variable or coord of strings over the same dims or the other one, shown on hover. A click on a point
    selects both.
    """
    import plotly.graph_objects as go

    array = pick(result, variable)
    others = [str(dim) for dim in array.dims if dim != group]
    if len(others) != 1:
        raise InputError(
            f"{variable} over ({', '.join(map(str, array.dims))})", f"({group}, one other dim)", "Select the rest first"
        )
    array = need_dims(array, group, others[0])
    axis, values = coord_axis(array, group), numbers(array)
    captions = [None] * len(axis) if text is None else result[text].broadcast_like(array).transpose(*array.dims).values
    figure = go.Figure()
    names = [show_text(str(value)) for value in axis.values]
    for index, name in enumerate(names):
        _add_points(figure, array, values[index], index, name, captions[index])
    _add_means(figure, result, array, values, names)
    finish(figure, title, axis, None)
    figure.update_yaxes(title_text=label(array))
    return figure


def _add_points(
    figure: "go.Figure", array: "xr.DataArray", values: np.ndarray, index: int, name: str, captions: np.ndarray | None
) -> None:
    group, other = map(str, array.dims)
    known = np.flatnonzero(~np.isnan(values))
    members, of_group = array[other].values, array[group].values[index]
    figure.add_scatter(
        x=(index + 0.5 * ((np.arange(len(known)) * _GOLDEN) % 1 - 0.5)).tolist(),
        y=values[known],
        mode="markers",
        marker={"color": LINES[index % len(LINES)], "size": 6, "opacity": 0.65},
        customdata=[{group: _plain(of_group), other: _plain(members[i])} for i in known],
        hovertext=[
            f"{name}, {other} {show_text(str(members[i]))}: {number(values[i])}"
            + ("" if captions is None else f"<br>{show_text(shorten(str(captions[i]), _TEXT_WIDTH))}")
            for i in known
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )


def _add_means(
    figure: "go.Figure", result: "xr.Dataset", array: "xr.DataArray", values: np.ndarray, names: list[str]
) -> None:
    known = [index for index, row in enumerate(values) if not np.isnan(row).all()]
    means = np.array([np.nanmean(values[index]) for index in known])
    whiskers, spans = None, [""] * len(known)
    ends = [f"{array.name}_{end}" for end in ("low", "high")]
    # Ends over the points too are the points' own intervals, not the mean's.
    if all(end in result and result[end].dims == array.dims[:1] for end in ends):
        low, high = (numbers(result[end])[known] for end in ends)
        whiskers = {"array": high - means, "arrayminus": means - low, "color": NEUTRAL, "thickness": 1.5, "width": 6}
        spans = [f" [{number(a)}, {number(b)}]" for a, b in zip(low, high, strict=True)]
    figure.add_scatter(
        x=known,
        y=means,
        mode="markers",
        marker={"symbol": "line-ew", "size": 34, "line": {"width": 2.5, "color": NEUTRAL}},
        error_y=whiskers,
        hovertext=[
            f"{names[i]}: mean {number(mean)}{span}, n = {int((~np.isnan(values[i])).sum())}"
            for i, mean, span in zip(known, means, spans, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else value
