"""Rows of prompts from what a spec names: texts, ids, files, corpora, generators, templates."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from workbench.batch.spec import PromptSource
from workbench.corpora import find_corpus
from workbench.errors import InputError
from workbench.files import at_home
from workbench.models.model import Model
from workbench.models.prompt import Prompt
from workbench.records import COLUMNS, prompt_of
from workbench.rows import rows as rows_of

__all__ = ["Row", "n_rows", "rows"]


@dataclass(frozen=True)
class Row:
    """A prompt before it is tokenised.

    where: for people, such as "reviews.jsonl line 3". document: what it was taken from; "": a document of its own.
    columns: further texts that analyses read. wrong: why it cannot be used, or "".
    """

    where: str
    prompt: Prompt | None
    document: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    wrong: str = ""


def rows(source: PromptSource, folder: Path, model: Model, seed: int, *, allow_network: bool = False) -> Iterator[Row]:
    """The rows of a source, at most `limit`, one at a time.

    folder: what paths are relative to. Raises InputError where there is none, for columns that a file does not have,
    and as `workbench.rows` does.
    """
    found = islice(_found(source, folder, model, seed, allow_network), source.limit)
    first = next(found, None)
    if first is None:
        what = source.file or source.corpus or f"the prompts of {source.group!r}"
        raise InputError(f"no prompt in {what}", "at least one", "Check what is in it")
    yield first
    yield from found


def n_rows(source: PromptSource) -> int:
    """How many rows a source will try, where it makes them itself; 0 where only reading tells."""
    if source.generator is not None:
        return min(source.n, source.limit or source.n)
    if source.template is not None:
        return min(math.prod(map(len, source.slots.values())), source.limit or 10**18)
    return 0


def _found(source: PromptSource, folder: Path, model: Model, seed: int, network: bool) -> Iterator[Row]:
    if source.texts is not None:
        for i, text in enumerate(source.texts):
            yield _row(f"texts[{i}]", text, source)
    elif source.ids is not None:
        yield from (Row(f"ids[{i}]", Prompt.ids(ids)) for i, ids in enumerate(source.ids))
    elif source.file is not None:
        yield from _from_file(source, folder / at_home(source.file))
    elif source.corpus is not None:
        yield from _from_corpus(source, folder, network)
    elif source.generator is not None:
        yield from _generated(source, model, seed)
    else:
        yield from _from_template(source)


def _row(where: str, text: str, source: PromptSource, document: str = "", columns: Mapping[str, str] = {}) -> Row:
    if not text:
        return Row(where, None, document, columns, "an empty prompt")
    if any(not _is_text(value) for value in (text, *columns.values())):
        return Row(where, None, document, {}, "half of a character (a lone surrogate), which is no text")
    return Row(where, Prompt(text, bos=source.bos), document, columns)


def _is_text(value: str) -> bool:
    """Whether it can be written: JSON may hold one half of a pair of surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _from_file(source: PromptSource, path: Path) -> Iterator[Row]:
    for number, record in enumerate(rows_of(path, format=source.format or "", encoding=source.encoding)):
        value, where = record.value, f"{path.name} {record.place}"
        cells = value if isinstance(value, Mapping) else {}
        if number == 0:
            _need_columns(source, cells, path)
        document = _document(cells.get(source.document)) if source.document else ""
        own = source.column or next((name for name in COLUMNS if name in cells), "")
        texts = {name: _text_of(cell) for name, cell in cells.items() if name != own}
        columns = {name: text for name, text in texts.items() if text is not None}
        try:
            if source.document and not cells:  # a bare text has no columns; a record may leave one out
                raise InputError(f"{where} without {source.document!r}", "that column", "Correct it")
            prompt = prompt_of(record, source.column or "")
        except InputError as error:
            yield Row(where, None, wrong=str(error))
            continue
        if prompt.text is not None:
            yield _row(where, prompt.text, source, document, columns)
        else:
            yield Row(where, prompt, document, columns)


def _text_of(cell: Any) -> str | None:
    """A cell as the parameter that is read from it is written: a record of JSON or Parquet holds numbers and flags as
    such. "" where it is missing, None for what is no single value."""
    if isinstance(cell, str):
        return cell
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():  # whole numbers, some of which are missing
        return str(int(cell))
    return repr(cell) if isinstance(cell, int | float) else None


def _document(cell: Any) -> str:
    """What a row was taken from; "", a document of its own, where that is missing: else all such rows were one."""
    return "" if cell is None or cell != cell else str(cell)


def _need_columns(source: PromptSource, cells: Mapping[str, Any], path: Path) -> None:
    """Columns that the first row does not have are misspelt. Raises InputError for them."""
    for name in (source.column, source.document):
        if name is not None and cells and name not in cells:
            known = ", ".join(map(str, cells)) or "none"
            raise InputError(f"the column {name!r} in {path}", f"one of {known}", "Name another")


def _from_corpus(source: PromptSource, folder: Path, network: bool) -> Iterator[Row]:
    name = str(source.corpus)
    near = folder / name
    corpus = find_corpus(str(near) if near.exists() else name, allow_network=network)
    for document in corpus.documents:
        yield _row(document.name, document.text, source, document.name)


def _generated(source: PromptSource, model: Model, seed: int) -> Iterator[Row]:
    """Random ordinary tokens, twice in a row or once. A prompt's draws depend on the seed and its number alone."""
    ordinary, front = _ordinary(model)
    if len(ordinary) < source.length:
        raise InputError(f"length = {source.length}", f"at most {len(ordinary)} different tokens", "Ask for fewer")
    for i in range(source.n):
        random = np.random.default_rng(np.random.SeedSequence([seed, i]))
        block = random.choice(ordinary, source.length, replace=False).tolist()
        times = 2 if source.generator == "repeated-tokens" else 1
        yield Row(f"{source.generator} {i}", Prompt.ids([*front, *block * times]))


def _ordinary(model: Model) -> tuple[np.ndarray, list[int]]:
    """Ids that are neither special nor added, and what stands in front of a text."""
    if model.tokenizer is None:
        return np.arange(1, model.sizes.d_vocab), [0]
    special = {*model.tokenizer.all_special_ids, *model.tokenizer.get_added_vocab().values()}
    n = min(model.sizes.d_vocab, len(model.tokenizer))
    return np.array([i for i in range(n) if i not in special]), list(model.vocabulary.prefix)


def _from_template(source: PromptSource) -> Iterator[Row]:
    template = str(source.template)
    for text in (template, *source.columns.values()):
        _check_slots(text, source.slots)
    names = list(source.slots)
    for values in product(*source.slots.values()):
        slots = dict(zip(names, values, strict=True))
        if len(set(values)) < len(values):
            continue  # the same word in two slots is another task
        where = ", ".join(f"{name}={value}" for name, value in slots.items())
        columns = {**slots, **{name: text.format_map(slots) for name, text in source.columns.items()}}
        yield _row(where, template.format_map(slots), source, columns=columns)


def _check_slots(text: str, slots: Mapping[str, Sequence[str]]) -> None:
    try:
        slots_of = [found for found in Formatter().parse(text) if found[1] is not None]
    except ValueError as error:
        raise InputError(f"the template {text!r} ({error})", "slots in braces, such as {name}", "Correct it") from error
    for _, name, form, conversion in slots_of:
        if name not in slots or form or conversion:  # a format such as {name:>9999999} is no word's
            whole = f"{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
            raise InputError(f"the slot {{{whole}}} in {text!r}", f"one of {', '.join(slots)}", "Correct it")
