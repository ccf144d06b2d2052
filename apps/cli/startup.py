"""Starting and ending quickly."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.errors import RefusedError, UnavailableError

__all__ = ["let_go_at_exit", "need_folder", "need_surroundings", "thawed", "uncollected", "wait_asleep"]

_ROOM = 2_000  # MB of addresses that the libraries take (1,000 to 1,500 were seen), with some for a small model


def wait_asleep() -> None:
    """Threads that wait for each other sleep, unless the user's environment says otherwise. By default they spin, which
    on a machine that has other work takes the processor from the thread that they wait for: a run of two analyses took
    up to three times as long. Read when the libraries are imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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


def need_folder() -> None:
    """UnavailableError where the working directory is no more."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UnavailableError("a working directory that is no more", "one that is there", "Go to another") from None


def need_surroundings() -> None:
    """What the libraries need to be imported at all: where they find less, C code ends the process as it likes.

    RefusedError where the shell allows fewer addresses than they take (`ulimit -v`), UnavailableError where the working
    directory is no more or Python threw docstrings away, of which libraries that load models make functions.
    """
    need_folder()
    if sys.flags.optimize > 1:
        raise UnavailableError(
            "Python started without docstrings (-OO, PYTHONOPTIMIZE=2)", "docstrings, which libraries read",
            "Start it without that, or with -O",
        )  # fmt: skip
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _ROOM * 10**6:
        raise RefusedError(
            f"a limit of {limit / 1e6:,.0f} MB on the address space (ulimit -v)", f"at least {_ROOM:,} MB, for PyTorch",
            "Raise it, or start from a shell without it",
        )  # fmt: skip
