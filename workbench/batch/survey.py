"""From a spec to what is left to do: models are loaded, rows become items, cells get keys, shards are dealt."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from workbench.batch.cells import Asked, asked, made
from workbench.batch.prompts.items import Items, Refused, collect
from workbench.batch.shards import Shard, dealt, missing
from workbench.batch.spec import MOST_BYTES, ModelSpec, Read, Spec, spec_of
from workbench.batch.store import FORMAT, Entry, Store, line_of
from workbench.errors import FileError, InputError, RefusedError
from workbench.intervene.text import MEAN_HOOKS, phrase
from workbench.models.model import Model
from workbench.observation.recording import Means, measure_means
from workbench.words import counted

__all__ = ["Planned", "Survey", "edited", "need_own", "planned", "write_plan"]

Loader = Callable[[ModelSpec], Model]


@dataclass(frozen=True)
class Survey:
    """What a spec asks of one model. cells: by analysis, one key an item."""

    label: str
    model: Model
    items: Items
    asked: Sequence[Asked]
    cells: Sequence[Sequence[str]]


@dataclass
class Planned:
    """A plan beside what is there already.

    shards: tokens of all that the spec wants, by key. left: those to be computed. lines: of prompts.jsonl, by model.
    counted: the shards whose failures `max_failures` counts; None: all. unspaced, noted: as of `Items`. unused: what to
    say of parameters that are given and mean nothing, by analysis. dropped: results that are there and that the spec
    does not ask for (any more).
    """

    spec: Spec
    folder: Path
    models: list[dict[str, Any]] = field(default_factory=list)
    shards: dict[str, int] = field(default_factory=dict)
    left: list[Shard] = field(default_factory=list)
    counted: list[str] | None = None
    refused: list[Refused] = field(default_factory=list)
    lines: list[Iterable[str]] = field(default_factory=list)
    n_prompts: int = 0
    n_cells: int = 0
    n_done: int = 0
    repeated: int = 0
    unspaced: tuple[int, str] = 0, ""
    noted: tuple[int, str] = 0, ""
    unused: tuple[str, ...] = ()
    dropped: int = 0

    @property
    def remarks(self) -> list[str]:
        """What to know before numbers are believed, for people."""
        found = list(self.unused)
        if self.unspaced[0]:
            n, text = self.unspaced
            found.append(
                f"at least {counted(n, 'prompt')} with a target that begins without a space, such as {text!r}: where a "
                f"word goes on with a prompt, {f' {text}'!r} is another token"
            )
        if self.noted[0]:
            n, said = self.noted
            found.append(f"at least {counted(n, 'prompt')} to look at, the first: {said}")
        return found


def edited(spec: Spec, model: Model, shortest: int) -> Model:
    """The model with the interventions of a spec. shortest: tokens of the shortest prompt, which must have its tokens.

    Raises InputError for units that the model does not have.
    """
    phrases = sorted({phrase(" ".join(text.split())) for text in spec.interventions}, key=str)
    for said in phrases:
        said.check(model, shortest)

    @cache
    def means() -> Means:
        return measure_means(model, hooks=MEAN_HOOKS)

    return model.edited([said.intervention(model, means) for said in phrases])


def survey(read: Read, catalog: Any, one: ModelSpec, model: Model, *, allow_network: bool) -> Survey:
    """What a spec asks of a model. Raises InputError as `collect`, `asked` and `edited` do."""
    items = collect(read, model, allow_network=allow_network)
    shortest = min((items.length(i) for i in range(len(items))), default=model.sizes.n_ctx)
    with read.where.of("interventions"):
        changed = edited(read.spec, model, shortest)
    analyses = asked(read.spec, catalog, changed, read.where)
    return Survey(one.title, model, items, analyses, [each.cells(items) for each in analyses])


def planned(
    read: Read,
    catalog: Any,
    store: Store,
    load: Loader,
    *,
    retry_failed: bool = False,
    allow_network: bool = False,
    seen: Callable[[Survey, Sequence[Shard]], None] | None = None,
) -> Planned:
    """The plan of a spec beside what the store has. Nothing is written.

    load: gives a model. retry_failed: count what failed as missing.
    seen: is shown what is asked of each model and what is left to compute of it, while it is loaded.
    """
    spec = read.spec
    made(spec, catalog, read.where)  # what is misspelt is said before a model is loaded for it
    plan = Planned(spec, read.folder)
    finished = store.finished()
    done = _done(finished, retry_failed)
    earlier = _earlier(store, finished)
    beyond = set(done)
    for number, one in enumerate(spec.models):
        with read.where.of("models", number, "name" if one.name else "folder"):
            model = load(one)
        asks = survey(read, catalog, one, model, allow_network=allow_network)
        wanted = {cell for cells in asks.cells for cell in cells}
        beyond -= wanted
        kept, left = missing(wanted, done, earlier)
        fresh = dealt(asks.label, asks.items, asks.asked, asks.cells, left, spec.limits)
        todo = [*kept, *(shard.beside(finished) for shard in fresh)]
        if seen is not None:
            seen(asks, todo)
        plan.shards |= {key: entry.n_tokens for key, entry in finished.items() if wanted & _cells(entry)}
        plan.left += [shard for shard in todo if shard.key not in plan.shards]
        plan.shards |= {shard.key: shard.n_tokens for shard in todo}
        plan.models.append(_model_record(one, asks))
        plan.refused += asks.items.refused
        plan.n_cells += len(wanted)
        plan.n_done += len(wanted & done)
        plan.n_prompts += len(asks.items.members)
        plan.repeated += asks.items.repeated
        plan.unspaced = max(plan.unspaced, asks.items.unspaced)
        plan.noted = max(plan.noted, asks.items.noted)
        plan.lines.append(_Lines(asks))
        plan.unused = tuple(dict.fromkeys([*plan.unused, *_unused(asks.asked)]))
    plan.dropped = len(beyond)
    if retry_failed:  # what had failed before is tried again, and counts if it fails again
        plan.counted = [shard.key for shard in plan.left]
    return plan


def _unused(asked: Sequence[Asked]) -> Iterator[str]:
    """Of analyses all of whose parameters stand in the spec: a column may set what makes another one mean something."""
    for one in asked:
        if not one.columns and (said := one.analysis.passed_over()):
            yield f"{one.name}: {said}"


def _done(finished: Mapping[str, Entry], retry_failed: bool) -> set[str]:
    """Cells that need not be computed: those that came out, and those that failed unless they are tried again."""
    came_out = {cell for entry in finished.values() for cell in _cells(entry) if cell not in entry.failed}
    if retry_failed:
        return came_out
    return came_out | {cell for entry in finished.values() for cell in entry.failed}


def _cells(entry: Entry) -> set[str]:
    return {cell for cells in entry.cells.values() for cell in cells}


def _earlier(store: Store, finished: Mapping[str, Entry]) -> list[Shard]:
    """What an earlier plan of this store has left to do. What of it is damaged is planned anew."""
    if not store.exists:
        return []
    found: list[Shard] = []
    with suppress(FileError):
        found += store.whole_shards([key for key in store.plan()["shards"] if key not in finished])
    return found


def _model_record(one: ModelSpec, asks: Survey) -> dict[str, Any]:
    identity = asks.model.identity
    sizes = {name: getattr(asks.model.sizes, name) for name in ("n_layers", "n_heads", "d_model")}
    return {"label": one.title, "weights": identity.key, "step": one.step, "badge": identity.badge, **sizes}


class _Lines(Iterable[str]):
    """One line a prompt, as prompts.jsonl holds it; the analyses that read none have one line of their own.

    Made when they are written: of a million prompts they take a gigabyte. The model is let go.
    """

    def __init__(self, asks: Survey):
        self._label, self._items = asks.label, asks.items
        self._prompted = {a.name: asks.cells[i] for i, a in enumerate(asks.asked) if a.prompted}
        self._own = {a.name: asks.cells[i][0] for i, a in enumerate(asks.asked) if not a.prompted}

    def __iter__(self) -> Iterator[str]:
        if self._own:
            nothing = {"group": "", "document": "", "where": "", "text": "", "n": 0}
            yield line_of({"model": self._label, **nothing, "cells": self._own})
        for member in self._items.members if self._prompted else ():
            cells = {name: own[member.item] for name, own in self._prompted.items()}
            n = self._items.length(member.item)
            named = {"group": member.group, "document": member.document, "where": member.where, "text": member.text}
            yield line_of({"model": self._label, **named, "n": n, "cells": cells})


def need_own(plan: Planned, store: Store) -> None:
    """Raise RefusedError where the store goes by the plan of another spec by now: what is asked of it would be answered
    with another run's results."""
    record, (spec, folder) = store.plan(), _named(plan)
    if json.dumps([record["spec"], record["folder"]], sort_keys=True) != json.dumps([spec, folder], sort_keys=True):
        raise RefusedError(
            f"a run in {store.title}, where another spec was planned meanwhile", "one spec in a folder at a time",
            "Run it again, or in a folder of its own: what is finished is kept",
        )  # fmt: skip


def _named(plan: Planned) -> tuple[dict[str, Any], str]:
    """What a plan is of, as its record says it: the spec, and what its paths are relative to."""
    return plan.spec.model_dump(mode="json"), str(plan.folder)


def write_plan(plan: Planned, store: Store, spec_text: str | None) -> None:
    """Make a plan the store's: what is left to compute first, what points to it last."""
    store.write_shards(plan.left)
    store.write_lines("prompts.jsonl", chain.from_iterable(plan.lines))
    if spec_text is not None:
        store.write("spec.toml", spec_text)
    elif not _is_of(plan.spec, store.read("spec.toml", MOST_BYTES)):
        store.delete("spec.toml")  # of an earlier run, and a report would show it as this one's
    spec, folder = _named(plan)
    record = {
        "format": FORMAT,
        "spec": spec,
        "folder": folder,
        "models": plan.models,
        "shards": list(plan.shards),
        "tokens": list(plan.shards.values()),
        "counted": plan.counted,
        "refused": [one._asdict() for one in plan.refused],
        "repeated": plan.repeated,
    }
    store.write_record("plan.json", record)


def _is_of(spec: Spec, content: bytes | None) -> bool:
    """Whether a file holds a spec."""
    try:
        return content is not None and spec_of(content, "spec.toml")[0] == spec
    except InputError:
        return False
