"""Aggregates and the table of prompts as files of other programs: netCDF, CSV, Parquet, Zarr."""

import csv
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.results import save
from workbench.batch.runs import Batch
from workbench.batch.values import merge
from workbench.errors import InputError, UnavailableError
from workbench.files import whole_file

__all__ = ["export"]

_NEEDS = {"parquet": "pyarrow", "zarr": "zarr"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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
    paths = [_aggregate(found.aggregate(name), folder, name, kind) for name in found.analyses]
    paths.append(_table(found, folder / ("prompts.parquet" if kind == "parquet" else "prompts.csv")))
    return paths


def _aggregate(result: xr.Dataset, folder: Path, name: str, kind: str) -> Path:
    if kind == "netcdf":
        return save(result, folder / f"{name}.nc")
    path = folder / f"{name}.{kind}"
    if kind == "zarr":
        result.to_zarr(path, mode="w")
        return path
    if kind == "parquet":
        with whole_file(path) as partial:
            result.to_dataframe().reset_index().to_parquet(partial)
        return path
    return _csv(path, ["model", "group", "variable", "axes", "value", "low", "high", "n"], _long(result))


def _long(result: xr.Dataset) -> Iterator[list[Any]]:
    """One line a number: variables have different axes, and a cross of them all would repeat most."""
    for name, variable in result.data_vars.items():
        if f"{name}_n" not in result:
            continue
        beside = [result[f"{name}{suffix}"].values for suffix in ("_low", "_high", "_n")]
        others = [str(dim) for dim in variable.dims[2:]]
        for index, value in _entries(variable):
            at = dict(zip(variable.dims, index, strict=True))
            coord = {dim: variable[dim].values[at[dim]] if dim in variable.coords else at[dim] for dim in at}
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
    rows = list(merge.table(found.store))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _csv(path, names, ([row.get(name, "") for name in names] for row in rows))


def _csv(path: Path, names: list[str], rows: Iterator[list[Any]]) -> Path:
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([_plain(value) for value in row] for row in rows)
    return path


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
