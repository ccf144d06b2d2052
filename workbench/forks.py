"""Locks in a forked process: what another thread held when the process was split is held for ever in the child, where
that thread is not. A worker of `multiprocessing` would wait at its first pass without end.
"""

import os
import threading
from typing import Any, Protocol
from weakref import WeakSet

__all__ = ["own_lock_after_fork"]


class _Locked(Protocol):
    def forked(self) -> None:
        """Take a new lock: this is the only thread of a new process."""


_OWNERS: "WeakSet[Any]" = WeakSet()
_ADDING = threading.Lock()


def own_lock_after_fork(owner: _Locked) -> None:
    """Call `owner.forked()` in every process that is split off from this one, for as long as the owner lives."""
    with _ADDING:
        _OWNERS.add(owner)


def _forked() -> None:
    for owner in list(_OWNERS):
        owner.forked()


if hasattr(os, "register_at_fork"):  # where there is no fork there is nothing to do
    os.register_at_fork(before=_ADDING.acquire, after_in_parent=_ADDING.release, after_in_child=_ADDING.release)
    os.register_at_fork(after_in_child=_forked)
