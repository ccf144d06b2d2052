"""Aggregates that a run left are taken where nothing has changed, and merged anew where anything has."""

import json
from uuid import uuid4

import numpy as np
import pytest

from tests.tiny_models import tiny_model
from tests.workbench.batch.made import CATALOG, prompts, spec
from workbench import batch
from workbench.analysis.results import open_result, save
from workbench.batch.values import kept, merge
from workbench.errors import InputError
from workbench.files import unsealed
from workbench.storage.netcdf import encoded


@pytest.fixture
def merged(monkeypatch):
    """The analyses that were merged from their rows, in their order."""
    seen = []
    aggregate = merge.aggregate
    monkeypatch.setattr(
        merge, "aggregate", lambda store, name, *more: seen.append(name) or aggregate(store, name, *more)
    )
    return seen


def test_what_a_run_left_is_what_merging_gives(run, merged):
    found = run(spec())
    whole = {name: merge.aggregate(found.store, name) for name in found.analyses}
    merged.clear()
    assert all(found.aggregate(name).identical(whole[name]) for name in found.analyses) and merged == []
    run(spec())
    assert merged == []  # a run that has nothing left to do
    with pytest.raises(InputError, match="one of norms, model-norms"):
        found.aggregate("../plan")


@pytest.mark.apart
def test_our_own_aggregates_are_read_by_no_other_process(run, merged, monkeypatch):
    found = run(spec(8, name=f"made-{uuid4().hex}"))  # bytes that nobody has looked through before
    merged.clear()
    monkeypatch.setattr("workbench.storage.apart.subprocess.run", None)
    assert np.isfinite(found.aggregate("norms")["norm"]).all() and merged == []


def test_a_prompt_less_another_group_or_other_bytes_are_merged_anew(run, merged):
    first = run(spec())
    fewer = spec()
    fewer["prompts"] = [dict(one, ids=one["ids"][:6]) for one in fewer["prompts"]]
    for given in (spec(26), fewer, spec() | {"prompts": [{"group": "all", "ids": prompts()}]}):
        made = batch.plan(given, first.folder, catalog=CATALOG, models={"tiny": tiny_model("llama", n_layers=3)})
        made.write()
        merged.clear()
        again = batch.open(first.folder).aggregate("norms")
        assert merged == ["norms"] and again.identical(merge.aggregate(first.store, "norms"))
    run(spec())
    lost = next(entry.shard for entry in first.store.ledger() if "norms" in entry.cells)
    first.store.path("shards", f"{lost}.nc").unlink()
    assert int(batch.open(first.folder).aggregate("norms")["n_missing"].sum()) > 0


@pytest.mark.parametrize("how", ["damaged", "written by another program", "of other code", "a link"])
def test_an_aggregate_that_is_not_as_it_was_merged_is_not_taken(run, merged, monkeypatch, how):
    found = run(spec())
    path = found.store.path("aggregates", "norms.nc")
    wanted = found.aggregate("norms")["norm"].values
    if how == "damaged":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "written by another program":  # with other numbers, and all that was said of the old ones
        changed = open_result(path)
        changed["norm"] = changed["norm"] + 1
        path.write_bytes(unsealed(encoded(changed))[0])
    elif how == "of other code":
        monkeypatch.setattr(merge, "code_digest", lambda kind: "other")
    else:
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
        with pytest.raises(InputError, match="a link"):
            found.aggregate("norms")
        return
    merged.clear()
    np.testing.assert_array_equal(found.aggregate("norms")["norm"].values, wanted)
    assert merged == ["norms"]
    assert found.store.path(kept.keep(found.store, "norms")) == path
    assert json.loads(open_result(path).attrs["provenance"])["code"] in ("other", merge.code_digest(merge._Merged))


def test_sentences_of_analyses_count_what_is_merged(run):
    found = run(spec(analyses=("norms", "broken-analysis", "model-norms")))
    merged = {name: found.aggregate(name).attrs["summary"] for name in found.analyses}
    assert found.summaries == {name: said.replace("Means of", "Results of") for name, said in merged.items()}
    assert found.summaries["model-norms"] == "model-norms of 1 model."  # which reads no prompt
    assert found.summaries["norms"] == "Results of norms over 24 prompts."
    assert "24 are missing" in found.summaries["broken-analysis"]


def test_sentences_say_what_every_pass_was_run_with(run):
    """A report and its figures told the means of an edited model as those of the model; the spec alone knew."""
    found = run(spec(interventions=["L1H2", "1 cannot see 0"]))
    assert found.summaries["norms"] == "Results of norms over 24 prompts, with L1H2, 1 cannot see 0."
    assert found.aggregate("norms").attrs["summary"] == "Means of norms over 24 prompts, with L1H2, 1 cannot see 0."


def test_a_result_of_a_stranger_in_the_place_of_an_aggregate_is_not_taken(run):
    found = run(spec())
    other = found.aggregate("norms").assign_attrs(provenance=json.dumps({"analysis": "norms"}))
    other["norm"] = other["norm"] + 1
    save(other, found.store.path("aggregates", "norms.nc"))
    assert not np.allclose(found.aggregate("norms")["norm"], other["norm"], equal_nan=True)
