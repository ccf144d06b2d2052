"""Bounded in bytes, on disk between restarts, and no key names a file unless it is one of ours."""

import gc
import multiprocessing
import os
import weakref

import numpy as np
import pytest

from apps.explorer.engine.cache import Cache, check_key
from apps.explorer.engine.held import held_bytes, on_its_own
from tests.another_user import as_another_user
from workbench.analysis.results import dataset
from workbench.analysis.run import Failure
from workbench.errors import InputError, RefusedError
from workbench.files import _partial_name


def result(value: float, n: int = 10):
    return dataset(score=("pos", np.full(n, value), "nats", (0, None)))


KEYS = [f"{i:064x}" for i in range(10)]


def test_the_least_recently_used_goes_first():
    cache = Cache(memory=int(held_bytes(result(0.0)) * 3.5))
    for key in KEYS[:3]:
        cache.put(key, result(1.0))
    cache.get(KEYS[0])
    cache.put(KEYS[3], result(1.0))
    assert cache.get(KEYS[1]) is None and cache.get(KEYS[0]) is not None
    assert cache.nbytes <= cache.memory


def test_one_value_larger_than_the_bound_is_kept_alone():
    small, large = result(0.0), result(1.0, n=10_000)
    for memory in (0, int(held_bytes(small) * 3.5)):
        cache = Cache(memory=memory)
        cache.put(KEYS[0], small)
        cache.put(KEYS[1], large)
        assert cache.get(KEYS[0]) is None and cache.get(KEYS[1]) is large
        cache.put(KEYS[2], small)
        assert cache.get(KEYS[1]) is None and cache.get(KEYS[2]) is small


def test_a_result_that_could_not_be_read_again_is_not_written_and_said(tmp_path):
    """As one of an analysis of one's own: found damaged later, it would be blamed on the disk."""
    cache = Cache(1 << 20, tmp_path, 1 << 20)
    cache.put(KEYS[0], result(1.0, n=0))
    assert not list(tmp_path.glob("*.nc")) and cache.get(KEYS[0]) is not None
    assert cache.notes and "kept in memory only" in cache.notes[0]


def test_what_only_its_owner_may_read_is_computed_again_and_left_alone(tmp_path):
    """A cache that several users share, one of whom keeps files to himself: they are not damaged."""
    file = tmp_path / f"{KEYS[0]}.nc"
    Cache(1 << 20, tmp_path, 1 << 20).put(KEYS[0], result(1.0))
    mine = Cache(1 << 20, tmp_path, 1 << 20)
    for private in (file, tmp_path):
        with as_another_user(private):
            assert mine.get(KEYS[0]) is None and mine.notes == []
    assert file.is_file() and mine.get(KEYS[0]) is not None


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


@pytest.mark.parametrize("at", [0.02, 0.4, 0.97])
def test_one_flipped_bit_is_noticed_and_the_result_is_made_anew(tmp_path, at):
    Cache(1 << 20, tmp_path, 1 << 20).put(KEYS[0], result(2.5))
    path = tmp_path / f"{KEYS[0]}.nc"
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(content)
    cache = Cache(1 << 20, tmp_path, 1 << 20)
    assert cache.get(KEYS[0]) is None and "computed again" in cache.notes[0] and not path.exists()
    cache.put(KEYS[0], result(2.5))
    assert Cache(1 << 20, tmp_path, 1 << 20).get(KEYS[0]).score.values.tolist() == [2.5] * 10


def test_what_was_never_sealed_is_not_trusted(tmp_path):
    """A file of another program under one of our names, though it is a whole result."""
    result(7.0).to_netcdf(tmp_path / f"{KEYS[0]}.nc", engine="h5netcdf")
    assert Cache(1 << 20, tmp_path, 1 << 20).get(KEYS[0]) is None


def test_left_overs_of_a_killed_explorer_go(tmp_path):
    name = _partial_name(tmp_path / "x.nc").replace(f"-{os.getpid()}.", "-999999999.")
    (tmp_path / name).write_bytes(b"half")
    Cache(1 << 20, tmp_path, 1 << 20)
    assert not list(tmp_path.iterdir())


def test_a_reason_that_is_kept_keeps_nothing_of_what_was_computed():
    """The frames of an error hold the variables of every function that it went through."""

    class Observation:
        pass

    def analyse():
        observation = Observation()
        gone.append(weakref.ref(observation))
        try:
            raise IndexError(3)
        except IndexError as cause:
            raise RefusedError("no numbers", "some", "Ask another") from cause

    gone: list = []
    cache = Cache(memory=1 << 20)
    try:
        analyse()
    except RefusedError as error:
        cache.put(KEYS[0], Failure("x", "X", error))
    gc.collect()
    assert gone[0]() is None and "no numbers" in cache.get(KEYS[0]).sentence


def test_what_is_kept_counts_with_its_texts_and_with_what_it_is_a_part_of():
    """A slice keeps the whole of the array that it is cut from alive, and texts are more than their pointers."""
    whole = np.zeros((100, 1000))
    cut = dataset(score=("pos", whole[3], "nats", (0, None)))
    said = dataset(word=("pos", np.array(["x" * 1000 + str(n) for n in range(50)], dtype=object), "text", None))
    assert held_bytes(on_its_own(cut)) > 8_000 and on_its_own(cut).equals(cut)
    assert held_bytes(said) > said.nbytes + 50_000
    cache = Cache(memory=1 << 30)
    cache.put(KEYS[0], cut)
    assert cache.get(KEYS[0]).score.values.base is None or cache.get(KEYS[0]).score.values.base.nbytes < whole.nbytes


def test_a_result_under_the_name_of_another_is_not_trusted(tmp_path):
    Cache(1 << 20, tmp_path, 1 << 20).put(KEYS[0], result(7.0))
    (tmp_path / f"{KEYS[0]}.nc").rename(tmp_path / f"{KEYS[1]}.nc")
    assert Cache(1 << 20, tmp_path, 1 << 20).get(KEYS[1]) is None
