"""What of a result can be averaged over prompts, and the rows that results of many prompts make.

An axis must mean the same in every prompt: layers and heads do, positions do not. A variable with an axis of positions
is left out, or stands for its prompt by its mean or its last position where the spec says so. Token ids, positions and
other names are no quantities; intervals and p-values of single prompts have no mean that means anything.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["Reduction", "RowOf", "stacked"]

RowOf = tuple[dict[str, xr.DataArray], dict[str, str]]  # what is averaged of a result, and why the rest is not

_POSITIONAL = ("pos", "query", "key")
_OWN = ("token", "edge", "draw", "prompt", "sequence", "row")  # numbered anew in every result
_NAMES = ("token id", "dimension", "position", "layer", "head", "text", "name")  # units of what is no quantity
_OF_ONE = ("_low", "_high", "_q", "_p")


@dataclass(frozen=True)
class Reduction:
    """How a result becomes a row. positions: "none", "mean" or "last", for axes of positions."""

    positions: str = "none"

    def why_not(self, name: str, variable: xr.DataArray) -> str:
        """Why a variable cannot be averaged over prompts; "" if it can."""
        if variable.dtype.kind not in "fiub":
            return "it is text"
        if name.endswith(_OF_ONE) or name in ("p", "q", "p_floor"):
            return "it is an interval or a p-value of one prompt"
        if str(variable.attrs.get("units")) in _NAMES:
            return f"its values are names ({variable.attrs.get('units')}), not quantities"
        own = [str(dim) for dim in variable.dims if dim in _OWN]
        if own:
            return f"its axis {own[0]} is numbered anew in every result"
        places = [str(dim) for dim in variable.dims if dim in _POSITIONAL]
        if places and self.positions == "none":
            return f'its axis {places[0]} differs from prompt to prompt; say positions = "mean" or "last" to reduce it'
        return ""

    def row(self, result: xr.Dataset) -> RowOf:
        """The variables of a result that can be averaged, float32, NaN where missing; and why the others cannot."""
        taken, left = {}, {}
        for key, variable in result.data_vars.items():
            name = str(key)
            why = self.why_not(name, variable)
            if why:
                left[name] = why
            else:
                taken[name] = self._reduced(variable)
        return taken, left

    def _reduced(self, variable: xr.DataArray) -> xr.DataArray:
        values = variable.astype(np.float32)
        fill = variable.attrs.get("absent")
        if fill is not None:
            values = values.where(variable != fill)
        for dim in [dim for dim in variable.dims if dim in _POSITIONAL]:
            values = values.mean(dim, skipna=True) if self.positions == "mean" else values.isel({dim: -1})
        bare = values.reset_coords(drop=True)
        kept = {k: v for k, v in variable.attrs.items() if k in ("units", "long_name", "valid_min", "valid_max")}
        return bare.assign_attrs(kept)


def stacked(rows: Sequence[RowOf | None]) -> xr.Dataset | None:
    """Rows of one analysis by prompt, NaN where there is none; None where there is none at all.

    A variable whose coords are not those of the first row is left out. attrs["left_out"] says why, as JSON.
    """
    left: dict[str, str] = {}
    for row in rows:
        left |= row[1] if row else {}
    first: dict[str, xr.DataArray] = {}
    taken = [row[0] if row else None for row in rows]
    for one in taken:
        first = {**(one or {}), **first}
    if not first and not left:
        return None
    made = {}
    for name, like in first.items():
        if name in left:
            continue
        differs = next((why for one in taken if one and name in one and (why := _differs(one[name], like))), "")
        if differs:
            left[name] = differs
            continue
        values = np.stack([_values(one, name, like.shape) for one in taken])
        made[name] = xr.DataArray(values, dims=("prompt", *like.dims), coords=like.coords, attrs=like.attrs)
    return xr.Dataset(made, attrs={"left_out": json.dumps(left, sort_keys=True)})


def _values(row: Mapping[str, xr.DataArray] | None, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if row is None or name not in row:
        return np.full(shape, np.nan, np.float32)
    return row[name].values


def _differs(one: xr.DataArray, like: xr.DataArray) -> str:
    """Why two variables cannot be averaged; "" if they can."""
    for dim in like.dims:
        if dim not in one.dims or one.sizes[dim] != like.sizes[dim]:
            return f"its axis {dim} differs from prompt to prompt"
        if dim in like.coords and not np.array_equal(one[dim].values, like[dim].values):
            return f"its axis {dim} holds other things in every prompt"
    return "" if one.dims == like.dims else "its axes differ from prompt to prompt"
