"""`workbench batch`: every verb, from a spec on the disk."""

import csv
import json
import re
import sys

import pytest

from apps.cli import main

SPEC = """name = "made"
[[models]]
name = "toy-induction"
[[prompts]]
group = "a"
ids = [[4, 33, 50, 33, 12, 7, 4, 33], [5, 6, 7, 5, 6, 7], [9, 8, 9, 8, 9, 8]]
[[prompts]]
group = "=b"
generator = "repeated-tokens"
n = 4
length = 6
[[analyses]]
name = "induction-on-prompt"
[limits]
shard_tokens = 30
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "made.toml"
    path.write_text(SPEC.replace('"=b"', '"b"'), encoding="utf-8")
    return path


def test_every_verb(spec, capsys):
    assert main(["batch", "plan", str(spec)]) == 0
    said = capsys.readouterr().out
    assert "7 prompts of toy-induction" in said and "of memory" in said
    assert not (spec.parent / "runs").exists()  # a plan computes and writes nothing
    assert main(["batch", "run", str(spec)]) == 0
    assert "Results of induction-on-prompt over 7 prompts." in capsys.readouterr().out
    ledger = (spec.parent / "runs/made/ledger.jsonl").read_bytes()
    for words in (["run", str(spec)], ["resume", "runs/made"], ["worker", "runs/made"], ["status", str(spec)]):
        assert main(["batch", *words]) == 0
        assert "done" in capsys.readouterr().out
    assert (spec.parent / "runs/made/ledger.jsonl").read_bytes() == ledger
    assert main(["batch", "report", str(spec)]) == 0
    page = (spec.parent / "runs/made/report.html").read_text()
    assert (
        "induction_score" in page
        and "plotly" in page.lower()
        and not re.search(r"<(script|link)[^>]* (src|href)=", page)
    )
    assert main(["batch", "cancel", "runs/made"]) == 0
    assert main(["batch", "worker", "runs/made"]) == 1
    assert "request to stop" in capsys.readouterr().err


def test_exports(spec, capsys, tmp_path):
    assert main(["batch", "run", str(spec), "--folder", "here"]) == 0
    assert main(["batch", "export", "here", "--format", "csv"]) == 0
    with open(tmp_path / "here/export/induction-on-prompt.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    from workbench import batch

    found = batch.open(tmp_path / "here").aggregate("induction-on-prompt")
    score = found["induction_score"].sel(group="b", layer=1, head=0)
    row = next(
        r for r in rows
        if r["variable"] == "induction_score" and r["axes"] == "layer=1, head=0" and r["group"] == "b"
    )  # fmt: skip
    assert float(row["value"]) == float(score[0]) and int(row["n"]) == 4
    with open(tmp_path / "here/export/prompts.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 7
    pytest.importorskip("pyarrow")
    import pandas as pd

    assert main(["batch", "export", "here", "--format", "parquet"]) == 0
    assert len(pd.read_parquet(tmp_path / "here/export/prompts.parquet")) == 7


def test_an_export_to_zarr_is_what_xarray_reads(spec, tmp_path):
    pytest.importorskip("zarr")
    import xarray as xr

    from workbench import batch

    assert main(["batch", "run", str(spec), "--folder", "here"]) == 0
    assert main(["batch", "export", "here", "--format", "zarr", "--out", "out"]) == 0
    found = batch.open(tmp_path / "here")
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [f"{n}.zarr" for n in found.analyses] + [
        "prompts.csv"
    ]
    for name in found.analyses:
        with xr.open_zarr(tmp_path / "out" / f"{name}.zarr") as read:
            assert read.load().equals(found.aggregate(name))  # of attributes the open bounds are left out


def test_a_report_and_a_csv_show_what_a_text_holds_as_text(tmp_path):
    from apps.batches.report import report
    from tests.tiny_models import spelling, tiny_hf
    from tests.workbench.batch.made import CATALOG
    from workbench import batch, wrap
    from workbench.batch.values.export import export

    model = wrap(tiny_hf("llama", n_layers=3), spelling(), name="tiny")
    texts = ["</script><script>alert(1)</script>", "=1+1", "plain"]
    spec = {"name": "x", "models": [{"name": "tiny"}], "prompts": [{"texts": texts}], "analyses": [{"name": "norms"}]}
    found = batch.run(spec, tmp_path / "run", catalog=CATALOG, models={"tiny": model})
    page = report(found)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    table = export(found, tmp_path / "out", "csv")[-1]
    with open(table, encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [texts[0], "'=1+1", "plain"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("induction-on-prompt", "induction-on-promt", "line 13; expected one of induction-on-prompt"),
        (
            '"induction-on-prompt"',
            '"attention-sinks"\nparams = { threshold = 0.3 }',
            "line 14; expected one of eps",
        ),
        ('"induction-on-prompt"', '"attention-sinks"\nparams = { epsilon = 7.0 }', "epsilon=7.0 in "),
        ("toy-induction", "toy-inductoin", "line 3"),
        ('generator = "repeated-tokens"\nn = 4\nlength = 6', 'file = "none.jsonl"', "line 9"),
        ('generator = "repeated-tokens"', 'file = "none.jsonl"', "line 7; expected n beside generator, and not"),
        ("[limits]", 'columns = { x = "y" }\n[limits]', "line 14"),
        ('name = "made"', 'name = "made"\ninterventions = ["L99H0"]', "line 2"),
        ("n = 4", "m = 4", "line 10"),
        ("length = 6", "length = 9999", "different tokens"),
    ],
)
def test_bad_input_leaves_with_one_sentence(spec, capsys, old, new, said):
    spec.write_text(spec.read_text().replace(old, new))
    assert main(["batch", "run", str(spec)]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and len(err.splitlines()) == 1


def test_a_run_that_is_not_there(spec, capsys):
    assert main(["batch", "status", str(spec)]) == 2
    assert main(["batch", "export", "nothing.toml"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_workers_start_from_a_written_plan(spec, capsys):
    assert main(["batch", "plan", str(spec), "--write"]) == 0
    assert main(["batch", "worker", "runs/made"]) == 0
    assert main(["batch", "status", "runs/made"]) == 0
    assert "over 7 prompts." in capsys.readouterr().out


def test_a_changed_spec_says_what_is_kept(spec, capsys):
    assert main(["batch", "run", str(spec)]) == 0
    spec.write_text(spec.read_text().replace("n = 4", "n = 6"))
    capsys.readouterr()
    assert main(["batch", "plan", str(spec)]) == 0
    assert "9 results asked for, 7 of them there; 1 shard left" in capsys.readouterr().out
    record = json.loads((spec.parent / "runs/made/plan.json").read_text())
    assert record["spec"]["prompts"][1]["n"] == 4  # a plan changes nothing


def test_a_store_that_cannot_be_had_is_said_by_every_verb(spec, capsys, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for verb in ("status", "resume", "cancel", "report", "export", "worker"):
        assert main(["batch", verb, "abfs://container/run"]) == 1
        assert "adlfs" in capsys.readouterr().err
    for verb in ("plan", "run"):
        assert main(["batch", verb, str(spec), "--folder", "abfs://container/run"]) == 1
        assert "adlfs" in capsys.readouterr().err
    for verb in ("plan", "run"):
        assert main(["batch", verb, str(spec), "--folder", str(tmp_path / "taken")]) == 2
        assert "no folder" in capsys.readouterr().err
    assert main(["batch", "run", str(spec), "--folder", (tmp_path / "here").as_uri()]) == 0
    assert main(["batch", "status", (tmp_path / "here").as_uri()]) == 0


def test_what_a_cluster_needs_is_said_before_anything_is_planned(spec, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["batch", "run", str(spec), "--ray"]) == 1
    assert "cluster without Ray" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert main(["batch", "run", str(spec), "--max-failures", "-1"]) == 2
    assert "max_failures=-1" in capsys.readouterr().err


def test_the_page_lists_a_folder_of_its_own_machine(capsys):
    assert main(["app", "--runs", "s3://ann:hush@bucket/runs"]) == 2
    err = capsys.readouterr().err
    assert "a folder of this machine" in err and "hush" not in err
