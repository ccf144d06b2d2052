"""The store of a batch: a folder, or a place of an object store, that every process may be killed beside.

    spec.toml          as it was given last
    plan.json          format, models, analyses, and the keys of the shards in their order
    prompts.jsonl      one line a prompt: model, group, document, tokens, the keys of its cells
    shards/KEY.json    what is computed
    shards/KEY.nc      what came out
    ledger.jsonl       one line a finished shard: sha256, seconds, what failed; as objects: ledger/SHARD-SHA256.json
    leases/, cancel    who is at which shard; the wish to stop

Every file but the ledger is there whole or not at all (see `backing/`). The ledger is only added to; a torn line costs
itself alone. A shard counts if its bytes have a sha256 that the ledger has for it. Every record carries a checksum: one
that is not as it was written is not believed, and running again makes it anew. A store may be anybody's: every record
is held to its schema (`schema.py`).
"""

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from workbench import memo
from workbench.batch import schema
from workbench.batch.backing.address import backing_of
from workbench.batch.backing.backing import Backing
from workbench.batch.backing.folder import Folder
from workbench.batch.ledger import Entry, FileLedger, Ledger, ObjectLedger, line_of
from workbench.batch.shards import Shard
from workbench.errors import FileError, RefusedError, UnavailableError, WorkbenchError

__all__ = ["FORMAT", "Entry", "Store", "line_of"]

FORMAT = 1  # a reader refuses what a newer version has written
_MOST = 1 << 30  # bytes of a record
_TOGETHER = 256  # records that are written at once


class Store:
    """The files of a batch, in a folder or below an address such as s3://bucket/runs/heads.

    Raises UnavailableError where they cannot be read or written.
    """

    def __init__(self, folder: str | Path):
        self.backing: Backing = backing_of(folder)
        self._ledger: Ledger = (
            FileLedger(self.backing.path) if isinstance(self.backing, Folder) else ObjectLedger(self.backing)
        )

    @property
    def title(self) -> str:
        """Where it is, for people: no secret of an address stands in it."""
        return self.backing.title

    @property
    def address(self) -> str:
        """What opens it again; a secret may stand in it."""
        return self.backing.address

    @property
    def is_local(self) -> bool:
        """Whether it is a folder that this machine sees."""
        return isinstance(self.backing, Folder)

    @property
    def folder(self) -> Path:
        """The folder that it is. Raises RefusedError where it is none."""
        if isinstance(self.backing, Folder):
            return self.backing.folder
        raise RefusedError(f"the folder of {self.title}", "a run in a folder of this machine", "Take its address")

    def path(self, *names: str) -> Path:
        """A file of a store in a folder. Raises InputError where a link lies, RefusedError where it is no folder."""
        return self.backing.path(*names) if isinstance(self.backing, Folder) else self.folder

    @property
    def exists(self) -> bool:
        """Whether a batch was planned here."""
        return self.backing.has("plan.json")

    def need(self) -> None:
        """Raise UnavailableError where a planned batch is no more: what is written there now would be lost, or land
        where a disk was mounted."""
        try:
            if self.exists:
                return
            reason = "its plan is gone"
        except UnavailableError as error:
            reason = error.got
        raise UnavailableError(
            f"a store that went away while it was in use, {self.title} ({reason})", "the folder of the run",
            "Bring it back and run again: what is finished in it is kept",
        )  # fmt: skip

    def need_exclusive(self) -> None:
        """Create an object twice; a folder needs no trial. Raises RefusedError where the second is not refused: shards
        are taken by creating files. UnavailableError where nothing can be written, before anything is computed."""
        if self.is_local:
            return
        name = f"leases/probe-{secrets.token_hex(8)}"
        self.backing.create(name, b"1")
        both = self.backing.create(name, b"2")
        self.backing.delete(name)
        if both:
            raise RefusedError(
                f"the store {self.title}, which lets two processes create the same file",
                "one that refuses the second: shards are taken by creating files that nobody else can create",
                "Name a folder, or a store with conditional writes, which S3 has",
            )

    def write(self, name: str, text: str) -> None:
        """A text file, whole and kept or not at all."""
        self.write_lines(name, [text])

    def write_bytes(self, name: str, content: bytes) -> None:
        """As `write`."""
        self.backing.write(name, [content])

    def write_record(self, name: str, record: dict[str, Any]) -> None:
        """A JSON file with its checksum; see `write`."""
        self.write(name, line_of(record))

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """As `write`, of parts that follow each other."""
        self.backing.write(name, (line.encode() for line in lines))

    def write_shards(self, shards: Iterable[Shard]) -> None:
        """What shards compute, where it does not stand there as it is."""
        there = set(self.backing.names("shards"))

        def put(shard: Shard) -> None:
            name = f"{shard.key}.json"
            if name in there and self._is_of(shard):
                return
            self.write_record(f"shards/{name}", shard.record())

        left = iter(shards)
        while some := list(islice(left, _TOGETHER)):
            for _ in self.backing.each(put, some):
                pass

    def _is_of(self, shard: Shard) -> bool:
        try:
            return self.shard(shard.key) == shard
        except UnavailableError:
            return False

    def plan(self) -> dict[str, Any]:
        """What plan.json holds. Raises UnavailableError where there is none, RefusedError for a newer format."""
        record = self._json("plan.json")
        newer = record.get("format", 0)
        if isinstance(newer, int) and newer > FORMAT:
            raise RefusedError(
                f"{self.title}, written by a newer version (format {newer})",
                f"format {FORMAT} or older", "Update the workbench, or run in another folder",
            )  # fmt: skip
        try:
            return schema.plan(record)
        except ValueError as error:
            raise self.damaged("plan.json", error) from error

    def _json(self, name: str) -> dict[str, Any]:
        if not self.backing.has(name):
            if name != "plan.json" and self.exists:
                raise self.damaged(name, "it is gone")
            raise FileError(f"no batch in {self.title}", "a folder that `workbench batch run` made", "Check the path")
        try:
            return memo.unmarked(json.loads(self.backing.read(name, _MOST)))
        except (ValueError, RecursionError) as error:
            raise self.damaged(name, error) from error

    def damaged(self, name: str, why: object) -> FileError:
        """What is said of a file that is not what a run wrote."""
        reason = why.got if isinstance(why, WorkbenchError) else why
        return FileError(f"a damaged {name} in {self.title} ({reason})", "what a run wrote", "Run again from the spec")

    def read(self, name: str, most: int) -> bytes | None:
        """The bytes of a file, None where there is none. Raises InputError for more than `most`, and for a link."""
        return self.backing.read(name, most) if self.backing.has(name) else None

    def delete(self, name: str) -> None:
        """Take a file away, where it is there."""
        self.backing.delete(name)

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

    def whole_shards(self, keys: Sequence[str]) -> Iterator[Shard]:
        """What shards compute, in their order, without those that are not there or damaged."""

        def whole(key: str) -> Shard | None:
            try:
                return self.shard(key)
            except FileError:
                return None

        return (found for found in self.backing.each(whole, keys) if found is not None)

    def prompts(self) -> Iterator[dict[str, Any]]:
        """The prompts of the plan, one at a time, in its order. Raises UnavailableError where they are damaged."""
        try:
            for line in self.backing.lines("prompts.jsonl"):
                yield schema.prompt(memo.unmarked(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise self.damaged("prompts.jsonl", error) from error

    def append(self, entry: Entry) -> None:
        """A line to the ledger, kept when this returns."""
        self._ledger.append(entry)

    def ledger(self) -> list[Entry]:
        """Its lines in their order; see `Ledger.entries`."""
        return self._ledger.entries()

    def failed(self, keys: Collection[str]) -> dict[str, str]:
        """Sentences of cells that failed in these shards, of which some may have come out in another."""
        return {cell: why for key, own in self._ledger.failed().items() if key in keys for cell, why in own.items()}

    def sign(self) -> str:
        """Changes with whatever is planned or finished."""
        return f"{self.backing.sign('plan.json')} {self._ledger.sign()}"

    def finished(self) -> dict[str, Entry]:
        """The shards whose bytes are what the ledger says, by key. One that was altered is to be computed again."""
        by_key: dict[str, dict[str, Entry]] = {}
        for entry in self.ledger():
            by_key.setdefault(entry.shard, {})[entry.sha256] = entry
        actual = self.backing.digests([_shard(key) for key in by_key])
        found = {}
        for key, entries in by_key.items():
            digest = actual.get(_shard(key), "")
            if digest in entries:
                found[key] = entries[digest]
        return found

    def written(self) -> set[str]:
        """The shards that have a file, whatever is in it."""
        return {name.removesuffix(".nc") for name in self.backing.names("shards") if name.endswith(".nc")}

    def has(self, key: str) -> bool:
        """Whether anybody has finished a shard. Its file is looked for first, which costs nothing."""
        actual = self.sha256(key)
        return bool(actual) and self._ledger.knows(key, actual)

    def sha256(self, key: str) -> str:
        """Of a shard's bytes; "" where there are none."""
        return self.digest(_shard(key))

    def digest(self, name: str) -> str:
        """The sha256 of a file of the store; "" where there is none."""
        return self.backing.digests([name]).get(name, "")

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self.backing.has("cancel")

    def cancel(self) -> None:
        """Ask whoever runs this batch to stop."""
        self.write("cancel", "stop\n")

    def go_on(self) -> None:
        """Take the wish to stop back."""
        self.backing.delete("cancel")


def _shard(key: str) -> str:
    return f"shards/{key}.nc"
