"""Which windows are open, as far as a server can know: they look while they wait, and say when they are closed.

A session is what a browser tab keeps over a reload, and a copy of the tab has the same: it is gone when none of its
windows is left.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

__all__ = ["Presence"]

# A browser lets a hidden tab look once a minute. Windows that are closed say so themselves; this is for those that
# could not: a crash, a lost network.
_GONE = 90.0  # seconds without a look after which a window that waits for something counts as closed
_REMEMBERED = 4096  # sessions, and windows that were closed


class Presence:
    """The windows that have looked, and those that were closed. chosen: the prompt and the selection that was last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked: OrderedDict[str, dict[str, float]] = OrderedDict()  # when each window of a session last looked
        self._closed: OrderedDict[str, None] = OrderedDict()
        self.chosen: tuple[str, dict[str, Any]] = "", {}

    def looked(self, session: str, window: str = "") -> None:
        """A window has looked. One that was closed stays so: its last look may arrive after its farewell."""
        with self._lock:
            if window in self._closed:
                return
            self._looked.setdefault(session, {})[window] = time.monotonic()
            self._looked.move_to_end(session)
            _bound(self._looked)

    def chose(self, text: str, selection: Mapping[str, Any]) -> None:
        """What was selected last in any window, and on which prompt; `chosen` says it again."""
        self.chosen = text, dict(selection)

    def left(self, session: str, window: str) -> None:
        """A window was closed."""
        with self._lock:
            self._closed[window] = None
            self._looked.setdefault(session, {}).pop(window, None)
            _bound(self._closed)
            _bound(self._looked)

    def gone(self) -> set[str]:
        """Sessions all of whose windows were closed, or have not looked for long; not those that never looked."""
        now = time.monotonic()
        with self._lock:
            return {
                session
                for session, windows in self._looked.items()
                if all(now - looked > _GONE for looked in windows.values())
            }


def _bound(kept: OrderedDict[str, Any]) -> None:
    while len(kept) > _REMEMBERED:
        kept.popitem(last=False)
