"""Jobs: work for a model, done one at a time by one thread, most urgent first.

A model is not safe to run from two threads, so each has one worker. Equal keys are computed once however many ask.
Progress is also where work can be stopped: a cancelled job raises there, a long one that may be set aside does so when
something more urgent waits, and one that gives way lets that run before it goes on.

What became of a job is a `State` that the worker names, never a guess from an absence: a job's id names the server that
made it, and how each key last ended is remembered for longer than the job is.
"""

import atexit
import heapq
import itertools
import logging
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from apps.explorer.engine.held import give_back
from workbench.errors import Cancelled, WorkbenchError, of_the_machine

__all__ = ["LOAD", "MODEL", "PROMPT", "SELECTION", "STUDY", "Fate", "Job", "State", "Worker", "sentence"]

# Smaller is more urgent.
LOAD, SELECTION, PROMPT, MODEL, STUDY = range(5)
_SET_ASIDE = 3  # times a job may be set aside before it runs to its end
_REMEMBERED = 64  # finished jobs that can still be asked about
_FATES = 4096  # keys whose last end is remembered, in a few words each
_PATIENCE, _AT_EXIT = 30.0, 10.0  # seconds that a closed worker has to come to its next report


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

    parts: partial results so far, of one that is alive. error: why it failed or was stopped.
    """

    state: State
    job: str
    share: float = 0.0
    parts: int = 0
    error: str = ""


class _SetAside(Cancelled):
    """Something more urgent waits: the job starts again later. Like every `Cancelled`, nobody else may swallow it."""


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

    work: `(job) -> result`, or a generator of partial results, between which more urgent jobs may run. A remembered job
    holds its result: what is large is put elsewhere by the work itself. sessions: who waits for it; it is stopped when
    each of them has cancelled it, and goes on when their windows are closed. left: who has cancelled it while others
    still wait. about: the keys of what it computes; its own where none are given. id: begins with the name of the
    server once it was submitted. restarts: whether it may be set aside and started again. late: whether whoever asked
    has stopped waiting and will look again. gives_way: whether, at this report, something more urgent may run in
    between.
    """

    title: str
    key: str
    priority: int
    work: Callable[["Job"], Any]
    sessions: set[str] = field(default_factory=set)
    about: tuple[str, ...] = ()
    restarts: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))
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
    set_aside: int = 0
    late: bool = False
    gives_way: Callable[[], bool] = field(default=lambda: False, repr=False)
    urgent: Callable[[], bool] = field(default=lambda: False, repr=False)
    run_urgent: Callable[[], None] = field(default=lambda: None, repr=False)

    def __post_init__(self) -> None:
        self.about = self.about or (self.key,)

    def progress(self, share: float) -> None:
        """Report the share done (0 to 1); raises where the job must stop."""
        self.share = max(0.0, min(1.0, float(share)))
        if self.stop.is_set():
            raise Cancelled()
        if self.restarts and self.set_aside < _SET_ASIDE and self.urgent():
            raise _SetAside
        if self.urgent() and self.gives_way():
            self.run_urgent()

    @property
    def alive(self) -> bool:
        """Whether it still waits or runs."""
        return self.state.alive

    def wanted(self, gone: Collection[str] = ()) -> set[str]:
        """Sessions that wait for it, but for those that are gone."""
        return self.sessions - set(gone)


class Worker:
    """One thread and its queue. `start()` it once; `submit()` from any thread. boot: names the server it works for."""

    def __init__(self, name: str, boot: str = "") -> None:
        self.name, self.boot = name, boot or secrets.token_hex(4)
        self._condition = threading.Condition()
        self._queue: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._jobs: dict[str, Job] = {}
        self._fates: OrderedDict[str, Fate] = OrderedDict()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=f"worker {name}", daemon=True)

    def start(self) -> "Worker":
        """Start the thread."""
        self._thread.start()
        atexit.register(self._at_exit)
        return self

    def close(self, patience: float = _PATIENCE) -> None:
        """Cancel everything and end the thread, which stops at its next report. patience: seconds to wait for that."""
        with self._condition:
            self._closed = True
            for job in self._jobs.values():
                job.stop.set()
            self._condition.notify_all()
        self._thread.join(patience)
        if not self._thread.is_alive():
            atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        """Python ends a thread that is in the middle of PyTorch in a way that C++ answers by aborting the process
        ("terminate called without an active exception"). So it is waited for, or else the process ends here."""
        try:
            self.close(_AT_EXIT)
        finally:  # also after another Ctrl+C
            if self._thread.is_alive():
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(1)

    def submit(self, job: Job) -> Job:
        """Queue a job; if one with the same key is on its way, that one is returned (and made as urgent)."""
        with self._condition:
            twin = next((j for j in self._jobs.values() if j.key == job.key and j.alive and not j.stop.is_set()), None)
            if twin is not None:
                twin.sessions |= job.sessions
                twin.left -= job.sessions
                if job.priority < twin.priority and twin.state == State.QUEUED:
                    twin.priority = job.priority
                    self._push(twin)
                return twin
            job.urgent = lambda: self._most_urgent() < job.priority
            job.run_urgent = lambda: self._run_urgent(job)
            job.id = f"{self.boot}-{job.id}"
            self._jobs[job.id] = job
            self._forget()
            self._push(job)
            return job

    def join(self, key: str, session: str) -> bool:
        """Let a session wait for what is on its way for somebody else; False where nothing is.

        One that has left it stays away: it said so.
        """
        with self._condition:
            job = next((j for j in self._jobs.values() if key in j.about and j.alive and not j.stop.is_set()), None)
            if job is not None and session not in job.left:
                job.sessions.add(session)
            return job is not None

    def get(self, job_id: str) -> Job | None:
        """The job of that id, if it is still remembered."""
        return self._jobs.get(job_id)

    def state(self, job_id: str) -> State:
        """What can be said of the job of that id."""
        job = self._jobs.get(job_id)
        if job is not None:
            return job.state
        return State.FORGOTTEN if self.is_ours(job_id) else State.RESTARTED

    def is_ours(self, job_id: str) -> bool:
        """Whether a job was made by this server, whatever is remembered of it."""
        return job_id.startswith(f"{self.boot}-")

    def fates(self, keys: Collection[str]) -> dict[str, Fate]:
        """What became of each of the keys that were ever asked for, or how far it is.

        A job that is still wanted comes before one that is being stopped, and that before any that has ended.
        """
        with self._condition:
            found = {key: self._fates[key] for key in keys if key in self._fates}
            alive = [job for job in self._jobs.values() if job.alive]
            for job in sorted(alive, key=lambda job: not job.stop.is_set()):
                now = Fate(job.state, job.id, job.share, job.parts)
                found |= {key: now for key in job.about if key in keys}
            return found

    def jobs(self, session: str | None = None) -> list[Job]:
        """All remembered jobs, or those that a session waits for or has left to others, oldest first."""
        with self._condition:
            return [job for job in self._jobs.values() if session is None or session in job.sessions | job.left]

    def cancel(self, job_id: str, session: str, gone: Collection[str] = (), for_all: bool = False) -> None:
        """This session no longer wants the job; it stops when no other session wants it, or at once for all of them.

        gone: sessions whose windows were closed.
        """
        with self._condition:
            job = self._jobs.get(job_id)
            if job is None or not job.alive or session not in job.sessions | job.left:
                return
            if not for_all and job.wanted({session, *gone}):
                job.sessions.discard(session)
                job.left.add(session)
                return
            job.sessions |= {session}  # it is still this session's job to look at
            job.left.discard(session)
            job.stop.set()
            if job.state == State.QUEUED:
                self._end(job, State.CANCELLED, str(Cancelled()))
            else:
                job.state = State.CANCELLING

    def _push(self, job: Job) -> None:
        heapq.heappush(self._queue, (job.priority, next(self._order), job))
        self._condition.notify()

    def _most_urgent(self) -> int:
        with self._condition:
            self._drop_ended()
            return self._queue[0][0] if self._queue else STUDY + 1

    def _drop_ended(self) -> None:
        """Jobs that were cancelled, or pushed a second time at a higher priority and already taken."""
        while self._queue and self._queue[0][2].state != State.QUEUED:
            heapq.heappop(self._queue)

    def _forget(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if not job.alive]
        for job_id in ended[: max(0, len(self._jobs) - _REMEMBERED)]:
            del self._jobs[job_id]

    def _loop(self) -> None:
        torch.set_grad_enabled(False)  # a new thread starts with gradients on
        while True:
            with self._condition:
                self._drop_ended()
                while not self._queue and not self._closed:
                    self._condition.wait()
                    self._drop_ended()
                if self._closed:
                    return
                job = heapq.heappop(self._queue)[2]
                job.state = State.RUNNING
            self._run(job)
            del job
            give_back()

    def _run(self, job: Job) -> None:
        started = time.perf_counter()
        try:
            job.progress(0.0)
            result = job.work(job)
            job.result = self._drain(job, result) if isinstance(result, Generator) else result
        except _SetAside:
            self._set_aside(job)
        except Cancelled as stopped:
            self._end(job, State.CANCELLED, str(stopped))
        except Exception as error:  # a bug of ours must be seen on the page, and must not end the only worker
            self._end(job, State.FAILED, sentence(job.title, error))
        else:
            job.share = 1.0
            job.seconds = time.perf_counter() - started
            self._end(job, State.DONE, "")

    def _set_aside(self, job: Job) -> None:
        """Back into the queue, unless it was cancelled after its last report."""
        with self._condition:
            if job.stop.is_set():
                return self._end(job, State.CANCELLED, str(Cancelled()))
            job.set_aside += 1
            job.state, job.share, job.parts = State.QUEUED, 0.0, 0
            self._push(job)

    def _drain(self, job: Job, partials: Generator[Any, None, None]) -> Any:
        """The last partial result; more urgent jobs run between two of them."""
        last = None
        for last in partials:
            job.result = last
            job.parts += 1
            self._run_urgent(job)
            job.progress(job.share)
        return last

    def _run_urgent(self, job: Job) -> None:
        """Everything that is more urgent than the job, which goes on after it."""
        while self._most_urgent() < job.priority:
            with self._condition:
                self._drop_ended()
                if not self._queue:
                    break
                other = heapq.heappop(self._queue)[2]
                other.state = State.RUNNING
            with torch.no_grad():  # the job may be in the middle of a gradient
                self._run(other)

    def _end(self, job: Job, state: State, error: str) -> None:
        with self._condition:
            job.error, job.state = error, state
            for key in job.about:
                self._fates[key] = Fate(state, job.id, error=error)
                self._fates.move_to_end(key)
            while len(self._fates) > _FATES:
                self._fates.popitem(last=False)
        job.finished.set()
