"""Rows of prompt files, one at a time: text, JSON lines, CSV, Parquet.

A row is its exact characters in every format: the words NA and null, 007, quoted newlines and line separators inside a
text stay what they are. Files are streamed. What a row has wrong is said with its line.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.errors import InputError, UnavailableError

__all__ = ["FORMATS", "Record", "records"]

Record = tuple[int, dict[str, Any]]  # line or row, counted from 1, and its columns

_BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16 and UTF-32


def records(path: Path, encoding: str = "utf-8") -> Iterator[Record]:
    """Line and columns of each row; a text file has the one column "text".

    Raises InputError for an unknown format, another encoding, a row that cannot be read, each with its line;
    UnavailableError for a file that is not there, and for Parquet without pyarrow.
    """
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"the file {path}", f"one of {', '.join(FORMATS)}", "Convert it, or name it by its format")
    if not path.is_file():
        raise UnavailableError(f"no file at {path}", "a file with prompts", "Check the path")
    try:
        yield from reader(path, encoding)
    except LookupError as error:
        if "encoding" not in str(error):
            raise
        raise InputError(f"encoding = {encoding!r}", 'one that Python knows, such as "utf-8"', "Correct it") from error
    except OSError as error:
        raise UnavailableError(f"{error.strerror or error} at {path}", "a readable file", "Check the path") from error


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines with their ends, split at newlines only: a text may hold any other separator."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1 and raw.startswith(_WIDE):
                raise InputError(f"{path}, which is UTF-16", "UTF-8", "Convert it")
            raw = raw.removeprefix(_BOM) if number == 1 else raw
            try:
                yield number, raw.decode(encoding)
            except UnicodeDecodeError as error:
                at = f"byte {error.object[error.start]:#04x}" if isinstance(error.object, bytes) else error.reason
                raise InputError(
                    f"{path}, line {number}: {at}, which is not {encoding}",
                    f"text in {encoding}",
                    'Convert the file, or name its encoding, such as encoding = "latin-1"',
                ) from error


def _text(path: Path, encoding: str) -> Iterator[Record]:
    for number, line in _lines(path, encoding):
        text = line.removesuffix("\n").removesuffix("\r")
        if text.strip():
            yield number, {"text": text}


def _json_lines(path: Path, encoding: str) -> Iterator[Record]:
    for number, line in _lines(path, encoding):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}, which is not JSON ({error})", "one JSON object a line", "Correct that line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: {row!r:.60}", 'an object such as {"text": "..."}', "Correct it")
        yield number, row


def _csv(path: Path, encoding: str) -> Iterator[Record]:
    before = csv.field_size_limit()
    lines = (line for _, line in _lines(path, encoding))
    reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    names: list[str] = []
    while True:
        start = reader.line_num + 1
        csv.field_size_limit(2**31 - 1)  # a text may be longer than csv's 131,072 characters
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num} ({error})", "CSV", "Correct that line") from error
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if not names:
            names = row
            twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
            if twice is not None:
                raise InputError(f"the column {twice!r} twice in {path}", "each once", "Rename one")
        elif row and len(row) != len(names):
            raise InputError(
                f"{path}, line {start}: {len(row)} fields", f"{len(names)}, as in its first line", "Correct that line"
            )
        elif row:
            yield start, dict(zip(names, row, strict=True))


def _parquet(path: Path, encoding: str) -> Iterator[Record]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise UnavailableError(
            f"{path} without pyarrow", "the library that reads Parquet", "Install pyarrow, or convert the file to JSONL"
        ) from error
    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except ArrowInvalid as error:
        raise InputError(f"{path}, which is not Parquet ({error})", "a Parquet file", "Check the file") from error


FORMATS = {".txt": _text, ".jsonl": _json_lines, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
