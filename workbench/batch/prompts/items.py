"""Items: what is computed of the rows of a spec, as token ids. The same tokens twice are one item.

Ids are kept flat, four bytes a token, so that a million prompts fit; texts are not kept.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from workbench.batch.prompts.sources import Row, rows
from workbench.batch.spec import SOURCES, PromptSource, Read
from workbench.errors import InputError, WorkbenchError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, Vocabulary, tokenise

__all__ = ["Items", "Member", "Refused", "collect"]

_SHOWN = 120  # characters of a prompt that are kept for people


class Member(NamedTuple):
    """One prompt of a group: its item, what it was taken from, and how to name it."""

    item: int
    group: str
    document: str
    where: str
    text: str


class Refused(NamedTuple):
    """A row that cannot be computed, and why."""

    group: str
    where: str
    reason: str


@dataclass
class Items:
    """Token ids by item, and who asks for them.

    columns: texts of an item that analyses read, the same for equal items. repeated: rows whose prompt their group had
    already, counted once.
    """

    members: list[Member] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    columns: list[dict[str, str]] = field(default_factory=list)
    repeated: int = 0
    _flat: "array[int]" = field(default_factory=lambda: array("i"))
    _ends: "array[int]" = field(default_factory=lambda: array("q", [0]))
    _index: dict[Any, int] = field(default_factory=dict)
    _asked: set[tuple[int, str]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def ids(self, item: int) -> tuple[int, ...]:
        """Token ids of an item."""
        return tuple(self._flat[self._ends[item] : self._ends[item + 1]])

    def length(self, item: int) -> int:
        """Number of its tokens."""
        return self._ends[item + 1] - self._ends[item]

    def add(self, ids: Sequence[int], columns: dict[str, str], member: Member) -> None:
        """Take a prompt in; one that its group has already is counted once."""
        packed = array("i", ids)
        known = (packed.tobytes(), tuple(sorted(columns.items())))
        item = self._index.get(known)
        if item is None:
            item = self._index[known] = len(self)
            self._flat.extend(packed)
            self._ends.append(len(self._flat))
            self.columns.append(columns)
        if (item, member.group) in self._asked:
            self.repeated += 1
            return
        self._asked.add((item, member.group))
        self.members.append(member._replace(item=item))


def collect(read: Read, model: Model, *, allow_network: bool = False) -> Items:
    """All items of a spec for a model, which says how texts are tokenised and how long they may be.

    A row that cannot be used is recorded and the others go on. Raises InputError where no row can be used.
    """
    items, spec = Items(), read.spec
    columns = {column for analysis in spec.analyses for column in analysis.columns.values()}
    for number, source in enumerate(spec.prompts):
        with read.where.of("prompts", number, _named(source)):
            for count, row in enumerate(rows(source, read.folder, model, spec.seed, allow_network=allow_network)):
                if count == 0:
                    _need_columns(row, columns, source)
                try:
                    _take(items, row, source, f"{number}:{count}", model, columns)
                except WorkbenchError as error:
                    items.refused.append(Refused(source.group, row.where, str(error)))
    if spec.prompts and not len(items):
        first = items.refused[0]
        raise InputError(f"no prompt that can be used ({first.where}: {first.reason})", "at least one", "Correct them")
    return items


def _named(source: PromptSource) -> str:
    """The field that says where the prompts come from."""
    return next(name for name in SOURCES if getattr(source, name) is not None)


def _take(items: Items, row: Row, source: PromptSource, own: str, model: Model, read: set[str]) -> None:
    if row.prompt is None:
        items.refused.append(Refused(source.group, row.where, row.wrong))
        return
    lacking = next((column for column in sorted(read) if column not in row.columns), None)
    if lacking is not None:
        items.refused.append(Refused(source.group, row.where, f"no text in the column {lacking!r}"))
        return
    columns = {column: row.columns[column] for column in sorted(read)}
    document = row.document or own
    text = _told(row.prompt)[:_SHOWN]
    for part, ids in enumerate(_pieces(row.prompt, source, model)):
        where = row.where if part == 0 else f"{row.where}, piece {part + 1}"
        items.add(ids, columns, Member(0, source.group, document, where, text if part == 0 else f"... ({where})"))


def _told(prompt: Prompt) -> str:
    """A prompt for people: its text, the messages of a chat, or its ids."""
    if prompt.text is not None:
        return prompt.text
    if prompt.messages is not None:
        return " ".join(f"{role}: {content}" for role, content in prompt.messages)
    return " ".join(f"#{token}" for token in (prompt.token_ids or ())[:_SHOWN])


def _need_columns(row: Row, read: set[str], source: PromptSource) -> None:
    lacking = next((column for column in sorted(read) if column not in row.columns), None)
    if lacking is not None and row.prompt is not None:
        known = ", ".join(row.columns) or "none"
        raise InputError(f"the column {lacking!r} for prompts of {source.group!r}", f"one of {known}", "Name another")


def _pieces(prompt: Prompt, source: PromptSource, model: Model) -> Iterator[tuple[int, ...]]:
    """The ids of a row: as they are, cut, or in pieces that each stand behind what the first stands behind."""
    most = min(source.tokens or model.sizes.n_ctx, model.sizes.n_ctx)
    ids = tokenise(_Unbounded(model), prompt).ids
    if len(ids) <= most:
        yield ids
    elif source.tokens is None or source.long == "refuse":
        raise InputError(
            f"a prompt of {len(ids)} tokens",
            f"at most {most} for {model.name}",
            'Say tokens = N, with long = "cut" or "split"',
        )
    elif source.long == "cut":
        yield ids[:most]
    else:
        front = ids[: _front(model, prompt, ids)]
        body, step = ids[len(front) :], most - len(front)
        for start in range(0, len(body), step):
            if start == 0 or len(body) - start >= 2:  # a last piece of one token says nothing of a next one
                yield (*front, *body[start : start + step])


def _front(model: Model, prompt: Prompt, ids: Sequence[int]) -> int:
    """How many tokens stand in front of the text."""
    if prompt.text is None:
        return 0
    bare = tokenise(_Unbounded(model), replace(prompt, bos=False)).ids
    return len(ids) - len(bare) if len(bare) < len(ids) else 0


class _Silent(Vocabulary):
    """A vocabulary that writes nothing: ids are all that is asked for."""

    def string(self, token_id: int) -> str:
        """Nothing."""
        return ""


class _Unbounded:
    """What tokenising asks of a model, for texts of any length."""

    def __init__(self, model: Model):
        self.name, self.tokenizer = model.name, model.tokenizer
        self.sizes: Sizes = replace(model.sizes, n_ctx=2**31)
        self.vocabulary = _Silent(model.tokenizer, model.sizes.d_vocab)
