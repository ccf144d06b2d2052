"""`run(spec)`, `plan(spec)` and `open(folder)`: what a user calls.

from probes import CATALOG
from workbench import batch

found = batch.run("heads.toml", catalog=CATALOG)      # the same again goes on, or has nothing to do
found.aggregate("attention-sinks")["sink"]            # (model, group, layer, head), with _low, _high and _n
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr
from annotated_types import Ge

from workbench.arguments import argument, fitted, shown
from workbench.batch import survey
from workbench.batch.cluster import Cluster
from workbench.batch.computing import result_of
from workbench.batch.engine import Progress, Status, work
from workbench.batch.estimate import Estimate, estimated, need_room
from workbench.batch.leases import PATIENCE
from workbench.batch.shards import Shard
from workbench.batch.spec import ModelSpec, Read, Spec, read_spec
from workbench.batch.store import Store
from workbench.batch.values import kept, tables
from workbench.batch.values.places import Cells
from workbench.errors import InputError, UnavailableError
from workbench.files import at_home
from workbench.models.model import Model
from workbench.words import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Batch", "Plan", "default_catalog", "open_batch", "plan", "run", "worker"]

Failures = Annotated[int, Ge(0)]
_GROUP = "workbench.catalog"  # entry points: where the analyses are that a spec may name


class Plan:
    """What a spec asks for beside what is done: `shards`, `n_prompts`, `estimate`, `print(plan)`."""

    def __init__(self, planned: survey.Planned, estimate: Estimate, store: Store, spec_text: str | None):
        self.planned, self.estimate, self.store, self._text = planned, estimate, store, spec_text

    @property
    def shards(self) -> int:
        """Left to be computed."""
        return len(self.planned.left)

    def write(self) -> None:
        """Make it what the store goes by. Raises RefusedError for a store that several workers could not share."""
        self.store.need_exclusive()
        survey.write_plan(self.planned, self.store, self._text)

    def __str__(self) -> str:
        p, e = self.planned, self.estimate
        models = ", ".join(one["label"] for one in p.models)
        analyses, left = ", ".join(a.name for a in p.spec.analyses), counted(self.shards, "shard")
        lines = [
            f"{p.spec.name}: {counted(p.n_prompts, 'prompt')} of {models}; {analyses}",
            f"{counted(p.n_cells, 'result')} asked for, {p.n_done:,} of them there; {left} left",
        ]
        if p.dropped:
            lines.append(f"{p.dropped:,} results are there that the spec does not ask for; they stay in the folder")
        if p.repeated:
            lines.append(f"{counted(p.repeated, 'repeated prompt')} of a group: counted once")
        lines += p.remarks
        if p.refused:
            lines.append(
                f"{counted(len(p.refused), 'prompt')} refused, the first: {p.refused[0].where}: {p.refused[0].reason}"
            )
        if self.shards:
            lines.append(f"about {_time(e.seconds)}, {e.memory / 1e9:.1f} GB of memory, {e.disk / 1e6:.1f} MB on disk")
        if e.assumed and self.shards:
            lines.append(f"assumed, not tried beforehand: the size of results of {', '.join(e.assumed)}")
        return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Batch:
    """A batch in a folder or below an address, whatever of it is done: counts, aggregates, rows, whole results,
    failures."""

    def __init__(self, folder: str | Path | Store):
        self.store = folder if isinstance(folder, Store) else Store(argument("folder", folder, str | Path, "Batch"))
        self.record = self.store.plan()
        self.spec = Spec.model_validate(self.record["spec"])

    @property
    def folder(self) -> Path:
        """Where it is. Raises RefusedError where that is no folder of this machine: then it has an `address`."""
        return self.store.folder

    @property
    def address(self) -> str:
        """What opens it again, with `batch.open` too."""
        return self.store.address

    @property
    def analyses(self) -> tuple[str, ...]:
        """Names of its analyses."""
        return tuple(one.name for one in self.spec.analyses)

    @property
    def n_shards(self) -> int:
        """In all."""
        return len(self.record["shards"])

    @property
    def n_done(self) -> int:
        """Shards that are computed and whose bytes are what was written."""
        finished = self.store.finished()
        return sum(key in finished for key in self.record["shards"])

    @property
    def failures(self) -> list[dict[str, str]]:
        """What failed and what was refused, each with its reason."""
        return tables.failures(Cells(self.store))

    @fitted()
    def aggregate(self, analysis: str) -> xr.Dataset:
        """Means over documents with intervals, (model, group, ...); see `merge.aggregate`."""
        return kept.aggregate(self.store, analysis)

    @property
    def summaries(self) -> dict[str, str]:
        """How many prompts are behind the means of each analysis, in a sentence; no value is looked at."""
        return tables.summaries(Cells(self.store))

    def table(self) -> "pd.DataFrame":
        """One row a prompt: where it came from, its status, and the scalars of every analysis."""
        return tables.table(self.store)

    @fitted()
    def rows(self, analysis: str, model: str | None = None) -> xr.Dataset:
        """The values of every prompt that is done, (prompt, ...), with `prompt_group`, `prompt_model` and more beside.

        model: of one model only, by its label. Raises InputError where nothing is done and for models of several
        sizes.
        """
        cells = Cells(self.store)
        places = cells.places(analysis)
        lines = [
            (places[cell], line)
            for cell, line in cells.asked(analysis)
            if cell in places and model in (None, line["model"])
        ]
        by_shard: dict[str, list[int]] = {}
        for number, ((key, _), _) in enumerate(lines):
            by_shard.setdefault(key, []).append(number)
        parts, order = [], []
        for key, numbers in by_shard.items():
            rows = cells.rows(key, analysis)
            if rows is not None and "prompt" in rows.dims:  # an analysis may have nothing that can be averaged
                parts.append(rows.isel(prompt=[lines[number][0][1] for number in numbers]))
                order += numbers
        if not parts:
            raise InputError(f"rows of {analysis!r}", f"one of {', '.join(self.analyses)} that is done", "Run it first")
        try:
            found = xr.concat(parts, "prompt", join="exact", combine_attrs="drop_conflicts")
        except ValueError as error:
            raise InputError(
                f"rows of {analysis} of models of several sizes", "one model", "Name it: model="
            ) from error
        names = ("model", "group", "document", "text", "where")
        beside = {f"prompt_{name}": ("prompt", [lines[number][1][name] for number in order]) for name in names}
        return found.assign_coords(beside).isel(prompt=np.argsort(order))

    @fitted()
    def result(self, analysis: str, prompt: int) -> xr.Dataset:
        """The whole result of a prompt, by its number in `table()`; InputError where whole results were not kept."""
        cells = Cells(self.store)
        asked = [line for line in self.store.prompts() if line["n"]]
        if not 0 <= prompt < len(asked):
            raise InputError(f"prompt {prompt}", f"0 to {len(asked) - 1}", "Take a number of the table")
        place = cells.places(analysis).get(asked[prompt]["cells"].get(analysis, ""))
        found = None if place is None else result_of(self.store, place[0], analysis, place[1])
        if found is None:
            raise InputError(
                f"no whole result of {analysis} for prompt {prompt}", "a run with keep.results = true", "Run it so"
            )
        return found

    @fitted()
    def prompt(self, number: int) -> tuple[dict[str, Any], tuple[int, ...], dict[str, str]]:
        """The line of a prompt by its number in `table()`, its token ids, and the columns of it that analyses read."""
        line = next(
            (one for i, one in enumerate(line for line in self.store.prompts() if line["n"]) if i == number), None
        )
        if line is None:
            raise InputError(f"prompt {number}", "a number of the table", "Take one")
        wanted = set(line["cells"].values())
        for key in self._holders(wanted):
            shard = self.store.shard(key)
            for cells in shard.cells:
                found = next((row for row, cell in enumerate(cells) if cell in wanted), None)
                if found is not None and shard.ids is not None:
                    return line, shard.ids[found], dict(shard.columns[found])
        raise UnavailableError(f"the tokens of prompt {number}", "a shard that holds them", "Run again from the spec")

    def _holders(self, wanted: set[str]) -> list[str]:
        """Shards that may hold a cell: a finished one says so in the ledger, of the others each has to be looked at."""
        known = {one.shard: any(wanted & set(cells) for cells in one.cells.values()) for one in self.store.ledger()}
        return [key for key in self.record["shards"] if known.get(key, True)]

    def save_aggregates(self) -> list[str]:
        """Write the final dataset of each analysis to `aggregates/`; one writer. Their names in the store."""
        return [kept.keep(self.store, name) for name in self.analyses]

    def cancel(self) -> None:
        """Ask whoever runs it to stop."""
        self.store.cancel()

    def __repr__(self) -> str:
        return f"<Batch {self.spec.name} in {self.store.title}: {self.n_done} of {self.n_shards} shards>"


def default_catalog() -> Any:
    """The analyses that are installed with the workbench, and those of installed packages."""
    found = next(iter(entry_points(group=_GROUP)), None)
    if found is None:
        raise UnavailableError(
            "no installed catalog of analyses", "one", "Pass catalog=CATALOG (`from probes import CATALOG`)"
        )
    return found.load().with_plugins()


def _catalog(given: Any) -> Any:
    """What has the analyses of a spec; InputError for what has none."""
    if given is None:
        return default_catalog()
    if isinstance(given, Mapping | type) or not callable(getattr(given, "get", None)):
        raise InputError(f"catalog={shown(given)}", "a catalog, such as probes.CATALOG", "Leave it out")
    return given


@fitted()
def plan(
    spec: "str | Path | Mapping[str, Any] | Spec",
    folder: str | Path | None = None,
    *,
    catalog: Any = None,
    models: Mapping[str, Model] | None = None,
    retry_failed: bool = False,
    allow_network: bool = False,
    base: Path | None = None,
) -> Plan:
    """What a spec asks for beside what is done in a folder; nothing is written.

    folder: of the store, or its address (`s3://bucket/runs/heads`), `runs/NAME` unless given. models: loaded ones by
    their labels, beside those that are loaded by name. retry_failed: count what failed as not done. base: what paths
    are relative to; the folder of the spec's file unless given. Raises InputError for a spec that does not fit,
    RefusedError for one that takes more memory or disk than there is, UnavailableError where the store cannot be read.
    """
    read = _read(spec, base)
    return _plan(read, folder, catalog, _loader(models, allow_network, read.folder), retry_failed, allow_network)


def _store(folder: str | Path | None, spec: Spec) -> Store:
    return Store(folder or Path("runs") / spec.name)


def _read(spec: Any, base: Path | None) -> Read:
    read = read_spec(spec)
    return read if base is None else read._replace(folder=base)


def _plan(read: Read, folder: Any, catalog: Any, load: survey.Loader, retry: bool, network: bool) -> Plan:
    store = _store(folder, read.spec)
    estimates = [Estimate()]

    def seen(asks: survey.Survey, shards: Sequence[Shard]) -> None:
        estimates.append(estimated(asks, shards, results=read.spec.keep.results))

    planned = survey.planned(
        read, _catalog(catalog), store, load, retry_failed=retry,
        allow_network=network, seen=seen,
    )  # fmt: skip
    total = sum(estimates[1:], estimates[0])
    need_room(total, read.spec.limits, store.folder if store.is_local else None)
    return Plan(planned, total, store, read.where.text or None)


@fitted()
def run(
    spec: "str | Path | Mapping[str, Any] | Spec",
    folder: str | Path | None = None,
    *,
    catalog: Any = None,
    models: Mapping[str, Model] | None = None,
    progress: Progress | None = None,
    said: Callable[[Plan], None] | None = None,
    max_failures: Failures | None = None,
    retry_failed: bool = False,
    allow_network: bool = False,
    base: Path | None = None,
    cluster: Cluster | None = None,
) -> Batch:
    """Run a spec, or go on where it was: what is there is not computed again, what is new is.

    Of two runs with different specs in one folder at once, the one that planned first is refused.

    Arguments as of `plan`. cluster: of Ray, whose actors compute it; else this process does. progress: is shown a
    `Status` as work goes on; said: is shown the plan. Raises as `plan`, Cancelled where somebody asked to stop,
    RefusedError after too many failures; finished shards are kept.
    """
    read = _read(spec, base)
    if cluster is not None:
        cluster.need()
    _store(folder, read.spec).need_exclusive()  # what cannot be kept is said before a model is loaded
    load = _loader(models, allow_network, read.folder)
    made = _plan(read, folder, catalog, load, retry_failed, allow_network)
    made.store.go_on()
    made.write()
    if said is not None:
        said(made)
    given = _catalog(catalog)
    how: dict[str, Any] = {"progress": progress, "max_failures": max_failures, "allow_network": allow_network}
    survey.need_own(made.planned, made.store)
    if cluster is None:
        work(made.store, given, load, **how)
    elif made.shards:
        cluster.work(worker, made.store, catalog=given, models=models, **how)
    survey.need_own(made.planned, made.store)
    done = Batch(made.store)
    done.save_aggregates()
    return done


@fitted()
def worker(
    folder: str | Path,
    *,
    catalog: Any = None,
    models: Mapping[str, Model] | None = None,
    progress: Progress | None = None,
    max_failures: Failures | None = None,
    allow_network: bool = False,
    patience: float = PATIENCE,
) -> Status:
    """Take shards of a planned batch until none is left, beside any number of others. Raises as `run`."""
    store = Store(folder)
    store.need_exclusive()
    home = Path(store.plan()["folder"])
    return work(
        store, _catalog(catalog), _loader(models, allow_network, home),
        progress=progress, max_failures=max_failures, allow_network=allow_network, patience=patience,
    )  # fmt: skip


def open_batch(folder: str | Path) -> Batch:
    """A batch that was planned or run in a folder, or below an address such as s3://bucket/runs/heads.

    Raises UnavailableError where there is none, and where the store cannot be reached.
    """
    return Batch(folder)


def _loader(models: Mapping[str, Model] | None, allow_network: bool, home: Path) -> survey.Loader:
    """What gives the model of a spec; it holds the last one, so that planning and running load it once."""
    held: dict[str, Model] = {}

    def load(one: ModelSpec) -> Model:
        if models is not None and one.title in models:
            return models[one.title]
        key = one.model_dump_json(exclude={"label", "step"})
        if key not in held:
            from workbench.loading.pretrained import load as load_model

            held.clear()
            near = home / at_home(one.folder or one.name or "")
            is_path = one.folder is not None or (near.exists() and ("/" in str(one.name) or near.suffix == ".gguf"))
            name = str(near) if is_path else str(one.name)
            dtype = getattr(torch, one.dtype)
            held[key] = load_model(
                name, dtype=dtype, device=one.device, revision=one.revision, allow_network=allow_network,
                device_map=one.device_map,
            )  # fmt: skip
        return held[key]

    return load
