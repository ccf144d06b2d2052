"""What is said of every prompt of a store, and of each analysis in one sentence: no interval is drawn for it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.batch.store import Store
from workbench.batch.values.places import Cells

__all__ = ["failures", "summaries", "summary", "table", "variables"]


def table(store: Store, head: tuple[int, int] | None = None) -> Iterator[dict[str, Any]]:
    """One row a prompt: model, group, document, where it came from, tokens, text, status; of every analysis its
    variables, those with axes by their mean over them (as `ANALYSIS.VARIABLE mean`).

    head: (layer, head) whose own value stands beside the mean (as `ANALYSIS.VARIABLE L18H6`), where a variable has it.
    """
    cells = Cells(store)
    failed = cells.failed()
    names = cells.names
    places = {name: cells.places(name) for name in names}
    columns: dict[str, dict[str, dict[str, NDArray[np.floating]]]] = {}
    for key in cells.entries:
        columns[key] = {}
        for name in names:
            rows = cells.rows(key, name)
            if rows is not None:
                columns[key][name] = {label: values for label, values in _scalars(name, rows, head)}
    for line in cells.lines():
        if not line["n"]:
            continue
        row = {k: line[k] for k in ("model", "group", "document", "where", "n", "text")}
        status = ""
        for name, cell in line["cells"].items():
            place = places[name].get(cell)
            if place is None:
                status = failed.get(cell, status or "not computed yet")
                continue
            row |= {label: float(values[place[1]]) for label, values in columns[place[0]].get(name, {}).items()}
        yield {**row, "status": status or "done"}


def _scalars(
    analysis: str, rows: xr.Dataset, head: tuple[int, int] | None
) -> Iterator[tuple[str, NDArray[np.floating]]]:
    for name, variable in rows.data_vars.items():
        others = [dim for dim in variable.dims if dim != "prompt"]
        label = f"{analysis}.{name}" + (" mean" if others else "")
        yield label, (variable.mean(others) if others else variable).values
        if head is not None and set(others) == {"layer", "head"}:
            at = dict(zip(("layer", "head"), head, strict=True))
            if all(place in variable[dim].values for dim, place in at.items()):
                yield f"{analysis}.{name} L{head[0]}H{head[1]}", variable.sel(at).values


def failures(store: Store) -> list[dict[str, str]]:
    """What failed: model, group, where, analysis, why; refused rows first."""
    cells = Cells(store)
    found = [
        {"model": "", "group": one["group"], "where": one["where"], "analysis": "", "why": one["reason"]}
        for one in cells.record["refused"]
    ]
    failed = cells.failed()
    for line in cells.lines():
        for analysis, cell in line["cells"].items():
            if cell in failed:
                named = {name: line[name] for name in ("model", "group", "where")}
                found.append({**named, "analysis": analysis, "why": failed[cell]})
    return found


def summaries(store: Store) -> dict[str, str]:
    """How many prompts are behind the means of each analysis, a sentence each, without a look at any value."""
    cells = Cells(store)
    found = {}
    for name in cells.names:
        places = cells.places(name)
        there = [cell in places for cell, _ in cells.asked(name)]
        found[name] = summary(name, sum(there), len(there) - sum(there))
    return found


def summary(analysis: str, n: int, missing: int) -> str:
    """How many prompts are behind the means of an analysis, and how many are not there."""
    return f"Means of {analysis} over {n} prompts" + (f"; {missing} are missing." if missing else ".")


def variables(store: Store) -> dict[str, dict[str, tuple[str, ...]]]:
    """The variables of each analysis that have a mean, with their own axes, as the first shard of it has them."""
    cells = Cells(store)
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in cells.names:
        each = (rows for key in cells.entries if (rows := cells.rows(key, name)) is not None)
        rows = next(each, xr.Dataset())
        found[name] = {str(one): tuple(map(str, variable.dims[1:])) for one, variable in rows.data_vars.items()}
    return found
