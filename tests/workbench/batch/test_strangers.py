"""Stores of strangers: every record is held to its schema, every shard looked through, and no link is followed.

A checksum says that a record is as somebody wrote it, not that it was us.
"""

import hashlib
import io
import json
import shutil

import h5py
import numpy as np
import pytest

from apps.batches.report import report
from apps.cli import main
from tests.workbench.batch.made import CATALOG, spec, toy
from workbench import batch, memo
from workbench.batch.values.export import export
from workbench.errors import InputError, WorkbenchError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "store"
    given = spec(8, analyses=("norms",), keep={"results": True})
    return batch.run(given, folder, catalog=CATALOG, models={"tiny": toy()})


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole.folder, tmp_path / "store")


def rewritten(file, change):
    """The last record of a file changed, with the checksum that fits."""
    lines = file.read_text().splitlines()
    record = memo.unmarked(json.loads(lines[-1]))
    change(record)
    file.write_text("\n".join([*lines[:-1], json.dumps(memo.marked(record))]) + "\n")


def reshaped(folder, change):
    """A shard changed as by another program, and the ledger's line with it."""
    shard = sorted((folder / "shards").glob("*.nc"))[0]
    before, held = hashlib.sha256(shard.read_bytes()).hexdigest(), io.BytesIO(shard.read_bytes())
    with h5py.File(held, "r+") as file:
        change(file["rows/norms"])
    shard.write_bytes(held.getvalue())
    ledger = folder / "ledger.jsonl"
    records = [memo.unmarked(json.loads(line)) for line in ledger.read_text().splitlines()]
    for record in records:
        if record["sha256"] == before:
            record["sha256"] = hashlib.sha256(held.getvalue()).hexdigest()
    ledger.write_text("".join(json.dumps(memo.marked(record)) + "\n" for record in records))


def read(folder):
    """Everything that is read of a store."""
    found = batch.open(folder)
    found.aggregate("norms"), found.table(), found.failures, found.rows("norms"), found.result("norms", 0)
    return report(found)


RECORDS = {
    "plan.json": [
        lambda record: record.update(shards=["../../spec"]), lambda record: record.pop("refused"),
        lambda record: record.update(spec=record["spec"] | {"analyses": [{"name": "../../norms"}]}),
        lambda record: record.update(models=[{"label": 5}]), lambda record: record.update(format="new"),
        lambda record: record["models"][0].update(label="another"),
    ],
    "prompts.jsonl": [
        lambda record: record.update(model="none of these"), lambda record: record.update(cells=[]),
        lambda record: record.update(n=-3), lambda record: record.pop("text"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "change"), [(name, one) for name, all_ in RECORDS.items() for one in all_])
def test_a_record_of_another_kind_is_one_sentence(store, name, change):
    rewritten(store / name, change)
    with pytest.raises(WorkbenchError, match=r"damaged (plan\.json|prompts\.jsonl)"):
        read(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(shard="../../x"), lambda record: record.update(cells={"norms": "abc"}),
        lambda record: record.update(seconds=float("inf")), lambda record: record.update(failed=[]),
    ],
)  # fmt: skip
def test_a_line_of_the_ledger_of_another_kind_counts_for_nothing(store, whole, change):
    rewritten(store / "ledger.jsonl", change)
    assert batch.open(store).n_done == whole.n_done - 1
    assert "norm" in batch.open(store).aggregate("norms")


def in_another_file(group):
    group.create_dataset("host", (4,), "u1", external=[("/etc/hosts", 0, 4)])


def out_of_its_place(group):
    group["far"] = h5py.ExternalLink("/etc/other.h5", "/x")


def in_a_circle(group):
    group["again"] = group.file["/rows"]


def never_written(group):
    group.create_dataset("vast", (1 << 35,), "f4", chunks=(1 << 20,), compression="gzip")


def of_more_prompts(group):
    values = np.repeat(group["norm"][:], 2, axis=0)
    kept = {name: value for name, value in group["norm"].attrs.items() if name not in ("DIMENSION_LIST",)}
    del group["norm"]
    made = group.create_dataset("norm", data=values)
    for name, value in kept.items():
        made.attrs[name] = value


def without_a_range(group):
    del group["norm"].attrs["valid_max"]


def of_odd_reasons(group):
    group.attrs["left_out"] = '["norm"]'


@pytest.mark.parametrize(
    "change",
    [
        in_another_file, out_of_its_place, in_a_circle, never_written, of_more_prompts, without_a_range,
        of_odd_reasons,
    ],
)  # fmt: skip
def test_a_shard_that_no_run_wrote_is_refused_before_a_value_is_touched(store, change):
    reshaped(store, change)
    with pytest.raises(WorkbenchError, match="damaged shards/"):
        read(store)


def test_rows_without_a_variable_are_none(store, whole):
    """Of an analysis of texts there is nothing to average, and a stranger may take away what there is."""
    reshaped(store, lambda group: group.pop("norm"))
    found = batch.open(store)
    assert 0 < found.rows("norms").sizes["prompt"] < whole.rows("norms").sizes["prompt"]
    assert "norm" in found.aggregate("norms") and len(found.table()) == len(whole.table())


@pytest.mark.parametrize("name", ["plan.json", "prompts.jsonl", "spec.toml", "ledger.jsonl", "report.html", "shards"])
def test_no_link_in_a_store_is_followed(store, tmp_path, name):
    """To read would put any file of this machine into a report, to write would replace it."""
    secret = tmp_path / "secret"
    secret.write_text("hush")
    place = sorted((store / name).glob("*.nc"))[0] if name == "shards" else store / name
    place.unlink(missing_ok=True)
    place.symlink_to(secret)
    assert main(["batch", "report", str(store)]) == 2
    assert secret.read_text() == "hush" and place.is_symlink()
    if name != "report.html":
        with pytest.raises(InputError, match="a link"):
            report(batch.open(store))


def test_an_export_writes_through_no_link(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hush")
    (store / "export").mkdir()
    (store / "export" / "prompts.csv").symlink_to(secret)
    with pytest.raises(InputError, match="which is a link"):
        export(batch.open(store), store / "export", "csv")
    assert secret.read_text() == "hush"


def test_our_own_shards_are_read_by_no_other_process(store, monkeypatch):
    monkeypatch.setattr("workbench.storage.apart.subprocess.run", None)
    assert np.isfinite(batch.open(store).aggregate("norms")["norm"]).any()
