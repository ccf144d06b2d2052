"""Leases: who is at which shard. A file that only one can create; its holder makes it look otherwise while it works.

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

from workbench.batch.backing.backing import Backing, Looks

__all__ = ["PATIENCE", "Lease", "Leases", "held"]

PATIENCE = 60.0
_BEAT = 5.0


class Lease:
    """A shard that this process holds; closed when it is done with it."""

    def __init__(self, backing: Backing, name: str, text: str):
        self._backing, self._name, self._text = backing, name, text
        self._done = threading.Event()
        self._beat = threading.Thread(target=self._beats, daemon=True, name="lease")
        self._beat.start()

    def _beats(self) -> None:
        n = 0
        while not self._done.wait(_BEAT):
            n += 1
            self._backing.beat(self._name, self._text, n)

    def close(self) -> None:
        """Give it back."""
        self._done.set()
        self._beat.join()
        self._backing.give_back(self._name, self._text)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Leases:
    """The leases of a store."""

    def __init__(self, backing: Backing, patience: float = PATIENCE):
        self._backing, self._patience = backing, patience
        self._seen: dict[str, tuple[Any, float]] = {}  # what a lease of others looked like, and since when

    def take(self, key: str) -> Lease | None:
        """The lease of a shard, or None while somebody else has it. Raises UnavailableError where it cannot be written
        down."""
        name = f"leases/{key}.lease"
        looks = self._backing.looks(name)
        if looks is not None:
            if not self._abandoned(key, looks):
                return None
            self._backing.take_over(name, looks)
        text = json.dumps({**_who(), "nonce": secrets.token_hex(8)})
        return Lease(self._backing, name, text) if self._backing.create(name, text.encode()) else None

    def _abandoned(self, key: str, looks: Looks) -> bool:
        """Whether its holder is dead."""
        before, since = self._seen.get(key, (None, 0.0))
        now = time.monotonic()
        if looks != before:
            self._seen[key] = looks, now
            since = now
        return _is_dead(looks[0]) or now - since >= self._patience


def held(backing: Backing) -> int:
    """How many leases are held, as far as this machine can tell: those of its own dead processes are not."""
    names = [f"leases/{name}" for name in backing.names("leases") if name.endswith(".lease")]
    return sum(looks is not None and not _is_dead(looks[0]) for looks in backing.each(backing.looks, names))


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
