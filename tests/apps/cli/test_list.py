"""`list`: the analyses by room."""

from apps.cli import main
from apps.cli.commands.list import by_room
from probes import CATALOG


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
