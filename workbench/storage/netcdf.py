"""netCDF-4 bytes of a result, and a result from such bytes.

They are made in memory: HDF5 on a disk that fills crashes the process when it closes its file. A seal stands behind
them (`workbench.files.sealed`), which every reader of netCDF passes over.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import xarray as xr

from workbench.errors import InputError, in_words, of_the_machine
from workbench.files import sealed, unsealed
from workbench.storage.apart import looked_through
from workbench.storage.inspection import inspect
from workbench.storage.numbers import numbers_of
from workbench.storage.plain import need_plain

__all__ = ["DEPTH", "decoded", "encoded", "group_of"]

DEPTH = 3  # of groups in a file of many results
# Dims without a name are found by their sizes, which a result's are not: the check of its dims says so.
_AS_IT_IS: dict[str, Any] = {"mask_and_scale": False, "decode_times": False, "phony_dims": "sort"}


def encoded(result: xr.Dataset, name: str = "") -> bytes:
    """A result as netCDF-4, sealed for the name that it is kept under (see `workbench.files.sealed`).

    Raises InputError where a value, a name or an attribute has no place in netCDF.
    """
    for part, variable in result.variables.items():
        need_plain(part, variable)
    # xarray would add a fill value of its own to floats; NaN says missing by itself.
    floats = {name: {"_FillValue": None} for name, v in result.variables.items() if v.dtype.kind == "f"}
    try:
        # Numbers as they are, not as a file that they came from packed them.
        return sealed(bytes(result.drop_encoding().to_netcdf(None, engine="h5netcdf", encoding=floats)), name)
    except MemoryError:
        raise
    except Exception as error:  # of xarray, h5netcdf and h5py, each with its own
        if (machine := of_the_machine(error)) is not None:
            raise machine from error
        raise InputError(
            f"a result that netCDF cannot hold ({in_words(error)})", "numbers and whole texts", "Take its tables"
        ) from error


def decoded(content: bytes, *, kept_as: str | None = None) -> xr.Dataset:
    """A result from the bytes of a file, whoever made it.

    kept_as: refuse a file that is not sealed for this name: somebody else made it, or it is another's; any other is
    read by another process first. Raises InputError for what is damaged, is no netCDF-4 file or holds what no result
    has; the file is not named.
    """
    bare, intact = unsealed(content, kept_as or "")
    if intact is False or (intact is None and kept_as is not None):
        raise InputError("a file that is not as it was written", "a saved result", "Compute it again")
    with _said():
        looked_through(bare) if kept_as is None else inspect(bare)
        return _opened(bare)


def group_of(content: bytes, name: str) -> xr.Dataset | None:
    """A group of a file that has groups in `DEPTH` of groups, whoever made it; None where it has none. As `decoded`."""
    with _said():
        looked_through(content, groups=DEPTH)
        with h5py.File(io.BytesIO(content), "r") as file:
            if file.get(name, getclass=True) is not h5py.Group:
                return None
            plain = numbers_of(file[name])
        return _opened(content, name) if plain is None else plain


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever libraries make of bytes that anybody may have written
        raise InputError("a damaged file, or none in netCDF-4", "a saved result", "Compute it again") from error


def _opened(content: bytes, group: str | None = None) -> xr.Dataset:
    file = io.BytesIO(content)
    with xr.open_dataset(file, engine="h5netcdf", group=group, **_AS_IT_IS) as opened:
        return _plain(opened.load())


def _plain(opened: xr.Dataset) -> xr.Dataset:
    """Texts as texts, and nothing left of how the file held them."""
    for name, variable in opened.variables.items():
        need_plain(name, variable)
    return opened.drop_encoding()
