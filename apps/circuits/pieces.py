"""Pieces of the table: one ranking of one task on some test pairs. Each is a line of JSON, kept at once."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.circuits.graph.faithfulness import Measured, metrics
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.rankings import forwards, rank
from probes.circuits.graph.selection import BUDGETS, calibrated, n_edges, ordered, select
from probes.circuits.graph.tasks import Task, task
from workbench.errors import InputError
from workbench.models.model import Model

__all__ = ["PIECE", "ROWS", "SEED", "TASKS", "Row", "measure", "read"]

TASKS = ("indirect object", "greater than", "agreement")
RANKED, CALIBRATED, TESTED, PIECE = 40, 8, 100, 20  # pairs to rank on, to choose by, to test on, and of one piece
EDGES = 123_211  # of the default model
SEED = 1  # of the pairs: what was tried while this was written saw those of seed 0


@dataclass(frozen=True)
class Row:
    """One row of the table: a ranking, and how its circuits are chosen."""

    ranking: str
    selection: str = "absolute"
    refill: bool = True
    ranked: int = 20
    calibrated: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.ranking}, {self.selection}{', refilled' if self.refill else ''}"

    @property
    def asked(self) -> list[int]:
        """What else a piece of it depends on."""
        return [SEED, RANKED, CALIBRATED, TESTED, self.ranked, self.calibrated]

    @property
    def cost(self) -> float:
        """In bare forward passes a pair."""
        # A circuit costs about two forwards: eight are measured, the model and no edge on every pair that calibrates.
        return forwards(self.ranking, EDGES, self.ranked) + (2 * 8 + 4) * self.calibrated / self.ranked

    def circuits(self, model: Model, pairs: Task) -> list[np.ndarray]:
        """By budget, without the last, which is the model."""
        graph, scores = Graph.of(model.sizes), rank(model, pairs.train[: self.ranked], self.ranking)
        if self.calibrated:
            measured = Measured(model, pairs.validation[: self.calibrated])
            return calibrated(graph, scores, measured.faithfulness, BUDGETS[:-1])
        order = ordered(graph, scores, self.selection)
        return [select(graph, order, n_edges(b, graph), refill=self.refill) for b in BUDGETS[:-1]]


ROWS = (
    Row("RelP", "calibrated", ranked=40, calibrated=8),
    Row("EAP-IG", refill=False),
    Row("EAP", refill=False),
    Row("RelP", "mixed"),
    Row("EAP-IG"),
    Row("EAP-IG", "calibrated", ranked=40, calibrated=8),
    Row("edge pruning", ranked=40),
    Row("routes"),
    Row("random"),
)


def read(path: Path) -> list[dict[str, Any]]:
    """Pieces that are there; a torn last line is none."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def measure(model: Model, name: str, rows: Any, path: Path) -> Iterator[str]:
    """Measure what is missing of a task, and append it; yields what was done."""
    _need_same_model(model, path)
    asked = {row.name: row.asked for row in rows}
    done = {(p["task"], p["row"], p["start"]) for p in read(path) if p["asked"] == asked.get(p["row"])}
    starts = range(0, TESTED, PIECE)
    if all((name, row.name, start) in done for row in rows for start in starts):
        return
    same = [SEED, RANKED, CALIBRATED, TESTED]  # pairs, whatever the row
    pairs, graph = task(model, name, train=RANKED, validation=CALIBRATED, test=TESTED, seed=SEED), Graph.of(model.sizes)
    ends = {p["start"]: p for p in read(path) if p["task"] == name and p["asked"][:4] == same}
    for row in rows:
        missing = [start for start in starts if (name, row.name, start) not in done]
        if not missing:
            continue
        circuits = row.circuits(model, pairs)
        for start in missing:
            piece = _piece(model, graph, pairs, row, circuits, start, ends.get(start))
            torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
            with open(path, "a", encoding="utf-8") as file:
                file.write("\n" * torn + json.dumps(piece) + "\n")
            yield f"{name}: {row.name}, pairs {start} to {start + PIECE - 1}"


def _need_same_model(model: Model, path: Path) -> None:
    """A table is of one model, by its weights and settings: pieces of two must not be averaged."""
    if others := sorted({str(piece["model"]) for piece in read(path)} - {model.identity.key}):
        raise InputError(
            f"pieces in {path} of another model ({others[0][:12]}) than {model.name} ({model.identity.key[:12]})",
            "pieces of the same weights and settings", "Keep these elsewhere (--pieces), or remove that file",
        )  # fmt: skip


def _piece(
    model: Model,
    graph: Graph,
    pairs: Task,
    row: Row,
    circuits: list[np.ndarray],
    start: int,
    ends: dict[str, Any] | None,
) -> dict[str, Any]:
    """ends: a piece of another row on the same pairs, whose measures of the model and of no edge stand for this one."""
    some = pairs.test[start : start + PIECE]
    if ends is None:
        none, *kept, whole = metrics(model, some, [np.zeros(graph.shape, bool), *circuits, graph.exists])
    else:
        none, whole, kept = np.array(ends["empty"]), np.array(ends["metrics"][-1]), list(metrics(model, some, circuits))
    return {
        "task": pairs.name, "row": row.name, "start": start, "asked": row.asked, "model": model.identity.key,
        "kept": [int(mask.sum()) for mask in circuits] + [graph.n_edges], "empty": none.round(5).tolist(),
        "metrics": np.stack([*kept, whole]).round(5).tolist(),
    }  # fmt: skip
