"""Aggregates and tables of what a store has: documents are merged in the order of their names, whatever was computed
when and in which shard (more than `BOOTSTRAPPED` as they come, where that moves no more than rounding).

Every document counts once in its group: pieces of one are averaged first. Intervals are over documents: of
`bootstrap_interval` up to `BOOTSTRAPPED` of them, above that `Partial.interval`, which is the same there.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.analysis.code import code_digest
from workbench.analysis.results import check
from workbench.batch.store import Store
from workbench.batch.values.partials import Partial
from workbench.batch.values.places import Cells, Places
from workbench.batch.values.rows import same_names
from workbench.batch.values.tables import summary
from workbench.errors import InputError
from workbench.statistics import bootstrap_interval

__all__ = ["BOOTSTRAPPED", "aggregate", "provenance"]

BOOTSTRAPPED = 10_000
_PIECE = 256  # documents that are folded together
_COLUMNS = 512  # numbers a document that are drawn together, and fewer of many documents:
_NUMBERS = 1 << 20  # of all documents, 8 MB


@dataclass
class _Group:
    """What is known of one variable in one group of one model.

    folded: of documents that are no longer among the values, once there are too many to draw from; in pieces: to fold
    them one by one would take most of an aggregate's time.
    """

    folded: Partial
    by_name: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    is_large: bool = False

    def add(self, document: str, value: NDArray[np.floating]) -> None:
        """One document."""
        self.by_name[document] = value
        if len(self.by_name) > (_PIECE if self.is_large else BOOTSTRAPPED):
            self.folded, self.by_name, self.is_large = self.partial, {}, True

    @property
    def values(self) -> list[NDArray[np.floating]]:
        """Of documents that are not folded, in the order of their names: which are drawn depends on their places."""
        return [self.by_name[document] for document in sorted(self.by_name)]

    @property
    def partial(self) -> Partial:
        """Of all documents."""
        return self.folded.merged(Partial.of(np.stack(self.values))) if self.by_name else self.folded


class _Pieces:
    """Sums of the pieces of one document, of which there may be thousands."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[NDArray[np.float64], NDArray[np.int32]]] = {}

    def add(self, values: Mapping[str, NDArray[np.floating]]) -> None:
        """One piece; NaN is missing."""
        for name, value in values.items():
            known = ~np.isnan(value)
            total, n = self._sums.setdefault(name, (np.zeros(value.shape), np.zeros(value.shape, np.int32)))
            np.add(total, value, out=total, where=known)
            np.add(n, known, out=n, casting="unsafe")

    @property
    def mean(self) -> dict[str, NDArray[np.float64]]:
        """Of each variable, over the pieces that have a value."""
        return {name: np.where(n > 0, total / np.maximum(n, 1), np.nan) for name, (total, n) in self._sums.items()}


def _intervals(own: Mapping[str, _Group], bounds: Mapping[str, tuple[float, float]]) -> dict[str, tuple[Any, Any]]:
    """Low and high of each variable of a group, 95 %; NaN of too few documents. bounds: between which values lie.

    Those that as many documents have are drawn together: to draw is most of the work, and is the same for all.
    """
    found: dict[str, tuple[Any, Any]] = {}
    together: dict[int, list[str]] = {}
    for name, one in own.items():
        if one.is_large:
            found[name] = one.partial.interval(*bounds[name])
        else:
            together.setdefault(len(one.by_name), []).append(name)
    for names in together.values():
        for some in _of_columns(names, own):
            flat = {name: np.stack([value.ravel() for value in own[name].values]) for name in some}
            shapes = {name: next(iter(own[name].by_name.values())).shape for name in some}
            ends = [np.repeat([bounds[name][end] for name in some], [flat[n].shape[1] for n in some]) for end in (0, 1)]
            low, high = bootstrap_interval(np.concatenate(list(flat.values()), axis=1), bounds=(ends[0], ends[1]))
            at = np.cumsum([columns.shape[1] for columns in flat.values()])[:-1]
            for name, *ends in zip(some, np.split(low, at), np.split(high, at), strict=True):
                least, most = (end.reshape(shapes[name]) for end in ends)
                found[name] = least, most
    return found


def _of_columns(names: Sequence[str], own: Mapping[str, _Group]) -> Iterator[list[str]]:
    """Names of variables that together have about `_COLUMNS` numbers a document, and `_NUMBERS` of all."""
    some: list[str] = []
    width = 0
    most = min(_COLUMNS, _NUMBERS // max(1, len(own[names[0]].by_name)))
    for name in names:
        size = next(iter(own[name].by_name.values())).size
        if some and width + size > most:
            yield some
            some, width = [], 0
        some.append(name)
        width += size
    yield some


def aggregate(
    store: Store, analysis: str, cells: Cells | None = None, only: Collection[str] | None = None
) -> xr.Dataset:
    """Means of an analysis over documents, with intervals, by model and group; of all that is there so far.

    Dims (model, group, ...); an axis `group` of the analysis itself is called `condition`. A variable x has x_low and
    x_high (95 % over documents) and x_n (documents that have it); `n_documents`, `n_prompts` and `n_missing` (not
    computed yet, or failed) say how much is behind it; `model_step` is there where the spec says steps.
    attrs["left_out"] says why other variables have no mean. cells: of the store, where they are known. only: variables,
    where the others are not asked for: intervals are most of the work.
    """
    cells = cells or Cells(store)
    if analysis not in cells.names:
        known = ", ".join(cells.names)
        raise InputError(f"the analysis {analysis!r} of this batch", f"one of {known}", "Correct the name")
    merged = _Merged(cells, analysis, only)
    return check(merged.dataset())


class _Merged:
    def __init__(self, cells: Cells, analysis: str, only: Collection[str] | None):
        self.cells, self.analysis, self.only = cells, analysis, only
        self.like: dict[str, xr.DataArray] = {}
        self.left_out: dict[str, str] = {}
        self.groups: dict[tuple[str, str], dict[str, _Group]] = {}
        self.counts: dict[tuple[str, str], list[int]] = {}  # prompts, documents, missing
        self._merge()

    def _merge(self) -> None:
        places = self.cells.places(self.analysis)
        by_shard, many = self._members(places)
        waiting: dict[tuple[str, str, str], _Pieces] = {}
        for key in self.cells.entries:
            rows = self.cells.rows(key, self.analysis) if key in by_shard else None
            if rows is None:
                continue
            if self.only is not None:
                rows = rows[[name for name in rows.data_vars if name in self.only]]
            self._learn(rows)
            arrays = {str(name): rows[name].values for name in rows.data_vars}
            for row, (model, group, document) in by_shard[key]:
                values = {name: array[row] for name, array in arrays.items()}
                if many[model, group, document] == 1:
                    self._add(model, group, document, values)
                else:
                    waiting.setdefault((model, group, document), _Pieces()).add(values)
        for (model, group, document), pieces in waiting.items():
            self._add(model, group, document, pieces.mean)

    def _members(self, places: Places) -> tuple[dict[str, list[tuple[int, tuple[str, str, str]]]], dict[Any, int]]:
        """By shard the rows that are wanted and the documents that they belong to; pieces by document."""
        by_shard: dict[str, list[tuple[int, tuple[str, str, str]]]] = {}
        many: dict[Any, int] = {}
        for cell, line in self.cells.counted(self.analysis):
            counts = self.counts.setdefault((line["model"], line["group"]), [0, 0, 0])
            place = places.get(cell)
            if place is None:
                counts[2] += 1
                continue
            member = (line["model"], line["group"], line["document"])
            counts[0] += 1
            counts[1] += member not in many
            many[member] = many.get(member, 0) + 1
            by_shard.setdefault(place[0], []).append((place[1], member))
        return by_shard, many

    def _learn(self, rows: xr.Dataset) -> None:
        self.left_out |= json.loads(rows.attrs.get("left_out", "{}"))
        for name, variable in rows.data_vars.items():
            one = variable.isel(prompt=0)
            one = one.rename({dim: "condition" for dim in one.dims if dim == "group"})  # groups are of prompts here
            like = self.like.setdefault(str(name), one)
            if one.dims != like.dims or one.shape != like.shape or not _same_coords(one, like):
                self.left_out[str(name)] = "its axes differ from prompt to prompt, or from model to model"

    def _add(self, model: str, group: str, document: str, values: Mapping[str, NDArray[np.floating]]) -> None:
        own = self.groups.setdefault((model, group), {})
        for name, value in values.items():
            if name in self.left_out:
                own.pop(name, None)
                continue
            if name not in own:
                own[name] = _Group(Partial.empty(value.shape))
            own[name].add(document, value)

    def dataset(self) -> xr.Dataset:
        """As `aggregate` says."""
        models = [one["label"] for one in self.cells.record["models"]]
        groups = list(dict.fromkeys(group for _, group in self.counts)) or [""]
        made: dict[str, xr.DataArray] = {}
        coords = {"model": models, "group": groups}
        bounds = {name: (like.attrs["valid_min"], like.attrs["valid_max"]) for name, like in self.like.items()}
        intervals = {at: _intervals(own, bounds) for at, own in self.groups.items()}
        for name in (name for name in self.like if name not in self.left_out):
            made |= self._variable(name, models, groups, intervals)
        for i, (name, what) in enumerate(_COUNTS.items()):
            values = [[self.counts.get((m, g), [0, 0, 0])[i] for g in groups] for m in models]
            attrs = {"units": what[0], "long_name": what[1], "valid_min": 0.0, "valid_max": np.inf}
            made[name] = xr.DataArray(values, dims=("model", "group"), attrs=attrs)
        found = xr.Dataset(made, coords=coords)
        steps = [one["step"] for one in self.cells.record["models"]]
        if any(step is not None for step in steps):
            found = found.assign_coords(model_step=("model", [np.nan if step is None else step for step in steps]))
        return found.assign_attrs(self._attrs())

    def _variable(
        self, name: str, models: list[str], groups: list[str], intervals: Mapping[tuple[str, str], Mapping[str, Any]]
    ) -> dict[str, xr.DataArray]:
        like = self.like[name]
        shape = (len(models), len(groups), *like.shape)
        dims, attrs = ("model", "group", *map(str, like.dims)), dict(like.attrs)
        mean, low, high = (np.full(shape, np.nan) for _ in range(3))
        n = np.zeros(shape, np.int64)
        for (model, group), variables in self.groups.items():
            if name in variables:
                at = models.index(model), groups.index(group)
                partial = variables[name].partial
                mean[at], n[at] = partial.known_mean, partial.n
                ends = intervals[model, group][name]
                low[at], high[at] = np.maximum(ends[0], attrs["valid_min"]), np.minimum(ends[1], attrs["valid_max"])
        made = {}
        for suffix, values in (("", mean), ("_low", low), ("_high", high)):
            made[name + suffix] = xr.DataArray(values, dims=dims, coords=like.coords, attrs=attrs)
        counted = {"units": "documents", "long_name": f"documents with {name}", "valid_min": 0.0, "valid_max": np.inf}
        made[f"{name}_n"] = xr.DataArray(n, dims=dims, coords=like.coords, attrs=counted)
        return made

    def _attrs(self) -> dict[str, Any]:
        n, documents, missing = (sum(c[i] for c in self.counts.values()) for i in range(3))
        models, prompted = len({model for model, _ in self.counts}), any(group for _, group in self.counts)
        said = summary(self.analysis, n, documents, missing, prompted, models, self.cells.edits)
        if self.only is None and self.left_out and not set(self.like) - set(self.left_out):
            said += f" No number of it has a mean here: {'; '.join(sorted(set(self.left_out.values())))}."
        return {
            "title": f"{self.analysis}, {self.cells.record['spec']['name']}",
            "summary": said,
            "left_out": json.dumps(self.left_out, sort_keys=True),
            "provenance": provenance(self.cells, self.analysis),
        }


def provenance(cells: Cells, analysis: str) -> str:
    """What an aggregate is made of, as JSON: where two of these are equal, so are the aggregates."""
    record = cells.record
    return json.dumps(
        {
            "analysis": analysis,
            "batch": record["spec"]["name"],
            "spec": record["spec"],
            "models": record["models"],
            "prompts_sha256": cells.store.digest("prompts.jsonl"),
            "shards": {key: entry.sha256 for key, entry in cells.entries.items()},
            "stamps": sorted({json.dumps(entry.stamp, sort_keys=True) for entry in cells.entries.values()}),
            "interval": f"95 % over documents; bootstrap up to {BOOTSTRAPPED} of them",
            "code": code_digest(_Merged),
        },
        sort_keys=True,
    )


_COUNTS = {
    "n_prompts": ("prompts", "prompts that were computed"),
    "n_documents": ("documents", "documents that they belong to"),
    "n_missing": ("prompts", "prompts not computed yet, or failed"),
}


def _same_coords(one: xr.DataArray, like: xr.DataArray) -> bool:
    alike = all(np.array_equal(one[dim].values, like[dim].values) for dim in like.dims if dim in like.coords)
    return alike and same_names(one, like)
