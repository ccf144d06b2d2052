"""What was computed: kept in memory up to a number of bytes, and results also on disk between restarts."""

import logging
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import xarray as xr
from cachetools import LRUCache
from filelock import FileLock

from apps.explorer.engine.held import held_bytes, on_its_own
from workbench.analysis.results import checked
from workbench.errors import InputError, WorkbenchError, in_words
from workbench.files import clear_partials, read_whole, write_whole
from workbench.storage.inspection import MOST_BYTES
from workbench.storage.netcdf import decoded, encoded

__all__ = ["Cache", "check_key"]

_KEY = re.compile(r"[0-9a-f]{64}")
_LOCK = ".lock"
_PATIENCE = 10.0  # seconds that one waits for another explorer to be done with the directory


def check_key(key: Any) -> str:
    """A key that came from a browser, before it names a file: 64 hex digits. InputError otherwise."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InputError("a key that is not one of ours", "64 hexadecimal digits", "Run the prompt again")
    return key


class Cache:
    """Least recently used goes first. Values are Datasets (written to `directory` too) or have `nbytes`.

    Several explorers may share a directory: one at a time writes and throws old files away, and a file is there whole
    or not at all. It carries a checksum: what is not as it was written, or never had one, is computed again. A single
    value larger than `memory` is kept, alone.
    """

    def __init__(self, memory: int, directory: Path | None = None, disk: int = 0) -> None:
        self.memory, self.directory, self.disk = memory, directory, disk
        self.notes: list[str] = []  # what could not be written, for the page to say once
        room = max(1, memory)
        self._kept: LRUCache[str, Any] = LRUCache(room, getsizeof=lambda value: min(held_bytes(value), room))
        self._lock = threading.Lock()
        if directory is not None:
            clear_partials(directory)

    @property
    def nbytes(self) -> int:
        """Bytes held in memory now."""
        with self._lock:
            return sum(map(held_bytes, self._kept.values()))

    def get(self, key: str) -> Any:
        """The value of a key, from memory or from disk; None where there is none."""
        check_key(key)
        with self._lock:
            found = self._kept.get(key)
        if found is not None:
            return found
        found = self._read(key)
        if found is not None:
            self._keep(key, found)
        return found

    def put(self, key: str, value: Any, write: bool = True) -> None:
        """Keep a value; a Dataset is written to disk as well unless `write` is false (a partial result)."""
        check_key(key)
        self._keep(key, value)
        if write and self.directory is not None and isinstance(value, xr.Dataset):
            try:
                self._write(self.directory, key, value)
            except (WorkbenchError, OSError, MemoryError) as error:
                why = str(error) or in_words(error)
                self._note(f"A result is kept in memory only, since it could not be written: {why}")

    def drop(self, key: str) -> None:
        """Forget a value in memory."""
        with self._lock:
            self._kept.pop(key, None)

    def _keep(self, key: str, value: Any) -> None:
        value = on_its_own(value)
        with self._lock:
            self._kept[key] = value

    def _read(self, key: str) -> xr.Dataset | None:
        path = None if self.directory is None else self.directory / f"{key}.nc"
        if path is None or not os.access(path, os.R_OK):  # none there, or one that only its owner may read
            return None
        try:
            found = checked(decoded(read_whole(path, MOST_BYTES), kept_as=key))
        except InputError as error:
            if os.path.isfile(path):  # not one that another explorer has thrown away meanwhile
                self._note(f"A damaged result was thrown away and is computed again: {error.got} at {path}.")
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # as above; and it must not be made anew, empty
            os.utime(path)
        return found

    def _write(self, directory: Path, key: str, value: xr.Dataset) -> None:
        """To disk, where the oldest files go when it has grown over its bound; one explorer at a time."""
        content = encoded(checked(value), key)  # before anybody waits for it; what could not be read is not written
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / _LOCK, timeout=_PATIENCE):
            write_whole(directory / f"{key}.nc", content)
            total = 0
            for path, when in sorted(_written(directory).items(), key=lambda file: file[1].st_mtime, reverse=True):
                total += when.st_size
                if total > self.disk:
                    with suppress(OSError):  # another user's, in a folder where only the owner may delete
                        path.unlink(missing_ok=True)

    def _note(self, sentence: str) -> None:
        logging.getLogger("workbench.explorer").warning(sentence)
        self.notes.append(sentence)


def _written(directory: Path) -> dict[Path, os.stat_result]:
    """The files of a directory; one may vanish while they are listed, and a folder may be listed and not entered."""
    found = {}
    for path in directory.glob("*.nc"):
        with suppress(OSError):
            found[path] = path.stat()
    return found
