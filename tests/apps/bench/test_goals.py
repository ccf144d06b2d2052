"""Goals, held against times that we set."""

from apps.bench.goals import goals
from apps.bench.rows import (
    ABLATIONS,
    ANSWER,
    BRIDGE,
    DESCRIBE,
    FULL_ABLATIONS,
    INDUCTION,
    LENS_ALL,
    PLAIN_ANSWER,
    PRODUCTS_ALL,
    START_SIZE,
)


def test_goals_are_held_against_what_was_measured():
    def record(name, wall, peak, length):
        return {
            "row": name,
            "batch": 1,
            "length": length,
            "peak_mb": peak,
            "wall_ms_runs": [wall],
            "cpu_ms_runs": [2 * wall],
        }

    rows = []
    for length, induction in ((64, 1.3), (1024, 1.1)):
        rows += [record(BRIDGE, 1.0, 100.0, length), record(INDUCTION, induction, 800.0, length)]
    rows += [record(LENS_ALL, 2.4, None, 64), record(PRODUCTS_ALL, 2.0, None, 64)]
    found = {(g["size"], "MB" in g["goal"], "lens" in g["goal"]): g for g in goals(rows)}
    assert {key: g["met"] for key, g in found.items()} == {
        ("1 x 64", False, False): False, ("1 x 1024", False, False): True,
        ("1 x 1024", True, False): False, ("1 x 64", False, True): True,
    }  # fmt: skip
    assert found["1 x 1024", True, False]["measured"] == 700.0


def test_a_study_is_held_against_as_many_slow_runs_as_it_replaces():
    common = {"batch": 16, "length": 128, "peak_mb": None}
    slow = {"row": FULL_ABLATIONS, "wall_ms_runs": [3.0], "cpu_ms_runs": [6.0], **common}
    fast = {"row": ABLATIONS, "wall_ms_runs": [9.0], "cpu_ms_runs": [18.0], **common}
    (goal,) = goals([slow, fast])
    assert goal["measured"] == goal["measured_cpu"] == 2.0 and goal["met"]  # 6 runs of 3 ms, in 9 ms
    assert goal["goal"].endswith("at least 1.4 times as fast") and "against 6 x ablation: 5 heads" in goal["goal"]
    slow["wall_ms_runs"] = [1.0]
    assert not goals([slow, fast])[0]["met"]


def test_whole_processes_are_held_against_plain_ones_and_against_seconds():
    common = dict(zip(("batch", "length"), START_SIZE, strict=True)) | {"peak_mb": None}
    plain = {"row": PLAIN_ANSWER, "wall_ms_runs": [8000.0, 7000.0, 9000.0], "cpu_ms_runs": [6000.0] * 3, **common}
    ours = {"row": ANSWER, "wall_ms_runs": [9600.0, 9100.0, 9900.0], "cpu_ms_runs": [9000.0] * 3, **common}
    words = {
        "row": DESCRIBE,
        "wall_ms": 620.0,
        "cpu_ms": 400.0,
        "wall_ms_runs": [620.0],
        "cpu_ms_runs": [400.0],
        **common,
    }
    answer, described = goals([plain, ours, words])
    assert (answer["measured"], answer["measured_cpu"], answer["met"]) == (1.2, 1.5, True)
    assert (described["measured"], described["measured_cpu"], described["met"]) == (0.62, 0.4, False)
    assert described["goal"] == "process: workbench describe logit-lens, at most 0.5 s"
