"""Jobs: pieces of work for a model, how urgent each is, and how far.

A job pauses often: at every report, before every pass, behind every block of an observed one (`workbench.pauses`).
There it is stopped where nobody wants it any more, and gives way to what is more urgent; see `worker`.

What became of a job is a `State` that the worker names, never a guess from an absence: a job's id names the server that
made it, and how each key last ended is remembered for longer than the job is.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from apps.explorer.engine.surroundings import Surroundings
from workbench.errors import Cancelled, WorkbenchError, of_the_machine

__all__ = [
    "CONTINUATION",
    "LOAD",
    "MODEL",
    "PROMPT",
    "SELECTION",
    "STUDY",
    "Fate",
    "Job",
    "SetAside",
    "State",
    "sentence",
]

# Smaller is more urgent.
LOAD, SELECTION, PROMPT, CONTINUATION, MODEL, STUDY = range(6)


class State(StrEnum):
    """What a server can say of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"  # it runs, and stops at its next report
    CANCELLED = "cancelled"
    FAILED = "failed"
    DONE = "done"
    FORGOTTEN = "forgotten"  # this server's, which remembers it no longer
    RESTARTED = "restarted"  # of a server that is no more: what became of it is not known

    @property
    def alive(self) -> bool:
        """Whether the work still waits or runs."""
        return self in (State.QUEUED, State.RUNNING, State.CANCELLING)


@dataclass(frozen=True)
class Fate:
    """What became of a key, or how far it is: the state of its latest job, and that job's id.

    parts: partial results so far, of one that is alive. before: how many come before one that waits. error: why it
    failed or was stopped.
    """

    state: State
    job: str
    share: float = 0.0
    parts: int = 0
    error: str = ""
    before: int = 0


class SetAside(Cancelled):
    """The job starts again later: what it runs within is to stop. Like every `Cancelled`, nobody may swallow it."""


def sentence(title: str, error: Exception) -> str:
    """What went wrong, for the page; the whole of a bug goes to the log."""
    if isinstance(known := of_the_machine(error) or error, WorkbenchError):
        return str(known)
    logging.getLogger("workbench.explorer").error("%s failed", title, exc_info=error)
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return (
        f"{title} broke, which is a mistake in it and not yours: {type(error).__name__}: {first}. Please report this."
    )


@dataclass(eq=False)
class Job:
    """One piece of work and how far it is.

    work: `(job) -> result`, or a generator of partial results, between which sessions take turns. A remembered job
    holds its result: what is large is put elsewhere by the work itself. sessions: who waits for it; it is stopped when
    each of them has cancelled it, and goes on when their windows are closed. left: who has cancelled it while others
    still wait. about: the keys of what it computes; its own where none are given. id: begins with the name of the
    server once it was submitted. order: smaller was submitted earlier. restarts: whether it may be set aside and
    started again. late: whether whoever asked has stopped waiting and will look again. seconds: while it ran.
    partials, surroundings: of one that was begun and waits for its turn. give_way: what the worker does at a pause.
    """

    title: str
    key: str
    priority: int
    work: Callable[["Job"], Any]
    sessions: set[str] = field(default_factory=set)
    about: tuple[str, ...] = ()
    restarts: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    order: int = 0
    state: State = State.QUEUED
    left: set[str] = field(default_factory=set)
    share: float = 0.0
    parts: int = 0
    note: str = ""
    error: str = ""
    result: Any = None
    seconds: float = 0.0
    finished: threading.Event = field(default_factory=threading.Event, repr=False)
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    late: bool = False
    partials: Generator[Any, None, None] | None = field(default=None, repr=False)
    surroundings: Surroundings | None = field(default=None, repr=False)
    give_way: Callable[[], None] = field(default=lambda: None, repr=False)  # raises where it must stop

    def __post_init__(self) -> None:
        self.about = self.about or (self.key,)

    def progress(self, share: float) -> None:
        """Report the share done (0 to 1); raises where the job must stop."""
        self.share = max(0.0, min(1.0, float(share)))
        self.pause()

    def pause(self) -> None:
        """Let what is more urgent run; raises where the job must stop."""
        self.give_way()

    @property
    def alive(self) -> bool:
        """Whether it still waits or runs."""
        return self.state.alive

    def wanted(self, gone: Collection[str] = ()) -> set[str]:
        """Sessions that wait for it, but for those that are gone."""
        return self.sessions - set(gone)
