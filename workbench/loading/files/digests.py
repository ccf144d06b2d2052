"""sha256 of files, computed in full once for each state of a file and kept.

A state is path, size, times of the last change of content and of the file, device and inode: a copy may keep size and
time, and a link may turn, but not all of these stay. What changed within the last seconds is hashed again the next
time: within the grain of the clock another change would leave the same times.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from workbench import memo

__all__ = ["keep", "kept", "of_bytes", "sha256"]

_GRAIN_NS = 2_000_000_000  # FAT counts in two seconds, everything else finer


def sha256(file: Path, folder: Path) -> str:
    """The sha256 of a file as it is now, 64 hex digits. folder: where digests are kept. Raises OSError."""
    real = Path(os.path.realpath(file))
    before = _state(real)
    name = memo.digest(before)
    known = kept(name, folder)
    if known is not None:
        return known
    found = of_bytes(real)
    if _state(real) == before and time.time_ns() - max(before[2:4]) > _GRAIN_NS:
        keep(name, found, folder)
    return found


def of_bytes(file: Path) -> str:
    """The sha256 of a file, read now. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def kept(name: str, folder: Path) -> str | None:
    """What was kept under a name; None where nothing was, or where it is not what was written."""
    record = memo.read(folder / f"{name}.json")
    ours = isinstance(record, dict) and record.get("name") == name and isinstance(record.get("value"), str)
    return record["value"] if ours else None


def keep(name: str, value: str, folder: Path) -> None:
    """Keep a text under a name. Where nothing can be written it is computed again the next time."""
    memo.write(folder / f"{name}.json", {"name": name, "value": value})


def _state(file: Path) -> list[Any]:
    stat = file.stat()
    return [str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino]
