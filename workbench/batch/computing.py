"""One shard: its prompts through the one runner, batch by batch, and the file of what came out.

The file has one group an analysis: rows of float32 (prompt, ...), which are the smallest partials there are: of one
prompt each, they merge into any grouping. Whole results, where they are kept, stand in groups below.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.results import checked, stamp
from workbench.analysis.run import Failure, outcomes
from workbench.batch.cells import Asked, bound
from workbench.batch.shards import Shard
from workbench.batch.store import Entry, Store
from workbench.batch.values.rows import Rows
from workbench.batch.walk import Halved, walked
from workbench.errors import InputError, WorkbenchError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.storage.apart import vouched
from workbench.storage.netcdf import DEPTH, group_of

__all__ = ["Found", "computed", "encoded", "result_of", "rows_of", "written"]

_MOST = 1 << 40  # bytes of a shard that is read: memory ends before
Told = Callable[[float], None]  # the share of a shard that is done; raises to cancel


@dataclass
class Found:
    """What came out of a shard.

    rows: by analysis, one a prompt that did not fail; results: whole, where they are kept. failed: sentence by cell.
    """

    rows: dict[str, Rows]
    results: dict[str, list[xr.Dataset | None]]
    keeps: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    halved: int = 0
    seconds: float = 0.0


def computed(
    shard: Shard,
    asked: Sequence[Asked],
    told: Told | None = None,
    *,
    results: bool = False,
    allow_network: bool = False,
) -> Found:
    """Compute a shard. asked: its analyses, on a model that carries the interventions. results: keep whole ones too.

    A prompt that fails is recorded and the others go on; a batch that does not fit into memory is halved.
    """
    began = time.perf_counter()
    n = shard.n_prompts
    found = Found({one.name: Rows(n) for one in asked}, {one.name: [None] * n for one in asked}, results)
    if shard.ids is None:
        for outcome in outcomes(asked[0].model, None, [asked[0].analysis], progress=told, allow_network=allow_network):
            if outcome.complete:
                _keep(found, shard, asked, 0, 0, outcome.result)
    else:
        _prompts(shard, asked, found, told, allow_network)
    for name, cells in zip(shard.analyses, shard.cells, strict=True):
        for i, cell in enumerate(cells):
            if not found.rows[name].has(i):
                found.failed.setdefault(cell, f"{name} ended without a result")
    found.seconds = time.perf_counter() - began
    return found


def _prompts(shard: Shard, asked: Sequence[Asked], found: Found, told: Told | None, allow_network: bool) -> None:
    """Every prompt of a shard that can be read, pass by pass."""
    assert shard.ids is not None, "a shard of prompts"
    rows: list[tuple[int, Tokens, list[Any]]] = []
    for i, ids in enumerate(shard.ids):
        try:
            own = [bound(one.analysis, one.columns, shard.columns[i]) for one in asked]
            rows.append((i, tokenise(asked[0].model, Prompt.ids(ids)), own))
        except WorkbenchError as error:
            found.failed |= {cells[i]: str(error) for cells in shard.cells}
    index = {one.name: n for n, one in enumerate(asked)}
    halved: Halved = []
    results = walked(
        asked[0].model, [row[1] for row in rows], [row[2] for row in rows], batch_tokens=shard.batch_tokens,
        progress=told, allow_network=allow_network, halved=halved,
    )  # fmt: skip
    for at, outcome in results:
        _keep(found, shard, asked, rows[at][0], index[outcome.analysis.name], outcome.result)
    found.halved = len(halved)


def _keep(
    found: Found, shard: Shard, asked: Sequence[Asked], row: int, index: int, result: "xr.Dataset | Failure"
) -> None:
    if isinstance(result, Failure):
        found.failed[shard.cells[index][row]] = result.sentence
        return
    one = asked[index]
    found.rows[one.name].put(row, one.reduction.row(one.analysis.averaged(result)))
    if found.keeps:
        found.results[one.name][row] = result
    found.failed.pop(shard.cells[index][row], None)  # of a batch that was halved


def written(store: Store, shard: Shard, asked: Sequence[Asked], found: Found) -> Entry:
    """Write what came out of a shard and its line in the ledger."""
    model = asked[0].model
    made_by = stamp(model.identity.device, model.identity.dtype)
    attrs = {"shard": shard.key, "model": json.dumps(_identity(model)), "stamp": json.dumps(made_by)}
    groups = {"/": xr.Dataset(attrs=attrs)}
    for one in asked:
        rows = found.rows[one.name].dataset()
        if rows is not None:
            groups[f"/rows/{one.name}"] = rows
        for i, result in enumerate(found.results[one.name]):
            if result is not None:
                groups[f"/results/{one.name}/{i}"] = result
    content = encoded(groups)
    store.write_bytes(f"shards/{shard.key}.nc", content)
    vouched(content, groups=DEPTH)
    cells = dict(zip(shard.analyses, map(list, shard.cells), strict=True))
    entry = Entry(
        shard.key, store.sha256(shard.key), cells, found.failed, found.seconds, shard.n_tokens, found.halved, made_by
    )
    store.append(entry)
    return entry


def encoded(groups: Mapping[str, xr.Dataset]) -> bytes:
    """Groups of one netCDF file, made in memory: HDF5 on a disk that fills crashes the process."""
    floats = {
        place: {name: {"_FillValue": None} for name, v in group.variables.items() if v.dtype.kind == "f"}
        for place, group in groups.items()
    }
    return bytes(xr.DataTree.from_dict(groups).to_netcdf(None, engine="h5netcdf", encoding=floats))


def _identity(model: Model) -> dict[str, Any]:
    return {name: getattr(model.identity, name) for name in model.identity.__dataclass_fields__}


def rows_of(store: Store, key: str, analysis: str, n: int) -> xr.Dataset | None:
    """The rows of an analysis in a finished shard of n prompts, (prompt, ...), in memory; None where it has none.

    Raises UnavailableError where they are not what `written` writes.
    """
    rows = _opened(store, key, f"rows/{analysis}")
    if rows is None:
        return None
    try:
        left = json.loads(rows.attrs["left_out"])
        fits = isinstance(left, dict) and all(isinstance(why, str) for why in left.values())
    except (KeyError, ValueError, RecursionError, TypeError):
        fits = False
    if not fits or not all(_is_row(variable, n) for variable in rows.data_vars.values()):
        raise store.damaged(f"shards/{key}.nc", f"other rows of {analysis} than those of {n} prompts")
    return rows


def _is_row(variable: xr.DataArray, n: int) -> bool:
    numbers = all(isinstance(variable.attrs.get(name), int | float | np.number) for name in ("valid_min", "valid_max"))
    texts = all(isinstance(variable.attrs.get(name), str) for name in ("units", "long_name"))
    return variable.dtype.kind == "f" and variable.dims[:1] == ("prompt",) and len(variable) == n and numbers and texts


def result_of(store: Store, key: str, analysis: str, row: int) -> xr.Dataset | None:
    """The whole result of a row, in memory; None where it was not kept. Raises UnavailableError where it is none."""
    found = _opened(store, key, f"results/{analysis}/{row}")
    try:
        return None if found is None else checked(found)
    except InputError as error:
        raise store.damaged(f"shards/{key}.nc", error) from error


def _opened(store: Store, key: str, group: str) -> xr.Dataset | None:
    try:
        return group_of(store.backing.read(f"shards/{key}.nc", _MOST), group)
    except InputError as error:
        raise store.damaged(f"shards/{key}.nc", error) from error
