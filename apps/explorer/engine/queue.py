"""The queue of one worker: the most urgent first, and among those as urgent the sessions take turns."""

import itertools
from collections import OrderedDict

from apps.explorer.engine.jobs import Job

__all__ = ["Queue"]

_REMEMBERED = 4096  # sessions and degrees of urgency whose last turn is remembered

Turns = OrderedDict[tuple[str, int], int]


class Queue:
    """Jobs that wait, new ones and those that were begun. For one thread at a time."""

    def __init__(self) -> None:
        self._waiting: list[Job] = []
        self._turns: Turns = OrderedDict()
        self._count = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Let a job wait."""
        self._waiting.append(job)

    def remove(self, job: Job) -> None:
        """It waits no more."""
        self._waiting.remove(job)

    def first(self) -> Job | None:
        """Whose turn it is: what is to be stopped, then the most urgent, then that of the session that had its last
        turn longest ago, then the oldest. None where nothing waits."""
        return min(self._waiting, key=lambda job: _rank(job, self._turns), default=None)

    def take(self) -> Job | None:
        """The first, which had its turn then."""
        job = self.first()
        if job is not None:
            self._waiting.remove(job)
            _had(job, self._turns, next(self._count))
            while len(self._turns) > _REMEMBERED:
                self._turns.popitem(last=False)
        return job

    def precedes(self, job: Job) -> bool:
        """Whether somebody's turn comes before that of a job which does not wait."""
        first = self.first()
        return first is not None and _rank(first, self._turns) < _rank(job, self._turns)

    def before(self, job: Job) -> int:
        """How many have their turn before one that waits, if nobody else comes."""
        waiting, turns = list(self._waiting), self._turns.copy()
        for count in itertools.count():
            first = min(waiting, key=lambda other: _rank(other, turns))
            if first is job:
                return count
            waiting.remove(first)
            _had(first, turns, max(turns.values(), default=0) + 1)
        raise AssertionError  # a job that does not wait has raised already


def _rank(job: Job, turns: Turns) -> tuple[bool, int, int, int]:
    last = min((turns.get((session, job.priority), 0) for session in job.sessions), default=0)
    return not job.stop.is_set(), job.priority, last, job.order


def _had(job: Job, turns: Turns, now: int) -> None:
    for session in job.sessions:
        turns[session, job.priority] = now
        turns.move_to_end((session, job.priority))
