"""The grid that the head, depth and pattern figures share."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.axes import Axis, meta
from workbench.figures.text import show_text, wrapped
from workbench.figures.theme import NEUTRAL, apply

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["finish", "heatmap", "over_panels"]

_TITLE_WIDTH = 50  # characters of a title that fit a panel of 360 pixels
_TITLE_LINE = 17  # pixels


def heatmap(
    z: np.ndarray,
    x: Axis,
    y: Axis,
    *,
    title: str,
    scale: str,
    coloraxis: dict[str, Any],
    hover: np.ndarray | str,
    text: np.ndarray | None = None,
    text_size: int = 9,
    crossed: bool = True,
    marks: Iterable[tuple[int, int]] = (),
    mark_name: str = "marked",
    mark_aside: float = 0.0,
) -> "go.Figure":
    """Cells of z (y, x) on two labelled axes; NaN is a gap.

    hover: one text per cell, or a template over %{x}, %{y}, %{z}. text: what stands in the cells. crossed: put a cross
    into gaps, so that "not applicable" is no shade of colour; the pattern's empty half goes without. marks: (row,
    column) of cells to dot; `mark_name` is their legend entry. mark_aside: how far to the left of a cell's middle its
    dot stands, in widths of a cell, so that it does not cover a word there.
    """
    import plotly.graph_objects as go

    template = hover if isinstance(hover, str) else "%{hovertext}"
    trace = go.Heatmap(
        z=z.astype(np.float32),
        x=None if x.at is None else list(x.at),
        y=None if y.at is None else list(y.at),
        coloraxis="coloraxis",
        hovertext=None if isinstance(hover, str) else hover.tolist(),
        hovertemplate=template + "<extra></extra>",
        hoverongaps=crossed,
        xgap=1 if len(x) <= 64 else 0,
        ygap=1 if len(y) <= 64 else 0,
    )
    if text is not None:
        trace.update(text=text.tolist(), texttemplate="%{text}", textfont={"size": text_size})
    figure = go.Figure(trace)
    if crossed:
        _cross_gaps(figure, z, x, y)
    _dot_marks(figure, marks, x, y, mark_name, mark_aside)
    figure.update_layout(coloraxis=coloraxis)
    return finish(figure, title, x, y, scale=scale)


def finish(figure: "go.Figure", title: str, x: Axis | None, y: Axis | None, **more: Any) -> "go.Figure":
    """Title, axes, meta and theme: what every figure ends with. `title` is plain text and is escaped here."""
    lines = wrapped(title, _TITLE_WIDTH)
    legend = any(trace.showlegend for trace in figure.data)
    figure.update_layout(
        title_text="<br>".join(map(show_text, lines)),
        # Plotly stands the first line on the plot; the pad lifts it by what follows.
        title_pad={"l": 8, "b": 8 + _TITLE_LINE * (len(lines) - 1)},
        margin_t=14 + _TITLE_LINE * len(lines),
        showlegend=legend,
        meta=meta(x, y, **more),
    )
    if x is not None:
        figure.update_xaxes(x.layout())
    if y is not None:
        figure.update_yaxes(y.layout())
    return apply(figure)


def over_panels(figure: "go.Figure") -> "go.Figure":
    """A finished figure of several panels: its title stands above the panels' own, which Plotly does not know of."""
    figure.update_annotations(font_size=11)
    layout = figure.layout
    return figure.update_layout(title_pad_b=layout.title.pad.b + _TITLE_LINE, margin_t=layout.margin.t + _TITLE_LINE)


def _dot_marks(
    figure: "go.Figure", cells: Iterable[tuple[int, int]], x: Axis, y: Axis, name: str, aside: float
) -> None:
    """A white dot with a dark rim is seen on every colour."""
    ring = {"symbol": "circle", "size": 7, "color": "#ffffff", "line": {"width": 1.5, "color": "#212529"}}
    _add_markers(figure, list(cells), x, y, ring, name, aside)


def _cross_gaps(figure: "go.Figure", z: np.ndarray, x: Axis, y: Axis) -> None:
    cross = {"symbol": "x-thin", "size": 5, "line": {"width": 1, "color": NEUTRAL}}
    _add_markers(figure, np.argwhere(np.isnan(z)).tolist(), x, y, cross, "")


def _add_markers(
    figure: "go.Figure",
    cells: Sequence[Sequence[int]],
    x: Axis,
    y: Axis,
    marker: dict[str, Any],
    name: str,
    aside: float = 0.0,
) -> None:
    """Markers that leave hover and click to the cell beneath."""
    if cells:
        figure.add_scatter(
            x=[x.drawn[column] - aside if aside else x.drawn[column] for _, column in cells],
            y=[y.drawn[row] for row, _ in cells],
            mode="markers",
            marker=marker,
            cliponaxis=False,  # in low rows of a small grid a marker reaches beyond its cell
            hoverinfo="skip",
            name=show_text(name),
            showlegend=bool(name),
        )
