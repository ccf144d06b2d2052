"""A store below an address: the numbers of a run in a folder, whatever the network does; no secret is shown."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from apps.batches.report import keep_report, report
from apps.cli import main
from tests.workbench.batch.made import CATALOG, spec
from workbench import batch
from workbench.batch.backing import objects
from workbench.batch.backing.address import backing_of
from workbench.batch.backing.secret import without_secrets
from workbench.batch.leases import Leases
from workbench.batch.state import state_of
from workbench.batch.store import Store
from workbench.batch.values.export import export
from workbench.errors import Cancelled, InputError, RefusedError, UnavailableError

NUMBERS = itertools.count()


@pytest.fixture
def address(monkeypatch):
    """A place in the memory of this process, for each test its own; a look at it costs nothing."""
    monkeypatch.setattr(objects.Objects, "pause", 0.0)
    root = f"/tests/{next(NUMBERS)}"
    yield f"memory:/{root}/run"
    system = fsspec.filesystem("memory")
    if system.exists(root):
        system.rm(root, recursive=True)


GIVEN = spec(analyses=("norms",))


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    return batch.run(GIVEN, tmp_path_factory.mktemp("whole"), catalog=CATALOG, models={"tiny": model})


@pytest.fixture
def run(model, address):
    def go(given=None, place=address, **options):
        return batch.run(given or GIVEN, place, catalog=CATALOG, models={"tiny": model}, **options)

    return go


class Odd(MemoryFileSystem):
    """Memory that has moods: `mood` is called with what is asked for, before it is done."""

    protocol = "odd"
    mood = staticmethod(lambda what, path: None)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("odd://"))

    def pipe_file(self, path, value, mode="overwrite", **more):
        type(self).mood("create" if mode == "create" else "write", path)
        super().pipe_file(path, value, mode=mode, **more)

    def put_file(self, here, path, **more):
        type(self).mood("write", path)
        super().put_file(here, path, **more)

    def cat_file(self, path, **more):
        type(self).mood("read", path)
        return super().cat_file(path, **more)


@pytest.fixture
def odd(address, monkeypatch):
    """Its class, and an address of it."""
    fsspec.register_implementation("odd", Odd, clobber=True)
    monkeypatch.setattr(Odd, "mood", staticmethod(lambda what, path: None))
    monkeypatch.setattr(objects.time, "sleep", lambda seconds: None)
    return address.replace("memory:", "odd:")


def same(one, other):
    for name in one.analyses:
        mine, its = one.aggregate(name), other.aggregate(name)
        assert mine.identical(its.assign_attrs(provenance=mine.attrs["provenance"]))
    assert one.rows("norms").identical(other.rows("norms")) and one.table().equals(other.table())
    return True


def test_a_run_below_an_address_equals_that_in_a_folder_and_is_gone_on_with(run, whole, address, monkeypatch):
    found = run()
    assert same(found, whole) and same(batch.open(address), whole) and str(found.n_done) in repr(found)
    assert found.address == address and len(found.store.ledger()) == found.n_shards == found.n_done
    assert found.store.backing.names("leases") == []
    monkeypatch.setattr("workbench.batch.engine.computed", None)
    assert same(run(), whole)  # nothing is computed again
    with pytest.raises(RefusedError, match=r"the folder of memory://"):
        _ = found.folder


def test_everything_of_a_run_works_from_its_address(run, address, tmp_path):
    found = run(spec(analyses=("norms",), keep={"results": True}))
    assert f"{address}/report.html" == keep_report(found) and found.store.read("report.html", 1 << 30)
    assert "<html" in report(found) and found.result("norms", 3).sizes
    assert [path.name for path in export(found, tmp_path, "netcdf")] == ["norms.nc", "prompts.csv"]
    state = state_of(found.store)
    assert state.done == state.shards == found.n_shards and not state.workers and not state.wants_stop
    sign = found.store.sign()
    found.cancel()
    assert found.store.cancelled and found.store.sign() == sign
    assert not run(spec(26, analyses=("norms",))).store.cancelled and found.store.sign() != sign


def test_long_objects_are_written_from_a_file_and_read_in_pieces(run, whole, address, monkeypatch):
    for name, value in (("_IN_MEMORY", 1000), ("_PIECE", 64), ("_KEPT", 0)):
        monkeypatch.setattr(objects, name, value)
    assert same(run(), whole)
    prompts = list(batch.open(address).store.prompts())
    assert prompts == list(whole.store.prompts()) and len(prompts) == 24


def test_two_workers_share_the_shards_and_compute_nothing_twice(model, whole, address):
    batch.plan(GIVEN, address, catalog=CATALOG, models={"tiny": model}).write()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(batch.worker, address, catalog=CATALOG, models={"tiny": model}) for _ in range(2)]
        assert [one.result().done for one in both] == [whole.n_shards] * 2
    assert same(batch.open(address), whole)


def test_a_run_that_is_stopped_keeps_what_is_done(run, whole, address):
    def stop(status):
        if status.done == 2:
            batch.open(address).cancel()

    with pytest.raises(Cancelled):
        run(progress=stop)
    assert batch.open(address).n_done == 2 and same(run(), whole)


def test_what_was_altered_is_computed_again(run, whole, address):
    found = run()
    system, root = fsspec.core.url_to_fs(address)
    shards = [path for path in system.ls(f"{root}/shards", detail=False) if path.endswith(".nc")]
    content = bytearray(system.cat_file(shards[0]))
    content[len(content) // 2] ^= 1
    system.pipe_file(shards[0], bytes(content))
    system.rm_file(shards[1])
    lines = system.ls(f"{root}/ledger", detail=False)
    torn = next(line for line in lines if shards[2].rpartition("/")[2].removesuffix(".nc") in line)
    system.pipe_file(torn, system.cat_file(torn)[:-20])
    other = next(line for line in lines if shards[3].rpartition("/")[2].removesuffix(".nc") in line)
    system.pipe_file(other, system.cat_file(lines[0] if lines[0] != other else lines[1]))  # another's in its place
    assert batch.open(address).n_done == found.n_shards - 4
    assert found.n_done == found.n_shards - 2  # who had read a line before knows what it said
    assert same(run(), whole)


def test_a_lease_has_one_holder_and_is_taken_over_when_its_heartbeat_stops(address):
    place = backing_of(address)
    first, second = Leases(place), Leases(backing_of(address), patience=0.05)
    held = first.take("a")
    assert held is not None and second.take("a") is None
    held.close()
    assert place.names("leases") == []
    text = '{"host": "elsewhere", "space": "x", "pid": 1, "started": "1", "nonce": "n"}'
    assert place.create("leases/a.lease", text.encode()) and not place.create("leases/a.lease", b"x")
    assert second.take("a") is None
    place.beat("leases/a.lease", text, 1)
    import time

    time.sleep(0.06)
    assert second.take("a") is None  # it has moved since
    time.sleep(0.06)
    taken = second.take("a")
    assert taken is not None
    place.beat("leases/a.lease", text, 2)
    place.give_back("leases/a.lease", text)  # who was believed dead comes back: it is not its own any more
    assert place.names("leases") == ["a.lease"]
    taken.close()


def test_a_store_that_lets_two_create_a_file_is_refused_before_a_model_is_loaded(odd, monkeypatch):
    monkeypatch.setattr(
        Odd, "pipe_file", lambda self, path, value, **more: MemoryFileSystem.pipe_file(self, path, value)
    )
    with pytest.raises(RefusedError, match=r"lets two processes create the same file.*conditional writes"):
        batch.run(GIVEN, odd, catalog=CATALOG, models={})


def test_a_network_that_is_gone_for_a_while_is_waited_for(odd, run, whole, monkeypatch):
    asked = itertools.count()

    def gone(what, path):
        if next(asked) % 7 in (3, 4):
            raise ConnectionError("gone for a moment")

    monkeypatch.setattr(Odd, "mood", staticmethod(gone))
    assert same(run(place=odd), whole) and next(asked) > 40


@pytest.mark.parametrize("words", ["no route to the host", "Access Denied", "NoSuchBucket"])
def test_a_store_that_goes_away_is_a_sentence_and_loses_no_finished_shard(odd, run, whole, monkeypatch, words):
    kinds = {"Access Denied": PermissionError, "NoSuchBucket": FileNotFoundError}
    monkeypatch.setattr(objects, "_OUTAGE", 0.0)

    def lose(status):
        def gone(what, path):
            raise kinds.get(words, ConnectionError)(words)

        if status.done == 2:
            monkeypatch.setattr(Odd, "mood", staticmethod(gone))

    with pytest.raises(UnavailableError, match=words) as refused:
        run(place=odd, progress=lose)
    assert "odd://" in str(refused.value) and "\n" not in str(refused.value)
    monkeypatch.setattr(Odd, "mood", staticmethod(lambda what, path: None))
    assert batch.open(odd).n_done == 2 and same(run(place=odd), whole)


def test_a_place_that_cannot_be_reached_is_said_at_once(odd, monkeypatch):
    """Who mistypes an address should not wait for a network that is none."""
    slept = []
    monkeypatch.setattr(objects.time, "sleep", slept.append)

    def refused(what, path):
        raise OSError("Unable to locate credentials")

    monkeypatch.setattr(Odd, "mood", staticmethod(refused))
    with pytest.raises(UnavailableError, match=r"locate credentials at odd://.*credentials and the network"):
        batch.run(GIVEN, odd, catalog=CATALOG, models={})
    assert slept == []


def test_the_answer_to_a_create_may_be_lost(odd, monkeypatch):
    """The store has made the object and we were not told: asked again, it says that there is one."""
    place, tries = backing_of(odd), []
    assert not place.has("x")

    class Lost(ConnectionError):
        pass

    real = Odd.pipe_file

    def losing(self, path, value, **more):
        real(self, path, value, **more)
        if not tries:
            tries.append(1)
            raise Lost("no answer")

    monkeypatch.setattr(Odd, "pipe_file", losing)
    assert place.create("leases/a.lease", b"mine") and tries
    assert not place.create("leases/a.lease", b"another's")


class Answer(OSError):
    """What a driver says that does not know this refusal."""

    def __init__(self, status):
        super().__init__(5, "At least one of the conditions did not hold")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(("status", "is_refusal"), [(412, True), (409, True), (500, False)])
def test_a_refusal_is_known_by_its_status(odd, monkeypatch, status, is_refusal):
    place = backing_of(odd)
    monkeypatch.setattr(objects, "_OUTAGE", 0.0)

    def refused(what, path):
        if what == "create":
            raise OSError(5, "outer") from Answer(status)

    monkeypatch.setattr(Odd, "mood", staticmethod(refused))
    if is_refusal:
        assert not place.create("a", b"x")
    else:
        with pytest.raises(UnavailableError):
            place.create("a", b"x")


def test_a_driver_that_is_missing_is_named():
    with pytest.raises(UnavailableError, match=r"abfs://container/run without the library.*adlfs.*pip install"):
        batch.open("abfs://container/run")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nothing://bucket/run", "Protocol not known"), ("s3://", "a bucket and a path"),
        ("simplecache::memory://run", "an address in an address"), ("file://elsewhere/run", "another machine"),
        ("memory://none", "no batch in memory://none"), (Path("s3://bucket/run"), "an address that lost a slash"),
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_one_sentence(address, said):
    with pytest.raises((InputError, UnavailableError), match=said):
        batch.open(address)


def test_no_secret_of_an_address_is_shown(capsys):
    for address in ("ftp://ann:hu%20sh@127.0.0.1:1/run", "nothing://ann:hu%20sh@host/run?token=hu%20sh&x=1"):
        assert main(["batch", "status", address]) != 0
        assert "***" in (said := capsys.readouterr().err) and "hu%20sh" not in said and "hu sh" not in said
    assert without_secrets("s3://bucket/a@b/run") == "s3://bucket/a@b/run"
    assert without_secrets("login by ann:hush failed", "ftp://ann:hush@host/run") == "login by *** failed"


def test_memory_of_one_process_is_refused_where_another_would_need_it(address, capsys, tmp_path):
    tables = '[[models]]\nname = "toy-induction"\n[[prompts]]\nids = [[1, 2]]\n[[analyses]]\nname = "logit-lens"\n'
    (tmp_path / "s.toml").write_text(f'name = "x"\n{tables}')
    assert main(["batch", "run", str(tmp_path / "s.toml"), "--folder", address]) == 2
    assert "ends with this command" in capsys.readouterr().err
    with pytest.raises(RefusedError, match="only this process sees"):
        batch.Cluster().work(batch.worker, Store(address))


def test_what_was_read_is_not_read_again_while_it_is_the_same(run, address, monkeypatch):
    """A look at a run of a thousand shards would read every byte of it."""
    found = run()
    read = []
    real = MemoryFileSystem.cat_file
    monkeypatch.setattr(
        MemoryFileSystem, "cat_file", lambda self, path, **m: read.append(path) or real(self, path, **m)
    )
    fresh = batch.open(address)
    fresh.aggregate("norms"), fresh.table(), fresh.rows("norms"), fresh.n_done
    shards = [path for path in read if path.endswith(".nc") and "/shards/" in path]
    assert len(shards) == len(set(shards)) == found.n_shards
    monkeypatch.setattr(objects, "_KEPT", 0)  # without room it is read again, and is the same
    assert json.dumps(batch.open(address).summaries) == json.dumps(found.summaries)
