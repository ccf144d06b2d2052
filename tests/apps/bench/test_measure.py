"""How rows are measured, on a clock that we set."""

import pytest
import torch

from apps.bench import measure as measuring
from apps.bench.measure import measure, peak_megabytes, ratio
from apps.bench.rows import (
    Row,
)


class Clock:
    """Time that passes only when a row says so: wall in seconds, CPU twice as fast."""

    def __init__(self, monkeypatch):
        self.now, self.order = 0.0, []
        monkeypatch.setattr(measuring.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(measuring.time, "process_time", lambda: 2 * self.now)

    def row(self, name: str, seconds: float, **more) -> Row:
        def run():
            self.order.append(name)
            self.now += seconds

        return Row(name, lambda subject: run, **more)


def test_rows_run_in_turn_and_the_order_rotates(subject, monkeypatch):
    clock = Clock(monkeypatch)
    rows = [clock.row("a", 1.0), clock.row("b", 2.0), clock.row("c", 4.0, heavy=True)]
    records = measure(subject(1, 8), rows, (3, 2))
    warm_up = ["a", "a", "b", "b", "c"]  # each once more for its peak; a heavy row only for that
    assert clock.order == [*warm_up, *"abc", *"bca", *"ab"]
    assert [r["wall_ms"] for r in records] == [1000.0, 2000.0, 4000.0]
    assert records[1]["cpu_ms"] == 4000.0 and len(records[2]["wall_ms_runs"]) == 2


def test_a_study_runs_once_at_its_own_size(subject, monkeypatch):
    clock = Clock(monkeypatch)
    rows = [clock.row("light", 1.0), clock.row("study", 60.0, at=(2, 8)), clock.row("elsewhere", 60.0, at=(1, 8))]
    light, study = measure(subject(2, 8), rows, (2, 2))
    assert clock.order == ["light", "light", "light", "study", "light"]
    assert study["wall_ms_runs"] == [60000.0] and study["peak_mb"] is None
    assert ratio([light, study], study, "light") == 60.0


def test_a_ratio_is_taken_within_rounds():
    def record(name, runs, length=8):
        return {"row": name, "batch": 1, "length": length, "wall_ms_runs": runs}

    # the machine was ten times slower in the last round: for both
    rows = [record("a", [1.0, 1.0, 10.0]), record("b", [2.0, 2.0, 20.0]), record("b", [9.0], length=16)]
    assert ratio(rows, rows[1], "a") == 2.0
    assert ratio(rows, rows[2], "a") is None


def test_peak_memory_is_what_a_call_adds():
    def allocates():
        return torch.ones(15_000_000).sum()

    nothing, sixty = peak_megabytes(lambda: None), peak_megabytes(allocates)
    if nothing is None:
        pytest.skip("this kernel does not tell the high-water mark")
    assert nothing < 10 and 55 < sixty < 90
