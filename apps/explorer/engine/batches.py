"""The runs of experiment batches in a folder of this machine: how far each is, what came out, resumed and cancelled.

The page never computes a batch itself: whoever resumes one starts `workbench batch resume` in a process of its own,
which goes on when the page's server ends. What is shown is read from the store, and kept until the store has changed.
"""

import contextlib
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import xarray as xr

from apps.batches.report import report
from workbench.batch.runs import Batch, open_batch
from workbench.batch.state import State, sign, state_of, with_workers
from workbench.batch.store import Store
from workbench.batch.values import kept, tables
from workbench.children import own_python
from workbench.errors import InputError, WorkbenchError

__all__ = ["Batches", "Cell", "Known", "Process", "begin"]

_KEPT = 24  # aggregates and tables, of all runs


class Process(Protocol):
    """A resumed run, as `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Its exit code; None while it works."""


Begin = Callable[[Path, bool], Process]


@dataclass(frozen=True)
class Known:
    """What is known of a run. sentence: why it cannot be read, or how the process ended that resumed it; "" otherwise.

    works: whether somebody is at it.
    """

    name: str
    state: State | None
    works: bool = False
    sentence: str = ""


@dataclass(frozen=True)
class Cell:
    """A prompt of a run, to be opened: the model's name or folder, ids, parameters by analysis, interventions."""

    model: str
    weights: str
    ids: tuple[int, ...]
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    edits: tuple[str, ...] = ()
    seed: int = 0


class Batches:
    """The runs below a folder. begin: starts a process that goes on with one."""

    def __init__(self, folder: Path | None, begin: Begin, allow_network: bool = False) -> None:
        self.folder, self._begin, self._network = folder, begin, allow_network
        self._lock = threading.Lock()  # of what is kept
        self._making: dict[tuple[str, ...], threading.Lock] = {}
        self._processes: dict[str, Process] = {}
        self._refused: dict[str, str] = {}  # why a run could not be resumed or cancelled
        self._kept: OrderedDict[tuple[str, ...], tuple[str, Any]] = OrderedDict()

    def names(self) -> list[str]:
        """Of all runs, the one that changed last first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        plans = [path for path in self.folder.glob("*/plan.json") if path.is_file()]
        return [path.parent.name for path in sorted(plans, key=_changed, reverse=True)]

    def open(self, name: str) -> Batch:
        """A run by its name. Raises InputError where there is none, and as `batch.open` does."""
        if self.folder is None or name not in self.names():
            raise InputError(f"the run {name!r}", "one of the list", "Choose it there")
        return open_batch(self.folder / name)

    def known(self, name: str) -> Known:
        """How far a run is; one that cannot be read says why."""
        try:
            counted: State = self._once((name, "state"), lambda found: state_of(found.store))
            state = with_workers(counted, self.open(name).store)
        except WorkbenchError as error:
            return Known(name, None, False, str(error))
        process = self._processes.get(name)
        code = None if process is None else process.poll()
        goes = process is not None and code is None
        ended = self._refused.get(name, "")
        if code and state.done < state.shards and not state.wants_stop:  # at its end it is 1 where prompts failed
            ended = f"It stopped: {self._last_words(name)}"
        return Known(name, state, bool(state.workers) or goes, ended)

    def _last_words(self, name: str) -> str:
        assert self.folder is not None
        log = Store(self.folder / name).path("resume.log")
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1].removeprefix("workbench: ") if lines else "without a word"

    def resume(self, name: str) -> None:
        """Go on with a run, in a process of its own; nothing where somebody is at it. `known` says what went wrong."""
        if self.known(name).works:
            return
        with self._told(name):
            self._processes[name] = self._begin(self.open(name).folder, self._network)

    def cancel(self, name: str) -> None:
        """Ask whoever is at a run to stop. `known` says what went wrong."""
        with self._told(name):
            self.open(name).cancel()

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        self._refused.pop(name, None)
        try:
            yield
        except (WorkbenchError, OSError) as error:
            self._refused[name] = str(error)

    def aggregate(self, name: str, analysis: str, variable: str) -> xr.Dataset:
        """Means of a variable, and its null, over what is done so far, for one drawing; others of the analysis may be
        there. Raises InputError for an analysis that the run has not."""
        only = (variable, f"{variable}_null")
        return self._once(
            (name, "aggregate", analysis, variable), lambda found: kept.aggregate(found.store, analysis, only)
        )

    def variables(self, name: str) -> dict[str, dict[str, tuple[str, ...]]]:
        """The variables of each analysis with their own axes, see `tables.variables`."""
        return self._once((name, "variables"), lambda found: tables.variables(found.store))

    def table(self, name: str, head: tuple[int, int] | None = None) -> pd.DataFrame:
        """One row a prompt, see `tables.table`."""
        return self._once((name, "table", str(head)), lambda found: tables.table(found.store, head))

    def failures(self, name: str) -> list[dict[str, str]]:
        """What failed and what was refused, each with its reason."""
        return self._once((name, "failures"), lambda found: found.failures)

    def report(self, name: str) -> str:
        """The report of what is done so far, one HTML page."""
        return self._once((name, "report"), report)

    def _once(self, key: tuple[str, ...], make: Callable[[Batch], Any]) -> Any:
        """What was made when the store was as it is now, or made now; of each kind by one thread at a time."""
        found = self.open(key[0])
        with self._lock:
            mine = self._making.setdefault(key, threading.Lock())
        with mine:
            now = sign(found.store)
            with self._lock:
                kept = self._kept.get(key)
            if kept is None or kept[0] != now:
                kept = now, make(found)
            with self._lock:
                self._kept[key] = kept
                self._kept.move_to_end(key)
                while len(self._kept) > _KEPT:
                    self._making.pop(self._kept.popitem(last=False)[0], None)
            return kept[1]

    def sign(self, name: str) -> str:
        """Changes with whatever is planned or finished."""
        return sign(self.open(name).store)

    def cell(self, name: str, row: int) -> Cell:
        """The prompt of a row of the table. Raises InputError where there is no such row."""
        found = self.open(name)
        line, ids, columns = found.prompt(row)
        model = next((one for one in found.spec.models if one.title == line["model"]), None)
        record = next((one for one in found.record["models"] if one["label"] == line["model"]), None)
        if model is None or record is None:
            raise found.store.damaged("prompts.jsonl", f"the model {line['model']!r} is none of its plan")
        params = {
            one.name: {**one.params, **{parameter: columns[column] for parameter, column in one.columns.items()}}
            for one in found.spec.analyses
        }
        return Cell(
            str(model.name or model.folder), record["weights"], ids, params, found.spec.interventions, found.spec.seed
        )


def _changed(plan: Path) -> float:
    """When something was planned or finished, seconds since 1970; 0 for a run that was removed meanwhile."""
    times = []
    for path in (plan, plan.with_name("ledger.jsonl")):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times, default=0.0)


def begin(folder: Path, allow_network: bool = False) -> Process:
    """`workbench batch resume FOLDER` in a process of its own, which writes to resume.log there."""
    words, environment = own_python("-m", "apps.cli", "batch", "resume", str(folder.resolve()))
    with open(Store(folder).path("resume.log"), "wb") as log:
        return subprocess.Popen(
            [*words, *(["--allow-network"] if allow_network else [])],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment,
        )  # fmt: skip
