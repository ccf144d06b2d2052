"""Starting and ending quickly."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["let_go_at_exit", "thawed", "uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """While open, Python does not look for cycles to free; what was made until its end is not looked through later.

    Importing the libraries and loading a model makes a million objects that all stay; looking through them again and
    again takes a second.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


@contextmanager
def thawed() -> Iterator[None]:
    """At the end everything is looked through again: a model that a command loaded holds cycles, and must be freed."""
    try:
        yield
    finally:
        gc.unfreeze()


def let_go_at_exit() -> None:
    """When the process ends, its memory is let go as it is: Python would first look for cycles among everything that
    was imported and loaded, which takes a second or two, to free what the system takes back anyway."""
    atexit.unregister(gc.freeze)  # once, however often this is called
    atexit.register(gc.freeze)
