"""Aggregates that a run left in `aggregates/`: taken where they are of the very prompts and shards that are there now.

To merge thousands of prompts and to draw their intervals takes seconds; what was merged is read in milliseconds. The
bytes of every shard are held to the ledger in either case.
"""

from collections.abc import Collection

import xarray as xr

from workbench.analysis.results import checked
from workbench.batch.store import Store
from workbench.batch.values import merge
from workbench.batch.values.places import Cells
from workbench.errors import InputError
from workbench.files import unsealed
from workbench.storage.apart import vouched
from workbench.storage.inspection import MOST_BYTES
from workbench.storage.netcdf import decoded, encoded

__all__ = ["aggregate", "keep"]


def aggregate(store: Store, analysis: str, only: Collection[str] | None = None) -> xr.Dataset:
    """As `merge.aggregate`, read where it is kept and nothing has changed since; it then has more than `only`."""
    cells = Cells(store)
    found = _kept(cells, analysis) if analysis in cells.names else None
    return merge.aggregate(store, analysis, cells, only) if found is None else found


def keep(store: Store, analysis: str) -> str:
    """Write the aggregate of an analysis to `aggregates/`, where it does not stand there as it is; one writer.

    Returns the name of the file in the store.
    """
    cells = Cells(store)
    name = _name(analysis)
    if _kept(cells, analysis) is None:
        content = encoded(merge.aggregate(store, analysis, cells))
        store.write_bytes(name, content)
        vouched(unsealed(content)[0])  # our own: no other process has to look through it
    return name


def _name(analysis: str) -> str:
    return f"aggregates/{analysis}.nc"


def _kept(cells: Cells, analysis: str) -> xr.Dataset | None:
    content = cells.store.read(_name(analysis), MOST_BYTES)
    try:
        if content is None or not unsealed(content)[1]:  # damaged, or written by another program
            return None
        found = checked(decoded(content))
    except InputError:  # damaged: merged again
        return None
    return found if found.attrs.get("provenance") == merge.provenance(cells, analysis) else None
