"""Bounded in bytes, on disk between restarts, and no key names a file unless it is one of ours."""

import multiprocessing

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


def test_one_value_larger_than_the_bound_is_kept_alone():
    small, large = result(0.0), result(1.0, n=1000)
    for memory in (0, int(small.nbytes * 3.5)):
        cache = Cache(memory=memory)
        cache.put(KEYS[0], small)
        cache.put(KEYS[1], large)
        assert cache.get(KEYS[0]) is None and cache.get(KEYS[1]) is large
        cache.put(KEYS[2], small)
        assert cache.get(KEYS[1]) is None and cache.get(KEYS[2]) is small


def _explore(directory, first: int, seen) -> None:
    """Another explorer on the same directory, which has room for two or three results."""
    cache = Cache(1 << 20, directory, 40_000)
    for step in range(8):
        cache.put(f"{first + step % 4:064x}", result(float(step)))
        fresh = Cache(1 << 20, directory, 40_000)
        for key in KEYS:
            found = fresh.get(key)
            assert found is None or found.score.size == 10
        cache.notes += fresh.notes
    seen.put(cache.notes)


def test_explorers_that_share_a_directory_do_not_break_each_other(tmp_path):
    started = multiprocessing.get_context("fork")
    seen = started.Queue()
    others = [started.Process(target=_explore, args=(tmp_path, first, seen)) for first in (0, 2, 5)]
    for other in others:
        other.start()
    assert [seen.get(timeout=300) for _ in others] == [[], [], []]
    for other in others:
        other.join(60)
        assert other.exitcode == 0


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
