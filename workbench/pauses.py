"""Pauses: where long work can be stopped, and lets something shorter run before it goes on.

Every pass pauses before it begins, an observed one behind each block too; training pauses at every step. So whatever
an analysis does, whoever runs it (`pausing`) is asked often, without the analysis having to think of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_pausing", "is_whole", "pause", "pausing", "whole"]

_BETWEEN: ContextVar[Callable[[], None] | None] = ContextVar("between", default=None)
_WHOLE: ContextVar[int] = ContextVar("whole", default=0)


@contextmanager
def pausing(between: Callable[[], None]) -> Iterator[None]:
    """While open, `between` is called at every pause of this thread. It may raise to stop the work, and run passes."""
    before = _BETWEEN.set(between)
    try:
        yield
    finally:
        _BETWEEN.reset(before)


def is_pausing() -> bool:
    """Whether anybody wants to be asked."""
    return _BETWEEN.get() is not None


def pause() -> None:
    """Ask whoever runs this; call it where nothing is half done that another pass on the same model would meet."""
    between = _BETWEEN.get()
    if between is not None:
        between()


@contextmanager
def whole() -> Iterator[None]:
    """While open, this thread begins no other work of the same length, which may want what is held here: a file's lock.

    Something shorter still runs at a pause.
    """
    before = _WHOLE.set(_WHOLE.get() + 1)
    try:
        yield
    finally:
        _WHOLE.reset(before)


def is_whole() -> bool:
    """Whether something is held that other long work may want."""
    return _WHOLE.get() > 0
