"""What a result can be saved as, by the ending of the file's name; anything else is refused before it is computed."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.errors import InputError, UnavailableError, in_words, of_the_machine
from workbench.files import need_unprotected, unsealed, whole_file, write_whole
from workbench.storage.endings import ending_of
from workbench.storage.inspection import inspect
from workbench.storage.json_text import json_of
from workbench.storage.netcdf import encoded
from workbench.storage.plain import need_plain
from workbench.storage.tables import tables, text_of

__all__ = ["write"]


def write(result: xr.Dataset, path: Path) -> tuple[Path, ...]:
    """Save a result as its name ends, whole or not at all; returns the files that there are now.

    Several tables are several files: `lens.csv` becomes `lens.depth_pos.csv` and `lens.pos.csv`. Raises InputError for
    an ending that is not known, UnavailableError where it cannot be written.
    """
    ending = ending_of(path)
    need_unprotected(path)
    try:
        if ending == "nc":
            return (write_whole(path, _readable(encoded(result))),)
        if ending == "json":
            return (write_whole(path, json_of(result).encode()),)
        if ending == "zarr":
            return (_write_zarr(result, path),)
        return _write_tables(result, path, _csv if ending == "csv" else _parquet)
    except (InputError, UnavailableError):
        raise
    except Exception as error:  # another library's own, of which it has many
        if (machine := of_the_machine(error)) is not None:
            raise machine from error
        raise UnavailableError(
            f"a result that could not be written as {ending} ({in_words(error)})", "a file", "Choose another ending"
        ) from error


def _readable(content: bytes) -> bytes:
    """The bytes of a netCDF file, where `open_result` takes as much as there is in it."""
    try:
        inspect(unsealed(content)[0])
    except InputError as error:
        raise InputError(f"a result with {error.got}", error.expected, "Divide it, or take its tables") from error
    return content


def _write_tables(result: xr.Dataset, path: Path, form: Callable[..., bytes]) -> tuple[Path, ...]:
    found = tables(result)
    if len(found) == 1:
        return (write_whole(path, form(next(iter(found.values())))),)
    contents = {path.with_name(f"{path.stem}.{name}{path.suffix}"): form(table) for name, table in found.items()}
    return tuple(write_whole(place, content) for place, content in contents.items())


def _csv(table: pd.DataFrame) -> bytes:
    return text_of(table).encode()


def _parquet(table: pd.DataFrame) -> bytes:
    held = BytesIO()
    table.to_parquet(held, engine="pyarrow", index=False)
    return held.getvalue()


def _write_zarr(result: xr.Dataset, path: Path) -> Path:
    if path.exists():
        raise InputError(f"{path}, which is there already", "a new name: a Zarr store is a folder", "Choose another")
    for name, variable in result.variables.items():  # a name with a / would be a group, which no reader looks into
        need_plain(name, variable)
    with whole_file(path) as partial:
        _finite(result).to_zarr(partial, zarr_format=2, consolidated=True)  # which every reader of Zarr knows
    return path


def _finite(result: xr.Dataset) -> xr.Dataset:
    """A result without encodings and without attributes that are no finite number: Zarr keeps attributes as JSON, which
    has no infinity, and its strict readers would open nothing of the store. A bound that is not there is open."""
    plain = result.drop_encoding().copy()
    plain.attrs = _said(plain.attrs)
    for variable in plain.variables.values():
        variable.attrs = _said(variable.attrs)
    return plain


def _said(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in attrs.items() if not _is_endless(value)}


def _is_endless(value: object) -> bool:
    return isinstance(value, float | np.floating) and not np.isfinite(value)
