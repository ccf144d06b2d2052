"""The ledger of a store: a line a finished shard, appended only. What was read once is not read again.

Many workers append to it and each looks whether a shard of its list is there: to read the whole file each time would
cost more than the shards. A torn line costs itself alone.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from workbench import memo
from workbench.batch import schema
from workbench.errors import UnavailableError, in_words
from workbench.files import regular_file

__all__ = ["Entry", "Ledger", "line_of"]


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


class Ledger:
    """The ledger of one store. place: the path of a file of it, refused where a link lies."""

    def __init__(self, place: Callable[[str], Path]):
        self._place = place
        self._read = 0  # bytes of whole lines that were read
        self._known: dict[str, set[str]] = {}  # shards, and what their bytes were

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
        """Its lines in their order; what is no line as it was written is left out: the shard it was of is computed
        again."""
        return [entry for entry, _ in self._entries(0)]

    def knows(self, shard: str, sha256: str) -> bool:
        """Whether a shard was finished with these bytes."""
        if sha256 not in self._known.get(shard, ()):
            for entry, end in self._entries(self._read):
                self._known.setdefault(entry.shard, set()).add(entry.sha256)
                self._read = max(self._read, end)
        return sha256 in self._known.get(shard, ())

    def _entries(self, start: int) -> Iterator[tuple[Entry, int]]:
        """The lines from a byte on, and where each ends; 0 for a last one that may go on."""
        path = self._place("ledger.jsonl")
        if not path.exists():
            return
        with regular_file(path) as file:
            file.seek(start if start <= os.fstat(file.fileno()).st_size else 0)  # a shorter one is another
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):  # torn by a kill or a full disk
                    entry = Entry(**schema.entry(memo.unmarked(json.loads(line))))
                    yield entry, file.tell() if line.endswith(b"\n") else 0
