"""One number per depth of the residual stream and token position: lens grids, norms, distances."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.axes import coord_axis, need_dims
from workbench.figures.heatmap import heatmap
from workbench.figures.quantity import ColorRange, coloraxis, flags, label, numbers, on_scale, pick, pick_scale
from workbench.figures.text import escape, number, shorten, show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["depth_pos_grid"]

_TEXT_CELLS = 2048  # a browser draws cell text one by one
_TEXT_WIDTH = 5  # characters; a token cut shorter tells nothing
_TEXT_WHOLE = 12  # characters of a cell that a page has room for at most


def depth_pos_grid(
    result: "xr.Dataset",
    variable: str,
    *,
    title: str,
    text: str | None = None,
    text_value: str | None = None,
    listed: int = 5,
    scale: str | None = None,
    color_range: ColorRange = None,
    exclude_first: bool = False,
    mark: str | None = None,
    mark_name: str = "marked",
) -> "go.Figure":
    """Depth x position grid of a variable over (depth, pos) or (layer, pos): depth upwards, tokens from the left.

    text: a variable of strings over the same dims, or with `rank` last; its first rank stands in the cells (up to 2,048
    of them, while they are wide enough at 600 x 330 pixels; `layout.meta["cells"]` has them for a page, which knows how
    wide they are), and the hover lists `listed` of them with `text_value` (same dims, for example `top_prob`). scale:
    see `theme.SCALES`; norms want "log", ranks "rank". color_range: (low, high), "data", or None for the declared
    range. exclude_first: position 0 does not enter the range of the data; it is drawn at its end.
    mark: a boolean variable whose true cells get a dot, which `mark_name` explains in the legend.
    """
    array = pick(result, variable)
    vertical = "layer" if "layer" in array.dims else "depth"
    array = need_dims(array, vertical, "pos")
    scale = pick_scale(array, scale)
    z = on_scale(numbers(array), scale)
    ranged = z[:, array["pos"].values != 0] if exclude_first else z
    x, y = coord_axis(array, "pos"), coord_axis(array, vertical, is_vertical=True)
    strings = None if text is None else _ranked(result, text, vertical)
    size, width = _text_fit(*z.shape)
    marks: Any = [] if mark is None else np.argwhere(flags(need_dims(pick(result, mark), vertical, "pos")))
    worded = strings is not None and z.size <= _TEXT_CELLS
    figure = heatmap(
        z,
        x,
        y,
        title=title,
        scale=scale,
        coloraxis=coloraxis(ranged, array, scale, color_range),
        hover=_hover(array, strings, None if text_value is None else _ranked(result, text_value, vertical), listed),
        text=_cell_text(strings[..., 0], width) if strings is not None and worded and width >= _TEXT_WIDTH else None,
        text_size=size,
        marks=[(int(row), int(column)) for row, column in marks],
        mark_name=mark_name,
    )
    if strings is not None and worded:
        figure.update_layout(meta={**figure.layout.meta, "cells": _cell_text(strings[..., 0], _TEXT_WHOLE).tolist()})
    return figure


def _ranked(result: "xr.Dataset", variable: str, vertical: str) -> np.ndarray:
    """Values over (vertical, pos, rank); a variable without ranks has one."""
    array = pick(result, variable)
    ranked = array if "rank" in array.dims else array.expand_dims("rank")
    return need_dims(ranked, vertical, "pos", "rank").values


def _text_fit(rows: int, columns: int) -> tuple[int, int]:
    """Font size and number of characters that fit a cell when the grid is drawn at about 600 x 330 pixels."""
    size = int(np.clip(0.85 * 330 / rows, 7, 11))
    return size, min(10, int(600 / max(1, columns) / (0.62 * size)))


def _cell_text(strings: np.ndarray, width: int) -> np.ndarray:
    cells = [[escape(shorten(show_token(str(s), html=False), width)) for s in row] for row in strings]
    return np.array(cells, dtype=object).reshape(strings.shape)


def _hover(array: "xr.DataArray", strings: np.ndarray | None, values: np.ndarray | None, listed: int) -> np.ndarray:
    """Where, how much, and the ranked tokens of every cell."""
    numbered, what = numbers(array), label(array)
    rows = [_row_name(str(array.dims[0]), float(row)) for row in array[array.dims[0]].values]
    tokens = array["token_text"].values if "token_text" in array.coords else [None] * array.sizes["pos"]
    columns = [
        f"token {pos}" if token is None else f"token {pos} {show_token(str(token))}"
        for pos, token in zip(array["pos"].values, tokens, strict=True)
    ]
    texts = np.empty(array.shape, dtype=object)
    for row, column in np.ndindex(array.shape):
        lines = [f"<b>{rows[row]}, {columns[column]}</b>", f"{what}: {number(float(numbered[row, column]))}"]
        ranked = [] if strings is None else strings[row, column, :listed].tolist()
        for rank, string in enumerate(ranked):
            value = "" if values is None else f" {number(values[row, column, rank])}"
            lines.append(f"{rank + 1} {show_token(str(string))}{value}")
        texts[row, column] = "<br>".join(lines)
    return texts


def _row_name(dim: str, value: float) -> str:
    return "depth 0 (embedding)" if dim == "depth" and value == 0 else f"{dim} {value:g}"
