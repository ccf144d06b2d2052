"""The kept counts hold what checks, labels and intervals promise; they grow over calls and count nothing twice."""

from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from apps.calibration.__main__ import main, random_model
from apps.calibration.checks import count_checks, random_prompt
from apps.calibration.counts import Counts
from apps.calibration.coverage import count_coverage, count_documents
from apps.calibration.labels import count_labels
from apps.calibration.table import page

KEPT = Counts(Path(__file__).parents[3] / "docs" / "calibration.json")


def above(rate: float, n: int) -> float:
    """What a rate may be seen as, of n: four standard errors above, since a hundred cells are looked at."""
    return rate + 4 * sqrt(rate * (1 - rate) / n)


def test_small_p_are_as_rare_as_promised_in_every_class_of_loudness():
    """P(p <= 0.05) at most 0.06 where there are 200 units or more; elsewhere within what their number allows."""
    cells = [cell for row in KEPT.of("caliper").values() for cell in row.values()]
    assert len(cells) > 60 and sum(n >= 200 for _, n in cells) >= 20
    for small, n in cells:
        assert small / n <= (0.06 if n >= 200 else above(0.05, n))


@pytest.mark.parametrize("kind", ["heads", "neurons", "edges", "keys", "states"])
@pytest.mark.parametrize("weights", ["default model", "random gpt2", "random llama"])
def test_every_kind_of_unit_is_counted_on_trained_and_on_random_weights(kind, weights):
    assert KEPT.of("caliper")[f"{weights}: {kind}"]["all"][1] >= 30


def test_the_answer_without_a_caliper_is_calibrated_as_well():
    for row in KEPT.of("relation").values():
        for small, n in row.values():
            assert small / n <= above(0.05, n)


def test_random_weights_have_no_labels_and_intervals_hold_what_they_say():
    for row in KEPT.of("labels").values():
        called, n = row["heads"]
        assert called / n <= 0.05 * n and called == 0
    for name in ("mean", "difference", "ratio", "share", "rare"):
        for row in KEPT.of(f"coverage: {name}").values():
            for held, n in row.values():
                assert held / n >= 0.92 - 3 * sqrt(0.92 * 0.08 / n)


def test_counts_grow_over_calls_and_none_is_made_twice(tmp_path, capsys, monkeypatch):
    kept, written = tmp_path / "counts.json", tmp_path / "page.md"
    asked = ["calibration", "--minutes", "0", "--counts", str(kept), "--page", str(written)]
    monkeypatch.setattr("sys.argv", asked)
    main()  # no time: nothing is done, and said so
    assert "0 pieces of work done" in capsys.readouterr().out
    counts = Counts(kept)
    count_coverage(counts, "normal", 16, 0)
    counts.finish("coverage normal 16")
    again = Counts(kept)
    assert again.done == ["coverage normal 16"] and again.cells == counts.cells
    main()
    assert "coverage normal 16\n" not in capsys.readouterr().out and "| normal | 0.9" in written.read_text()


def test_a_piece_of_work_counts_every_unit_once(tmp_path):
    counts = Counts(tmp_path / "counts.json")
    model = random_model("llama", 1)
    count_checks(counts, "random", model, random_prompt(model, 1), "heads", 1)
    refused, of = counts.of("refused")["random: heads"]["all"]
    tested = counts.of("caliper")["random: heads"]
    assert of == 96 and tested["all"][1] == 96 - refused
    by_norm = [tested[name][1] for name in ("quietest third", "middle third", "loudest third")]
    assert sum(by_norm) == tested["all"][1]
    assert sum(cell[1] for name, cell in tested.items() if "times its controls" in name) == tested["all"][1]
    count_documents(counts, 16, 0)
    assert "tokens named" in page(counts) and "random: heads" in page(counts)


@pytest.mark.slow
def test_labels_of_random_models_are_counted(tmp_path):
    counts = Counts(tmp_path / "counts.json")
    count_labels(counts, "random gpt2", random_model("gpt2", 3), 3)
    assert counts.of("labels")["random gpt2: induction head"]["heads"] == (0, 96)
    assert np.isfinite(counts.of("labels")["random gpt2: sink, 64 tokens"]["heads"][0])
