"""A batch equals a plain loop, goes on where it was, and computes nothing twice."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probes import CATALOG as PROBES
from tests.tiny_models import spelling, tiny_hf, tiny_model
from tests.tiny_runs import Norms
from tests.workbench.batch.made import CATALOG, prompts, spec, toy
from workbench import batch, wrap
from workbench.analysis import run as runner
from workbench.analysis.pace import Pace
from workbench.batch import estimate
from workbench.batch.prompts.sources import _text_of
from workbench.batch.values import tables
from workbench.errors import Cancelled, InputError, RefusedError, UnavailableError
from workbench.models.prompt import Prompt


def counted(monkeypatch):
    """Prompts that pass through the one runner."""
    seen = []
    together = runner.together

    def counting(model, rows, *more, **options):
        seen.extend(rows)
        yield from together(model, rows, *more, **options)

    monkeypatch.setattr("workbench.batch.walk.together", counting)
    return seen


def same(one, other):
    """Every file of two runs holds the same bits."""
    for name in one.analyses:
        assert one.aggregate(name).identical(
            other.aggregate(name).assign_attrs(provenance=one.aggregate(name).attrs["provenance"])
        )
    assert one.rows("norms").identical(other.rows("norms"))
    return True


def test_aggregates_equal_a_plain_loop(run, model):
    found = run(spec(40)).aggregate("norms")
    for group, own in (("even", prompts(40)[::2]), ("odd", prompts(40)[1::2])):
        each = np.stack([Norms().run(model, Prompt.ids(ids))["norm"].values for ids in own]).astype(np.float64)
        mean = found["norm"].sel(model="tiny", group=group)
        # 1e-6 relative: float32 results of batches of several rows against passes of one
        np.testing.assert_allclose(mean, each.mean(0), rtol=2e-6, atol=1e-6)
        assert (found["norm_n"].sel(group=group) == 20).all() and found["n_documents"].sel(group=group) == 20
        low, high = found["norm_low"].sel(group=group), found["norm_high"].sel(group=group)
        assert ((low <= mean) & (mean <= high)).all() and (high > low).any()


def test_models_of_unlike_sizes_have_no_means_and_that_is_said(tmp_path):
    """It said "Means of norms over 24 prompts", where there was none."""
    models = {label: tiny_model(kind, n) for label, kind, n in (("one", "llama", 2), ("other", "gpt2", 3))}
    two = spec(models=[{"name": label} for label in models], analyses=("norms",))
    found = batch.run(two, tmp_path / "run", catalog=CATALOG, models=models).aggregate("norms")
    assert "norm" not in found
    assert found.attrs["summary"] == (
        "Means of norms over 48 prompts of 2 models. No number of it has a mean here: its axes differ from prompt to "
        "prompt, or from model to model."
    )


def test_a_second_run_computes_nothing_and_what_is_added_alone(run, monkeypatch):
    seen = counted(monkeypatch)
    first = run(spec())
    assert len(seen) == 24
    seen.clear()
    assert same(first, run(spec())) and seen == []
    renamed = spec()
    renamed["prompts"] = [dict(p, group=p["group"].upper()) for p in reversed(renamed["prompts"])]
    run(renamed | {"name": "other"})
    assert seen == []  # groups, names and the order of tables are not what is computed
    run(spec(26))
    assert len(seen) == 2
    seen.clear()
    more = run(spec(26, analyses=("norms", "model-norms", "study-norms")))
    assert len(seen) == 26 and more.aggregate("study-norms")["n_prompts"].sum() == 26


def test_batch_sizes_and_whole_results(run, model, tmp_path):
    first = run(spec() | {"keep": {"results": True}})
    other = batch.run(
        spec() | {"limits": {"batch_tokens": 500, "shard_tokens": 9000}}, tmp_path / "other", catalog=CATALOG,
        models={"tiny": model},
    )  # fmt: skip
    a, b = first.aggregate("norms")["norm"], other.aggregate("norms")["norm"]
    np.testing.assert_allclose(a, b, atol=1e-5)  # what other batch sizes may change, by the promise of `observe`
    whole = first.result("norms", 3)
    alone = Norms().run(model, Prompt.ids(prompts()[::2][3]))
    np.testing.assert_allclose(whole["norm"], alone["norm"], atol=1e-5)
    assert whole.attrs["spec_key"] == alone.attrs["spec_key"]
    with pytest.raises(InputError, match="keep"):
        other.result("norms", 3)


def test_failures_are_recorded_and_the_others_go_on(run):
    found = run(spec(analyses=("norms", "broken-analysis")))
    assert len(found.failures) == 24 and "KeyError" in found.failures[0]["why"]
    assert int(found.aggregate("norms")["n_prompts"].sum()) == 24
    assert found.aggregate("broken-analysis")["n_missing"].sum() == 24
    with pytest.raises(RefusedError, match="failures in this run, the first"):
        run(spec(analyses=("norms", "broken-analysis")), max_failures=3, retry_failed=True)


def test_the_table_has_what_every_prompt_has_and_nan_where_nothing_is(run, model):
    found = run(spec(analyses=("norms", "broken-analysis")))
    table, rows = found.table(), found.rows("norms")
    assert list(table.columns) == ["model", "group", "document", "where", "n", "text", "norms.norm mean", "status"]
    np.testing.assert_allclose(table["norms.norm mean"], rows["norm"].mean(("layer", "head")), rtol=1e-6)
    assert table["where"].tolist() == rows["prompt_where"].values.tolist() and table["n"].dtype == "int64"
    assert all("KeyError" in status for status in table["status"])
    more = batch.plan(spec(30), found.folder, catalog=CATALOG, models={"tiny": model})
    more.write()
    table = found.table()
    assert table["norms.norm mean"].isna().sum() == 6 == (table["status"] == "not computed yet").sum()
    tools = pd.DataFrame(tables.statuses(found.store, 7))
    assert tools.equals(table[["model", "group", "document", "where", "n", "text", "status"]].head(7))


def test_refused_rows_are_said_and_repeated_ones_count_once(run, tmp_path):
    given = spec()
    given["prompts"].append({"group": "odd", "ids": [prompts()[1], list(range(1, 300)), [1, 5000]]})
    said = []
    found = run(given, said=said.append)
    assert "1 repeated prompt of a group: counted once" in str(said[0]) and "2 prompts refused" in str(said[0])
    assert ["at most 128" in f["why"] or "ids from 0" in f["why"] for f in found.failures] == [True, True]
    assert int(found.aggregate("norms")["n_prompts"].sum()) == 24


def test_what_is_too_large_is_halved_and_said(run, monkeypatch):
    together = runner.together

    def small(model, rows, *more, **options):
        if len(rows) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")
        yield from together(model, rows, *more, **options)

    monkeypatch.setattr("workbench.batch.walk.together", small)
    found = run(spec())
    assert found.failures == [] and int(found.aggregate("norms")["n_prompts"].sum()) == 24
    assert sum(entry.halved for entry in found.store.ledger()) > 0


def test_a_corrupt_shard_a_torn_ledger_and_a_lost_file_are_computed_again(run, monkeypatch, model, tmp_path):
    first = run(spec())
    whole = batch.run(spec(), tmp_path / "whole", catalog=CATALOG, models={"tiny": model})
    keys = first.record["shards"]
    path = first.store.path("shards", f"{keys[1]}.nc")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    first.store.path("shards", f"{keys[2]}.nc").unlink()
    with open(first.store.path("ledger.jsonl"), "r+b") as file:
        file.truncate(file.seek(0, 2) - 20)
    assert first.n_done == len(keys) - 3
    seen = counted(monkeypatch)
    again = run(spec())
    assert again.n_done == len(keys) and 0 < len(seen) < 24 and same(again, whole)


def test_a_newer_store_and_a_missing_one(run, tmp_path):
    first = run(spec())
    record = json.loads(first.store.path("plan.json").read_text())
    first.store.write_record("plan.json", record | {"format": 99})
    with pytest.raises(RefusedError, match="newer version"):
        batch.open(first.folder)
    with pytest.raises(UnavailableError, match="no batch in"):
        batch.open(tmp_path / "none")


def test_cancelled_and_gone_on(run, model):
    def stop(status):
        if status.done == 2:
            batch.Batch(run_folder[0]).cancel()

    run_folder = []
    with pytest.raises(Cancelled):
        run(spec(), said=lambda plan: run_folder.append(plan.store.folder), progress=stop)
    half = batch.open(run_folder[0])
    assert 0 < half.n_done < half.n_shards
    partial = half.aggregate("norms")
    assert 0 < int(partial["n_prompts"].sum()) < 24 and "missing" in partial.attrs["summary"]
    told, before = [], half.n_done / half.n_shards
    whole = run(spec(), progress=lambda status: told.append((status.share, status.done)))
    assert whole.n_done == half.n_shards == told[-1][1] and told[-1][0] == pytest.approx(1)
    assert told[0][0] >= before - 0.1  # of the whole run, as the shards are


def test_pieces_of_a_document_are_one(tmp_path):
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")
    texts = ["abcdefgh" * 3, "the cat"]
    given = spec() | {"prompts": [{"texts": texts, "tokens": 10, "long": "split"}]}
    found = batch.run(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model}).aggregate("norms")
    assert found["n_documents"] == 2 and found["n_prompts"] == 4  # 24 letters in threes of 9 behind a BOS token
    rows = batch.open(tmp_path / "run").rows("norms")
    first = rows["norm"].values[rows["prompt_document"].values == "0:0"]
    last = rows["norm"].values[rows["prompt_document"].values == "0:1"]
    np.testing.assert_allclose(found["norm"][0, 0], (first.mean(0) + last.mean(0)) / 2, rtol=1e-6)


def test_other_weights_other_parameters_other_edits_are_other_cells(run, model, tmp_path):
    first = run(spec())
    keys = {c for e in first.store.ledger() for cells in e.cells.values() for c in cells}
    for given, other in (
        (spec(interventions=["L1H2"]), model),
        (spec(), tiny_model("llama", n_layers=3, seed=1)),
        (spec(analyses=()) | {"analyses": [{"name": "norms", "positions": "mean"}]}, model),
    ):
        made = batch.plan(given, first.folder, catalog=CATALOG, models={"tiny": other})
        assert made.planned.n_done == 0 and not keys & {c for s in made.planned.left for c in s.all_cells}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"analyses": [{"name": "normz"}]}, "analysis 'normz'.*norms"),
        ({"analyses": [{"name": "norms", "params": {"x": 1}}]}, "parameter 'x'"),
        ({"analyses": [{"name": "norms", "columns": {"x": "y"}}]}, "parameter 'x'"),
        ({"interventions": ["L9H0"]}, "L9H0|layer"),
        ({"prompts": []}, "norms without prompts"),
        ({"prompts": [{"ids": [[1] * 200]}]}, "no prompt that can be used"),
        ({"models": [{"name": "no-such-model"}]}, "no-such-model"),
        ({"limits": {"disk": "1 kB"}}, "of disk; expected at most"),
        ({"limits": {"memory": "1 kB"}}, "of memory; expected at most"),
    ],
)
def test_bad_input_is_a_sentence(run, change, said):
    with pytest.raises((InputError, RefusedError), match=said):
        run(spec() | change)


@pytest.mark.parametrize("length", [8, 60])
def test_the_disk_of_whole_results_is_predicted(tmp_path, length):
    """Most of a small result is what its file says of it; what has positions grows. Within a factor of 1.6: what one
    file of many results has once is not known beforehand."""
    given = {
        "name": "whole", "models": [{"name": "toy-induction"}], "keep": {"results": True},
        "prompts": [{"generator": "random-tokens", "n": 4, "length": length}],
        "analyses": [{"name": "logit-lens"}, {"name": "attention"}],
    }  # fmt: skip
    models = {"toy-induction": toy()}
    made = batch.plan(given, tmp_path / "run", catalog=PROBES, models=models)
    bare = batch.plan({**given, "keep": {}}, tmp_path / "run", catalog=PROBES, models=models)
    batch.run(given, tmp_path / "run", catalog=PROBES, models=models)
    size = sum(file.stat().st_size for file in (tmp_path / "run" / "shards").iterdir())
    assert size / 1.6 < made.estimate.disk < size * 1.6 and made.estimate.seconds > bare.estimate.seconds
    assert bare.estimate.disk < size / 3


def test_what_reads_no_prompt_takes_time_too(tmp_path, monkeypatch):
    """Sequences of the analysis's own: twice as many take twice as long, and none of it is nothing."""
    monkeypatch.setattr(estimate, "measured_pace", lambda model: Pace(0.0, 0.001))
    given = {"name": "own", "models": [{"name": "toy-induction"}]}
    seconds = []
    for n in (16, 32):
        analyses = [{"name": "induction-heads", "params": {"n_sequences": n}}]
        planned = batch.plan(
            {**given, "analyses": analyses}, tmp_path / f"{n}", catalog=PROBES, models={"toy-induction": toy()}
        )
        seconds.append(planned.estimate.seconds)
    assert seconds[0] > 1 and seconds[1] == pytest.approx(2 * seconds[0])


def test_what_a_prompt_takes_besides_its_passes_is_predicted(tmp_path, monkeypatch):
    """Of many short prompts it is most of the time: each costs at least what it sleeps."""
    analyse = Norms.analyse
    monkeypatch.setattr(estimate, "measured_pace", lambda model: Pace())
    monkeypatch.setattr(Norms, "analyse", lambda *given: time.sleep(0.03) or analyse(*given))
    planned = batch.plan(
        spec(20, analyses=["norms"]), tmp_path / "run", catalog=CATALOG, models={"tiny": tiny_model("llama")}
    )
    assert planned.estimate.seconds > 20 * 0.03


def test_columns_of_a_file(tmp_path):
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")
    (tmp_path / "a.csv").write_text("text,label\nNA,1\n007,2\n", encoding="utf-8")
    given = spec() | {"prompts": [{"file": str(tmp_path / "a.csv"), "column": "txt"}]}
    with pytest.raises(InputError, match=r"column 'txt' in .*one of text, label"):
        batch.run(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model})
    (tmp_path / "b.jsonl").write_text(
        '{"text": "fine"}\n{"text": 7}\n{"other": "x"}\n{"text": ""}\n{"text": "\\ud83d"}', encoding="utf-8"
    )
    given["prompts"] = [{"file": str(tmp_path / "b.jsonl")}, {"file": str(tmp_path / "a.csv")}]
    found = batch.run(given, tmp_path / "run", catalog=CATALOG, models={"tiny": model})
    assert found.table()["text"].tolist() == ["fine", "NA", "007"] and len(found.failures) == 4
    (tmp_path / "c.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="no prompt in"):
        batch.run(given | {"prompts": [{"file": str(tmp_path / "c.jsonl")}]}, tmp_path / "r", catalog=CATALOG,
                  models={"tiny": model})  # fmt: skip


def test_an_empty_cell_of_a_column_that_is_read_is_no_value(tmp_path):
    """The parameter's default was taken, another measure, and averaged with the others without a word."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")
    given = spec() | {"analyses": [{"name": "activation-patching", "columns": {"corrupt": "other"}}]}
    (tmp_path / "a.csv").write_text("text,other,note\nabc,abd,\nabe,,x\n", encoding="utf-8")
    given["prompts"] = [{"file": str(tmp_path / "a.csv")}]
    plan = str(batch.plan(given, tmp_path / "run", catalog=PROBES, models={"tiny": model}))
    assert "1 prompt of tiny" in plan and "a.csv line 3: no text in the column 'other'" in plan


def test_numbers_and_flags_of_records_are_read_as_those_of_tables(tmp_path):
    """A position that JSON holds as a number was refused: `got the column 'at'; expected one of ...`."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")
    given = spec() | {"analyses": [{"name": "direct-logit-attribution", "columns": {"pos": "at"}}]}
    tables = {
        "a.jsonl": '{"text": "abcd", "at": 2}\n{"text": "abce", "at": 1.0}\n{"text": "abcf", "at": null}\n'
        '{"text": "abcg"}\n{"text": "abch", "at": [1]}\n',
        "a.csv": "text,at\nabcd,2\nabce,1\nabcf,\nabcg,\nabch,\n",
    }
    values = []
    for name, content in tables.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        given["prompts"] = [{"file": str(tmp_path / name)}]
        found = batch.run(given, tmp_path / name[2:], catalog=PROBES, models={"tiny": model})
        values.append(found.table()["direct-logit-attribution.total"].values)
        assert len(found.failures) == 3 and len(values[-1]) == 2
    np.testing.assert_array_equal(*values)
    assert [_text_of(cell) for cell in (True, False, float("nan"), 0.5, -3, "x")] == [
        "true",
        "false",
        "",
        "0.5",
        "-3",
        "x",
    ]


def test_targets_of_cells_without_a_space_are_said_in_the_plan(tmp_path):
    """No sentence of a result is kept, in which a study says so of one prompt."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")
    given = spec() | {"analyses": [{"name": "logit-lens", "columns": {"target": "answer"}}]}

    def planned(rows):
        (tmp_path / "a.csv").write_text(f"text,answer\n{rows}", encoding="utf-8")
        given["prompts"] = [{"file": str(tmp_path / "a.csv")}]
        return str(batch.plan(given, tmp_path / "run", catalog=PROBES, models={"tiny": model}))

    assert "at least 2 prompts with a target that begins without a space, such as 'b'" in planned("an,b\nin,c\nso,#7\n")
    for rows in ("an, b\n", '"an ",b\n', '"x = (",b\n', "an,5\n", "東,京\n"):
        assert "without a space" not in planned(rows)


def test_parameters_that_mean_nothing_are_said_in_the_plan(tmp_path):
    """No sentence of a result is kept, which says so of one prompt; a column may set what they depend on."""
    given = spec(4)
    for more, is_said in (({}, True), ({"columns": {"site": "way"}}, False)):
        given["analyses"] = [{"name": "activation-patching", "params": {"corrupt": "abd", "pos": -2}} | more]
        if more:
            (tmp_path / "a.csv").write_text("text,way\nabc,z\n", encoding="utf-8")
            given["prompts"] = [{"file": str(tmp_path / "a.csv")}]
        model = wrap(tiny_hf("llama"), spelling(), name="tiny")
        made = batch.plan(given, tmp_path / f"run{is_said}", catalog=PROBES, models={"tiny": model})
        assert ("activation-patching: pos=-2 was not used: it belongs to site='z'" in str(made)) is is_said


_WORKER = """
import sys
from tests.tiny_models import tiny_model
from tests.workbench.batch.made import CATALOG, spec
from workbench import batch
models = {"tiny": tiny_model("llama", n_layers=3)}
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "run":
    batch.run(spec(60), sys.argv[1], catalog=CATALOG, models=models)
else:
    batch.worker(sys.argv[1], catalog=CATALOG, models=models)
"""


def process(folder, what):
    """A runner in a process of its own, which waits for a line before it starts."""
    root = Path(__file__).resolve().parents[3]
    started = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(folder), what], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert started.stdout.readline() == b"ready\n"
    return started


def test_killed_at_any_instant_and_run_again_the_bits_are_those_of_the_unbroken_run(tmp_path, model):
    whole = batch.run(spec(60), tmp_path / "whole", catalog=CATALOG, models={"tiny": model})
    folder = tmp_path / "killed"
    killed = process(folder, "run")
    killed.stdin.write(b"\n")
    killed.stdin.flush()
    ledger = folder / "ledger.jsonl"
    while killed.poll() is None and (not ledger.exists() or ledger.read_bytes().count(b"\n") < 3):
        time.sleep(0.002)
    killed.kill()
    killed.wait()
    half = batch.open(folder)
    assert 0 < half.n_done < half.n_shards
    assert same(batch.run(spec(60), folder, catalog=CATALOG, models={"tiny": model}), whole)


@pytest.mark.slow
def test_killed_ten_times_at_random_instants(tmp_path, model):
    whole = batch.run(spec(60), tmp_path / "whole", catalog=CATALOG, models={"tiny": model})
    folder, delays = tmp_path / "killed", np.random.default_rng(0).uniform(0, 1.0, 10)
    for delay in delays:
        killed = process(folder, "run")
        killed.stdin.write(b"\n")
        killed.stdin.flush()
        time.sleep(delay)
        killed.kill()
        killed.wait()
    assert same(batch.run(spec(60), folder, catalog=CATALOG, models={"tiny": model}), whole)


def test_two_workers_in_threads_equal_the_local_run_and_compute_nothing_twice(tmp_path, model):
    whole = batch.run(spec(60), tmp_path / "whole", catalog=CATALOG, models={"tiny": model})
    folder = tmp_path / "shared"
    batch.plan(spec(60), folder, catalog=CATALOG, models={"tiny": model}).write()
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(batch.worker, folder, catalog=CATALOG, models={"tiny": model}) for _ in range(2)]
        assert [one.result().done for one in done] == [whole.n_shards] * 2
    found = batch.open(folder)
    assert same(found, whole) and len(found.store.ledger()) == found.n_shards


@pytest.mark.slow
def test_two_worker_processes_equal_the_local_run(tmp_path, model):
    whole = batch.run(spec(60), tmp_path / "whole", catalog=CATALOG, models={"tiny": model})
    folder = tmp_path / "shared"
    batch.plan(spec(60), folder, catalog=CATALOG, models={"tiny": model}).write()
    both = [process(folder, "worker") for _ in range(2)]
    for one in both:
        one.communicate(b"\n", timeout=600)
    assert [one.returncode for one in both] == [0, 0]
    found = batch.open(folder)
    assert found.n_done == found.n_shards and same(found, whole)
    assert len(found.store.ledger()) == found.n_shards  # no shard was computed twice


def test_prompts_with_a_note_are_counted_in_the_plan(tmp_path):
    """A run of one prompt says beside its numbers that padding is read as tokens; thousands of prompts said nothing."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")

    def planned(*prompts):
        lines = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
        (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
        given = spec() | {"analyses": [{"name": "logit-lens"}], "prompts": [{"file": str(tmp_path / "a.jsonl")}]}
        return str(batch.plan(given, tmp_path / "run", catalog=PROBES, models={"tiny": model}))

    assert "at least 2 prompts to look at, the first: a.jsonl line 2: The prompt holds \\n as" in planned(
        "an", "one\\ntwo", "so ", "no"
    )
    assert "to look at" not in planned("an", "a line\nmore", [3, 4])
