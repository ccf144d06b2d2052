"""Items: what is computed of the rows of a spec, as token ids. The same tokens twice are one item.

Ids are kept flat, four bytes a token, so that a million prompts fit; texts are not kept.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple

from workbench.batch.prompts.packed import Packed
from workbench.batch.prompts.sources import Row, n_rows, rows
from workbench.batch.room import need_room_for
from workbench.batch.spec import SOURCES, PromptSource, Read
from workbench.errors import InputError, WorkbenchError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, Vocabulary, ids_of, tokenise
from workbench.words import counted

__all__ = ["Items", "Member", "Refused", "collect"]

_TARGETS = ("target", "against")  # parameters that name what is predicted
_LOOK = 10_000  # rows between two looks at how much memory they take
_SHORT = 2_000  # characters of a prompt whose notes are looked for
_SHOWN = 120  # characters of a prompt that are kept for people
_NO_COLUMNS: Mapping[str, str] = MappingProxyType({})  # one for all items that have none


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

    columns: texts of an item that analyses read, the same for equal items. unspaced: how many of the first rows have a
    target that begins without a space behind a word, and the first such text. noted: how many of the first rows have a
    note (`Tokens.notes`), and the first one. repeated: rows whose prompt their group had already, counted once.
    """

    members: list[Member] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    columns: list[Mapping[str, str]] = field(default_factory=list)
    unspaced: tuple[int, str] = 0, ""
    noted: tuple[int, str] = 0, ""
    repeated: int = 0
    _tokens: Packed = field(default_factory=Packed)
    _index: dict[bytes, int] = field(default_factory=dict)  # by a digest: ids of a million prompts would fill a memory
    _groups: dict[str, set[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._tokens)

    def ids(self, item: int) -> tuple[int, ...]:
        """Token ids of an item."""
        return self._tokens[item]

    @property
    def n_tokens(self) -> int:
        """Of all items."""
        return self._tokens.n_tokens

    def length(self, item: int) -> int:
        """Number of its tokens."""
        return self._tokens.length(item)

    def add(self, ids: Sequence[int], columns: Mapping[str, str], member: Member) -> None:
        """Take a prompt in; one that its group has already is counted once."""
        known = _digest(ids, columns)
        item = self._index.get(known)
        if item is None:
            item = self._index[known] = len(self)
            self._tokens.append(ids)
            self.columns.append(columns or _NO_COLUMNS)
        asked = self._groups.setdefault(member.group, set())
        if item in asked:
            self.repeated += 1
            return
        asked.add(item)
        self.members.append(member._replace(item=item))


def _digest(ids: Sequence[int], columns: Mapping[str, str]) -> bytes:
    """What makes two items one, 16 bytes."""
    found = blake2b(array("q", ids).tobytes(), digest_size=16)
    for name, text in sorted(columns.items()):
        found.update(f"\0{len(name)} {len(text)} {name}{text}".encode(errors="surrogatepass"))
    return found.digest()


def collect(read: Read, model: Model, *, allow_network: bool = False) -> Items:
    """All items of a spec for a model, which says how texts are tokenised and how long they may be.

    A row that cannot be used is recorded and the others go on. Raises InputError where no row can be used, RefusedError
    where the plan of so many would not fit into memory, before they are made where their number is known.
    """
    items, spec, reader = Items(), read.spec, _Unbounded(model)
    columns = {column for analysis in spec.analyses for column in analysis.columns.values()}
    targets = {analysis.columns[name] for analysis in spec.analyses for name in _TARGETS if name in analysis.columns}
    for number, source in enumerate(spec.prompts):
        with read.where.of("prompts", number, _named(source)):
            need_room_for(len(items.members) + n_rows(source), items.n_tokens, spec.limits)
            for count, row in enumerate(rows(source, read.folder, model, spec.seed, allow_network=allow_network)):
                if count == 0:
                    _need_columns(row, columns, source)
                if count % _LOOK == 0:
                    need_room_for(len(items.members) + len(items.refused), items.n_tokens, spec.limits)
                try:
                    _take(items, row, source, f"{number}:{count}", reader, columns)
                    _look_at_targets(items, row, targets, reader.vocabulary)
                    _look_at_notes(items, row, reader)
                except WorkbenchError as error:
                    items.refused.append(Refused(source.group, row.where, str(error)))
    if spec.prompts and not len(items):
        first = items.refused[0]
        raise InputError(f"no prompt that can be used ({first.where}: {first.reason})", "at least one", "Correct them")
    return items


def _named(source: PromptSource) -> str:
    """The field that says where the prompts come from."""
    return next(name for name in SOURCES if getattr(source, name) is not None)


def _take(items: Items, row: Row, source: PromptSource, own: str, reader: "_Unbounded", read: set[str]) -> None:
    if row.prompt is None:
        items.refused.append(Refused(source.group, row.where, row.wrong))
        return
    # an empty cell is how a table says that there is none: the parameter's default would be averaged with the others
    lacking = next((column for column in sorted(read) if not row.columns.get(column)), None)
    if lacking is not None:
        items.refused.append(Refused(source.group, row.where, f"no text in the column {lacking!r}"))
        return
    columns = {column: row.columns[column] for column in sorted(read)}
    document = row.document or own
    text = _told(row.prompt)[:_SHOWN]
    for part, ids in enumerate(_pieces(row.prompt, source, reader)):
        where = row.where if part == 0 else f"{row.where}, piece {part + 1}"
        items.add(ids, columns, Member(0, source.group, document, where, text if part == 0 else f"... ({where})"))


def _look_at_targets(items: Items, row: Row, targets: set[str], vocabulary: Vocabulary) -> None:
    """Count a target in a cell that is another token than the one that would go on with the prompt: nobody types a
    space in front of a cell, and no sentence of a result is kept in which a study could say it. Of the first rows."""
    if row.prompt is None or not _ends_in_word(row.prompt.text or "") or len(items.members) > _LOOK:
        return
    for text in (row.columns.get(column, "") for column in sorted(targets)):
        with suppress(InputError):  # of what is no target the study says it
            if _is_word(text[:1]) and vocabulary.tokens(text) != vocabulary.tokens(f" {text}"):
                n, first = items.unspaced
                items.unspaced = n + 1, first or text
                return


def _look_at_notes(items: Items, row: Row, reader: "_Unbounded") -> None:
    """Count a prompt of which there is something to say: where one is run by itself it is said beside its numbers. Of
    the first rows that are short: it takes ten times as long as tokenising."""
    short = row.prompt is not None and len(_told(row.prompt)) <= _SHORT
    if not short or max(len(items.members) * 100, items.n_tokens) > _LOOK:
        return
    if notes := tokenise(reader, row.prompt).notes:
        n, first = items.noted
        items.noted = n + 1, first or f"{row.where}: {notes[0]}"


def _ends_in_word(text: str) -> bool:
    """Behind which a space comes before the next word, in a script that has spaces."""
    return _is_word(text[-1:])


def _is_word(character: str) -> bool:
    return character.isalpha() and character < "\u0590"  # Latin, Greek, Cyrillic, Armenian


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


def _pieces(prompt: Prompt, source: PromptSource, reader: "_Unbounded") -> Iterator[tuple[int, ...]]:
    """The ids of a row: as they are, cut, or in pieces that each stand behind what the first stands behind."""
    most = min(source.tokens or reader.n_ctx, reader.n_ctx)
    ids = ids_of(reader, prompt)
    if len(ids) <= most:
        yield ids
    elif source.tokens is None or source.long == "refuse":
        raise InputError(
            f"a prompt of {counted(len(ids), 'token')}",
            f"at most {most} for {reader.name}",
            'Say tokens = N, with long = "cut" or "split"',
        )
    elif source.long == "cut":
        yield ids[:most]
    else:
        front = ids[: _front(reader, prompt, ids)]
        body, step = ids[len(front) :], most - len(front)
        for start in range(0, len(body), step):
            if start == 0 or len(body) - start >= 2:  # a last piece of one token says nothing of a next one
                yield (*front, *body[start : start + step])


def _front(reader: "_Unbounded", prompt: Prompt, ids: Sequence[int]) -> int:
    """How many tokens stand in front of the text."""
    if prompt.text is None:
        return 0
    bare = ids_of(reader, replace(prompt, bos=False))
    return len(ids) - len(bare) if len(bare) < len(ids) else 0


class _Held(Vocabulary):
    """A vocabulary that asks its tokenizer once what stands in front of a text, and not for every prompt."""

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """As of `Vocabulary`."""
        return super().prefix

    @cached_property
    def front(self) -> tuple[int, ...]:
        """As of `Vocabulary`."""
        return super().front


class _Unbounded:
    """What tokenising asks of a model, for texts of any length. n_ctx: how many tokens the model itself takes."""

    def __init__(self, model: Model):
        self.name, self.tokenizer, self.n_ctx = model.name, model.tokenizer, model.sizes.n_ctx
        self.sizes: Sizes = replace(model.sizes, n_ctx=2**31)
        self.vocabulary = _Held(model.tokenizer, model.sizes.d_vocab)
