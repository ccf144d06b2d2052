"""The store of a batch: a folder that every process may be killed beside.

    spec.toml          as it was given last
    plan.json          format, models, analyses, and the keys of the shards in their order
    prompts.jsonl      one line a prompt: model, group, document, tokens, the keys of its cells
    shards/KEY.json    what is computed
    shards/KEY.nc      what came out
    ledger.jsonl       one line a finished shard: sha256, seconds, what failed
    leases/, cancel    who is at which shard; the wish to stop

Every file but the ledger is written under a temporary name, fsynced and renamed. The ledger is only appended to; a torn
line costs itself alone. A shard counts if its bytes have a sha256 that the ledger has for it. Every record carries a
checksum: one that is not as it was written is not believed, and running again makes it anew. A store may be anybody's:
what is read is a regular file in the folder, of which every record is held to its schema (`schema.py`).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from workbench import memo
from workbench.batch import schema
from workbench.batch.ledger import Entry, Ledger, line_of
from workbench.batch.shards import Shard
from workbench.errors import FileError, InputError, RefusedError, UnavailableError, WorkbenchError, in_words
from workbench.files import read_whole, regular_file, whole_file

__all__ = ["FORMAT", "Entry", "Store", "line_of"]

FORMAT = 1  # a reader refuses what a newer version has written
_MOST = 1 << 30  # bytes of a record


class Store:
    """The files of a batch in a folder. Raises UnavailableError where they cannot be read or written."""

    def __init__(self, folder: str | Path):
        self.folder = _folder(str(folder))
        self._ledger = Ledger(self.path)

    @property
    def exists(self) -> bool:
        """Whether a batch was planned here."""
        return (self.folder / "plan.json").is_file()

    def need(self) -> None:
        """Raise UnavailableError where a planned batch is no more: what is written there now would be lost, or land
        where a disk was mounted."""
        try:
            if self.exists:
                return
            reason = "its plan is gone"
        except OSError as error:
            reason = in_words(error)
        raise UnavailableError(
            f"a store that went away while it was in use, {self.folder} ({reason})", "the folder of the run",
            "Bring it back and run again: what is finished in it is kept",
        )  # fmt: skip

    def path(self, *names: str) -> Path:
        """A file of the store. Raises InputError where a link lies: it may lead to any file of this machine."""
        path = self.folder.joinpath(*names)
        if names and path.is_symlink():
            raise InputError(f"{path}, which is a link", "a file of the store", "Put the file there, or take it away")
        return path

    def write(self, name: str, text: str) -> None:
        """A text file, whole and on the disk or not at all."""
        self.write_lines(name, [text])

    def write_record(self, name: str, record: dict[str, Any]) -> None:
        """A JSON file with its checksum; see `write`."""
        self.write(name, line_of(record))

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """As `write`, of parts that follow each other."""
        with whole_file(self.path(name)) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())

    def plan(self) -> dict[str, Any]:
        """What plan.json holds. Raises UnavailableError where there is none, RefusedError for a newer format."""
        record = self._json("plan.json")
        newer = record.get("format", 0)
        if isinstance(newer, int) and newer > FORMAT:
            raise RefusedError(
                f"{self.folder}, written by a newer version (format {newer})",
                f"format {FORMAT} or older", "Update the workbench, or run in another folder",
            )  # fmt: skip
        try:
            return schema.plan(record)
        except ValueError as error:
            raise self.damaged("plan.json", error) from error

    def _json(self, name: str) -> dict[str, Any]:
        if not self.path(name).exists():
            raise FileError(f"no batch in {self.folder}", "a folder that `workbench batch run` made", "Check the path")
        try:
            return memo.unmarked(json.loads(read_whole(self.path(name), _MOST)))
        except (ValueError, RecursionError) as error:
            raise self.damaged(name, error) from error

    def damaged(self, name: str, why: object) -> FileError:
        """What is said of a file that is not what a run wrote."""
        reason = why.got if isinstance(why, WorkbenchError) else why
        return FileError(f"a damaged {name} in {self.folder} ({reason})", "what a run wrote", "Run again from the spec")

    def shard(self, key: str) -> Shard:
        """What a shard computes."""
        record = self._json(f"shards/{key}.json")
        try:
            found = Shard.of(record)
        except ValueError as error:
            raise self.damaged(f"shards/{key}.json", error) from error
        if found.key != key:
            raise self.damaged(f"shards/{key}.json", "another shard's")
        return found

    def prompts(self) -> Iterator[dict[str, Any]]:
        """The prompts of the plan, one at a time, in its order. Raises UnavailableError where they are damaged."""
        try:
            with regular_file(self.path("prompts.jsonl")) as file:
                for line in file:
                    yield schema.prompt(memo.unmarked(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise self.damaged("prompts.jsonl", error) from error

    def append(self, entry: Entry) -> None:
        """A line to the ledger, on the disk when this returns."""
        self._ledger.append(entry)

    def ledger(self) -> list[Entry]:
        """Its lines in their order; see `Ledger.entries`."""
        return self._ledger.entries()

    def finished(self) -> dict[str, Entry]:
        """The shards whose bytes are what the ledger says, by key. One that was altered is to be computed again."""
        by_key: dict[str, dict[str, Entry]] = {}
        for entry in self.ledger():
            by_key.setdefault(entry.shard, {})[entry.sha256] = entry
        found = {}
        for key, entries in by_key.items():
            actual = self.sha256(key)
            if actual in entries:
                found[key] = entries[actual]
        return found

    def has(self, key: str) -> bool:
        """Whether anybody has finished a shard. Its file is looked for first, which costs nothing."""
        actual = self.sha256(key)
        return bool(actual) and self._ledger.knows(key, actual)

    def sha256(self, key: str) -> str:
        """Of a shard's bytes; "" where there are none."""
        return self.digest("shards", f"{key}.nc")

    def digest(self, *names: str) -> str:
        """The sha256 of a file of the store; "" where there is none."""
        path = self.path(*names)
        if not path.exists():
            return ""
        try:
            with regular_file(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except InputError as error:
            raise UnavailableError(error.got, "a store that can be read", "Check the disk") from error

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self.path("cancel").exists()

    def cancel(self) -> None:
        """Ask whoever runs this batch to stop."""
        self.write("cancel", "stop\n")

    def go_on(self) -> None:
        """Take the wish to stop back."""
        self.path("cancel").unlink(missing_ok=True)


def _folder(given: str) -> Path:
    """The folder of a store, `file://` or a path. Raises RefusedError for other addresses, InputError for no folder."""
    if "\0" in given:
        raise InputError("a folder with a NUL in it", "the path of a folder", "Correct it")
    address = urlsplit(given) if "://" in given else None
    if address is not None and (address.scheme != "file" or address.netloc not in ("", "localhost")):
        raise RefusedError(
            f"the store {given}",
            "a folder of this machine or a shared one: shards are taken by creating files that nobody else can create, "
            "and the ledger is appended to",
            "Name a folder; copy it there when the run is done",
        )
    folder = Path(given if address is None else url2pathname(address.path))
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            folder.stat()  # a name may be too long, or a circle of links
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
        is_folder = there.is_dir()
    except OSError as error:
        raise InputError(f"{folder} ({in_words(error)})", "the path of a folder", "Correct it") from error
    if not is_folder:
        raise InputError(f"{there}, which is no folder", "a place for the folder of a run", "Choose another")
    return folder
