"""What a night brings: a store that goes away, a full disk, what failed and is tried again, ledgers that grow."""

import errno
import json
import os
import shutil

import pytest

from tests.tiny_models import tiny_model
from tests.workbench.batch.made import CATALOG, prompts, spec
from workbench import batch
from workbench.batch.backing.folder import Folder
from workbench.batch.leases import Leases
from workbench.batch.ledger import Entry
from workbench.batch.store import Store
from workbench.errors import FileError, InputError, RefusedError, UnavailableError


def test_what_failed_is_tried_again_however_often(run, monkeypatch):
    """A shard of which everything failed is made of the same cells when it is tried again: it is another attempt."""
    given, first = spec(analyses=("broken-analysis",)), 0
    for tries in (1, 2, 3):
        found = run(given, retry_failed=tries > 1)
        assert len(found.failures) == 24 and len(found.store.ledger()) == found.n_done == found.n_shards
        first = first or found.n_shards
        assert found.n_shards == tries * first
    assert run(given).n_shards == found.n_shards  # without the wish nothing is tried
    monkeypatch.setattr("tests.tiny_runs.BrokenAnalysis.analyse", lambda self, observation: _norms(observation))
    again = run(given, retry_failed=True)
    assert again.failures == [] and int(again.aggregate("broken-analysis")["n_prompts"].sum()) == 24


def _norms(observation):
    from tests.tiny_runs import NORMS, norms

    return norms(observation[NORMS][:, 0])


@pytest.mark.parametrize("lost", ["folder", "plan"])
def test_a_store_that_goes_away_stops_the_run_and_is_not_made_anew(run, tmp_path, lost):
    """Where a disk was mounted nothing may be written in its place; what was finished is there when it comes back."""
    folder, aside = tmp_path / "run", tmp_path / "aside"
    place, away = (folder, aside) if lost == "folder" else (folder / "plan.json", aside)

    def lose(status):
        if status.done == 2 and place.exists():
            place.rename(away)

    with pytest.raises(UnavailableError, match=r"went away while it was in use.*what is finished in it is kept"):
        run(spec(), progress=lose)
    assert not place.exists() and (lost == "plan" or not folder.exists())
    away.rename(place)
    half = batch.open(folder)
    assert half.n_done == 2 and run(spec()).n_done == half.n_shards


def test_a_run_of_another_spec_in_the_same_folder_is_no_answer(run, tmp_path, model):
    """Both write to the store whatever they like; who planned first would be handed the other's results."""
    ours, others, planned = spec(analyses=("norms",)), spec(n=6, analyses=("model-norms",)), []

    def planned_meanwhile(status):
        if status.done == 1 and not planned:
            planned.append(batch.plan(others, tmp_path / "run", catalog=CATALOG, models={"tiny": model}))
            planned[0].write()

    with pytest.raises(RefusedError, match=r"another spec was planned meanwhile; expected one spec in a folder"):
        run(ours, progress=planned_meanwhile)
    assert planned and batch.open(tmp_path / "run").analyses == ("model-norms",)
    assert run(ours).analyses == ("norms",) and run(others).analyses == ("model-norms",)


@pytest.mark.parametrize("name", ["prompts.jsonl", "shard"])
def test_a_file_that_is_gone_is_named(run, name):
    found = run(spec())
    path = found.folder / ("prompts.jsonl" if name != "shard" else f"shards/{found.record['shards'][0]}.json")
    path.unlink()
    with pytest.raises(
        FileError, match=rf"a damaged {path.relative_to(found.folder)} in .*; expected what a run wrote"
    ):
        list(found.store.prompts()) if name != "shard" else found.store.shard(found.record["shards"][0])
    assert run(spec()).n_done == found.n_shards


def test_a_full_disk_under_a_lease_is_a_sentence_and_leaves_none(tmp_path, monkeypatch):
    def full(handle, *more, **options):
        os.close(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workbench.batch.backing.folder.os.fdopen", full)
    with pytest.raises(UnavailableError, match=r"no space left on the disk at .*a\.lease"):
        Leases(Folder(tmp_path)).take("a")
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_lease_that_cannot_be_given_back_hides_no_error(tmp_path, monkeypatch):
    lease = Leases(Folder(tmp_path)).take("a")

    def read_only(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("workbench.batch.backing.folder.Path.unlink", read_only)
    lease.close()


def test_a_number_of_failures_below_none_is_refused_before_anything(run, tmp_path):
    with pytest.raises(InputError, match="max_failures=-1"):
        run(spec(), max_failures=-1)
    assert not (tmp_path / "run").exists()


def test_failures_are_counted_of_the_run_whoever_computed_them(run, tmp_path, model):
    """Each of forty workers would go on to the limit, and the night end with forty times as many."""
    given = spec(analyses=("broken-analysis", "norms"))
    made = batch.plan(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model})
    made.write()
    options = {"catalog": CATALOG, "models": {"tiny": model}, "max_failures": 10}
    done = []
    for _ in range(3):
        with pytest.raises(RefusedError, match=r"\d+ failures in this run, the first: .*KeyError"):
            batch.worker(tmp_path / "run", **options)
        done.append(batch.open(tmp_path / "run").n_done)
    assert 0 < done[0] < made.shards and len(set(done)) == 1  # the others stop before they begin
    assert run(given, max_failures=24).n_done == made.shards
    assert len(run(given, max_failures=10).failures) == 24  # nothing was left that could be stopped


def test_what_failed_before_and_came_out_since_is_no_failure(run, monkeypatch):
    given = spec(analyses=("broken-analysis",))
    assert len(run(given).failures) == 24
    with pytest.raises(RefusedError, match="in this run"):
        run(given, retry_failed=True, max_failures=3)  # what is tried again counts anew
    monkeypatch.setattr("tests.tiny_runs.BrokenAnalysis.analyse", lambda self, observation: _norms(observation))
    assert run(given, retry_failed=True, max_failures=0).failures == []
    more = spec(30, analyses=("broken-analysis",))
    assert run(more, max_failures=0).failures == []


def test_the_spec_that_is_kept_is_the_spec_that_was_run(run, tmp_path):
    """A report shows spec.toml: one of an earlier run would be a lie."""
    path = tmp_path / "made.toml"
    path.write_text(
        'name = "made"\n[[models]]\nname = "tiny"\n[[prompts]]\nids = [[1, 2, 3]]\n[[analyses]]\nname = "norms"\n'
    )
    found = run(path)
    assert found.store.path("spec.toml").read_text() == path.read_text()
    run(found.spec)  # gone on with
    assert found.store.path("spec.toml").exists()
    run(spec(4))
    assert not found.store.path("spec.toml").exists()


def test_a_shard_that_another_finished_is_seen_without_reading_the_ledger_again(tmp_path, monkeypatch):
    store, shards = Store(tmp_path), [f"{i:032x}" for i in range(5)]
    (tmp_path / "shards").mkdir()
    read = []
    loads = json.loads
    monkeypatch.setattr("workbench.batch.ledger.json.loads", lambda line: read.append(1) or loads(line))
    for i, key in enumerate(shards):
        assert not store.has(key)
        (tmp_path / "shards" / f"{key}.nc").write_bytes(b"x%d" % i)
        Store(tmp_path).append(Entry(key, Store(tmp_path).sha256(key), {"norms": ["c"]}, {}, 1.0, 3))
        assert store.has(key) and len(read) == i + 1
    with open(tmp_path / "ledger.jsonl", "ab") as file:
        file.write(b'{"shard": "torn')
    (tmp_path / "shards" / f"{shards[0]}.nc").write_bytes(b"altered")
    assert not store.has(shards[0])
    store.append(Entry(shards[0], store.sha256(shards[0]), {"norms": ["c"]}, {}, 1.0, 3))
    assert store.has(shards[0])
    (tmp_path / "ledger.jsonl").unlink()  # and another one made
    Store(tmp_path).append(Entry(shards[1], Store(tmp_path).sha256(shards[1]), {"norms": ["c"]}, {}, 1.0, 3))
    assert store.has(shards[1])


def test_a_plan_of_an_earlier_build_has_no_sizes_of_shards(run, tmp_path):
    made = batch.plan(spec(), tmp_path / "run", catalog=CATALOG, models={"tiny": tiny_model("llama", n_layers=3)})
    made.write()
    record = made.store.plan()
    assert sum(record.pop("tokens")) == sum(map(len, prompts()))
    made.store.write_record("plan.json", record)
    seen = []
    batch.worker(
        tmp_path / "run", catalog=CATALOG, models={"tiny": tiny_model("llama", n_layers=3)}, progress=seen.append
    )
    assert seen[-1].left == 0 and seen[-1].tokens >= sum(map(len, prompts()))


def test_a_prompt_is_found_where_the_ledger_says(run, monkeypatch):
    """In a run of many shards to look into each would take as long as it has shards."""
    found = run(spec(40))
    read = []
    shard = Store.shard
    monkeypatch.setattr(Store, "shard", lambda self, key: read.append(key) or shard(self, key))
    table = found.table()
    for number in (0, 17, 39):
        read.clear()
        line, ids, _ = found.prompt(number)
        assert len(ids) == table["n"][number] == line["n"] and len(read) == 1
    shutil.rmtree(found.store.path("shards"))
    with pytest.raises(UnavailableError):
        found.prompt(0)


@pytest.mark.parametrize("place", ["a file", "below a file", "a name that is too long"])
def test_a_place_that_can_be_no_folder_is_refused_before_anything_is_loaded(run, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    folder = {"a file": "file", "below a file": "file/run", "a name that is too long": "x" * 300}[place]
    with pytest.raises(InputError, match=r"no folder|too long"):
        batch.run(spec(), tmp_path / folder, catalog=CATALOG, models={})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_may_be_named_by_its_address(run, tmp_path):
    found = run(spec(4))
    assert batch.open(found.folder.as_uri()).folder == found.folder
    spaced = tmp_path / "a b"
    found.folder.rename(spaced)
    assert batch.open(spaced.as_uri()).n_done == found.n_shards
    with pytest.raises(InputError, match="of another machine"):
        batch.worker("file://elsewhere/run", catalog=CATALOG)


def test_rows_without_a_document_are_each_their_own(tmp_path):
    """As one they would count once, and the interval would be of another number of documents."""
    from tests.tiny_models import spelling, tiny_hf
    from workbench import wrap

    rows = [
        {"text": "ab", "film": "x"},
        {"text": "cd", "film": "x"},
        {"text": "ef", "film": None},
        {"text": "gh", "film": ""},
    ]
    rows += [{"text": "ij", "film": float("nan")}, {"text": "kl", "film": 7}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = spec() | {"prompts": [{"file": str(tmp_path / "rows.jsonl"), "document": "film"}]}
    model = wrap(tiny_hf("llama", n_layers=3), spelling(), name="tiny")
    found = batch.run(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model}).aggregate("norms")
    assert found["n_prompts"] == 6 and found["n_documents"] == 5
    assert found.attrs["summary"] == "Means of norms over 5 documents, 6 prompts."


def test_a_record_that_leaves_the_document_out_is_its_own(tmp_path):
    """As JSON lines are written where it is not known; the first one has it, so that it is not misspelt."""
    from tests.tiny_models import spelling, tiny_hf
    from workbench import wrap

    rows = [{"text": "two words", "book": "b1"}, {"text": "three"}, {"text": "four", "book": "b1"}, {"text": "five"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = spec() | {"prompts": [{"file": str(tmp_path / "rows.jsonl"), "document": "book"}]}
    model = wrap(tiny_hf("llama", n_layers=3), spelling(), name="tiny")
    run = batch.run(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model})
    found = run.aggregate("norms")
    assert not run.failures and found["n_prompts"] == 4 and found["n_documents"] == 3


def test_a_damaged_shard_of_a_plan_costs_itself_and_the_others_are_computed(run, tmp_path, model):
    folder = tmp_path / "run"
    made = batch.plan(spec(), folder, catalog=CATALOG, models={"tiny": model})
    made.write()
    (folder / "shards" / f"{made.planned.left[0].key}.json").write_text("{")
    with pytest.raises(FileError, match=r"damaged shards/.*Run again from the spec"):
        batch.worker(folder, catalog=CATALOG, models={"tiny": model})
    assert batch.open(folder).n_done == made.shards - 1
    assert run(spec()).n_done == made.shards
