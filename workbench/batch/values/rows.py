"""What of a result can be averaged over prompts, and the rows that results of many prompts make.

An axis must mean the same in every prompt: layers and heads do, positions do not. A variable with an axis of positions
is left out, or stands for its prompt by its mean or its last position where the spec says so: of the prompt's own
tokens, behind which a longer target may stand. Token ids, positions and
other names are no quantities; intervals and p-values of single prompts have no mean that means anything.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from workbench.models.target import behind

__all__ = ["NAMES", "Reduction", "RowOf", "Rows", "same_names"]

RowOf = tuple[dict[str, xr.DataArray], dict[str, str]]  # what is averaged of a result, and why the rest is not

NAMES = "label"  # the coordinate that says which parts the numbers of an axis are of
_POSITIONAL = ("pos", "query", "key")
_OWN = ("token", "edge", "draw", "prompt", "sequence", "row")  # numbered anew in every result
_CUT = "segment"  # of a text: where numbered, the third of one has nothing to do with that of another; or by names
_NAMES = ("token id", "dimension", "position", "layer", "head", "expert", "text", "name")  # units of no quantity
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
        own = [str(dim) for dim in variable.dims if dim in _OWN or (dim == _CUT and variable[dim].dtype.kind in "iu")]
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
                taken[name] = self._reduced(variable, behind(result.attrs))
        return taken, left

    def _reduced(self, variable: xr.DataArray, behind: int) -> xr.DataArray:
        """behind: tokens at the end that are a longer target's, and not the prompt's."""
        values = variable.astype(np.float32)
        fill = variable.attrs.get("absent")
        if fill is not None:
            values = values.where(variable != fill)
        for dim in [dim for dim in variable.dims if dim in _POSITIONAL]:
            own = values.isel({dim: slice(None, values.sizes[dim] - behind)})
            values = own.mean(dim, skipna=True) if self.positions == "mean" else own.isel({dim: -1})
        bare = values.reset_coords([name for name in values.coords if name not in (*values.dims, NAMES)], drop=True)
        kept = {k: v for k, v in variable.attrs.items() if k in ("units", "long_name", "valid_min", "valid_max")}
        return bare.assign_attrs(kept)


class Rows:
    """Rows of one analysis by prompt, NaN where there is none: four bytes a number, whatever a result weighs.

    A variable whose coords are not those of the first row is left out, and why is kept.
    """

    def __init__(self, n: int) -> None:
        self._there = np.zeros(n, bool)
        self._like: dict[str, xr.DataArray] = {}
        self._values: dict[str, np.ndarray[Any, Any]] = {}
        self._left: dict[str, str] = {}

    def put(self, prompt: int, row: RowOf) -> None:
        """The row of a prompt, in the place of one that it had."""
        self._there[prompt] = True
        self._left |= row[1]
        for name, one in row[0].items():
            like = self._like.setdefault(name, one)
            why = self._left.get(name) or _differs(one, like)
            if why:
                self._left[name] = why
                self._values.pop(name, None)
                continue
            if name not in self._values:
                self._values[name] = np.full((len(self._there), *like.shape), np.nan, np.float32)
            self._values[name][prompt] = one.values

    def has(self, prompt: int) -> bool:
        """Whether a prompt has a row."""
        return bool(self._there[prompt])

    def dataset(self) -> xr.Dataset | None:
        """(prompt, ...); None where there is no row at all. attrs["left_out"] says why variables are not there, as
        JSON."""
        if not self._there.any():
            return None
        made = {}
        for name, values in self._values.items():
            if name not in self._left:
                like = self._like[name]
                made[name] = xr.DataArray(values, dims=("prompt", *like.dims), coords=like.coords, attrs=like.attrs)
        return xr.Dataset(made, attrs={"left_out": json.dumps(self._left, sort_keys=True)})


def same_names(one: xr.DataArray, like: xr.DataArray) -> bool:
    """Whether the parts that two variables are of have the same names, as far as both have some."""
    return not (NAMES in one.coords and NAMES in like.coords) or np.array_equal(one[NAMES].values, like[NAMES].values)


def _differs(one: xr.DataArray, like: xr.DataArray) -> str:
    """Why two variables cannot be averaged; "" if they can."""
    for dim in like.dims:
        if dim not in one.dims or one.sizes[dim] != like.sizes[dim]:
            return f"its axis {dim} differs from prompt to prompt"
        if dim in like.coords and not np.array_equal(one[dim].values, like[dim].values):
            return f"its axis {dim} holds other things in every prompt"
    if not same_names(one, like):
        return f"its axis {one[NAMES].dims[0]} holds other things in every prompt"
    return "" if one.dims == like.dims else "its axes differ from prompt to prompt"
