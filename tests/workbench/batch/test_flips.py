"""Faults in what a batch keeps: a changed record is never believed, and running again from the spec makes it anew."""

import json
import shutil

import numpy as np
import pytest

from tests.workbench.batch.made import CATALOG, spec, toy
from workbench import batch
from workbench.errors import UnavailableError, WorkbenchError


@pytest.fixture(scope="module")
def model():
    return toy()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("whole") / "store"
    return batch.run(spec(12), folder, catalog=CATALOG, models={"tiny": model})


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole.folder, tmp_path / "store")


def again(folder, model):
    return batch.run(spec(12), folder, catalog=CATALOG, models={"tiny": model})


def same(one, other):
    names = ("norms", "model-norms")
    return all(one.aggregate(name).drop_attrs().identical(other.aggregate(name).drop_attrs()) for name in names)


def edited(file, change):
    """The last line of a file of JSON with a change of its values, everything else as it was."""
    lines = file.read_text().splitlines()
    record = json.loads(lines[-1])
    change(record)
    file.write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n")


def other_group(record):
    record["group"] = "odd" if record["group"] == "even" else "even"


def other_cell(record):
    record["cells"] = {name: ["0" * 32, *cells[1:]] for name, cells in record["cells"].items()}


def other_title(record):
    record["models"][0]["label"] = "tinz"


def other_ids(record):
    record["ids"] = [[*ids[:-1], ids[-1] ^ 1] for ids in record["ids"]]


@pytest.mark.parametrize(
    ("name", "change"), [("prompts.jsonl", other_group), ("plan.json", other_title), ("ledger.jsonl", other_cell)]
)
def test_a_changed_record_gives_no_other_numbers_and_is_made_anew(store, whole, model, name, change):
    edited(store / name, change)
    if name == "ledger.jsonl":
        assert batch.open(store).n_done == whole.n_done - 1
    else:
        with pytest.raises(UnavailableError, match=f"damaged {name}"):
            batch.open(store).aggregate("norms")
    assert same(again(store, model), whole)


def test_a_changed_shard_is_not_computed_under_the_keys_of_another(store, whole, model):
    """Its results would be of other prompts, and would be found by the keys of these."""
    key = next(key for key in whole.record["shards"] if whole.store.shard(key).ids)
    edited(store / "shards" / f"{key}.json", other_ids)
    (store / "shards" / f"{key}.nc").unlink()
    with pytest.raises(UnavailableError, match=f"damaged shards/{key}.json"):
        batch.worker(store, catalog=CATALOG, models={"tiny": model})
    assert same(again(store, model), whole)


@pytest.mark.slow
def test_no_flipped_bit_of_a_store_gives_another_number(whole, model, tmp_path):
    """Every file that is read, 40 bits each: noticed by whoever reads, or without effect; and mended by a run."""
    random = np.random.default_rng(0)
    files = [file.relative_to(whole.folder) for file in whole.folder.rglob("*") if file.is_file()]
    names = [file for file in files if file.suffix in (".json", ".jsonl", ".nc")]
    for name in names:
        for _ in range(40):
            folder = shutil.copytree(whole.folder, tmp_path / "store")
            content = bytearray((folder / name).read_bytes())
            content[random.integers(len(content))] ^= 1 << random.integers(8)
            (folder / name).write_bytes(content)
            try:
                found = batch.open(folder)
                assert found.n_done < whole.n_done or same(found, whole), name
            except WorkbenchError:
                pass
            assert same(again(folder, model), whole), name
            shutil.rmtree(folder)
