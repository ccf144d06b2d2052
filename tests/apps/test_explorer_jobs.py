"""One worker, most urgent first, equal keys once, and every job can be stopped."""

import threading
import time

import pytest
import torch

from apps.explorer.jobs import MODEL, PROMPT, SELECTION, STUDY, Job, Worker
from workbench.errors import InputError

HANGS = 120  # seconds after which something is taken to hang; nothing is measured by it


@pytest.fixture
def worker():
    made = Worker("test").start()
    yield made
    made.close()


def held(worker) -> threading.Event:
    """Keep the worker busy until the returned event is set."""
    gate, began = threading.Event(), threading.Event()

    def work(job):
        began.set()
        gate.wait(HANGS)

    worker.submit(Job("hold", "hold", SELECTION, work, {"me"}))
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


def test_a_running_job_stops_at_its_next_report(worker):
    began = threading.Event()

    def work(job):
        began.set()
        while True:
            time.sleep(0.005)
            job.progress(0.5)

    job = worker.submit(Job("long", "long", PROMPT, work, {"one", "two"}))
    began.wait(HANGS)
    worker.cancel(job.id, "one")
    time.sleep(0.05)
    assert job.state == "running"  # the other session still wants it
    worker.cancel(job.id, "stranger")
    worker.cancel(job.id, "two")
    assert job.finished.wait(HANGS) and job.state == "cancelled" and "stop" in job.error


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


def test_a_restartable_job_makes_way_and_still_ends(worker):
    began, order, starts = threading.Event(), [], []

    def long(job):
        starts.append(1)
        began.set()
        given_up = time.monotonic() + HANGS
        while "click" not in order and time.monotonic() < given_up:  # however long the click takes to come
            time.sleep(0.005)
            job.progress(0.5)
        order.append("long")

    job = Job("long", "long", MODEL, long, {"me"}, restarts=True)
    worker.submit(job)
    began.wait(HANGS)
    click = worker.submit(Job("click", "click", SELECTION, lambda job: order.append("click"), {"me"}))
    assert click.finished.wait(HANGS) and job.finished.wait(HANGS)
    assert order == ["click", "long"] and len(starts) == 2


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


def test_gradients_are_off_in_the_worker(worker):
    import torch

    job = worker.submit(Job("g", "g", PROMPT, lambda job: torch.is_grad_enabled(), {"me"}))
    assert job.finished.wait(HANGS) and job.result is False


@pytest.mark.parametrize("gives_way", [True, False])
def test_what_is_urgent_runs_at_a_report_of_a_job_that_gives_way(worker, gives_way):
    began, asked, order = threading.Event(), threading.Event(), []

    def work(job):
        began.set()
        assert asked.wait(HANGS)
        with torch.enable_grad():
            job.progress(0.5)
        order.append("study")

    study = Job("study", "study", STUDY, work, {"me"})
    study.gives_way = lambda: gives_way
    worker.submit(study)
    assert began.wait(HANGS)
    click = Job("click", "click", SELECTION, lambda job: order.append(f"click, {torch.is_grad_enabled()}"), {"me"})
    worker.submit(click)
    asked.set()
    assert study.finished.wait(HANGS) and click.finished.wait(HANGS) and study.state == "done"
    assert order == (["click, False", "study"] if gives_way else ["study", "click, False"])
