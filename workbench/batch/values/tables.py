"""What is said of every prompt of a store, and of each analysis in one sentence: no interval is drawn for it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.batch.store import Store
from workbench.batch.values.places import Cells
from workbench.words import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["failures", "statuses", "summaries", "summary", "table", "variables"]

Wanted = dict[str, dict[str, list[tuple[int, int]]]]  # by shard and analysis: row of the table, row of the shard
_SAID = ("model", "group", "document", "where", "n", "text")


def table(store: Store, head: tuple[int, int] | None = None) -> "pd.DataFrame":
    """One row a prompt: model, group, document, where it came from, tokens, text, status; of every analysis its
    variables, those with axes by their mean over them (as `ANALYSIS.VARIABLE mean`), NaN where there is none.

    head: (layer, head) whose own value stands beside the mean (as `ANALYSIS.VARIABLE L18H6`), where a variable has it.
    """
    import pandas as pd

    cells = Cells(store)
    said, statuses, wanted = _listed(cells, None)
    return pd.DataFrame({**said, **_columns(cells, wanted, len(statuses), head), "status": statuses})


def statuses(store: Store, most: int) -> list[dict[str, Any]]:
    """The first prompts without their numbers: what each is, where it came from, and what became of it."""
    said, found, _ = _listed(Cells(store), most)
    return [dict(zip((*_SAID, "status"), row, strict=True)) for row in zip(*said.values(), found, strict=True)]


def _listed(cells: Cells, most: int | None) -> tuple[dict[str, list[Any]], list[str], Wanted]:
    """The prompts of a plan by columns, the status of each, and where its numbers stand."""
    failed, places = cells.failed(), {name: cells.places(name) for name in cells.names}
    said: dict[str, list[Any]] = {name: [] for name in _SAID}
    found: list[str] = []
    wanted: Wanted = {}
    for number, line in enumerate(islice((line for line in cells.lines() if line["n"]), most)):
        for name in _SAID:
            said[name].append(line[name])
        status = ""
        for name, cell in line["cells"].items():
            place = places[name].get(cell)
            if place is None:
                status = failed.get(cell, status or "not computed yet")
            else:
                wanted.setdefault(place[0], {}).setdefault(name, []).append((number, place[1]))
        found.append(status or "done")
    return said, found, wanted


def _columns(cells: Cells, wanted: Wanted, n: int, head: tuple[int, int] | None) -> dict[str, NDArray[np.float64]]:
    """The columns of numbers of a table of n rows, in the order of the analyses: a million rows by themselves would not
    fit."""
    found: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in cells.names}
    for key, by_name in wanted.items():
        for name, pairs in by_name.items():
            rows = cells.rows(key, name)
            if rows is None:
                continue
            at, of = np.array(pairs).T
            for label, values in _scalars(name, rows, head):
                found[name].setdefault(label, np.full(n, np.nan))[at] = values[of]
    return {label: values for columns in found.values() for label, values in columns.items()}


def _scalars(
    analysis: str, rows: xr.Dataset, head: tuple[int, int] | None
) -> Iterator[tuple[str, NDArray[np.floating]]]:
    for name, variable in rows.data_vars.items():
        others = [dim for dim in variable.dims if dim != "prompt"]
        label = f"{analysis}.{name}" + (" mean" if others else "")
        yield label, _means(variable.values) if others else variable.values
        if head is not None and set(others) == {"layer", "head"}:
            at = dict(zip(("layer", "head"), head, strict=True))
            if all(place in variable[dim].values for dim, place in at.items()):
                yield f"{analysis}.{name} L{head[0]}H{head[1]}", variable.sel(at).values


def _means(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of each row, over what is there; NaN where nothing is."""
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat)
    n = known.sum(axis=1)
    total = np.where(known, flat, 0).sum(axis=1, dtype=np.float64)
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def failures(cells: Cells) -> list[dict[str, str]]:
    """What failed: model, group, where, analysis, why; refused rows first."""
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


def summaries(cells: Cells) -> dict[str, str]:
    """How many prompts there are results of, by analysis, a sentence each, without a look at any value: which numbers
    have a mean over them, `aggregate` says."""
    found = {}
    for name in cells.names:
        places = cells.places(name)
        asked = list(cells.counted(name))
        done = [(line["model"], line["group"], line["document"]) for cell, line in asked if cell in places]
        counts = (len(done), len(set(done)), len(asked) - len(done))
        models = len({model for model, *_ in done})
        found[name] = summary(name, *counts, any(line["n"] > 0 for _, line in asked), models, cells.edits, "Results")
    return found


def summary(
    analysis: str,
    n: int,
    documents: int,
    missing: int,
    prompted: bool,
    models: int,
    edits: Sequence[str],
    what: str = "Means",
) -> str:
    """How many prompts are behind the means of an analysis, with the documents that count once each where these are
    fewer, and how many are not there; models, where none is read. models: how many each prompt is counted for. edits:
    what every pass was run with. what: is over them.
    """
    over = counted(n, "prompt") if documents == n else f"{counted(documents, 'document')}, {counted(n, 'prompt')}"
    over += f" of {models} models" if models > 1 else ""
    said = f"{what} of {analysis} over {over}" if prompted else f"{analysis} of {counted(n, 'model')}"
    said += f", with {', '.join(edits)}" if edits else ""
    return said + (f"; {missing} {'is' if missing == 1 else 'are'} missing." if missing else ".")


def variables(store: Store) -> dict[str, dict[str, tuple[str, ...]]]:
    """The variables of each analysis that have a mean, with their own axes, as the first shard of it has them."""
    cells = Cells(store)
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in cells.names:
        each = (rows for key in cells.entries if (rows := cells.rows(key, name)) is not None)
        rows = next(each, xr.Dataset())
        found[name] = {str(one): tuple(map(str, variable.dims[1:])) for one, variable in rows.data_vars.items()}
    return found
