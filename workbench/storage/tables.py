"""A result as tidy tables: one a set of dims, a row a cell, never more rows than there are values.

`Dataset.to_dataframe()` makes one table of all dims together: of attention sinks on 15 tokens 9.4 million rows.
"""

from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.arguments import fitted
from workbench.storage.plain import need_name

__all__ = ["SCALARS", "guarded", "tables", "text_of"]

SCALARS = "scalars"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@fitted()
def tables(result: xr.Dataset) -> dict[str, pd.DataFrame]:
    """The variables of a result by the dims that they share, such as `{"layer_head": ..., "pos": ...}`.

    A table has a column for each dim and for what lies along it (token texts), and one for each variable; what has no
    dims is one row, "scalars". Missing is NaN, of integers `<NA>`; numbers are those of the result. Raises InputError
    for a name that is no text.
    """
    for given in (*result.variables, *result.dims):
        need_name(given)
    by_dims: dict[frozenset[str], list[str]] = {}
    for name, variable in result.data_vars.items():
        by_dims.setdefault(frozenset(map(str, variable.dims)), []).append(str(name))
    found: dict[str, pd.DataFrame] = {}
    for names in by_dims.values():
        dims = tuple(map(str, result[names[0]].dims))
        name = usual = "_".join(dims) or SCALARS
        number = 1
        while name in found:  # a dim "layer_head" beside dims "layer" and "head"
            number += 1
            name = f"{usual}_{number}"
        found[name] = _table(result, names, dims)
    return found


def _table(result: xr.Dataset, names: list[str], dims: tuple[str, ...]) -> pd.DataFrame:
    shape = tuple(result.sizes[dim] for dim in dims)
    columns: dict[str, Any] = {}
    beside = [str(name) for name, c in result.coords.items() if name not in dims and c.dims and set(c.dims) <= {*dims}]
    for name in (*dims, *beside):
        values = result[name] if name in result.variables else xr.DataArray(np.arange(result.sizes[name]), dims=name)
        axes = tuple(dims.index(str(dim)) for dim in values.dims)
        ordered = values.values.transpose(np.argsort(axes)) if axes else values.values
        seen = ordered.reshape([shape[axis] if axis in axes else 1 for axis in range(len(dims))])
        columns[name] = _column(np.broadcast_to(seen, shape).ravel(), values)
    for name in names:
        columns[name] = _column(result[name].transpose(*dims).values.ravel(), result[name])
    return pd.DataFrame(columns)


def _column(values: np.ndarray, variable: xr.DataArray) -> Any:
    """Integers that mark missing by a number of their own have `<NA>` there."""
    absent = variable.attrs.get("absent")
    if absent is None or values.dtype.kind not in "iu" or not (values == absent).any():
        return values
    wide = np.uint64 if values.dtype.kind == "u" else np.int64
    return pd.arrays.IntegerArray(values.astype(wide), values == absent)


def text_of(table: pd.DataFrame) -> str:
    """A table as CSV, in which no text is a formula of a spreadsheet: such a one begins with an apostrophe."""
    safe = table.rename(columns=guarded)
    for column in safe.columns:
        if safe[column].dtype.kind not in "fiub":
            safe[column] = safe[column].map(guarded)
    lines = _Lines(newline="")
    safe.to_csv(lines, index=False, lineterminator=_Lines.end)
    return lines.getvalue()


class _Lines(StringIO):
    """Keeps the lines of a table with a plain newline at their ends. They are written with both characters that end
    lines, since only texts that hold one of these are quoted: readers take a bare carriage return for a row's end."""

    end = "\r\n"

    def write(self, line: str) -> int:
        """One line of the table, as `csv` writes them."""
        return super().write(line.removesuffix(self.end) + "\n" if line.endswith(self.end) else line)


def guarded(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; numbers stay as they are."""
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value
