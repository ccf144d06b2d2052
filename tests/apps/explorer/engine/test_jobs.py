"""One worker, most urgent first, equal keys once, and every job can be stopped."""

import contextlib
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch

from apps.explorer.engine import worker as workers
from apps.explorer.engine.jobs import MODEL, PROMPT, SELECTION, STUDY, Job, State
from apps.explorer.engine.surroundings import Surroundings
from apps.explorer.engine.worker import Worker
from workbench.errors import InputError
from workbench.loading.toys.training import alone_on_a_core
from workbench.pauses import pause, whole

ROOT = Path(__file__).resolve().parents[4]
HANGS = 120  # seconds after which something is taken to hang; nothing is measured by it


@pytest.fixture
def worker():
    made = Worker("test").start()
    made.works = []
    yield made
    for work in made.works:  # what a test left waiting must not keep the thread
        work.go.release(1000)
    made.close()


def held(worker, priority: int = SELECTION) -> threading.Event:
    """Keep the worker busy until the returned event is set."""
    gate, began = threading.Event(), threading.Event()

    def work(job):
        began.set()
        gate.wait(HANGS)

    worker.submit(Job("hold", "hold", priority, work, {"me"}))
    began.wait(HANGS)
    return gate


def test_the_most_urgent_job_runs_first(worker):
    gate, order = held(worker), []
    jobs = [
        worker.submit(Job(name, name, priority, lambda job: order.append(job.title), {"me"}))
        for name, priority in (("study", STUDY), ("model", MODEL), ("prompt", PROMPT), ("selection", SELECTION))
    ]
    gate.set()
    assert all(job.finished.wait(HANGS) for job in jobs)
    assert order == ["selection", "prompt", "model", "study"]


def test_equal_keys_are_computed_once(worker):
    gate, runs = held(worker), []
    first = worker.submit(Job("a", "same", PROMPT, lambda job: runs.append(1), {"one"}))
    second = worker.submit(Job("a", "same", SELECTION, lambda job: runs.append(1), {"two"}))
    gate.set()
    assert first is second and first.sessions == {"one", "two"} and first.priority == SELECTION
    assert first.finished.wait(HANGS)
    worker.submit(Job("end", "end", STUDY, lambda job: None, {"one"})).finished.wait(HANGS)
    assert runs == [1]


class Steps:
    """Work that reports when it is told to; `go_on()` comes back when the report was heard."""

    def __init__(self):
        self.began, self.go, self.reported = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, job):
        self.began.set()
        for step in range(100):
            assert self.go.acquire(timeout=HANGS)
            try:
                job.progress(step / 100)
            finally:
                self.reported.release()

    def go_on(self):
        self.go.release()
        assert self.reported.acquire(timeout=HANGS)


def started(worker, *sessions, key="long", **more) -> tuple[Steps, Job]:
    """A job that has begun, and the work that the test lets go on."""
    work = Steps()
    worker.works.append(work)
    job = worker.submit(Job("long", key, STUDY, work, set(sessions), **more))
    assert work.began.wait(HANGS)
    return work, job


def test_a_running_job_stops_at_its_next_report_when_nobody_wants_it(worker):
    work, job = started(worker, "one", "two")
    worker.cancel(job.id, "one")
    work.go_on()
    assert job.state == State.RUNNING  # the other session still wants it
    assert job.left == {"one"} and job.wanted() == {"two"}
    assert job in worker.jobs("one")  # who has left it still sees that it goes on
    worker.cancel(job.id, "stranger")
    worker.cancel(job.id, "stranger", for_all=True)
    assert job.state == State.RUNNING
    worker.cancel(job.id, "two")
    assert job.state == State.CANCELLING and worker.fates(["long"])["long"].state == State.CANCELLING
    work.go_on()
    assert job.finished.wait(HANGS) and job.state == State.CANCELLED and "stop" in job.error
    assert worker.fates(["long", "never"]).keys() == {"long"}
    assert worker.fates(["long"])["long"].state == State.CANCELLED


def test_a_job_is_stopped_for_all_by_one_who_has_left_it(worker):
    work, job = started(worker, "one", "two")
    worker.cancel(job.id, "one")
    worker.cancel(job.id, "one", for_all=True)
    assert job.state == State.CANCELLING
    work.go_on()
    assert job.finished.wait(HANGS) and job.state == State.CANCELLED


def test_a_closed_window_keeps_no_job_from_being_stopped_but_stops_none(worker):
    _, job = started(worker, "one", "closed")
    worker.cancel(job.id, "one", gone=["closed"])
    assert job.state == State.CANCELLING


def test_who_has_left_a_job_and_asks_for_it_again_waits_for_it_again(worker):
    work, job = started(worker, "one", "two")
    worker.cancel(job.id, "one")
    assert worker.join("long", "one") and job.wanted() == {"two"}  # turning to its view is no wish
    assert worker.submit(Job("long", "long", STUDY, work, {"one"})) is job
    assert job.wanted() == {"one", "two"} and not job.left


def test_what_runs_within_a_job_that_is_to_stop_starts_again_so_that_the_stop_is_quick(worker):
    """Else the study would stop only when the other, which may be long, has come to its end."""
    begun, within, stopped, starts = threading.Event(), threading.Event(), threading.Event(), []

    def study(job):
        begun.set()
        while True:
            job.progress(0.5)

    def model(job):
        starts.append(outer.state)
        within.set()
        if len(starts) == 1:
            assert stopped.wait(HANGS)
        job.progress(0.9)

    outer = worker.submit(Job("study", "study", STUDY, study, {"one"}))
    assert begun.wait(HANGS)
    inner = worker.submit(Job("model", "model", MODEL, model, {"two"}, restarts=True))
    assert within.wait(HANGS)
    worker.cancel(outer.id, "one")
    stopped.set()
    assert outer.finished.wait(HANGS) and inner.finished.wait(HANGS)
    assert outer.state == State.CANCELLED and inner.state == State.DONE
    assert starts == [State.RUNNING, State.CANCELLED]


def test_a_new_job_of_a_key_comes_before_the_one_that_is_being_stopped(worker):
    work, job = started(worker, "me")
    worker.cancel(job.id, "me")
    again = worker.submit(Job("long", "long", STUDY, lambda job: None, {"me"}))
    assert again is not job
    assert worker.fates(["long"])["long"].job == again.id and worker.fates(["long"])["long"].state == State.QUEUED
    worker.cancel(again.id, "me")
    assert worker.fates(["long"])["long"].state == State.CANCELLING  # the first one is not over
    work.go_on()
    assert job.finished.wait(HANGS) and worker.fates(["long"])["long"].state == State.CANCELLED


def test_a_forgotten_job_is_not_one_of_a_server_that_is_no_more(worker):
    first = worker.submit(Job("first", "first", PROMPT, lambda job: None, {"me"}))
    assert first.finished.wait(HANGS)
    for i in range(workers._REMEMBERED + 2):
        assert worker.submit(Job("more", str(i), PROMPT, lambda job: None, {"me"})).finished.wait(HANGS)
    assert worker.get(first.id) is None and worker.state(first.id) == State.FORGOTTEN
    assert worker.fates(["first"])["first"].state == State.DONE
    assert Worker("after a restart").state(first.id) == State.RESTARTED
    assert Worker("another model of the same server", worker.boot).state(first.id) == State.FORGOTTEN


def test_how_keys_ended_is_remembered_up_to_a_bound(worker, monkeypatch):
    monkeypatch.setattr(workers, "_FATES", 3)
    for i in range(5):
        assert worker.submit(Job("more", str(i), PROMPT, lambda job: None, {"me"})).finished.wait(HANGS)
    assert worker.fates(list("01234")).keys() == {"2", "3", "4"}


def test_a_waiting_job_can_be_cancelled_and_asked_again(worker):
    gate, runs = held(worker), []
    job = worker.submit(Job("a", "a", PROMPT, lambda job: runs.append(1), {"me"}))
    worker.cancel(job.id, "me")
    again = worker.submit(Job("a", "a", PROMPT, lambda job: runs.append(2), {"me"}))
    gate.set()
    assert again.finished.wait(HANGS) and runs == [2] and job.state == "cancelled"


def test_a_failed_job_says_why_and_the_worker_goes_on(worker):
    def ours(job):
        raise InputError("3", "4", "Count again")

    def bug(job):
        return 1 / 0

    wrong = worker.submit(Job("w", "w", PROMPT, ours, {"me"}))
    broken = worker.submit(Job("b", "b", PROMPT, bug, {"me"}))
    right = worker.submit(Job("r", "r", PROMPT, lambda job: 7, {"me"}))
    assert right.finished.wait(HANGS) and right.result == 7 and right.state == "done"
    assert wrong.error == "Got 3; expected 4. Count again." and wrong.state == "failed"
    assert "ZeroDivisionError" in broken.error


def ordered(worker, *asked):
    """Jobs that are submitted while something else runs: (name, priority, session); and the order in which they ran."""
    gate, order = held(worker), []
    jobs = [
        worker.submit(Job(name, name, priority, lambda job: order.append(job.title), {session}))
        for name, priority, session in asked
    ]
    places = {job.title: worker.before(job) for job in jobs}
    gate.set()
    assert all(job.finished.wait(HANGS) for job in jobs)
    return order, places


def test_sessions_take_turns_and_the_place_in_the_queue_is_the_one_they_get(worker):
    many = [(f"one {i}", PROMPT, "one") for i in range(3)]
    order, places = ordered(worker, ("long", STUDY, "two"), *many, ("mine", PROMPT, "two"), ("his", PROMPT, "three"))
    assert order == ["one 0", "mine", "his", "one 1", "one 2", "long"]
    assert places == {name: 1 + i for i, name in enumerate(order)}  # the one that runs, and those before it
    order, _ = ordered(worker, ("two again", PROMPT, "three"), ("one again", PROMPT, "two"))
    assert order == ["one again", "two again"]  # who had the last turn waits


def test_what_runs_and_gives_way_is_not_before_a_job(worker):
    """A study that runs is before another study, not before a prompt, which runs within it."""
    gate = held(worker, STUDY)
    jobs = [
        worker.submit(Job(name, name, urgency, lambda job: None, {name}))
        for name, urgency in (("p", PROMPT), ("q", PROMPT), ("s", STUDY))
    ]
    assert [worker.before(job) for job in jobs] == [0, 1, 3]
    gate.set()


def parts_of(name, order, n=3, within=None):
    """A study of n parts, which works under gradients."""

    def study(job):
        with torch.enable_grad(), within() if within else contextlib.nullcontext():
            for part in range(n):
                order.append(f"{name}{part}")
                yield torch.is_grad_enabled()
                assert torch.is_grad_enabled()

    return study


def test_studies_of_two_sessions_take_turns_between_their_parts(worker):
    gate, order = held(worker), []
    first = worker.submit(Job("a", "a", STUDY, parts_of("a", order), {"one"}))
    also = worker.submit(Job("c", "c", STUDY, parts_of("c", order, 1), {"one"}))
    other = worker.submit(Job("b", "b", STUDY, parts_of("b", order), {"two"}))
    gate.set()
    assert all(job.finished.wait(HANGS) and job.state == State.DONE for job in (first, also, other))
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2", "c0"]
    assert [job.parts for job in (first, other)] == [3, 3]
    bare = worker.submit(Job("bare", "bare", STUDY, lambda job: torch.is_grad_enabled(), {"one"}))
    assert bare.finished.wait(HANGS) and bare.result is False


def test_a_study_that_holds_what_others_may_want_is_not_left_between_its_parts(worker):
    gate, order = held(worker), []
    first = worker.submit(Job("a", "a", STUDY, parts_of("a", order, within=whole), {"one"}))
    other = worker.submit(Job("b", "b", STUDY, parts_of("b", order), {"two"}))
    gate.set()
    assert first.finished.wait(HANGS) and other.finished.wait(HANGS)
    assert order == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_a_study_that_was_left_is_stopped_at_the_next_pause_of_another(worker):
    begun, ended, paused = threading.Event(), threading.Event(), threading.Event()

    def study(job):
        try:
            yield 0
            yield 1
        finally:
            ended.set()

    def long(job):
        begun.set()
        assert paused.wait(HANGS)
        pause()
        return left.state, ended.is_set()

    gate = held(worker)
    left = worker.submit(Job("left", "left", STUDY, study, {"one"}))
    other = worker.submit(Job("long", "long", STUDY, long, {"two"}))
    gate.set()
    assert begun.wait(HANGS) and left.state == State.RUNNING and left.parts == 1
    worker.cancel(left.id, "one")
    paused.set()
    assert other.finished.wait(HANGS) and other.result == (State.CANCELLED, True)


def test_a_job_gives_way_at_every_pause_and_is_not_started_again(worker):
    began, asked, order, starts = threading.Event(), threading.Event(), [], []

    def long(job):
        starts.append(torch.get_num_threads())
        began.set()
        assert asked.wait(HANGS)
        pause()
        order.append("long")

    job = worker.submit(Job("long", "long", MODEL, long, {"me"}, restarts=True))
    assert began.wait(HANGS)
    click = worker.submit(Job("click", "click", SELECTION, lambda job: order.append("click"), {"me"}))
    asked.set()
    assert click.finished.wait(HANGS) and job.finished.wait(HANGS)
    assert order == ["click", "long"] and len(starts) == 1


def test_what_runs_within_a_job_has_the_threads_and_numbers_of_the_worker(worker):
    """Training a toy takes one thread, and numbers too small to be normal as zero; both change last bits."""
    began, asked = threading.Event(), threading.Event()

    def long(job):
        with alone_on_a_core():
            began.set()
            assert asked.wait(HANGS)
            pause()
            return Surroundings.now()

    usual = worker.submit(Job("usual", "usual", STUDY, lambda job: Surroundings.now(), {"me"}))
    job = worker.submit(Job("long", "long", STUDY, long, {"me"}))
    assert began.wait(HANGS)
    click = worker.submit(Job("click", "click", SELECTION, lambda job: Surroundings.now(), {"me"}))
    asked.set()
    assert job.finished.wait(HANGS) and click.result == usual.result
    assert job.result == Surroundings(threads=1, gradients=True, flushing=True)


def test_clicks_are_answered_between_the_parts_of_a_study(worker):
    order, began, go = [], threading.Event(), threading.Event()

    def study(job):
        for part in range(3):
            began.set()
            go.wait(HANGS)
            order.append(part)
            yield part

    long = worker.submit(Job("study", "study", STUDY, study, {"me"}))
    began.wait(HANGS)
    click = worker.submit(Job("click", "click", SELECTION, lambda job: order.append("click"), {"me"}))
    go.set()
    assert long.finished.wait(HANGS) and click.state == "done" and long.result == 2
    assert order == [0, "click", 1, 2]


LEFT = """
import sys, threading, torch
from apps.explorer.engine import jobs, worker

worker._AT_EXIT = {patience}
begun = threading.Event()

def work(job):
    square = torch.ones(300, 300)
    while True:
        for _ in range({products}):
            square @ square
            begun.set()
        job.progress(0.5)

worker.Worker("left behind").start().submit(jobs.Job("products", "products", jobs.STUDY, work))
begun.wait()
print("main is done")
"""


@pytest.mark.parametrize(
    ("products", "patience", "code"), [(1, 60, 0), (10**9, 0.5, 1)], ids=["reporting", "in the middle of a pass"]
)
def test_a_process_that_ends_beside_a_running_job_is_not_aborted(products, patience, code):
    """Before, C++ ended it with SIGABRT and `terminate called without an active exception`."""
    script = LEFT.format(patience=patience, products=products)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
    assert (done.returncode, done.stdout, done.stderr) == (code, "main is done\n", "")


def test_a_closed_worker_is_not_kept_for_the_end_of_the_process():
    worker = Worker("short").start()
    worker.close()
    gone = weakref.ref(worker)
    del worker
    gc.collect()
    assert gone() is None


def test_gradients_are_off_in_the_worker(worker):
    import torch

    job = worker.submit(Job("g", "g", PROMPT, lambda job: torch.is_grad_enabled(), {"me"}))
    assert job.finished.wait(HANGS) and job.result is False


@pytest.mark.parametrize("gives_way", [True, False])
def test_what_is_urgent_runs_at_a_report_where_another_pass_meets_nothing(gives_way):
    worker = Worker("test", gives_way=lambda: gives_way).start()
    began, asked, order = threading.Event(), threading.Event(), []

    def work(job):
        began.set()
        assert asked.wait(HANGS)
        with torch.enable_grad():
            job.progress(0.5)
        order.append("study")

    study = worker.submit(Job("study", "study", STUDY, work, {"me"}))
    assert began.wait(HANGS)
    click = Job("click", "click", SELECTION, lambda job: order.append(f"click, {torch.is_grad_enabled()}"), {"me"})
    worker.submit(click)
    asked.set()
    assert study.finished.wait(HANGS) and click.finished.wait(HANGS) and study.state == "done"
    worker.close()
    assert order == (["click, False", "study"] if gives_way else ["study", "click, False"])
