"""A figure over tokens, drawn with gaps between them: prompts that stand below each other by what each token is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["spread"]

_CELLS = ("z", "text", "customdata")  # of a heatmap, (row, column) or (row, column, ...)


def spread(figure: "go.Figure", at: Sequence[int]) -> "go.Figure":
    """The figure, changed in place, with the k-th column of its x axis drawn at `at[k]`, and nothing between.

    at: ascending. The columns of the figure are drawn at 0, 1, 2, ...; heatmaps, bars, points and shapes are moved, and
    `meta` says where (see `axes`).
    """
    for trace in figure.data:
        if trace.type == "heatmap":
            _spread_cells(trace, at)
        elif trace.x is not None:
            trace.x = [None if x is None or x != x else _moved(x, at) for x in trace.x]
    for shape in figure.layout.shapes:
        if (shape.xref or "x") == "x":
            _move(shape, at)
    for note in figure.layout.annotations:
        if (note.xref or "x") == "x":
            note.x = _moved(note.x, at)
    return figure.update_layout(meta={**(figure.layout.meta or {}), "x_at": list(at), "x_cell": 1})


def _spread_cells(trace: "go.Heatmap", at: Sequence[int]) -> None:
    first = at[0]
    for name in _CELLS:
        cells = trace[name]
        if cells is None:
            continue
        cells = np.asarray(cells)
        blank: Any = np.nan if cells.dtype.kind in "fiu" else "" if cells.dtype.kind == "U" else None
        kind = float if cells.dtype.kind in "iu" else cells.dtype
        wide = np.full((len(cells), at[-1] - first + 1, *cells.shape[2:]), blank, dtype=kind)
        wide[:, [column - first for column in at]] = cells
        trace[name] = wide
    trace.update(x0=first, dx=1)


def _move(shape: "go.layout.Shape", at: Sequence[int]) -> None:
    """A cell keeps its width; what reaches over several goes from the first to the last of them."""
    if abs(shape.x1 - shape.x0) <= 1:
        by = _moved((shape.x0 + shape.x1) / 2, at) - (shape.x0 + shape.x1) / 2
        shape.x0, shape.x1 = shape.x0 + by, shape.x1 + by
    else:
        shape.x0, shape.x1 = _moved(shape.x0, at), _moved(shape.x1, at)


def _moved(x: float, at: Sequence[int]) -> float:
    """Where a coordinate of the axis comes to lie: between two columns as far from them, in proportion."""
    last = len(at) - 1
    if x <= 0 or x >= last:
        end = 0 if x <= 0 else last
        return float(at[end] + x - end)
    return float(np.interp(x, range(len(at)), at))
