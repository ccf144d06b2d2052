"""How much memory a value really keeps, which is more than the numbers in it: texts, and arrays that it is cut from."""

import ctypes
import sys
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["give_back", "held_bytes", "on_its_own"]

_OVERHEAD = 4_096  # bytes of a Dataset itself and of each of its variables, about


def on_its_own(value: Any) -> Any:
    """The value, with copies of arrays that are a small part of a larger one: kept, they would keep all of it."""
    if not isinstance(value, xr.Dataset):
        return value
    cut = [name for name, v in value.data_vars.items() if _is_cut(v.values)]
    return value.assign({name: value[name].copy(deep=True) for name in cut}) if cut else value


def _is_cut(values: np.ndarray) -> bool:
    return not values.dtype.hasobject and _owned(values) > 2 * values.nbytes + 1_024


def _owned(values: np.ndarray) -> int:
    """The bytes of whatever an array is a view of."""
    owner: Any = values
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    if isinstance(owner, np.ndarray):
        return owner.nbytes
    if hasattr(owner, "untyped_storage"):  # a tensor
        return int(owner.untyped_storage().nbytes())
    return values.nbytes


def held_bytes(value: Any) -> int:
    """Bytes that go when a value goes. value: a Dataset that is `on_its_own`, or what has `nbytes`."""
    if not isinstance(value, xr.Dataset):
        return int(value.nbytes)
    total = _OVERHEAD + sum(sys.getsizeof(attribute) for attribute in value.attrs.values())
    for variable in value.variables.values():
        values = variable.values
        total += _OVERHEAD + values.nbytes
        if values.dtype.hasobject:
            total += sum(map(sys.getsizeof, {id(text): text for text in values.ravel()}.values()))
    return total


def give_back() -> None:
    """Hand the allocator's free memory to the system: glibc keeps it, and a process that freed much looks as large."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
