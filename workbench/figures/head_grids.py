"""One number per attention head, for all heads at once."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from workbench.arguments import argument
from workbench.errors import InputError
from workbench.figures.axes import coord_axis, need_dims
from workbench.figures.heatmap import heatmap
from workbench.figures.quantity import ColorRange, coloraxis, flags, interval_text, numbers, on_scale, pick, pick_scale
from workbench.figures.text import head_name

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["heads_grid"]

Mark = str | Iterable[tuple[int, int]] | None
_LETTERS = {"key_value_head": "KV"}  # of units whose names do not begin with their first one


def heads_grid(
    result: "xr.Dataset",
    variable: str,
    *,
    title: str,
    scale: str | None = None,
    color_range: ColorRange = None,
    mark: Mark = None,
    mark_name: str = "marked",
    unit: str = "head",
) -> "go.Figure":
    """Layer x head grid of a variable over (layer, head): layers upwards, heads from the left.

    unit: "head", "expert" for a grid of a mixture's experts, or "key_value_head" for those that query heads share.

    Hover gives the head, the value, `variable_low`, `_high`, `_null` and `_q` where the result has them. NaN cells are
    crossed out: not applicable. scale: see `theme.SCALES`; by default from the variable's declared range.
    color_range: (low, high), "data", or None for the declared range. mark: heads to ring, as (layer, head) pairs or
    the name of a boolean variable over (layer, head); `mark_name` says in the legend what the ring means.
    """
    for name, value in (("variable", variable), ("title", title), ("mark_name", mark_name), ("unit", unit)):
        argument(name, value, str, "heads_grid()")
    argument("scale", scale, str | None, "heads_grid()")
    array = need_dims(pick(result, variable), "layer", unit)
    scale = pick_scale(array, scale)
    z = on_scale(numbers(array), scale)
    x, y = coord_axis(array, unit), coord_axis(array, "layer", is_vertical=True)
    return heatmap(
        z,
        x,
        y,
        title=title,
        scale=scale,
        coloraxis=coloraxis(z, array, scale, color_range),
        hover=_hover(result, array, unit),
        marks=_cells(result, mark, x.values, y.values, unit),
        mark_name=mark_name,
    )


def _hover(result: "xr.Dataset", array: "xr.DataArray", unit: str) -> np.ndarray:
    texts = interval_text(result, array)
    for row, layer in enumerate(array["layer"].values):
        for column, number in enumerate(array[unit].values):
            letters = _LETTERS.get(unit, unit[0].upper())
            name = head_name(layer, number) if unit == "head" else f"L{int(layer)}{letters}{int(number)}"
            texts[row, column] = f"<b>{name}</b> {texts[row, column]}"
    return texts


def _cells(
    result: "xr.Dataset", mark: Mark, heads: tuple[int, ...], layers: tuple[int, ...], unit: str
) -> list[tuple[int, int]]:
    """Rows and columns of the heads (or other units) to mark."""
    if isinstance(mark, str):
        marked = flags(need_dims(pick(result, mark), "layer", unit))
        return [(int(row), int(column)) for row, column in np.argwhere(marked)]
    pairs = list(mark or ())
    strangers = [head_name(layer, head) for layer, head in pairs if layer not in layers or head not in heads]
    if strangers:
        raise InputError(f"heads {', '.join(strangers)} to mark", "heads of this result", "Mark heads that are drawn")
    return [(layers.index(layer), heads.index(head)) for layer, head in pairs]
