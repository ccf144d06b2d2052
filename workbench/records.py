"""Records: prompts and pairs of prompts from files, every one in its exact characters.

text: one prompt a line. JSON Lines and JSON: texts, chats or ids, or records with a column of these. CSV and TSV: a
header, then one prompt a row. Nothing is guessed: "NA", "null" and "007" are texts, a quoted line break belongs to its
prompt, a byte order mark to the file.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import InputError
from workbench.models.inputs import as_text, kinds_of
from workbench.models.prompt import Prompt

__all__ = ["FORMATS", "Pair", "read_json", "read_pairs", "read_prompts"]

FORMATS = ("text", "jsonl", "json", "csv", "tsv")
_ENDINGS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv"}
_COLUMNS = ("prompt", "text", "messages", "ids")
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


@dataclass(frozen=True)
class _Row:
    """One record and where it stands, for people."""

    value: Any
    where: str


def read_prompts(source: "str | Path | BinaryIO", *, column: str = "", format: str = "") -> list[Prompt]:
    """The prompts of a file.

    source: a path, or a file opened in binary (`sys.stdin.buffer`). column: the one that holds them; by default the
    first of "prompt", "text", "messages" and "ids". format: one of `FORMATS`, by default from the file's ending, and
    text for a file without a name. Empty lines are left out.

    Raises InputError, with the line, for what cannot be read.
    """
    rows, columns = _read(source, format)
    name = _column(columns, (column,) if column else _COLUMNS, "prompt", source) if columns else ""
    found = []
    for row in rows:
        value = row.value
        if isinstance(value, Mapping) and not (columns is None and _is_prompt(value)):
            value = _cell(row, name or _column(list(value), (column,) if column else _COLUMNS, "prompt", row.where))
        elif column:
            raise InputError(f"{row.where} without columns", f"a record with {column!r}", "Leave out the column")
        found.append(_prompt(value, row))
    if not found:
        raise InputError(f"no prompt in {_name(source)}", "at least one", "Write one a line")
    return found


def read_pairs(
    source: "str | Path | BinaryIO", *, columns: Mapping[str, str] | None = None, format: str = ""
) -> list[Pair]:
    """Pairs of prompts from a CSV, TSV or JSON file.

    columns: names in the file for "clean", "corrupt", "answer" and "wrong", where they are others; the last two may be
    missing. source, format: as for `read_prompts`. Raises InputError, with the line, for what cannot be read.
    """
    named = dict(columns or {})
    if unknown := [name for name in named if name not in _PAIR]:
        raise InputError(f"the column {unknown[0]!r}", f"one of {', '.join(_PAIR)}", "Correct it")
    rows, header = _read(source, format)
    found = []
    for row in rows:
        if not isinstance(row.value, Mapping):
            raise InputError(f"{row.where} without columns", "records with clean and corrupt", "Give a table")
        cells = {}
        for part, usual in _PAIR.items():
            asked = (named[part],) if part in named else usual
            known = header or list(row.value)
            is_needed = part in named or part in ("clean", "corrupt")
            if not is_needed and not any(name in known for name in asked):
                continue
            value = _cell(row, _column(known, asked, part, row.where))
            cells[part] = "" if value is None and part in ("answer", "wrong") else _text(value, row)
        found.append(Pair(**cells))
    if not found:
        raise InputError(f"no pair in {_name(source)}", "at least one", "Write one a row")
    return found


def read_json(source: "str | Path") -> Any:
    """What a JSON file holds; InputError where it cannot be read."""
    return _json(_decoded(source), _name(source))


def _read(source: "str | Path | BinaryIO", format: str) -> tuple[list[_Row], list[str] | None]:
    """Records, and the names of a table's columns."""
    name, kind = _name(source), format or _format(source)
    if kind not in FORMATS:
        raise InputError(f"the format {kind!r}", f"one of {', '.join(FORMATS)}", "Choose one of these")
    text = _decoded(source)
    if kind in ("csv", "tsv"):
        return _table(text, name, "\t" if kind == "tsv" else ",")
    if kind == "json":
        listed = _json(text, name)
        if not isinstance(listed, list):
            raise InputError(f"{name}, which holds no list", "a JSON list of prompts or records", "Put it in a list")
        return [_Row(value, f"record {n} of {name}") for n, value in enumerate(listed, 1)], None
    lines = [(n, line.removesuffix("\r")) for n, line in enumerate(text.split("\n"), 1)]
    rows = [_Row(line, f"line {n} of {name}") for n, line in lines if line.strip("\r") != ""]
    if kind == "jsonl":
        rows = [_Row(_json(row.value, row.where), row.where) for row in rows if row.value.strip()]
    return rows, None


def _format(source: "str | Path | BinaryIO") -> str:
    if not isinstance(source, str | Path):
        return "text"
    ending = Path(source).suffix.lower()
    if ending not in _ENDINGS:
        known = ", ".join(_ENDINGS)
        raise InputError(f"{source}, of an unknown format", f"a file that ends in {known}", "Name its format")
    return _ENDINGS[ending]


def _name(source: "str | Path | BinaryIO") -> str:
    return str(source) if isinstance(source, str | Path) else "the input"


def _decoded(source: "str | Path | BinaryIO") -> str:
    """The text of a file, without a byte order mark."""
    name = _name(source)
    try:
        raw = Path(source).read_bytes() if isinstance(source, str | Path) else source.read()
        return raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            line = raw[: error.start].count(b"\n") + 1
            raise InputError(f"{name}, which is not UTF-8 in line {line}", "UTF-8", "Save it as UTF-8") from error
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name} ({reason})", "a file that can be read", "Check the path") from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}, which is not JSON ({error})", "JSON", "Correct it") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A record whose keys stand once: JSON's readers keep the last of several and drop the others."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} twice in one record")
    return found


def _table(text: str, name: str, delimiter: str) -> tuple[list[_Row], list[str]]:
    """Rows of a table with a header. A quoted cell may hold line breaks."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if not any(header) or len(set(header)) != len(header):
            raise InputError(f"the header {header} of {name}", "a different name for each column", "Correct it")
        rows = list(_cells(reader, header, name))
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {name} ({error})", "a well-formed table", "Correct it") from error
    return rows, header


def _cells(reader: Any, header: list[str], name: str) -> Iterator[_Row]:
    last = reader.line_num
    for cells in reader:
        where, last = f"line {last + 1} of {name}", reader.line_num
        if not cells:
            continue
        if len(cells) != len(header):
            raise InputError(f"{where} with {len(cells)} cells", f"{len(header)}, as in its header", "Quote it")
        yield _Row(dict(zip(header, cells, strict=True)), where)


def _column(known: Sequence[str], asked: Sequence[str], what: str, where: Any) -> str:
    """The first asked column that is there."""
    found = next((name for name in asked if name in known), None)
    if found is None:
        raise InputError(
            f"{where if isinstance(where, str) else _name(where)} with the columns {', '.join(map(str, known))}",
            f"one called {' or '.join(asked)}, for the {what}",
            "Name the column",
        )
    return found


def _cell(row: _Row, name: str) -> Any:
    if name not in row.value:
        raise InputError(f"{row.where} without {name!r}", "that column", "Correct it")
    return row.value[name]


def _is_prompt(value: Mapping[str, Any]) -> bool:
    """A message by itself."""
    return {"role", "content"} <= set(value)


def _text(value: Any, row: _Row) -> str:
    try:
        if not isinstance(value, str):
            raise InputError(f"{value!r}", "a text", "Put it in quotes")
        return as_text(value)
    except InputError as error:
        raise _at(row, error) from error


def _prompt(value: Any, row: _Row) -> Prompt:
    try:
        if value is None or isinstance(value, bool | int | float):
            raise InputError(f"{json.dumps(value)}", "a text, a chat or a list of ids", "Put it in quotes")
        found = kinds_of(value)
        if len(found) != 1:
            raise InputError(f"{len(found)} prompts", "one", "Give one a record")
        return Prompt(**{found[0][0]: found[0][1]})
    except InputError as error:
        raise _at(row, error) from error


def _at(row: _Row, error: InputError) -> InputError:
    return InputError(f"{error.got} in {row.where}", error.expected, error.remedy)
