"""Aggregates and the table of prompts as files of other programs: netCDF, CSV, Parquet, Zarr."""

import csv
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.compare import units_along
from workbench.batch.runs import Batch
from workbench.errors import InputError, UnavailableError
from workbench.files import whole_file
from workbench.storage.formats import write
from workbench.storage.tables import guarded

__all__ = ["export"]

_NEEDS = {"parquet": "pyarrow", "zarr": "zarr"}


def export(found: Batch, folder: Path, kind: str) -> list[Path]:
    """Write the aggregates of every analysis and the table of prompts into a folder; the files, in their order.

    kind: "netcdf", "csv", "parquet" or "zarr"; the table is CSV beside netCDF and Zarr. In CSV a text that a
    spreadsheet would take for a formula has an apostrophe in front. Raises UnavailableError where the library is not
    installed.
    """
    if kind not in ("netcdf", "csv", *_NEEDS):
        raise InputError(f"the format {kind!r}", "netcdf, csv, parquet or zarr", "Choose one of these")
    library = _NEEDS.get(kind)
    if library is not None and find_spec(library) is None:
        raise UnavailableError(f"{kind} without {library}", "the library that writes it", f"Install {library}")
    places = {name: _place(folder, f"{name}.{'nc' if kind == 'netcdf' else kind}") for name in found.analyses}
    prompts = _place(folder, "prompts.parquet" if kind == "parquet" else "prompts.csv")
    paths = [path for name, place in places.items() for path in _aggregate(found.aggregate(name), place)]
    return [*paths, _table(found, prompts)]


def _place(folder: Path, name: str) -> Path:
    """A file of the export; where a link lies it would be another one, of whoever made the folder's choosing."""
    path = folder / name
    if path.is_symlink():
        raise InputError(f"{path}, which is a link", "a place for a file", "Take it away, or choose another folder")
    return path


def _aggregate(result: xr.Dataset, path: Path) -> list[Path]:
    if path.suffix != ".csv":
        return list(write(result, path))
    return [_csv(path, ["model", "group", "variable", "axes", "value", "low", "high", "n"], _long(result))]


def _long(result: xr.Dataset) -> Iterator[list[Any]]:
    """One line a number: variables have different axes, and a cross of them all would repeat most."""
    for name, variable in result.data_vars.items():
        if f"{name}_n" not in result:
            continue
        beside = [result[f"{name}{suffix}"].values for suffix in ("_low", "_high", "_n")]
        others = [str(dim) for dim in variable.dims[2:]]
        named = {dim: units_along(variable, str(dim)) for dim in variable.dims}  # parts by their names
        for index, value in _entries(variable):
            at = dict(zip(variable.dims, index, strict=True))
            coord = {dim: named[dim][at[dim]] for dim in at}
            axes = ", ".join(f"{dim}={coord[dim]}" for dim in others)
            yield [coord["model"], coord["group"], name, axes, value, *(array[index] for array in beside)]


def _entries(variable: xr.DataArray) -> Iterator[tuple[tuple[int, ...], Any]]:
    import numpy as np

    yield from np.ndenumerate(variable.values)


def _table(found: Batch, path: Path) -> Path:
    if path.suffix == ".parquet":
        with whole_file(path) as partial:
            found.table().to_parquet(partial)
        return path
    table = found.table()
    rows = zip(*(table[name].tolist() for name in table.columns), strict=True)
    return _csv(path, [*map(str, table.columns)], (["" if cell != cell else cell for cell in row] for row in rows))


def _csv(path: Path, names: list[str], rows: Iterator[list[Any]]) -> Path:
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(guarded, names))
        writer.writerows(map(guarded, row) for row in rows)
    return path
