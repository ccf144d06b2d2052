"""What a plan will take, before it runs: seconds, memory, disk; and the refusal of what does not fit."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from workbench.analysis.pace import SHORT, Pace, measured_pace
from workbench.analysis.run import Failure, together
from workbench.batch.cells import Asked, bound
from workbench.batch.computing import encoded
from workbench.batch.room import as_text, memory_of
from workbench.batch.shards import Shard
from workbench.batch.spec import Limits, n_bytes
from workbench.batch.survey import Survey
from workbench.errors import RefusedError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.observation.memory import predict_bytes

__all__ = ["Estimate", "estimated", "need_room"]

_PILOT = 24  # tokens of the prompt that is tried
_POSITIONAL = ("pos", "query", "key")


@dataclass(frozen=True)
class _Kept:
    """What one prompt's outcome takes of an analysis: bytes of its row; of its whole result bytes in the file and
    seconds to write it, as they were tried on `tokens`; those that were not are about as large as most.

    own: seconds that it takes whatever the prompt's length, beside what its cost says: of many short prompts most.
    growing: bytes of variables, and with which power of the number of tokens they grow.
    """

    row: int
    own: float = 0.0
    fixed: float = 40_000
    seconds: float = 0.05
    growing: tuple[tuple[int, int], ...] = ()
    tokens: int = _PILOT

    def whole(self, n: int) -> float:
        """Bytes of a whole result of a prompt of n tokens."""
        return self.fixed + sum(size * (n / self.tokens) ** power for size, power in self.growing)


@dataclass
class Estimate:
    """Of what is left to do. memory and disk in bytes; assumed: what could not be tried beforehand."""

    seconds: float = 0.0
    memory: int = 0
    disk: int = 0
    assumed: tuple[str, ...] = ()

    def __add__(self, other: "Estimate") -> "Estimate":
        """One after the other: memory is the larger, the rest adds up."""
        assumed = tuple(dict.fromkeys((*self.assumed, *other.assumed)))
        memory = max(self.memory, other.memory)
        return Estimate(self.seconds + other.seconds, memory, self.disk + other.disk, assumed)


def estimated(asks: Survey, shards: Sequence[Shard], *, results: bool) -> Estimate:
    """Of shards of one model, from two timed passes and a prompt tried twice. results: whole ones are kept too."""
    if not shards:
        return Estimate()
    by_name = {one.name: one for one in asks.asked}
    prompted = [shard for shard in shards if shard.ids]
    pace = measured_pace(asks.asked[0].model)
    kept, assumed = _kept(asks, prompted, results, pace)
    seconds = memory = disk = 0.0
    for shard in shards:
        own = [by_name[name] for name in shard.analyses]
        lengths = shard.ids.lengths if shard.ids else []
        seconds += _seconds(pace, own, lengths or [SHORT] * shard.n_prompts, is_passed=bool(lengths))
        seconds += sum(kept[one.name].own for one in own) * shard.n_prompts
        disk += sum(kept[one.name].row for one in own) * shard.n_prompts + 20_000
        if results:
            disk += sum(kept[one.name].whole(n) for one in own for n in lengths or [0])
            seconds += sum(kept[one.name].seconds for one in own) * shard.n_prompts
        memory = max(memory, _shard_bytes(shard, own))
    total = _weights(asks.model) + memory + 4 * sum(one.row for one in kept.values()) * max(s.n_prompts for s in shards)
    return Estimate(seconds, int(total), int(disk), assumed)


def _seconds(pace: Pace, asked: Sequence[Asked], lengths: Sequence[int], *, is_passed: bool) -> float:
    """Of analyses on prompts of these lengths; is_passed: beside a pass of each that all of them share. The fixed part
    of passes is paid once a study, and in batches hardly."""
    sizes, studies = asked[0].model.sizes, sum(not one.analysis.shares_pass for one in asked)
    work = sum(n * (is_passed + sum(one.analysis.cost(sizes, n) for one in asked)) for n in lengths)
    return pace.token * work + pace.fixed * studies * len(lengths)


def _kept(asks: Survey, shards: Sequence[Shard], results: bool, pace: Pace) -> tuple[dict[str, _Kept], tuple[str, ...]]:
    """What one prompt takes by analysis, from the second of two like short ones, since the first one makes what later
    ones find; studies, which take long, are assumed."""
    sizes = asks.model.sizes
    found = {one.name: _Kept(16 * 4 * sizes.n_layers * sizes.n_heads) for one in asks.asked}
    trial = next((shard for shard in shards if shard.ids), None)
    shared = [one for one in asks.asked if one.analysis.shares_pass and one.prompted]
    assumed = tuple(one.name for one in asks.asked if one not in shared)
    if trial is None or not shared:
        return found, assumed
    assert trial.ids is not None, "a shard with prompts"
    tokens = tokenise(shared[0].model, Prompt.ids(trial.ids[0][:_PILOT]))
    named = {one.name: one for one in shared}
    values = [bound(one.analysis, one.columns, trial.columns[0]) for one in shared]
    tried = set()
    began = time.perf_counter()
    for number, outcome in together(shared[0].model, [tokens] * 2, [values] * 2):
        one = named[outcome.analysis.name]
        if number and not isinstance(outcome.result, Failure):
            rows, _ = one.reduction.row(one.analysis.averaged(outcome.result))
            said = pace.token * len(tokens) * one.analysis.cost(sizes, len(tokens))
            own = max(0.0, time.perf_counter() - began - said)
            kept = _Kept(sum(variable.nbytes for variable in rows.values()), own)
            found[one.name] = _whole(kept, outcome.result, len(tokens)) if results else kept
            tried.add(one.name)
        began = time.perf_counter()
    return found, (*assumed, *(one.name for one in shared if one.name not in tried))


def _whole(kept: _Kept, result: xr.Dataset, n: int) -> _Kept:
    """What is kept of a prompt where its whole result is: one of n tokens is written to memory, beside a second one,
    since a file of one has more of its own than each of many."""
    began = time.perf_counter()
    two = len(encoded({"/a": result, "/b": result}))
    seconds = (time.perf_counter() - began) / 2
    size = two - len(encoded({"/a": result}))
    growing = [(v.nbytes, sum(dim in _POSITIONAL for dim in v.dims)) for v in result.variables.values()]
    growing = [(nbytes, power) for nbytes, power in growing if power]
    fixed = max(0, size - sum(nbytes for nbytes, _ in growing))
    return replace(kept, fixed=fixed, seconds=seconds, growing=tuple(growing), tokens=n)


def _shard_bytes(shard: Shard, asked: Sequence[Asked]) -> float:
    """Of the largest pass: what is kept, one layer's activations and the logits."""
    if not shard.ids:
        return 0.0
    model = asked[0].model
    longest = max(shard.ids.lengths)
    rows = max(1, min(shard.n_prompts, shard.batch_tokens // longest))
    tokens = tokenise(model, Prompt.ids(max(shard.ids, key=len)))
    needs = []
    for one in asked:
        if one.analysis.shares_pass and not one.columns:
            needs += list(one.analysis.needs(model, tokens))
    sizes, n = model.sizes, rows * longest
    layer = 4 * n * (8 * sizes.d_model + 4 * sizes.d_mlp) + 12 * rows * sizes.n_heads * longest**2
    return predict_bytes(sizes, list(dict.fromkeys(needs)), rows, longest) + layer + 2 * 4 * n * sizes.d_vocab


def _weights(model: Model) -> int:
    return sum(tensor.nbytes for _, tensor in model.adapter.parameters())


def need_room(estimate: Estimate, limits: Limits, folder: Path | None) -> None:
    """Raises RefusedError, with the number, where memory or disk will not suffice. folder: None for a store that does
    not say how much fits into it."""
    memory = memory_of(limits)
    disk = n_bytes(limits.disk) or (None if folder is None else _free(folder))
    for what, needs, has, remedy in (
        ("memory", estimate.memory, memory, "Lower limits.batch_tokens or limits.shard_tokens, or ask for less"),
        ("disk", estimate.disk, disk, "Make room, take another folder, or keep less"),
    ):
        if has is not None and needs > has:
            raise RefusedError(f"a run that takes about {as_text(needs)} of {what}", f"at most {as_text(has)}", remedy)


def _free(folder: Path) -> int:
    place = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    return shutil.disk_usage(place).free
