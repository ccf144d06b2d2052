"""Leases: who is at which shard. A file that only one can create; its holder touches it while it works.

Two that compute the same shard would write the same numbers, so a lease saves work and nothing else hangs on it. A
holder that is dead on this machine is seen at once; one elsewhere by a heartbeat that did not change for `PATIENCE`
seconds of the watcher's own clock: clocks of machines differ.
"""

import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from workbench.errors import UnavailableError, in_words
from workbench.files import read_whole

__all__ = ["PATIENCE", "Lease", "Leases", "held"]

PATIENCE = 60.0
_BEAT = 5.0
_MOST = 1 << 16  # bytes of a lease


class Lease:
    """A shard that this process holds; closed when it is done with it."""

    def __init__(self, path: Path, text: str):
        self._path, self._text = path, text
        self._done = threading.Event()
        self._beat = threading.Thread(target=self._beats, daemon=True, name="lease")
        self._beat.start()

    def _beats(self) -> None:
        n = 0
        while not self._done.wait(_BEAT):
            n += 1
            try:
                if self._path.read_text(encoding="utf-8").startswith(self._text):
                    os.utime(self._path, ns=(n, n))  # a counter, not a time
            except OSError:
                continue  # a store that is away for a moment; whoever takes the shard meanwhile writes the same

    def close(self) -> None:
        """Give it back."""
        self._done.set()
        self._beat.join()
        try:
            if self._path.read_text(encoding="utf-8") == self._text:
                self._path.unlink()
        except OSError:
            return  # taken over by somebody who believed us dead, or a store that went away: the lease ends with us

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Leases:
    """The leases of a store."""

    def __init__(self, folder: Path, patience: float = PATIENCE):
        self._folder, self._patience = folder, patience
        self._seen: dict[str, tuple[Any, float]] = {}  # what a lease of others looked like, and since when

    def take(self, key: str) -> Lease | None:
        """The lease of a shard, or None while somebody else has it."""
        path = self._folder / f"{key}.lease"
        text = json.dumps({**_who(), "nonce": secrets.token_hex(8)})
        try:
            self._folder.mkdir(exist_ok=True)  # not its parents: they are there, or the store is gone
            if os.path.lexists(path) and not self._abandoned(key, path):
                return None
            _create(path, text)
        except FileExistsError:
            return None
        except OSError as error:
            raise UnavailableError(
                f"{in_words(error)} at {path}", "a store that can be written", "Check the disk, run again"
            ) from error
        return Lease(path, text)

    def _abandoned(self, key: str, path: Path) -> bool:
        """Whether its holder is dead; then the lease is taken away, by one of those who see it."""
        try:
            looks = (_text(path), path.lstat().st_mtime_ns)
        except FileNotFoundError:
            return True
        before, since = self._seen.get(key, (None, 0.0))
        now = time.monotonic()
        if looks != before:
            self._seen[key] = looks, now
            since = now
        if not _is_dead(looks[0]) and now - since < self._patience:
            return False
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return True
        aside.unlink()
        return True


def _create(path: Path, text: str) -> None:
    """A file that was not there, whole: on a full disk it could be created and not be written."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def held(folder: Path) -> int:
    """How many leases are held, as far as this machine can tell: those of its own dead processes are not."""
    found = 0
    for path in folder.glob("*.lease"):
        try:
            found += not _is_dead(_text(path))
        except FileNotFoundError:
            continue  # given back meanwhile
    return found


def _text(path: Path) -> str:
    """What a lease says; "" for what is none. Raises FileNotFoundError where it was given back."""
    path.lstat()
    try:
        return read_whole(path, _MOST).decode()
    except ValueError:  # of no file that is one, or of no text
        return ""


def _who() -> dict[str, Any]:
    return {"host": socket.gethostname(), "space": _space(), "pid": os.getpid(), "started": _started(os.getpid())}


def _space() -> str:
    """What makes a process's number unique: the machine's start and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, as the system counts; "" where it is not (any more) or cannot be asked."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # ended, and nobody has asked how


def _is_dead(text: str) -> bool:
    """Whether the holder of a lease ran here and does no more. An empty lease is one that is being written."""
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if (
        not isinstance(holder, dict)
        or not _space()
        or (holder.get("host"), holder.get("space")) != (socket.gethostname(), _space())
    ):
        return False
    pid = holder.get("pid")
    return isinstance(pid, int) and _started(pid) != holder.get("started")
