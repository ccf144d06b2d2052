"""The ledger of a store: a line a finished shard, added only. What was read once is not read again.

Many workers add to it and each looks whether a shard of its list is there: to read all of it each time would cost more
than the shards. In a folder it is one file, of which a torn line costs itself alone. An object cannot be appended to:
there it is an object a line.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from workbench import memo
from workbench.batch import schema
from workbench.batch.backing.backing import Backing
from workbench.errors import InputError, UnavailableError, in_words
from workbench.files import regular_file

__all__ = ["Entry", "FileLedger", "Ledger", "ObjectLedger", "line_of"]

_MOST = 1 << 28  # bytes of a line


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: a shard that was finished.

    cells: by analysis. failed: sentence by cell. seconds: it took. halved: how often a batch did not fit into memory.
    """

    shard: str
    sha256: str
    cells: dict[str, list[str]]
    failed: dict[str, str]
    seconds: float
    n_tokens: int
    halved: int = 0
    stamp: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def line_of(record: dict[str, Any]) -> str:
    """A record as a line of JSON, with its checksum."""
    return json.dumps(memo.marked(record), separators=(",", ":")) + "\n"


def _entry(line: bytes) -> Entry:
    """Of a line. Raises ValueError and RecursionError for what is none as it was written."""
    return Entry(**schema.entry(memo.unmarked(json.loads(line))))


class Ledger(Protocol):
    """The ledger of one store. Raises UnavailableError where it cannot be read or written."""

    def append(self, entry: Entry) -> None:
        """A line more, kept when this returns."""

    def entries(self) -> list[Entry]:
        """Its lines in their order; what is no line as it was written is left out: the shard it was of is computed
        again."""

    def knows(self, shard: str, sha256: str) -> bool:
        """Whether a shard was finished with these bytes."""

    def failed(self) -> dict[str, dict[str, str]]:
        """Sentences by cell, of every finished shard of which something failed."""

    def sign(self) -> str:
        """Changes with every line."""


class FileLedger:
    """The ledger of a store in a folder. place: the path of a file of it, refused where a link lies."""

    def __init__(self, place: Callable[[str], Path]):
        self._place = place
        self._read = 0  # bytes of whole lines that were read
        self._known: dict[str, set[str]] = {}  # shards, and what their bytes were
        self._failed: dict[str, dict[str, str]] = {}  # of the last line of a shard

    def append(self, entry: Entry) -> None:
        """A line more, on the disk when this returns. A torn line before it stays a line of its own."""
        line = line_of(entry.record()).encode()
        try:
            with FileLock(self._place("ledger.lock")), open(self._place("ledger.jsonl"), "a+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UnavailableError(
                f"{in_words(error)} at {self._place('ledger.jsonl')}", "a place to write", "Make room, run again"
            ) from error

    def entries(self) -> list[Entry]:
        """See `Ledger`."""
        return [entry for entry, _ in self._entries(0)]

    def knows(self, shard: str, sha256: str) -> bool:
        """See `Ledger`."""
        if sha256 not in self._known.get(shard, ()):
            self._read_on()
        return sha256 in self._known.get(shard, ())

    def failed(self) -> dict[str, dict[str, str]]:
        """See `Ledger`."""
        self._read_on()
        return {shard: failed for shard, failed in self._failed.items() if failed}

    def sign(self) -> str:
        """Its size and when it was written."""
        try:
            found = os.stat(self._place("ledger.jsonl"))
        except FileNotFoundError:
            return "-"
        return f"{found.st_size}.{found.st_mtime_ns}"

    def _read_on(self) -> None:
        for entry, end in self._entries(self._read):
            self._known.setdefault(entry.shard, set()).add(entry.sha256)
            self._failed[entry.shard] = entry.failed
            self._read = max(self._read, end)

    def _entries(self, start: int) -> Iterator[tuple[Entry, int]]:
        """The lines from a byte on, and where each ends; 0 for a last one that may go on."""
        path = self._place("ledger.jsonl")
        if not path.exists():
            return
        with regular_file(path) as file:
            file.seek(start if start <= os.fstat(file.fileno()).st_size else 0)  # a shorter one is another
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):  # torn by a kill or a full disk
                    yield _entry(line), file.tell() if line.endswith(b"\n") else 0


class ObjectLedger:
    """The ledger of a place of an object store: `ledger/SHARD-SHA256.json`, in the order of these names.

    Who finishes a shard with the same bytes writes the same line.
    """

    def __init__(self, backing: Backing):
        self._backing = backing
        self._read: dict[str, Entry] = {}  # by name

    def append(self, entry: Entry) -> None:
        """See `Ledger`."""
        self._backing.write(f"ledger/{_name(entry)}", [line_of(entry.record()).encode()])

    def entries(self) -> list[Entry]:
        """See `Ledger`."""
        names = self._backing.names("ledger")
        new = [name for name in names if name not in self._read]
        for name, entry in zip(new, self._backing.each(self._of, new), strict=True):
            if entry is not None:
                self._read[name] = entry
        return [self._read[name] for name in names if name in self._read]

    def _of(self, name: str) -> Entry | None:
        """What an object says; None where it is gone, and for what is no line or that of another shard."""
        try:
            entry = _entry(self._backing.read(f"ledger/{name}", _MOST))
        except (InputError, ValueError, RecursionError):
            return None
        return entry if _name(entry) == name else None

    def knows(self, shard: str, sha256: str) -> bool:
        """See `Ledger`."""
        name = f"{shard}-{sha256}.json"
        return name in self._read or self._of(name) is not None

    def failed(self) -> dict[str, dict[str, str]]:
        """See `Ledger`."""
        return {entry.shard: entry.failed for entry in self.entries() if entry.failed}

    def sign(self) -> str:
        """Of the names."""
        return hashlib.sha256(" ".join(self._backing.names("ledger")).encode()).hexdigest()


def _name(entry: Entry) -> str:
    return f"{entry.shard}-{entry.sha256}.json"
