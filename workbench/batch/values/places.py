"""Where each cell of a store's plan is: which of its shards are finished, and what stands in their rows."""

from collections.abc import Iterator
from typing import Any

import xarray as xr

from workbench.batch.computing import rows_of
from workbench.batch.store import Entry, Store

__all__ = ["Cells", "Places"]

Places = dict[str, tuple[str, int]]


class Cells:
    """Where each cell of a store's plan is: its shard and row. An analysis's rows are read shard by shard."""

    def __init__(self, store: Store):
        self.store = store
        self.record = store.plan()
        self.finished = store.finished()
        # By key, not by when they were planned: sums in another order differ in their last bits
        order = sorted(key for key in self.record["shards"] if key in self.finished)
        self.entries: dict[str, Entry] = {key: self.finished[key] for key in order}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the analyses."""
        return tuple(one["name"] for one in self.record["spec"]["analyses"])

    @property
    def edits(self) -> tuple[str, ...]:
        """What every pass was run with, as the spec says it."""
        return tuple(self.record["spec"].get("interventions", ()))

    def places(self, analysis: str) -> Places:
        """Shard and row of every cell of an analysis that came out."""
        found: Places = {}
        for key, entry in self.entries.items():
            for row, cell in enumerate(entry.cells.get(analysis, ())):
                if cell not in entry.failed:
                    found.setdefault(cell, (key, row))
        return found

    def failed(self) -> dict[str, str]:
        """Sentences of cells that failed and came out nowhere."""
        found: dict[str, str] = {}
        for entry in self.entries.values():
            found |= entry.failed
        came_out = {c for e in self.entries.values() for cells in e.cells.values() for c in cells if c not in e.failed}
        return {cell: said for cell, said in found.items() if cell not in came_out}

    def asked(self, analysis: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Cell and line of every prompt of the plan that an analysis was asked of."""
        for line in self.lines():
            if analysis in line["cells"]:
                yield line["cells"][analysis], line

    def counted(self, analysis: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The same where a prompt counts once in a group of a model: of rows that differ only in columns which this
        analysis does not read (one clean prompt beside many corrupt ones) the first."""
        seen: set[tuple[str, str, str]] = set()
        for cell, line in self.asked(analysis):
            one = (line["model"], line["group"], cell)
            if one not in seen:
                seen.add(one)
                yield cell, line

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every prompt of the plan. Raises UnavailableError where one is of a model that the plan has not."""
        labels = {one["label"] for one in self.record["models"]}
        for line in self.store.prompts():
            if line["model"] not in labels:
                raise self.store.damaged("prompts.jsonl", f"the model {line['model']!r} is none of its plan")
            yield line

    def rows(self, key: str, analysis: str) -> xr.Dataset | None:
        """The rows of an analysis in a shard that is done; None where it has none."""
        n = len(self.entries[key].cells.get(analysis, ()))
        return rows_of(self.store, key, analysis, n) if n else None
