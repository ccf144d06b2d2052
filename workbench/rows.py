"""Rows of prompt files, one at a time: text, JSON Lines, JSON, CSV, TSV, Parquet.

The one reader of the shell, of Python and of batches.

A row is its exact characters in every format: the words NA and null, 007, quoted line breaks and line separators inside
a text stay what they are; a byte order mark belongs to the file. What a row has wrong is said with its line.
"""

import csv
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from io import BytesIO, TextIOBase, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from workbench.errors import InputError, UnavailableError, WorkbenchError
from workbench.files import at_once

__all__ = ["ENDINGS", "FORMATS", "Row", "Source", "name_of", "opened", "parsed", "rows", "whole"]

Source = str | Path | BinaryIO
FORMATS = ("text", "jsonl", "json", "csv", "tsv", "parquet")
ENDINGS = {
    ".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
_UNREAD = (".gz", ".bz2", ".xz", ".zst", ".zip", ".xls", ".xlsx", ".ods")
_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16 and UTF-32
_PACKED = {
    b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "a zip archive, as of Excel",
}  # fmt: skip
_LINE = 1 << 28  # bytes of a line: a device may never end
_WHOLE = 1 << 30  # bytes of what is read whole
_PIECE = 1 << 20
_FIELD = 2**31 - 1  # characters of a field; csv's own limit is 131,072


class Row(NamedTuple):
    """One record. place: "line 3", "record 3", "row 3"; name: of the file. is_table: its value is a row of a table."""

    value: Any
    place: str
    name: str
    is_table: bool = False

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.place} of {self.name}"


def rows(source: Source, *, format: str = "", encoding: str = "utf-8") -> Iterator[Row]:
    """The records of a file, streamed (JSON, which is one value, is read whole). Empty lines are left out.

    source: a path, or a file opened in binary (`sys.stdin.buffer`). format: one of `FORMATS`, by default from the
    ending of its name, and text for a file without a name. Rows of tables are mappings by the names of their columns.

    Raises InputError, with the line, for what cannot be read; UnavailableError for Parquet without pyarrow.
    """
    kind = format or _format(source)
    if kind not in FORMATS:
        raise InputError(f"the format {kind!r}", f"one of {', '.join(FORMATS)}", "Choose one of these")
    name = name_of(source)
    with opened(source) as file, closing(_lines(file, name, encoding)) as lines:  # ended before the file is closed
        if kind == "parquet":
            yield from _parquet(file, name)
        elif kind in ("csv", "tsv"):
            yield from _table(lines, name, "\t" if kind == "tsv" else ",")
        elif kind == "json":
            yield from _listed(_joined(lines, name), name)
        else:
            for number, line in lines:
                yield from _line(line, f"line {number}", name, kind)


def name_of(source: Source) -> str:
    """What a sentence calls a file."""
    return str(source) if isinstance(source, str | Path) else "the input"


def _format(source: Source) -> str:
    if not isinstance(source, str | Path):
        return "text"  # a file without a name
    ending = Path(source).suffix.lower()
    if ending not in ENDINGS:
        known = ", ".join(ENDINGS)
        remedy = "Unpack it, or save it as CSV" if ending in _UNREAD else "Name its format"
        raise InputError(f"{source}, of an unknown format", f"a file that ends in {known}", remedy)
    return ENDINGS[ending]


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """A file for reading bytes; one that was open stays so. Raises InputError where it cannot be read."""
    try:
        if isinstance(source, str | Path):
            with open(source, "rb", opener=at_once) as file:
                yield file
        elif callable(getattr(source, "readline", None)) and not isinstance(source, TextIOBase):
            yield source
        else:
            raise InputError(
                f"a {type(source).__name__} as a file", "a path, or a file that is open for reading bytes",
                'Give its path, or open it with open(path, "rb")',
            )  # fmt: skip
    except (OSError, ValueError) as error:
        if isinstance(error, WorkbenchError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name_of(source)} ({reason})", "a file that can be read", "Check the path") from error


def whole(file: BinaryIO, name: str) -> bytes:
    """All bytes of an open file, piece by piece: a device may never end. Raises InputError for more than a GiB."""
    found = bytearray()
    while piece := file.read(_PIECE):
        found += piece
        if len(found) > _WHOLE:
            raise _endless(name)
    return bytes(found)


def _joined(lines: Iterator[tuple[int, str]], name: str) -> str:
    """The text of lines. Raises InputError for more than a GiB of them."""
    found, size = [], 0
    for _, line in lines:
        found.append(line)
        size += len(line)
        if size > _WHOLE:
            raise _endless(name)
    return "".join(found)


def _endless(name: str) -> InputError:
    return InputError(f"{name} with over {_WHOLE:,} bytes", "a file that fits into memory", "Check the file")


def _lines(file: BinaryIO, name: str, encoding: str) -> Generator[tuple[int, str], None, None]:
    """Lines with their ends, split at newlines only: a text may hold any other separator."""
    try:
        is_wide = "a\n".encode(encoding) != b"a\n"
    except (LookupError, UnicodeError) as error:
        raise InputError(
            f"the encoding {encoding!r}", 'one that Python knows, such as "utf-8"', "Correct it"
        ) from error
    if is_wide:  # such as UTF-16, where a newline is two bytes
        yield from _wide_lines(file, name, encoding)
        return
    shown = encoding.upper() if encoding.lower().startswith("utf") else encoding
    for number, raw in enumerate(iter(lambda: file.readline(_LINE + 1), b""), start=1):
        if len(raw) > _LINE:
            raise InputError(f"line {number} of {name} with over {_LINE:,} bytes", "a file of lines", "Check the file")
        if number == 1:
            _need_unpacked(raw, name)
        if number == 1 and raw.startswith(_WIDE):
            raise InputError(f"{name}, which is UTF-16 and not {shown}", shown, "Save it as UTF-8, or say its encoding")
        raw = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            yield number, raw.decode(encoding)
        except UnicodeDecodeError as error:
            got = f"{name}, which is not {shown} in line {number} (byte {raw[error.start]:#04x})"
            raise InputError(got, f"text in {shown}", "Save it as UTF-8, or say its encoding") from error


def _need_unpacked(start: bytes, name: str) -> None:
    """InputError for what is compressed, of which a decoder would say that it is no text, and ask for its encoding."""
    packed = next((what for magic, what in _PACKED.items() if start.startswith(magic)), None)
    if packed is not None:
        raise InputError(f"{name}, which is compressed ({packed})", "text", "Unpack it, or save it as CSV")


def _wide_lines(file: BinaryIO, name: str, encoding: str) -> Iterator[tuple[int, str]]:
    wrapped, number = TextIOWrapper(file, encoding, newline="\n"), 0
    try:
        for number, line in enumerate(iter(lambda: wrapped.readline(_LINE + 1), ""), start=1):
            if len(line) > _LINE:
                got = f"line {number} of {name} with over {_LINE:,} characters"
                raise InputError(got, "a file of lines", "Check the file")
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeError as error:
        got = f"{name}, which is not {encoding} behind line {number}"
        raise InputError(got, f"text in {encoding}", "Save it as UTF-8, or say its encoding") from error
    finally:
        wrapped.detach()  # closing is its opener's business


def _line(line: str, place: str, name: str, kind: str) -> Iterator[Row]:
    text = line.removesuffix("\n").removesuffix("\r")
    if kind == "text" and text.strip("\r"):
        yield Row(text, place, name)
    elif kind == "jsonl" and text.strip():
        yield Row(parsed(text, f"{place} of {name}"), place, name)


def parsed(text: str, where: str) -> Any:
    """What JSON says. Raises InputError for what is none, and for a key that stands twice in one record."""
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


def _listed(text: str, name: str) -> Iterator[Row]:
    listed = parsed(text, name)
    if not isinstance(listed, list):
        raise InputError(f"{name}, which holds no list", "a JSON list of prompts or records", "Put it in a list")
    for number, value in enumerate(listed, start=1):
        yield Row(value, f"record {number}", name)


def _table(lines: Iterator[tuple[int, str]], name: str, delimiter: str) -> Iterator[Row]:
    """Rows of a table with a header. A quoted cell may hold line breaks."""
    texts = (line for _, line in lines)
    first = next(texts, "")
    _need_delimiter(first, name, delimiter)
    reader = csv.reader(chain([first], texts), delimiter=delimiter, strict=True)
    header = _cells(reader, name) or []
    _need_names(header, name)
    while True:
        place = f"line {reader.line_num + 1}"
        cells = _cells(reader, name)
        if cells is None:
            return
        if cells and len(cells) != len(header):
            got = f"{place} of {name} with {len(cells)} cells"
            raise InputError(got, f"{len(header)}, as in its header", "Quote it")
        if cells:
            yield Row(dict(zip(header, cells, strict=True)), place, name, is_table=True)


def _need_delimiter(first: str, name: str, delimiter: str) -> None:
    """InputError for a first line that another mark parts into columns, in quotes or not: an Excel of many countries
    writes semicolons."""
    if delimiter not in first and (other := next((mark for mark in ";\t" if mark in first), None)):
        between = {",": "commas", "\t": "tabs"}[delimiter]
        raise InputError(
            f"the header {first.rstrip()!r} of {name}, whose columns {other!r} parts",
            f"{between} between columns", f"Save it with {between}" + (", or name it .tsv" if other == "\t" else ""),
        )  # fmt: skip


def _need_names(header: Sequence[str], name: str) -> None:
    if not any(header) or len(set(header)) != len(header):
        raise InputError(f"the header {[*header]} of {name}", "a different name for each column", "Correct it")


def _cells(reader: Any, name: str) -> list[str] | None:
    """The next row of a table; None behind its last. The limit of a field is the whole process's: it is put back."""
    before = csv.field_size_limit(_FIELD)
    try:
        return next(reader, None)
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {name} ({error})", "a well-formed table", "Correct it") from error
    finally:
        csv.field_size_limit(before)


def _parquet(file: BinaryIO, name: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UnavailableError(
            f"{name} without pyarrow", "the library that reads Parquet", "Install pyarrow, or convert the file to JSONL"
        ) from error
    number = 0
    try:
        is_pipe = not getattr(file, "seekable", lambda: True)()
        table = parquet.ParquetFile(BytesIO(whole(file, name)) if is_pipe else file)  # which begins at its end
        _need_names(table.schema_arrow.names, name)  # a row is by names: the last of two would be taken
        for batch in table.iter_batches(batch_size=1024):
            for value in batch.to_pylist():
                number += 1
                yield Row(_known(value), f"row {number}", name, is_table=True)
    except ArrowException as error:
        raise InputError(f"{name}, which is not Parquet ({error})", "a Parquet file", "Check the file") from error


def _known(value: Mapping[str, Any]) -> dict[str, Any]:
    """A row of Parquet as those of other tables are: by the names of its columns."""
    return {str(name): cell for name, cell in value.items()}
