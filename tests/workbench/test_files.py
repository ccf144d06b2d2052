"""Files are whole or not at all, on full disks too, and nothing that is no file is replaced by one."""

import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from workbench import files
from workbench.batch.spec import read_spec
from workbench.corpora import text_corpus
from workbench.errors import InputError, LeftOverWarning, UnavailableError
from workbench.files import cache_dir, clear_partials, need_writable, read_whole, sealed, unsealed, write_whole
from workbench.records import read_prompts
from workbench.rows import opened

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small_disk():
    """No file may grow over 4,000 bytes: as a disk that fills, without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_leaves_what_was_there(tmp_path, small_disk):
    path = write_whole(tmp_path / "a", b"before")
    with pytest.raises(UnavailableError, match="File too large"):
        write_whole(path, b"x" * 5_000)
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["a"]


FILLS = """
import resource, sys
import numpy as np
from workbench import dataset, save
from workbench.errors import UnavailableError
result = dataset(score=("pos", np.zeros(200_000), "nats", (0, None)), word=("row", ["a"] * 100, "text", None))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    save(result, sys.argv[1])
except UnavailableError as error:
    assert "HDF5" not in str(error) and len(str(error)) < 300, error
    print("said")
"""


@pytest.mark.parametrize("room", [0, 100_000])
def test_a_disk_that_fills_while_a_result_is_written_ends_no_process(tmp_path, room):
    words = [sys.executable, "-c", FILLS, str(tmp_path / "r.nc"), str(room)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=300)
    assert done.returncode == 0 and done.stdout == "said\n", done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_refused_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    for name, said in (("pipe", "a pipe"), ("folder", "a directory"), ("link", "a device")):
        for check in (need_writable, lambda path: write_whole(Path(path), b"x")):
            with pytest.raises(InputError, match=said):
                check(tmp_path / name)
    with pytest.raises(InputError, match="a pipe"):
        read_whole(tmp_path / "pipe", 100)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()


def test_a_pipe_is_read_while_somebody_writes_and_empty_where_nobody_does(tmp_path):
    os.mkfifo(tmp_path / "prompts.txt")
    with pytest.raises(InputError, match="no prompt in"):
        read_prompts(tmp_path / "prompts.txt")
    writer = os.open(tmp_path / "prompts.txt", os.O_RDWR)
    os.write(writer, b"one\ntwo\n")
    with opened(tmp_path / "prompts.txt") as file:
        os.close(writer)
        assert file.read() == b"one\ntwo\n"


@pytest.mark.parametrize("read", [text_corpus, lambda paths: read_spec(paths[0])], ids=["texts", "a spec"])
def test_a_file_that_never_ends_is_refused(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, said in (("pipe", "a pipe"), ("zero", "a device")):
        with pytest.raises(InputError, match=said):
            read([tmp_path / name])


def test_a_user_without_a_home_or_an_entry_is_told_what_to_set(monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "WORKBENCH_CACHE", "XDG_CACHE_HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(UnavailableError, match="Set WORKBENCH_CACHE or HOME"):
        cache_dir()


def test_a_link_to_a_file_is_written_through(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"after")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"after"


@pytest.mark.parametrize("name", ["n" * 256, "ü" * 128 + ".nc", "a\0b"])
def test_impossible_names_are_refused(tmp_path, name):
    with pytest.raises(InputError):
        need_writable(str(tmp_path / name))
    with pytest.raises(InputError):
        write_whole(tmp_path / name, b"x")
    with pytest.raises(InputError):
        read_whole(tmp_path / name, 9)


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path):
    name = "東" * 84 + ".nc"  # 255 bytes
    assert write_whole(tmp_path / name, b"x").read_bytes() == b"x"


@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_the_mode_is_what_the_umask_says(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = write_whole(tmp_path / "below" / "a", b"x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask and path.parent.stat().st_mode & 0o777 == 0o777 & ~mask


def test_left_overs_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here, elsewhere = files._machine(), "0" * 8
    stay = [f".a.nc.{here}-{os.getpid()}.0123abcd.part", f".a.nc.{elsewhere}-{dead.pid}.0123abcd.part", "mine.part"]
    goes = f".a.nc.{here}-{dead.pid}.0123abcd.part"
    for name in (*stay, goes):
        (tmp_path / name).write_bytes(b"half")
    assert clear_partials(tmp_path) == (goes,)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stay)
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # of another user, who may look after them
    os.utime(tmp_path / stay[1], (0, 0))
    assert clear_partials(tmp_path) == ()
    monkeypatch.undo()  # of another machine, whose processes cannot be asked, but long ago: it goes
    assert clear_partials(tmp_path) == (stay[1],) and clear_partials(tmp_path / "not there") == ()


def test_what_a_kill_left_in_a_users_folder_goes_with_the_next_save_and_a_word(tmp_path):
    half = (
        "import os, sys\nfrom pathlib import Path\nfrom workbench.files import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as part:\n    part.write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", half, str(tmp_path / "lens.csv")], cwd=ROOT)
    (left,) = tmp_path.iterdir()
    assert done.returncode == -9 and left.name.startswith(".lens.csv.")
    with pytest.warns(LeftOverWarning, match=r"\.lens\.csv\..* was taken away"):
        write_whole(tmp_path / "other.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
    with warnings.catch_warnings(action="error"):
        write_whole(tmp_path / "other.json", b"[]")  # nothing is left to be said


def test_a_seal_says_whether_a_file_is_as_it_was_written():
    content = b"some bytes \n"
    assert unsealed(sealed(content)) == (content, True)
    assert unsealed(b"X" + sealed(content)[1:])[1] is False
    assert unsealed(content) == (content, None)
    assert unsealed(sealed(content, "one"), "one") == (content, True)
    assert unsealed(sealed(content, "one"), "other") == unsealed(sealed(content, "one")) == (content, False)


def test_what_is_sealed_for_no_name_is_not_as_it_was_written_under_one():
    """A result that anybody saved, in the place of one that is kept."""
    assert unsealed(sealed(b"a", "key"), "key")[1] is True
    for other in (sealed(b"a"), sealed(b"a", "other")):
        assert unsealed(other, "key")[1] is False
