"""What a batch of prompts costs: its analyses beside a bare pass, what it does for each prompt beside them, what it
writes, and what it looks through when it goes on.

Each is `(subject) ->` a callable without arguments, which is what is timed; those with names make one.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.bench.subject import Prepare, Subject, Timed
from probes import CATALOG
from workbench.batch.cells import Asked, asked
from workbench.batch.computing import computed, written
from workbench.batch.prompts.items import Items, Member
from workbench.batch.runs import plan, run
from workbench.batch.shards import Shard, dealt
from workbench.batch.spec import Spec
from workbench.batch.store import Store
from workbench.observation import observe

__all__ = ["HEADS", "ROUTES", "gone_on", "needs_alone", "surveyed", "written_down"]

HEADS = ("induction-on-prompt", "attention-sinks", "token-erasure")  # the last where its probes are trained
ROUTES = (*HEADS, "flow-routes")


def surveyed(*names: str) -> Prepare:
    """A shard of the subject's prompts, from token ids to rows."""

    def prepare(subject: Subject) -> Timed:
        shard, analyses = _shard(subject, names)
        return lambda: computed(shard, analyses)

    return prepare


def needs_alone(*names: str) -> Prepare:
    """The observed pass of such a shard, with nothing done for each prompt."""

    def prepare(subject: Subject) -> Timed:
        _, analyses = _shard(subject, names)
        model, tokens, length = subject.model, subject.tokens, len(subject.tokens[0])
        needs = [need for one in analyses for need in one.analysis.needs(model, tokens[0])]
        read = {position % length for one in analyses for position in one.analysis.read_positions(length)}
        return lambda: observe(model, tokens, needs, positions=sorted(read) or "last")

    return prepare


def written_down(*names: str) -> Prepare:
    """Writing such a shard, and its line in the ledger."""

    def prepare(subject: Subject) -> Timed:
        shard, analyses = _shard(subject, names)
        found, folder = computed(shard, analyses), TemporaryDirectory()

        def write() -> Any:
            return written(Store(Path(folder.name)), shard, analyses, found)

        return write

    return prepare


def gone_on(*names: str) -> Prepare:
    """The plan of a run that has nothing left to do: what a resumed run does before it computes."""

    def prepare(subject: Subject) -> Timed:
        folder, models = TemporaryDirectory(), {"bench": subject.model}
        spec = _spec(subject, names)
        run(spec, folder.name, catalog=CATALOG, models=models)

        def resume() -> Any:
            return plan(spec, folder.name, catalog=CATALOG, models=models)

        return resume

    return prepare


def _spec(subject: Subject, names: tuple[str, ...]) -> Spec:
    usable = [CATALOG.get(name)() for name in names]
    ready = [one.name for one in usable if one.refusal(subject.model) is None and one.ready(subject.model)]
    return Spec.model_validate(
        {
            "name": "bench",
            "models": [{"name": "bench"}],
            "prompts": [{"ids": [list(tokens.ids) for tokens in subject.tokens]}],
            "analyses": [{"name": name} for name in ready],
            "limits": {"shard_tokens": 10**9},
        }
    )


def _shard(subject: Subject, names: tuple[str, ...]) -> tuple[Shard, list[Asked]]:
    """All prompts of the subject as one shard, and its analyses in the shard's order."""
    spec, items = _spec(subject, names), Items()
    for number, tokens in enumerate(subject.tokens):
        items.add(tokens.ids, {}, Member(0, "bench", str(number), "", ""))
    analyses = asked(spec, CATALOG, subject.model)
    cells = [one.cells(items) for one in analyses]
    wanted = {cell for own in cells for cell in own}
    (shard,) = dealt("bench", items, analyses, cells, wanted, spec.limits)
    by_name = {one.name: one for one in analyses}
    return shard, [by_name[name] for name in shard.analyses]
