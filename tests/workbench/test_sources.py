"""The hash of sources: of every file's name and bytes."""

from types import ModuleType

from workbench.sources import digest_of


def package(folder, name="mine"):
    made = ModuleType(name)
    made.__path__ = [str(folder)]
    return made


def test_a_changed_a_new_a_moved_and_a_lost_file_are_other_sources(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "room" / "one.py").write_text("x = 1\n")
    mine = package(tmp_path)
    seen = [digest_of([mine])]
    (tmp_path / "room" / "one.py").write_text("x = 2\n")
    seen.append(digest_of([mine]))
    (tmp_path / "room" / "two.py").write_text("")
    seen.append(digest_of([mine]))
    (tmp_path / "room" / "two.py").rename(tmp_path / "two.py")
    seen.append(digest_of([mine]))
    assert len(set(seen)) == 4
    (tmp_path / "two.py").unlink()
    assert digest_of([mine]) == seen[1]


def test_only_python_counts_and_each_package(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    alone = digest_of([package(one)])
    (one / "notes.txt").write_text("words")
    assert digest_of([package(one)]) == alone
    assert len({alone, digest_of([package(one), package(two, "others")]), digest_of([package(one, "others")])}) == 3
