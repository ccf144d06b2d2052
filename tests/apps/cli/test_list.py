"""`list` and `describe`: the analyses by room, and each in words."""

import subprocess
import sys

import pytest

import probes
from apps.cli import main
from apps.cli.commands.list import by_room
from apps.cli.report import kept_text
from apps.cli.report.description import description
from probes import CATALOG
from workbench import sources


def test_run_list_prints_the_catalogs_names(capsys):
    assert main(["run", "--list"]) == 0
    assert capsys.readouterr().out.split() == list(CATALOG.with_plugins().names)


def test_the_list_has_every_name_once_under_its_room(capsys):
    assert main(["list"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    rooms = {block.partition(":")[0]: block.splitlines()[1:] for block in blocks}
    assert {"lens", "attention", "circuits"} <= set(rooms) and "  logit-lens" in rooms["lens"]
    assert "  attention-sinks" in rooms["attention"]  # also what lies in a room of that room
    listed = [name.strip() for names in rooms.values() for name in names]
    assert sorted(listed) == sorted(CATALOG.with_plugins().names)


def test_the_long_list_asks_each_ones_question(capsys):
    assert main(["list", "--long"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for view in CATALOG.views:
        assert any(line.split()[:1] == [view.name] and line.endswith(view.question) for line in lines)


def test_what_others_installed_is_a_room_of_its_own():
    modules = {"a": "probes.lens.a", "b": "my_package.deep.b", "c": "probes.lens.d.c", "d": "probes.routes"}
    assert by_room(modules) == {"probes.lens": ["a", "c"], "my_package": ["b"], "probes.routes": ["d"]}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty one."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    return tmp_path / "descriptions"


def test_a_description_is_kept_until_a_word_of_ours_is_another(capsys, cache, monkeypatch):
    said = "".join(
        description(CATALOG.view(name)) + end for name, end in (("flow-routes", "\n\n"), ("surprisal", "\n"))
    )
    assert main(["describe", "flow-routes", "surprisal"]) == 0 and capsys.readouterr().out == said
    with monkeypatch.context() as broken:
        broken.setattr("apps.cli.report.description.description", lambda view: f"anew: {view.name}")
        assert main(["describe", "flow-routes", "surprisal"]) == 0 and capsys.readouterr().out == said
        broken.setattr(kept_text.sources, "digest_of", lambda packages: "another digest")
        assert main(["describe", "surprisal"]) == 0 and capsys.readouterr().out == "anew: surprisal\n"
    for file in cache.iterdir():
        file.write_text(file.read_text().replace("e", "E"))
    assert main(["describe", "flow-routes", "surprisal"]) == 0 and capsys.readouterr().out == said


def test_a_changed_file_is_another_source(monkeypatch, tmp_path):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "a.py"
    file.write_text("one")
    monkeypatch.setattr("probes.__path__", [str(tmp_path)])
    first = sources.digest_of((probes,))
    assert sources.digest_of((probes,)) == first
    file.write_text("two")
    second = sources.digest_of((probes,))
    file.rename(tmp_path / "a.py")
    assert len({first, second, sources.digest_of((probes,))}) == 3


def test_what_others_installed_is_never_kept(cache, monkeypatch):
    monkeypatch.setattr("apps.cli.report.description.description", lambda view: f"of {view.name}")
    assert kept_text.described("surprisal", "their_package.surprisal") == "of surprisal" and not cache.exists()


def test_what_is_described_again_needs_no_torch(cache):
    """In a process of its own, as the shell starts one."""
    words = [sys.executable, "-X", "importtime", "-m", "apps.cli", "describe", "logit-lens"]
    first, second = (subprocess.run(words, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stdout == second.stdout and first.stdout.startswith("logit-lens: ")
    assert "torch" in first.stderr and "torch" not in second.stderr and "xarray" not in second.stderr
