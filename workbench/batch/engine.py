"""The engine: takes shards of a stored plan until none is left. `run` has one, and so has each `batch worker`.

Whoever takes a shard computes the same numbers; so two runners of one run share the work, and a worker that died costs
the shard that it was at.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.batch.cells import Asked, asked
from workbench.batch.computing import computed, written
from workbench.batch.leases import PATIENCE, Leases
from workbench.batch.shards import Shard
from workbench.batch.spec import Spec
from workbench.batch.store import Store
from workbench.batch.survey import Loader, edited
from workbench.errors import Cancelled, FileError, RefusedError, UnavailableError
from workbench.models.model import Model
from workbench.words import counted

__all__ = ["Progress", "Status", "work"]

Progress = Callable[["Status"], None]


@dataclass
class Status:
    """How far a run is.

    tokens, left: of prompts that are done and to be done by anybody; rate: tokens a second of this process, seconds: of
    work in it. failed: sentences by cell, of shards that this process has computed; of the whole run, whoever computed
    it, where their number is limited.
    """

    shards: int
    done: int = 0
    tokens: float = 0.0
    left: float = 0.0
    seconds: float = 0.0
    own: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the tokens, 0 to 1; of the shards while no tokens are known."""
        total = self.tokens + self.left
        if total:
            return self.tokens / total
        return self.done / self.shards if self.shards else 1.0

    @property
    def rate(self) -> float:
        """Tokens a second; 0 before anything is known."""
        return self.own / self.seconds if self.seconds > 0 else 0.0

    @property
    def time_left(self) -> float | None:
        """Seconds, None before anything is known."""
        return self.left / self.rate if self.rate > 0 else None


def work(
    store: Store,
    catalog: Any,
    load: Loader,
    *,
    progress: Progress | None = None,
    max_failures: int | None = None,
    allow_network: bool = False,
    patience: float = PATIENCE,
) -> Status:
    """Compute what the store's plan has left, with whoever else works at it; returns when nothing is left.

    Raises Cancelled where somebody asked to stop, RefusedError after more than max_failures failed cells of the run,
    whoever computed them; finished shards are kept in any case.
    """
    record = store.plan()
    spec = Spec.model_validate(record["spec"])
    todo, there = _todo(store, record)
    worker = _Worker(store, catalog, load, spec, record, allow_network)
    status = Status(len(record["shards"]), len(record["shards"]) - len(todo))
    status.tokens, status.left = float(there), sum(todo.values())
    leases = Leases(store.backing, patience)
    limit = spec.limits.max_failures if max_failures is None else max_failures
    look = _Look(store, record, limit)
    broken: FileError | None = None
    while todo:
        took = False
        for key in list(todo):
            look.need_going_on(status)
            with contextlib.ExitStack() as held:
                lease = leases.take(key)
                if lease is None:
                    continue
                held.enter_context(lease)
                took = True
                if store.has(key):
                    _of_another(key, todo, status)
                    continue
                try:
                    shard = store.shard(key)
                except FileError as error:  # the others go on, and the end says it
                    broken = broken or error
                    status.left -= todo.pop(key)
                    continue
                _compute(worker, shard, todo, status, look, progress)
        if todo and not took:
            _wait(store, todo, status, progress)
    if status.own:
        look.need_going_on(status)
    else:  # there was nothing that could be stopped
        look()
    if broken is not None:
        raise broken
    return status


def _todo(store: Store, record: dict[str, Any]) -> tuple[dict[str, int], int]:
    """The shards of a plan that are not finished, with their tokens, and the tokens of those that are; what they hold
    is read when it is computed."""
    sizes = record.get("tokens")
    if sizes is None or len(sizes) != len(record["shards"]):  # of an earlier build
        sizes = [None] * len(record["shards"])
    finished = store.finished()
    by_key = dict(zip(record["shards"], sizes, strict=True))
    left = {key: max(1, store.shard(key).n_tokens if n is None else n)
            for key, n in by_key.items() if key not in finished}  # fmt: skip
    return left, sum(max(1, n or 0) for key, n in by_key.items() if key in finished)


def _of_another(key: str, todo: dict[str, int], status: Status) -> None:
    """Count a shard that somebody else has finished."""
    weight = todo.pop(key)
    status.done += 1
    status.tokens, status.left = status.tokens + weight, status.left - weight


def _compute(
    worker: "_Worker", shard: Shard, todo: dict[str, int], status: Status, look: "_Look", progress: Progress | None
) -> None:
    weight, before, began = todo[shard.key], status.tokens, time.perf_counter()
    left, own, seconds = status.left, status.own, status.seconds

    def told(share: float) -> None:
        look()
        status.tokens, status.left, status.own = before + share * weight, left - share * weight, own + share * weight
        status.seconds = seconds + time.perf_counter() - began
        if progress is not None:
            progress(status)

    status.failed |= worker.compute(shard, told)
    del todo[shard.key]
    status.done += 1
    told(1.0)


def _wait(store: Store, todo: dict[str, int], status: Status, progress: Progress | None) -> None:
    """Until somebody else has finished a shard, or may be believed dead."""
    time.sleep(max(0.2, store.backing.pause))
    there = store.written()
    for key in list(todo):
        if key in there and store.has(key):
            _of_another(key, todo, status)
    if progress is not None:
        progress(status)


class _Look:
    """A look at the store: whether it is there, and whether somebody asked to stop. As often as its backing bears."""

    def __init__(self, store: Store, record: dict[str, Any], limit: int | None):
        self._store, self._limit, self._next, self._count = store, limit, 0.0, 0.0
        self._counted = set(record["shards"] if record.get("counted") is None else record["counted"])

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._store.need()
        if self._store.cancelled:
            raise Cancelled
        self._next = time.monotonic() + self._store.backing.pause

    def need_going_on(self, status: Status) -> None:
        """As a call, and RefusedError where too much has failed in the run, whoever computed it."""
        self()
        if self._limit is None:
            return
        if time.monotonic() >= self._count:
            status.failed = self._failed(self._limit)
            self._count = time.monotonic() + self._store.backing.pause
        if len(status.failed) > self._limit:
            first = next(iter(status.failed.values()))
            raise RefusedError(
                f"{counted(len(status.failed), 'failure')} in this run, the first: {first}",
                f"at most {self._limit}",
                "See `workbench batch status`; raise --max-failures to go on",
            )

    def _failed(self, limit: int) -> dict[str, str]:
        """What failed and, where that decides, came out in no other shard."""
        found = self._store.failed(self._counted)
        if len(found) <= limit:
            return found
        entries = self._store.ledger()
        came_out = {cell for e in entries for cells in e.cells.values() for cell in cells if cell not in e.failed}
        return {cell: why for cell, why in found.items() if cell not in came_out}


class _Worker:
    """Computes shards; holds one model at a time, and its analyses."""

    def __init__(self, store: Store, catalog: Any, load: Loader, spec: Spec, record: dict[str, Any], network: bool):
        self.store, self._catalog, self._load, self._spec = store, catalog, load, spec
        self._network = network
        self._record = record
        self._held: tuple[str, Model, list[Asked]] | None = None

    def compute(self, shard: Shard, told: Callable[[float], None]) -> dict[str, str]:
        """Compute and write a shard; sentences of what failed, by cell."""
        analyses = self._analyses(shard)
        keep = self._spec.keep.results
        found = computed(shard, analyses, told, results=keep, allow_network=self._network)
        self.store.need()
        return written(self.store, shard, analyses, found).failed

    def _analyses(self, shard: Shard) -> list[Asked]:
        if self._held is None or self._held[0] != shard.weights:
            self._held = None  # let go of the last model before the next one is there
            self._held = self._loaded(shard)
        by_name = {one.name: one for one in self._held[2]}
        found = [by_name[name] for name in shard.analyses]
        for one, cells in zip(found, shard.cells, strict=True):
            ids, columns = (None, {}) if shard.ids is None else (shard.ids[0], shard.columns[0])
            if one.cell(ids, columns) != cells[0]:
                raise RefusedError(
                    f"a plan that was made with other code, parameters or data for {one.name}",
                    "what is installed here to be what the plan was made with",
                    "Run `workbench batch run` with the spec again: it plans anew what has changed",
                )
        return found

    def _loaded(self, shard: Shard) -> tuple[str, Model, list[Asked]]:
        specs = {m["label"]: m["weights"] for m in self._record["models"]}
        one = next((m for m in self._spec.models if specs.get(m.title) == shard.weights), None)
        if one is None:
            raise UnavailableError(
                f"no model with the weights {shard.weights[:12]}", "one that the spec names", "Run from the spec again"
            )
        model = self._load(one)
        if model.identity.key != shard.weights:
            raise RefusedError(
                f"{one.title} with weights and settings {model.identity.key[:12]}",
                f"{shard.weights[:12]}, which the plan was made for",
                "Run from the spec again: it plans what the new weights need",
            )
        shortest = model.sizes.n_ctx
        if self._spec.interventions:
            shortest = min((line["n"] for line in self.store.prompts() if line["n"]), default=shortest)
        return shard.weights, model, asked(self._spec, self._catalog, edited(self._spec, model, shortest))
