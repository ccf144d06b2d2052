"""The table of circuits: pieces are kept at once, none is measured twice, and the page follows from them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from apps.circuits import pieces
from apps.circuits.pieces import Row, measure, read
from apps.circuits.table import numbers, write
from probes.circuits.graph.selection import BUDGETS
from workbench.errors import InputError

ROWS = (Row("RelP", "mixed", ranked=2), Row("EAP", refill=False, ranked=2))


@pytest.fixture
def small(monkeypatch):
    for name, value in {"RANKED": 2, "CALIBRATED": 1, "TESTED": 4, "PIECE": 2}.items():
        monkeypatch.setattr(pieces, name, value)


def test_it_goes_on_where_it_stopped(model, small, tmp_path):
    path = tmp_path / "pieces.jsonl"
    first = next(measure(model, "indirect object", ROWS, path))
    assert "RelP, mixed" in first and len(read(path)) == 1
    before = path.read_text()
    path.write_text(before + '{"task": "indirect obj')  # torn: the power went off
    assert len(read(path)) == 1
    assert len(list(measure(model, "indirect object", ROWS, path))) == 3 and len(read(path)) == 4
    assert list(measure(model, "indirect object", ROWS, path)) == []
    of_row = lambda name: [piece for piece in read(path) if piece["row"].startswith(name)]
    for one, other in zip(of_row("RelP"), of_row("EAP"), strict=True):  # the ends are those of the row before
        assert one["empty"] == other["empty"] and one["metrics"][-1] == other["metrics"][-1]
        assert np.array(other["metrics"]).shape == (len(BUDGETS), 2) and other["metrics"][0] != one["metrics"][-1]
    again = Row("RelP", "mixed", ranked=1)  # asked otherwise, it is another row
    assert len(list(measure(model, "indirect object", (again,), path))) == 2
    write(path, tmp_path / "page.md")
    assert "Not measured yet" in (tmp_path / "page.md").read_text()


def test_pieces_of_the_same_weights_with_other_settings_are_not_taken_up(model, small, tmp_path):
    path = tmp_path / "pieces.jsonl"
    next(measure(model, "indirect object", ROWS, path))
    other = replace(model, made=replace(model.made, settings_hash="0" * 64), follow=None)
    assert other.identity.weights_hash == model.identity.weights_hash
    with pytest.raises(InputError, match="of another model"):
        next(measure(other, "indirect object", ROWS, path))


def test_numbers_are_of_all_pairs_of_a_rows_pieces():
    random = np.random.default_rng(0)
    made = []
    for start in (0, 20):
        whole = 2 + random.standard_normal(20)
        values = np.stack([whole * f for f in np.linspace(0.5, 1, len(BUDGETS))])
        made.append({"metrics": values.tolist(), "empty": np.zeros(20).tolist(), "start": start})
    found = numbers(json.loads(json.dumps(made)))
    assert found["n"] == 40 and found["f"] == pytest.approx(np.linspace(0.5, 1, len(BUDGETS)))
    low, high = found["ends"]["cmd_log"]
    area = found["areas"]["cmd_log"]
    assert high == pytest.approx(area)  # every pair says the same
    assert low == pytest.approx(area * 0.05 ** (1 / 40))  # it may be less of what 40 pairs in a row did not show
    # Off by the same share on each pair, and by as much as the whole differs between them.
    whole = np.concatenate([piece["metrics"][-1] for piece in made])
    share = np.sqrt((whole**2).mean()) / whole.mean()
    assert found["by_pair"] == pytest.approx(share * found["areas"]["cmd_log"])
