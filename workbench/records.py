"""Records: prompts and pairs of prompts from files, every one in its exact characters.

text: one prompt a line. JSON Lines and JSON: texts, chats or ids, or records with a column of these. CSV and TSV: a
header, then one prompt a row. Nothing is guessed: "NA", "null" and "007" are texts, a quoted line break belongs to its
prompt, a byte order mark to the file.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.arguments import fitted
from workbench.errors import InputError, Note
from workbench.models.inputs import as_text, kinds_of
from workbench.models.prompt import Prompt
from workbench.rows import FORMATS, Row, Source, name_of, opened, parsed, rows, whole

__all__ = ["COLUMNS", "FORMATS", "Pair", "prompt_of", "read_json", "read_pairs", "read_prompts"]

COLUMNS = ("prompt", "text", "messages", "ids")
_ENCODED, _MASK = "input_ids", "attention_mask"  # columns of a data set that a tokenizer has been over
_PAIR = {
    "clean": ("clean", "prompt"),
    "corrupt": ("corrupt",),
    "answer": ("answer", "target"),
    "wrong": ("wrong", "wrong answer", "wrong_answer", "against"),
}


@dataclass(frozen=True)
class Pair:
    """A clean and a corrupt prompt with the answer and the wrong answer, "" where there is none."""

    clean: str
    corrupt: str
    answer: str = ""
    wrong: str = ""

    @property
    def parameters(self) -> dict[str, str]:
        """What a study of pairs is given: `ActivationPatching(**pair.parameters).run(model, pair.clean)`."""
        return {"corrupt": self.corrupt, "target": self.answer, "against": self.wrong}


@fitted("source")
def read_prompts(source: Source, *, column: str = "", format: str = "", encoding: str = "utf-8") -> list[Prompt]:
    """The prompts of a file.

    source: a path, or a file opened in binary (`sys.stdin.buffer`). column: the one that holds them; by default the
    first of "prompt", "text", "messages" and "ids", of which the last two hold no texts unless they are named. format:
    one of `FORMATS`, by default from the file's ending, and text for a file without a name. encoding: of its text.
    Empty lines are left out.

    Raises InputError, with the line, for what cannot be read.
    """
    found = [prompt_of(row, column) for row in rows(source, format=format, encoding=encoding)]
    if not found:
        raise InputError(f"no prompt in {name_of(source)}", "at least one", "Write one a line")
    return found


@fitted("source")
def read_pairs(
    source: Source, *, columns: Mapping[str, str] | None = None, format: str = "", encoding: str = "utf-8"
) -> list[Pair]:
    """Pairs of prompts from a table or a JSON file.

    columns: names in the file for "clean", "corrupt", "answer" and "wrong", where they are others; the last two may be
    missing: then a note says which columns are not read. source, format, encoding: as for `read_prompts`. Raises
    InputError, with the line, for what cannot be read.
    """
    named, found = dict(columns or {}), list[Pair]()
    if unknown := [name for name in named if name not in _PAIR]:
        raise InputError(f"the column {unknown[0]!r}", f"one of {', '.join(_PAIR)}", "Correct it")
    for row in rows(source, format=format, encoding=encoding):
        if not isinstance(row.value, Mapping):
            remedy = "Give a table; where no ending says that it is one (-), name its format, such as csv"
            raise InputError(f"{row.where} without columns", "records with clean and corrupt", remedy)
        known, places = list(row.value), {}
        for part, usual in _PAIR.items():
            asked = (named[part],) if part in named else usual
            is_needed = part in named or part in ("clean", "corrupt")
            if not is_needed and not any(name in known for name in asked):
                _need_no_other_spelling(known, asked, row.where)
                continue
            places[part] = _column(known, asked, part, row.where)
        values = {part: _cell(row, name) for part, name in places.items()}
        cells = {part: "" if value is None and part in ("answer", "wrong") else _text(value, row)
                 for part, value in values.items()}  # fmt: skip
        if not found:
            _tell_unread(known, places, name_of(source))
        found.append(Pair(**cells))
    if not found:
        raise InputError(f"no pair in {name_of(source)}", "at least one", "Write one a row")
    return found


def read_json(source: "str | Path") -> Any:
    """What a JSON file holds; InputError where it cannot be read."""
    with opened(source) as file:
        try:
            text = whole(file, name_of(source)).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{source}, which is not UTF-8", "UTF-8", "Save it as UTF-8") from error
    return parsed(text, name_of(source))


def prompt_of(row: Row, column: str = "") -> Prompt:
    """The prompt of a row. column: the one that holds it; by default the first of "prompt", "text", "messages", "ids".

    Raises InputError, with the line, for a row that holds none.
    """
    value = row.value
    if isinstance(value, Mapping) and (row.is_table or not _is_prompt(value)):
        name = _column(list(value), (column,) if column else COLUMNS, "prompt", row.where)
        value = _cell(row, name)
        is_unasked = not column and name in ("messages", "ids")
        if (is_unasked or name == _ENCODED) and isinstance(value, str):  # which would be run as its letters
            remedy = f"Convert it, or name the column ({name!r}) to take its texts as prompts"
            raise InputError(
                f"a text in the column {name!r} of {row.where}", "JSON Lines or Parquet, which hold lists",
                remedy if is_unasked else "Convert it",
            )  # fmt: skip
        if name == _ENCODED and row.value.get(_MASK) is not None:  # without which padding would be tokens
            value = {_ENCODED: value, _MASK: row.value[_MASK]}
    elif column and not (column == "text" and isinstance(value, str)):  # a text by itself is its only column
        raise InputError(f"{row.where} without columns", f"a record with {column!r}", "Leave out the column")
    return _prompt(value, row)


def _column(known: Sequence[str], asked: Sequence[str], what: str, where: str) -> str:
    """The first asked column that is there."""
    found = next((name for name in asked if name in known), None)
    if found is None:
        raise InputError(
            f"{where} with the columns {', '.join(map(str, known))}",
            f"one called {' or '.join(asked)}, for the {what}",
            "Name the column, or rename it",
        )
    return found


def _need_no_other_spelling(known: Sequence[Any], asked: Sequence[str], where: str) -> None:
    """InputError for a column that need not be there and is there as "Answer": what it holds would be passed over."""
    for name in known:
        if (meant := str(name).strip().lower()) in asked:
            raise InputError(f"the column {name!r} in {where}", repr(meant), "Write its name so")


def _tell_unread(known: Sequence[Any], places: Mapping[str, str], name: str) -> None:
    """A note where a file has no column of answers and others that are not read, which may hold them by another name
    ("correct", "label"): the model's own would be measured instead, without a word."""
    lacking = [part for part in ("answer", "wrong") if part not in places]
    left = [repr(str(column)) for column in known if str(column).strip() and column not in places.values()]
    if lacking and left:
        shown = ", ".join(left[:6]) + (", ..." if len(left) > 6 else "")
        said = f"{name} has no column called {' or '.join(lacking)}; not read: {shown}."
        told = f"{said} If one of these holds it, rename it, or name it ({lacking[0]}={left[0][1:-1]})."
        warnings.warn(told, Note, stacklevel=4)


def _cell(row: Row, name: str) -> Any:
    if name not in row.value:
        raise InputError(f"{row.where} without {name!r}", "that column", "Correct it")
    return row.value[name]


def _is_prompt(value: Mapping[str, Any]) -> bool:
    """A message by itself."""
    return {"role", "content"} <= set(value)


def _text(value: Any, row: Row) -> str:
    try:
        if not isinstance(value, str):
            raise InputError(f"{value!r}", "a text", "Put it in quotes")
        return as_text(value)
    except InputError as error:
        raise _at(row, error) from error


def _prompt(value: Any, row: Row) -> Prompt:
    try:
        if value is None or isinstance(value, bool | int | float):
            raise InputError(f"{json.dumps(value)}", "a text, a chat or a list of ids", "Put it in quotes")
        found = kinds_of(value)
        if len(found) != 1:
            raise InputError(f"{len(found)} prompts", "one", "Give one a record")
        return Prompt(**{found[0][0]: found[0][1]})
    except InputError as error:
        raise _at(row, error) from error


def _at(row: Row, error: InputError) -> InputError:
    return InputError(f"{error.got} in {row.where}", error.expected, error.remedy)
