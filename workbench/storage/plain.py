"""What a variable of a result may hold, so that what is written can be read again by whoever has the file."""

import numpy as np
import xarray as xr

from workbench.errors import InputError

__all__ = ["need_name", "need_plain"]

_KINDS, _BYTES = "fiub", 8
_TEXTS = "US"


def need_name(name: object) -> None:
    """Raise InputError for the name of a variable or a dim that no file keeps as it is: netCDF cuts it at a NUL."""
    if not isinstance(name, str) or not name or "\0" in name or "/" in name:
        raise InputError(f"a variable named {name!r}", "a text without / or NUL", "Rename it")


def need_plain(name: object, variable: xr.DataArray | xr.Variable) -> None:
    """Raise InputError for what is neither numbers, truths nor whole texts (complex numbers, times, None in a text),
    and for a name that no file keeps as it is."""
    need_name(name)
    dtype = variable.dtype
    if dtype.kind == "O":
        wrong = [value for value in np.ravel(variable.values) if not isinstance(value, str)]
        if wrong:
            raise InputError(f"{name} with {wrong[0]!r} among texts", "texts alone", 'Put "" where there is none')
    elif dtype.kind not in _TEXTS and (dtype.kind not in _KINDS or dtype.itemsize > _BYTES):
        raise InputError(
            f"{name} of {dtype}", "numbers of 64 bits at most, or texts",
            "Make plain ones of it: the real and the imaginary part, a time as a number with its unit",
        )  # fmt: skip
