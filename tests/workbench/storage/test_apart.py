"""Files of strangers, read by another process first: one that hangs, crashes or eats memory is that one's end alone."""

import subprocess

import h5py
import numpy as np
import pytest
import xarray as xr

from tests.workbench.storage.test_strangers import changed, example
from workbench import open_result, save
from workbench.errors import InputError
from workbench.storage import apart

pytestmark = pytest.mark.apart

_HANGS = "import sys; sys.stdin.buffer.read()\nwhile True: pass"
_CRASHES = "import os, sys; sys.stdin.buffer.read(); os.abort()"
_EATS = """
import sys
sys.path.insert(0, sys.argv[1])
from workbench.storage import apart
apart.inspect = lambda content, groups: bytearray(int(sys.argv[3]))
sys.exit(apart.child(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def test_a_file_is_read_by_another_process_once_for_each_content(tmp_path, monkeypatch):
    path, started, plain = tmp_path / "a.nc", [], subprocess.run
    monkeypatch.setattr(apart.subprocess, "run", lambda *words, **more: started.append(1) or plain(*words, **more))
    saved = save(example(), path)
    xr.testing.assert_identical(open_result(saved), example())
    assert open_result(saved).identical(open_result(saved)) and len(started) == 1
    save(example(0.25), path)
    assert float(open_result(path)["score"][0, 0]) == 0.25 and len(started) == 2


def test_what_it_refuses_is_refused_in_its_words(tmp_path):
    def soft(file):
        file["far"] = h5py.SoftLink("/score")

    path = tmp_path / "a.nc"
    changed(path, soft)
    with pytest.raises(InputError, match=r"a link 'far' out of its place.*a\.nc"):
        open_result(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(InputError, match="damaged file, or none in netCDF-4"):
        open_result(path)


def test_a_value_that_cannot_be_read_is_found_there(tmp_path):
    """Compressed values whose bytes were changed: headers are sound, and only who reads them meets the fault."""
    path = tmp_path / "a.nc"

    def packed(file):
        made = file.create_dataset("packed", (4096,), "f8", chunks=(4096,), compression="gzip", fletcher32=True)
        made[:] = np.random.default_rng(0).normal(size=4096)
        packed.at = made.id.get_chunk_info(0).byte_offset

    changed(path, packed)
    content = bytearray(path.read_bytes())
    content[packed.at + 1000] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        open_result(path)


@pytest.mark.parametrize("code", [_HANGS, _CRASHES, _EATS], ids=["hangs", "crashes", "eats"])
def test_one_that_hangs_crashes_or_eats_memory_is_refused(tmp_path, monkeypatch, code):
    path = save(example(), tmp_path / "a.nc")
    monkeypatch.setattr(apart, "_CODE", code)
    monkeypatch.setattr(apart, "_SECONDS", 0.1)
    monkeypatch.setattr(apart, "_RATE", 1e12)
    with pytest.raises(InputError, match="damaged file, which cannot be read to its end"):
        open_result(path)


def test_where_no_process_can_be_started_this_one_reads(tmp_path, monkeypatch):
    path = save(example(), tmp_path / "a.nc")
    monkeypatch.setattr(apart, "_CODE", "import no_such_library")
    xr.testing.assert_identical(open_result(path), example())
    monkeypatch.setattr(apart.sys, "executable", str(tmp_path / "none"))
    xr.testing.assert_identical(open_result(path), example())


def test_a_folder_of_the_same_name_where_one_works_is_not_run(tmp_path, monkeypatch):
    path = save(example(), tmp_path / "a.nc")
    (tmp_path / "workbench").mkdir()
    (tmp_path / "workbench" / "__init__.py").write_text("raise SystemExit(0)")
    (tmp_path / "h5py.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    xr.testing.assert_identical(open_result(path), example())
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="damaged"):
        open_result(path)
