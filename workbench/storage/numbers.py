"""A group of numbers straight from HDF5: the same as xarray opens, in a sixth of the time.

A batch has thousands of such groups. Whatever else a group may hold (texts, encodings, dims of other groups) is left to
xarray.
"""

from typing import Any

import h5py
import numpy as np
import xarray as xr

__all__ = ["numbers_of"]

_PLUMBING = frozenset(
    {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Coordinates", "_Netcdf4Dimid", "_NCProperties"}
)
_SAID = frozenset({"units", "long_name", "valid_min", "valid_max", "absent"})
_SCALE, _BARE = "DIMENSION_SCALE", "This is a netCDF dimension but not a netCDF variable"


class _Other(Exception):
    """What this file does not know how to read."""


def numbers_of(group: h5py.Group) -> xr.Dataset | None:
    """A group that was inspected, in memory; None where it holds more than numbers with dims of its own."""
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    try:
        for name in group:
            part = group[name]
            if not isinstance(part, h5py.Dataset) or part.dtype.kind not in "fiu":
                return None
            scale = _text(part.attrs.get("NAME", "")) if _text(part.attrs.get("CLASS", "")) == _SCALE else None
            if scale is not None and scale.startswith(_BARE):
                continue
            if scale is not None and part.ndim == 1:
                coords[name] = ((name,), part[()], _said(part))
            else:
                variables[name] = (_dims(part, group), part[()], _said(part))
        return xr.Dataset(variables, coords, _said(group, everything=True))
    except _Other:
        return None


def _dims(part: h5py.Dataset, group: h5py.Group) -> tuple[str, ...]:
    """The names of the scales that stand behind its axes, one each, of this group."""
    names = []
    for behind in part.attrs.get("DIMENSION_LIST", ()):
        if len(behind) != 1:
            raise _Other
        place, _, name = h5py.h5r.get_name(behind[0], part.file.id).decode().rpartition("/")
        if place != group.name:
            raise _Other
        names.append(name)
    if len(names) != part.ndim:
        raise _Other
    return tuple(names)


def _said(part: "h5py.Dataset | h5py.Group", *, everything: bool = False) -> dict[str, Any]:
    """Its attributes: texts and single numbers."""
    found = {name: _one(part.attrs[name]) for name in part.attrs if name not in _PLUMBING}
    if not everything and not set(found) <= _SAID:  # such as how values are encoded
        raise _Other
    if not all(isinstance(value, str | np.integer | np.floating) for value in found.values()):
        raise _Other
    return found


def _one(value: Any) -> Any:
    """A number, which netCDF writes as a list of one."""
    return value[0] if isinstance(value, np.ndarray) and value.shape == (1,) else value


def _text(value: Any) -> str:
    """What HDF5 holds as bytes or as text, by who wrote it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
