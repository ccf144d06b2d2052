"""What was computed: kept in memory up to a number of bytes, and results also on disk between restarts."""

import logging
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.results import open_result, save
from workbench.errors import InputError, UnavailableError

__all__ = ["Cache", "check_key"]

_KEY = re.compile(r"[0-9a-f]{64}")


def check_key(key: Any) -> str:
    """A key that came from a browser, before it names a file: 64 hex digits. InputError otherwise."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InputError("a key that is not one of ours", "64 hexadecimal digits", "Run the prompt again")
    return key


class Cache:
    """Least recently used goes first. Values are Datasets (written to `directory` too) or have `nbytes`."""

    def __init__(self, memory: int, directory: Path | None = None, disk: int = 0):
        self.memory, self.directory, self.disk = memory, directory, disk
        self.notes: list[str] = []  # what could not be written, for the page to say once
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held in memory now."""
        return sum(value.nbytes for value in self._kept.values())

    def get(self, key: str) -> Any:
        """The value of a key, from memory or from disk; None where there is none."""
        check_key(key)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
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
                save(value, self.directory / f"{key}.nc")
                self._prune()
            except (UnavailableError, ValueError, TypeError) as error:
                self._note(f"A result is kept in memory only, since it could not be written: {error}")

    def drop(self, key: str) -> None:
        """Forget a value in memory."""
        with self._lock:
            self._kept.pop(key, None)

    def _keep(self, key: str, value: Any) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and self.nbytes > self.memory:
                self._kept.popitem(last=False)

    def _read(self, key: str) -> xr.Dataset | None:
        path = None if self.directory is None else self.directory / f"{key}.nc"
        if path is None or not path.is_file():
            return None
        try:
            found = open_result(path)
        except (UnavailableError, InputError) as error:
            self._note(f"A damaged result was thrown away and is computed again: {error}")
            path.unlink(missing_ok=True)
            return None
        path.touch()
        return found

    def _prune(self) -> None:
        """Oldest files go when the directory has grown over its bound."""
        files = sorted(self.directory.glob("*.nc"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self.disk:
                path.unlink(missing_ok=True)

    def _note(self, sentence: str) -> None:
        logging.getLogger("workbench.explorer").warning(sentence)
        self.notes.append(sentence)
