"""Counts that grow over calls: what was done, and how often something happened of how many times."""

import json
from collections import defaultdict
from pathlib import Path

from workbench.files import whole_file

__all__ = ["Counts"]


class Counts:
    """Of every cell (`table | row | column`) how often it happened, and of how many; and which work is in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.done: list[str] = kept.get("done", [])
        self.cells: dict[str, list[int]] = defaultdict(lambda: [0, 0], kept.get("cells", {}))

    def add(self, table: str, row: str, column: str, happened: int, of: int) -> None:
        """Count."""
        cell = self.cells[f"{table} | {row} | {column}"]
        cell[0] += int(happened)
        cell[1] += int(of)

    def finish(self, work: str) -> None:
        """A piece of work is whole: keep everything."""
        self.done.append(work)
        with whole_file(self.path) as partial:
            text = json.dumps({"done": self.done, "cells": dict(sorted(self.cells.items()))}, indent=1)
            Path(partial).write_text(text + "\n", encoding="utf-8")

    def of(self, table: str) -> dict[str, dict[str, tuple[int, int]]]:
        """Rows and columns of one table."""
        found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        for name, (happened, of) in self.cells.items():
            which, row, column = name.split(" | ")
            if which == table:
                found[row][column] = (happened, of)
        return dict(found)
