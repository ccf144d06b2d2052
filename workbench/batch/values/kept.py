"""Aggregates that a run left in `aggregates/`: taken where they are of the very prompts and shards that are there now.

To merge thousands of prompts and to draw their intervals takes seconds; what was merged is read in milliseconds. The
bytes of every shard are held to the ledger in either case.
"""

from collections.abc import Collection
from pathlib import Path

import xarray as xr

from workbench.analysis.results import open_result, save
from workbench.batch.store import Store
from workbench.batch.values import merge
from workbench.batch.values.places import Cells
from workbench.errors import InputError, UnavailableError
from workbench.files import read_whole, unsealed
from workbench.storage.apart import vouched
from workbench.storage.inspection import MOST_BYTES

__all__ = ["aggregate", "keep"]


def aggregate(store: Store, analysis: str, only: Collection[str] | None = None) -> xr.Dataset:
    """As `merge.aggregate`, read where it is kept and nothing has changed since; it then has more than `only`."""
    cells = Cells(store)
    found = _kept(cells, analysis) if analysis in cells.names else None
    return merge.aggregate(store, analysis, cells, only) if found is None else found


def keep(store: Store, analysis: str) -> Path:
    """Write the aggregate of an analysis to `aggregates/`, where it does not stand there as it is; one writer."""
    cells = Cells(store)
    store.path("aggregates")
    path = store.path("aggregates", f"{analysis}.nc")
    if _kept(cells, analysis) is None:
        save(merge.aggregate(store, analysis, cells), path)
        vouched(unsealed(read_whole(path, MOST_BYTES))[0])  # our own: no other process has to look through it
    return path


def _kept(cells: Cells, analysis: str) -> xr.Dataset | None:
    cells.store.path("aggregates")
    path = cells.store.path("aggregates", f"{analysis}.nc")
    if not path.is_file():
        return None
    try:
        if not unsealed(read_whole(path, MOST_BYTES))[1]:  # damaged, or written by another program
            return None
        found = open_result(path)
    except (InputError, UnavailableError):  # damaged: merged again
        return None
    return found if found.attrs.get("provenance") == merge.provenance(cells, analysis) else None
