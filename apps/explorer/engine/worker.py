"""A worker: it does the jobs of a model one at a time, in one thread, since a model is not safe to run from two.

Equal keys are computed once however many ask. The most urgent job comes first, and among those as urgent the sessions
take turns (`queue`), between two partial results. At its pauses a job gives way to what is more urgent, which runs
within it: a pass within a pass is a pass of its own (`workbench.models.passes`), so that no bit of either changes.
"""

import atexit
import itertools
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Any

import torch

from apps.explorer.engine.held import give_back
from apps.explorer.engine.jobs import Fate, Job, SetAside, State, sentence
from apps.explorer.engine.queue import Queue
from apps.explorer.engine.surroundings import Surroundings
from workbench.errors import Cancelled
from workbench.pauses import is_whole, pausing

__all__ = ["Worker"]

_REMEMBERED = 64  # finished jobs that can still be asked about
_FATES = 4096  # keys whose last end is remembered, in a few words each
_PATIENCE, _AT_EXIT = 30.0, 10.0  # seconds that a closed worker has to come to its next pause


class Worker:
    """One thread and its queue. `start()` it once; `submit()` from any thread.

    boot: names the server it works for. gives_way: whether, at this pause of this thread, another pass meets nothing
    that the one under way has set.
    """

    def __init__(self, name: str, boot: str = "", gives_way: Callable[[], bool] = lambda: True) -> None:
        self.name, self.boot, self._gives_way = name, boot or secrets.token_hex(4), gives_way
        self._condition = threading.Condition()
        self._queue = Queue()
        self._running: list[Job] = []  # the innermost last, to which the others give way
        self._usual: Surroundings | None = None
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
                if twin.state == State.QUEUED:
                    twin.priority = min(job.priority, twin.priority)
                return twin
            job.give_way = lambda: self._give_way(job)
            job.id, job.order = f"{self.boot}-{job.id}", next(self._order)
            self._jobs[job.id] = job
            self._forget()
            self._push(job)
            return job

    def before(self, job: Job) -> int:
        """How many jobs come before one that waits, if nobody else asks for anything; 0 for one that does not wait.

        What runs and is less urgent does not: it gives way at its next pause.
        """
        with self._condition:
            if job.state != State.QUEUED:
                return 0
            return sum(one.priority <= job.priority for one in self._running) + self._queue.before(job)

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
                now = Fate(job.state, job.id, job.share, job.parts, before=self.before(job))
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
                self._queue.remove(job)
                self._end(job, State.CANCELLED, str(Cancelled()))
            else:
                job.state = State.CANCELLING

    def _push(self, job: Job) -> None:
        self._queue.add(job)
        self._condition.notify()

    def _forget(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if not job.alive]
        for job_id in ended[: max(0, len(self._jobs) - _REMEMBERED)]:
            del self._jobs[job_id]

    def _loop(self) -> None:
        torch.set_grad_enabled(False)  # a new thread starts with gradients on
        self._usual = Surroundings.now()
        while (job := self._next()) is not None:
            self._run(job)
            del job
            give_back()

    def _next(self) -> Job | None:
        """Whose turn it is, as soon as there is one; None once it is closed and nothing that was begun is left."""
        with self._condition:
            while not len(self._queue) and not self._closed:
                self._condition.wait()
            return self._take()

    def _take(self) -> Job | None:
        """With the condition held."""
        job = self._queue.take()
        if job is not None and job.state == State.QUEUED:
            job.state = State.RUNNING
        return job

    def _run(self, job: Job) -> None:
        """To its end, or until it is another session's turn."""
        started = time.perf_counter()
        with self._condition:
            self._running.append(job)
        try:
            with pausing(job.pause):
                is_over = self._go_on(job)
        except SetAside:
            self._wait_again(job, State.QUEUED)
        except Cancelled as stopped:
            self._end(job, State.CANCELLED, str(stopped))
        except Exception as error:  # a bug of ours must be seen on the page, and must not end the only worker
            self._end(job, State.FAILED, sentence(job.title, error))
        else:
            job.seconds += time.perf_counter() - started
            if is_over:
                job.share = 1.0
                self._end(job, State.DONE, "")
            else:
                self._wait_again(job, State.RUNNING)
        finally:
            with self._condition:
                self._running.remove(job)

    def _go_on(self, job: Job) -> bool:
        """Whether it came to its end; else it was left between two parts, since it is another session's turn."""
        if job.partials is None:
            job.progress(0.0)
            made = job.work(job)
            if not isinstance(made, Generator):
                job.result = made
                return True
            job.partials = made
        left = False
        try:
            for part in self._parts(job, job.partials):
                job.result, job.parts = part, job.parts + 1
                left = self._is_turn_of_another(job)
                if left:
                    return False
            return True
        finally:
            if not left:
                job.partials.close()
                job.partials = job.surroundings = None

    def _parts(self, job: Job, partials: Generator[Any, None, None]) -> Iterator[Any]:
        """One after the other, each in the surroundings that the one before has left."""
        assert self._usual is not None
        while True:
            job.pause()
            if job.surroundings is not None:
                job.surroundings.restore()
            try:
                part = next(partials)
            except StopIteration:
                return
            finally:
                job.surroundings = Surroundings.now()
                self._usual.restore()
            yield part

    def _is_turn_of_another(self, job: Job) -> bool:
        """Only the outermost can be left: the others are in the middle of what called them."""
        with self._condition:
            return len(self._running) == 1 and not is_whole() and self._queue.precedes(job)

    def _wait_again(self, job: Job, state: State) -> None:
        """Back into the queue: set aside, to start again, or left between two parts. Not if it was cancelled since."""
        with self._condition:
            if job.stop.is_set() and job.partials is None:
                return self._end(job, State.CANCELLED, str(Cancelled()))
            if state == State.QUEUED:
                job.share, job.parts = 0.0, 0
            job.state = State.CANCELLING if job.stop.is_set() else state
            self._push(job)

    def _give_way(self, job: Job) -> None:
        """At a pause of a job that runs: what is more urgent runs, and what was left and is to be stopped ends."""
        while True:
            if job.stop.is_set():  # also since the last one that it gave way to
                raise Cancelled()
            with self._condition:
                if job.restarts and any(outer.stop.is_set() for outer in self._running if outer is not job):
                    raise SetAside
                first = self._queue.first()
                if first is None or not (first.stop.is_set() or first.priority < job.priority):
                    return
                if not first.stop.is_set() and not self._gives_way():
                    return
                other = self._take()
            if other is not None:
                self._run_within(other)

    def _run_within(self, other: Job) -> None:
        """In the middle of another job, which may have set this thread to its own needs: threads, gradients."""
        assert self._usual is not None
        mine = Surroundings.now()
        self._usual.restore()
        try:
            self._run(other)
        finally:
            mine.restore()

    def _end(self, job: Job, state: State, error: str) -> None:
        with self._condition:
            job.error, job.state = error, state
            for key in job.about:
                self._fates[key] = Fate(state, job.id, error=error)
                self._fates.move_to_end(key)
            while len(self._fates) > _FATES:
                self._fates.popitem(last=False)
        job.finished.set()
