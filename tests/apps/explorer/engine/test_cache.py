"""Bounded in bytes, on disk between restarts, and no key names a file unless it is one of ours."""

import numpy as np
import pytest

from apps.explorer.engine.cache import Cache, check_key
from workbench.analysis.results import dataset
from workbench.errors import InputError


def result(value: float, n: int = 10):
    return dataset(score=("pos", np.full(n, value), "nats", (0, None)))


KEYS = [f"{i:064x}" for i in range(10)]


def test_the_least_recently_used_goes_first():
    one = result(0.0)
    cache = Cache(memory=int(one.nbytes * 3.5))
    for key in KEYS[:3]:
        cache.put(key, result(1.0))
    cache.get(KEYS[0])
    cache.put(KEYS[3], result(1.0))
    assert cache.get(KEYS[1]) is None and cache.get(KEYS[0]) is not None
    assert cache.nbytes <= cache.memory


def test_results_outlive_a_restart_and_partial_ones_do_not(tmp_path):
    first = Cache(1 << 20, tmp_path, 1 << 20)
    first.put(KEYS[0], result(2.5))
    first.put(KEYS[1], result(1.0), write=False)
    second = Cache(1 << 20, tmp_path, 1 << 20)
    assert second.get(KEYS[0]).score.values.tolist() == [2.5] * 10
    assert second.get(KEYS[1]) is None


def test_a_damaged_file_is_thrown_away_and_named(tmp_path):
    (tmp_path / f"{KEYS[0]}.nc").write_bytes(b"not netCDF")
    cache = Cache(1 << 20, tmp_path, 1 << 20)
    assert cache.get(KEYS[0]) is None
    assert KEYS[0] in cache.notes[0] and not (tmp_path / f"{KEYS[0]}.nc").exists()


def test_the_disk_is_bounded_too(tmp_path):
    cache = Cache(1 << 20, tmp_path, 1)
    cache.put(KEYS[0], result(1.0))
    assert not list(tmp_path.glob("*.nc"))


def test_a_place_that_cannot_be_written_costs_nothing_but_a_note(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(1 << 20, tmp_path / "file" / "below", 1 << 20)
    cache.put(KEYS[0], result(1.0))
    assert cache.get(KEYS[0]) is not None and "could not be written" in cache.notes[0]


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "A" * 64, KEYS[0] + "\n", KEYS[0][:-1], None, 3])
def test_only_our_keys_reach_the_disk(key):
    with pytest.raises(InputError):
        check_key(key)
