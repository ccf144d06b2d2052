"""Axes that know what they show, so that a click can be read back without knowing the figure.

Every figure carries in `layout.meta` the dims of its axes and the values on them:

    {"axes": {"x": "pos", "y": "depth"}, "x_values": [0, 1, 2], "y_values": [0, 1], ...}

The k-th value is drawn at k, or at the k-th entry of `x_at` / `y_at` where that list is there (a continuous or pooled
axis, or cells with gaps between them, whose width is `x_cell`). `selection` reads a clicked point by these, and
`selection_shapes` draws a selection onto any figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.figures.text import pos_ticks, show_text, thin
from workbench.figures.theme import ACCENT

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Axis", "coord_axis", "meta", "selection", "selection_shapes", "token_axis", "value_axis"]

_TITLES = (
    ("layer", "layer, upwards", "layer"),
    ("depth", "depth, upwards", "depth"),
    ("query", "attends from (query)", "attends from (query)"),
    ("key", "attends to (key)", "attends to (key)"),
    ("pos", "token", "token"),
    ("key_value_head", "key/value head", "key/value head"),
)
_LEVEL_LABELS = 48  # characters of labels that fit side by side across a panel of 360 pixels
_FEW = 8  # numbers that are all named
_TOKEN_DIMS = ("pos", "query", "key")


@dataclass(frozen=True)
class Axis:
    """One axis: the glossary dim it shows, the values along it, and how they are labelled.

    at: where each value is drawn; None draws the k-th at k. ticks, labels: drawn coordinates and their escaped text;
    without any, Plotly chooses.
    """

    dim: str
    values: tuple[Any, ...]
    title: str
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    at: tuple[float, ...] | None = None
    is_vertical: bool = False
    is_reversed: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def drawn(self) -> tuple[float, ...]:
        """The drawn coordinate of every value."""
        return tuple(range(len(self.values))) if self.at is None else self.at

    def layout(self) -> dict[str, Any]:
        """The axis for `figure.update_xaxes` or `update_yaxes`: half a step of room on either side."""
        ends = [min(self.drawn, default=0) - self.step / 2, max(self.drawn, default=0) + self.step / 2]
        labelled = {"tickvals": list(self.ticks), "ticktext": list(self.labels)} if self.ticks else {}
        is_turned = not self.is_vertical and sum(map(len, self.labels)) > _LEVEL_LABELS
        turned = {"tickangle": -90 if is_turned else 0}
        ends = ends[::-1] if self.is_reversed else ends
        return {"title": {"text": self.title}, "range": ends, "showgrid": False} | labelled | turned

    @property
    def step(self) -> float:
        """The distance between neighbours; 1 for a single value."""
        drawn = sorted(self.drawn)
        return float(np.diff(drawn).min()) if len(drawn) > 1 else 1.0


def token_axis(
    tokens: Sequence[str],
    dim: str = "pos",
    positions: Sequence[int] | None = None,
    *,
    at: Sequence[float] | None = None,
    is_vertical: bool = False,
    is_reversed: bool = False,
) -> Axis:
    """An axis over tokens: numbered positions with the token beside the number."""
    positions = range(len(tokens)) if positions is None else positions
    shown, labels = pos_ticks(tokens, positions, limit=16 if is_vertical else 32)
    values = tuple(int(position) for position in positions)
    ticks = tuple(float(i if at is None else at[i]) for i in shown)
    drawn = None if at is None else tuple(map(float, at))
    return Axis(dim, values, _title(dim, is_vertical), ticks, tuple(labels), drawn, is_vertical, is_reversed)


def coord_axis(array: "xr.DataArray", dim: str, *, is_vertical: bool = False) -> Axis:
    """The axis of one dim of a result, labelled from its coordinate; over tokens where `token_text` lies along it."""
    values = [_plain(value) for value in array[dim].values]
    if dim in _TOKEN_DIMS and "token_text" in array.coords and array["token_text"].dims == (dim,):
        return token_axis([str(t) for t in array["token_text"].values], dim, values, is_vertical=is_vertical)
    limit = 12 if is_vertical else 24
    is_named = any(isinstance(value, str) for value in values)
    ticks = range(len(values)) if is_named else thin(len(values), limit)  # names are few and each is needed
    shown = tuple(show_text(str(values[i])) if is_named else f"{values[i]:g}" for i in ticks)
    return Axis(dim, tuple(values), _title(dim, is_vertical), tuple(ticks), shown, None, is_vertical)


def value_axis(array: "xr.DataArray", dim: str) -> Axis:
    """The axis of a dim for lines: at its values where they are numbers (a threshold, a step), else as `coord_axis`."""
    values = [_plain(value) for value in array[dim].values]
    if dim in _TOKEN_DIMS or not all(isinstance(value, int | float) for value in values):
        return coord_axis(array, dim)
    drawn, counted = tuple(map(float, values)), all(isinstance(value, int) for value in values)
    # Between the layers of a small model Plotly would put halves.
    ticks = drawn if counted and 1 < len(drawn) <= _FEW and drawn[-1] - drawn[0] == len(drawn) - 1 else ()
    return Axis(dim, tuple(values), _title(dim, False), ticks, tuple(f"{tick:g}" for tick in ticks), drawn)


def meta(x: Axis | None = None, y: Axis | None = None, **more: Any) -> dict[str, Any]:
    """What goes into `layout.meta`; an axis that shows a value and no dim is left out."""
    found: dict[str, Any] = {"axes": {}}
    for name, axis in (("x", x), ("y", y)):
        if axis is not None:
            found["axes"][name] = axis.dim
            found[f"{name}_values"] = list(axis.values)
            if axis.at is not None:
                found[f"{name}_at"] = list(axis.at)
    return found | more


def pack(sizes: Sequence[tuple[str, int]], columns: Mapping[str, np.ndarray | Sequence[int]]) -> list[int]:
    """Several small indices as one number for each point: a figure of thousands would be mostly their names.

    sizes: (name, exclusive end) of every index, -1 allowed for none.
    """
    packed = np.zeros(len(next(iter(columns.values()))), np.int64)
    for name, size in sizes:
        packed = packed * (size + 1) + np.asarray(columns[name], np.int64) + 1
    return packed.tolist()


def unpack(packed: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What `pack` put into a number. packed: "sizes", pairs of a name and its end + 1, and "also", what all share."""
    chosen = dict(packed["also"])
    for name, size in reversed(packed["sizes"]):
        number, index = divmod(number, size)
        chosen |= {name: index - 1} if index else {}
    return chosen


def selection(meta: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """What a clicked or hovered point stands for, such as {"pos": 12, "depth": 3}.

    meta: the figure's `layout.meta`. point: one of Dash's `clickData["points"]`: its `x` and `y` are looked up on the
    axes; a `customdata` that is a dict (points of a strip) says it outright, and so does one number where `meta` says
    how its trace was packed (edges of a lattice).
    """
    given = point.get("customdata")
    packed = meta.get("packed", {}).get(str(point.get("curveNumber")))
    if packed and isinstance(given, int):
        return unpack(packed, given)
    if isinstance(given, Mapping):
        return dict(given)
    chosen = {}
    for name, dim in meta.get("axes", {}).items():
        values, coordinate = meta[f"{name}_values"], point.get(name)
        if coordinate is None or not len(values):
            continue
        drawn = np.asarray(meta.get(f"{name}_at", range(len(values))), dtype=np.float64)
        chosen[dim] = values[int(np.argmin(np.abs(drawn - float(coordinate))))]
    return chosen


def selection_shapes(
    meta: Mapping[str, Any], selection: Mapping[str, Any], colour: str = ACCENT
) -> list[dict[str, Any]]:
    """Layout shapes that outline a selection on a figure: a cell, or a row or column where it fixes only one axis.

    Empty where the selection does not touch the figure's dims or lies outside it.
    """
    edges: dict[str, Any] = {"x0": 0, "x1": 1, "y0": 0, "y1": 1, "xref": "x domain", "yref": "y domain"}
    found = False
    for name, dim in meta.get("axes", {}).items():
        values = list(meta[f"{name}_values"])
        if dim not in selection:
            continue
        if selection[dim] not in values:
            return []
        drawn = list(meta.get(f"{name}_at", range(len(values))))
        steps = np.diff(drawn) if len(drawn) > 1 else np.ones(1)
        # Values at unequal distances have no cells: there the selection is a line.
        even = abs(steps[0]) if np.allclose(steps, steps[0]) else 0.0
        half = meta.get(f"{name}_cell", even) / 2
        centre = drawn[values.index(selection[dim])]
        edges |= {f"{name}0": float(centre - half), f"{name}1": float(centre + half), f"{name}ref": name}
        found = True
    line = {"color": colour, "width": 2}
    return [{"type": "rect", "line": line, "fillcolor": "rgba(0,0,0,0)", **edges}] if found else []


def need_dims(array: "xr.DataArray", *dims: str) -> "xr.DataArray":
    """The array with exactly these dims in this order; anything else is refused with what to select."""
    if set(array.dims) != set(dims):
        extra = [str(dim) for dim in array.dims if dim not in dims]
        remedy = f"Select one value of {', '.join(extra)}, for example with .isel" if extra else "Draw another variable"
        raise InputError(f"{array.name} over ({', '.join(map(str, array.dims))})", f"({', '.join(dims)})", remedy)
    return array.transpose(*dims)


def _title(dim: str, is_vertical: bool) -> str:
    for name, upwards, across in _TITLES:
        if name == dim:
            return upwards if is_vertical else across
    return dim


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
