"""`workbench cache`: what is kept is shown by kind, and emptied by kind; nothing else is touched."""

import json

import pytest

from apps.cli import main


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """Two kinds, something of another version, and a lock."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    for name, content in {
        "results/a.nc": "12345",
        "results/.lock": "",
        "toys/one/card.json": "{}",
        "old/x": "1",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_it_is_shown_and_emptied_by_kind(capsys, filled):
    assert main(["cache", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(filled)
    assert {one["kind"]: (one["files"], one["nbytes"]) for one in said["kept"]} == {
        "results": (1, 5), "toys": (1, 2), "old": (1, 1),
    }  # fmt: skip
    assert main(["cache", "empty", "toys", "old"]) == 0
    assert "Deleted:\n" in capsys.readouterr().out
    assert sorted(path.name for path in filled.rglob("*") if path.is_file()) == [".lock", "a.nc"]
    assert main(["cache"]) == 0
    out = capsys.readouterr().out
    assert "results" in out and "1 file " in out and "toys" not in out


def test_a_kind_that_there_is_not_deletes_nothing(refused, filled):
    assert "'toy', which is not kept; expected one of toys" in refused("cache", "empty", "results", "toy")
    assert (filled / "results" / "a.nc").exists()
