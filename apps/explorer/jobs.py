"""Jobs: work for a model, done one at a time by one thread, most urgent first.

A model is not safe to run from two threads, so each has one worker. Equal keys are computed once however many ask.
Progress is also where work can be stopped: a cancelled job raises there, a long one that may be set aside does so when
something more urgent waits, and one that gives way lets that run before it goes on.
"""

import heapq
import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.errors import Cancelled, WorkbenchError

__all__ = ["LOAD", "MODEL", "PROMPT", "SELECTION", "STOPS", "STUDY", "Job", "Worker", "sentence"]

# Smaller is more urgent.
LOAD, SELECTION, PROMPT, MODEL, STUDY = range(5)
_SET_ASIDE = 3  # times a job may be set aside before it runs to its end
_REMEMBERED = 64  # finished jobs that can still be asked about


class _SetAside(Exception):
    """Something more urgent waits: the job starts again later."""


STOPS = (_SetAside, Cancelled)  # what `Job.progress` raises, and nobody else may swallow


def sentence(title: str, error: Exception) -> str:
    """What went wrong, for the page; the whole of a bug goes to the log."""
    if isinstance(error, WorkbenchError):
        return str(error)
    logging.getLogger("workbench.explorer").error("%s failed", title, exc_info=error)
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return (
        f"{title} broke, which is a mistake in it and not yours: {type(error).__name__}: {first}. Please report this."
    )


@dataclass(eq=False)
class Job:
    """One piece of work and how far it is.

    work: `(job) -> result`, or a generator of partial results, between which more urgent jobs may run. sessions: who
    waits for it; it is stopped when each of them has cancelled it, and goes on when their windows are closed.
    restarts: whether it may be set aside and started again. late: whether whoever asked has stopped
    waiting and will look again. gives_way: whether, at this report, something more urgent may run in between.
    """

    title: str
    key: str
    priority: int
    work: Callable[["Job"], Any]
    sessions: set[str] = field(default_factory=set)
    restarts: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "waiting"
    share: float = 0.0
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
        return self.state in ("waiting", "running")


class Worker:
    """One thread and its queue. `start()` it once; `submit()` from any thread."""

    def __init__(self, name: str):
        self.name = name
        self._condition = threading.Condition()
        self._queue: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._jobs: dict[str, Job] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=f"worker {name}", daemon=True)

    def start(self) -> "Worker":
        """Start the thread."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._condition:
            self._closed = True
            for job in self._jobs.values():
                job.stop.set()
            self._condition.notify_all()
        self._thread.join(timeout=30)

    def submit(self, job: Job) -> Job:
        """Queue a job; if one with the same key is on its way, that one is returned (and made as urgent)."""
        with self._condition:
            twin = next((j for j in self._jobs.values() if j.key == job.key and j.alive and not j.stop.is_set()), None)
            if twin is not None:
                twin.sessions |= job.sessions
                if job.priority < twin.priority and twin.state == "waiting":
                    twin.priority = job.priority
                    self._push(twin)
                return twin
            job.urgent = lambda: self._most_urgent() < job.priority
            job.run_urgent = lambda: self._run_urgent(job)
            self._jobs[job.id] = job
            self._forget()
            self._push(job)
            return job

    def join(self, key: str, session: str) -> bool:
        """Let a session wait for what is on its way for somebody else; False where nothing is."""
        with self._condition:
            job = next((j for j in self._jobs.values() if j.key == key and j.alive and not j.stop.is_set()), None)
            if job is not None:
                job.sessions.add(session)
            return job is not None

    def get(self, job_id: str) -> Job | None:
        """The job of that id, if it is still remembered."""
        return self._jobs.get(job_id)

    def jobs(self, session: str | None = None) -> list[Job]:
        """All remembered jobs, or those that a session waits for, oldest first."""
        with self._condition:
            return [job for job in self._jobs.values() if session is None or session in job.sessions]

    def cancel(self, job_id: str, session: str, gone: Collection[str] = ()) -> None:
        """This session no longer wants the job; it stops when no other session wants it. gone: sessions whose windows
        were closed."""
        with self._condition:
            job = self._jobs.get(job_id)
            if job is None or session not in job.sessions:
                return
            job.sessions -= {session, *gone}
            if job.sessions:
                return
            job.sessions.add(session)  # it is still this session's job to look at
            job.stop.set()
            if job.state == "waiting":
                self._end(job, "cancelled", str(Cancelled()))

    def _push(self, job: Job) -> None:
        heapq.heappush(self._queue, (job.priority, next(self._order), job))
        self._condition.notify()

    def _most_urgent(self) -> int:
        with self._condition:
            self._drop_ended()
            return self._queue[0][0] if self._queue else STUDY + 1

    def _drop_ended(self) -> None:
        """Jobs that were cancelled, or pushed a second time at a higher priority and already taken."""
        while self._queue and self._queue[0][2].state != "waiting":
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
                job.state = "running"
            self._run(job)

    def _run(self, job: Job) -> None:
        started = time.perf_counter()
        try:
            job.progress(0.0)
            result = job.work(job)
            job.result = self._drain(job, result) if isinstance(result, Generator) else result
        except _SetAside:
            with self._condition:
                job.set_aside += 1
                job.state, job.share = "waiting", 0.0
                self._push(job)
            return
        except Cancelled as stopped:
            self._end(job, "cancelled", str(stopped))
        except Exception as error:  # a bug of ours must be seen on the page, and must not end the only worker
            self._end(job, "failed", sentence(job.title, error))
        else:
            job.share = 1.0
            job.seconds = time.perf_counter() - started
            self._end(job, "done", "")

    def _drain(self, job: Job, partials: Generator) -> Any:
        """The last partial result; more urgent jobs run between two of them."""
        last = None
        for last in partials:
            job.result = last
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
                other.state = "running"
            with torch.no_grad():  # the job may be in the middle of a gradient
                self._run(other)

    @staticmethod
    def _end(job: Job, state: str, error: str) -> None:
        job.error, job.state = error, state
        job.finished.set()
