"""The table, printed and saved."""

import json

import torch

from apps.bench import table as tables
from apps.bench.rows import BARE, BRIDGE, HELP, START_SIZE, STARTS
from apps.cli import main
from workbench.errors import UnavailableError
from workbench.processor import Processor


def test_the_table_is_printed_and_saved(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "models", lambda: models)
    monkeypatch.setattr(tables, "QUICK_SIZES", ((1, 64), (2, 12)))
    monkeypatch.setattr(tables, "STARTS", [row for row in STARTS if row.name in (BARE, BRIDGE, HELP)])  # others load
    monkeypatch.setattr(tables, "FEW_ROUNDS", (2, 1))
    monkeypatch.setattr(tables, "START_ROUNDS", (2, 1))
    monkeypatch.setattr("apps.bench.machine.this_processor", lambda: Processor("AVX2", bfloat16=False, float16=False))
    out = tmp_path / "bench.json"
    tables.bench(out, quick=True)
    printed, saved = capsys.readouterr().out, json.loads(out.read_text(encoding="utf-8"))
    assert (
        saved["machine"]["threads"] == torch.get_num_threads() and "OMP_WAIT_POLICY" in saved["machine"]["environment"]
    )
    assert saved["machine"]["instructions"] == {
        "text": "AVX2 without bf16, fp16; unknown: AMX", "vectors": "AVX2", "bfloat16": False, "float16": False,
        "amx": None,
    }  # fmt: skip
    assert "(AVX2 without bf16, fp16; unknown: AMX)" in printed.splitlines()[0]
    assert {(r["batch"], r["length"]) for r in saved["rows"]} == {(1, 64), (2, 12), START_SIZE}
    assert [r["row"] for r in saved["rows"]][-3:] == [BARE, BRIDGE, HELP] and HELP in printed
    assert next(r for r in saved["rows"] if r["row"] == BARE)["wall_ratio"] == 1.0
    assert [g["size"] for g in saved["goals"]] == ["1 x 64", "1 x 64", "1 x 6"]
    assert printed.count("everything together") == 2 and printed.count("  met") + printed.count("  missed") == 3
    assert str(out) in printed


def test_what_cannot_be_saved_is_printed_first(models, tmp_path, monkeypatch, capsys):
    """A disk that fills up meanwhile: the measurement is on standard output, and the error says why it is not saved."""

    def full(path, data):
        raise UnavailableError("a full disk", "some room", "Make some")

    monkeypatch.setattr(tables, "_measured", lambda quick, progress: {"rows": [1]})
    monkeypatch.setattr(tables, "write_whole", full)
    assert main(["bench", "--json", "--out", str(tmp_path / "bench.json")]) != 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"rows": [1], "saved": []} and "a full disk" in told.err
