"""`load`, `models`, `train` and `import`: models, and what is learned from data."""

import dataclasses
from importlib import metadata

import pytest

from apps.cli import main
from workbench import load
from workbench.loading import bundled


def test_load_prints_every_item_of_the_self_check(capsys):
    assert main(["load", "toy-induction"]) == 0
    out = capsys.readouterr().out
    assert "toy-induction: toy, float32 on cpu" in out
    n = len(load("toy-induction").selfcheck.items)
    assert out.count("  pass  ") == n > 6 and "tolerance 1e-05" in out
    assert f"Self-check {n}/{n}, on 2 x 24 ids spread over the vocabulary (no tokenizer), in float32" in out


def test_a_failed_self_check_shows_and_sets_the_exit_code(capsys, monkeypatch):
    model = load("toy-induction")
    first, *rest = model.selfcheck.items
    broken = dataclasses.replace(first, measured=0.5, passed=False)
    model.selfcheck = dataclasses.replace(model.selfcheck, items=(broken, *rest))
    monkeypatch.setattr("apps.cli.model.load", lambda *_: model)
    assert main(["load", "toy-induction"]) == 1
    out = capsys.readouterr().out
    assert f"  FAIL  {broken.name}" in out and f"Self-check {len(rest)}/{len(rest) + 1}" in out


def test_models_tells_states_apart(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "not fetched" in out and str(tmp_path) in out and "toy-induction" in out
    bundled.path().mkdir(parents=True)
    assert main(["models"]) == 0
    assert "damaged" in capsys.readouterr().out


def test_check_measures_and_writes_a_table(capsys, tmp_path):
    """A refusal is an answer; what loads and does not hold is named, and sets the exit code."""
    assert main(["models", "check", "gptj", "rwkv", "toy-induction"]) == 0
    out = capsys.readouterr().out
    assert f"transformer-lens {metadata.version('transformer-lens')}" in out
    rows = {line.split(" | ")[0].strip("| "): line for line in out.splitlines() if line.startswith("| ")}
    assert set(rows) == {"model", "---", "gptj", "rwkv", "toy-induction"}
    assert "| inside the module | all |" in rows["gptj"] and "layer 0 has no attention" in rows["rwkv"]
    where = tmp_path / "models.md"
    assert main(["models", "check", "bert", "mistral", "--out", str(where)]) == 1
    text = where.read_text()
    assert text.startswith("# Models\n") and "windows of 6 in layers 0,1" in text
    assert "resid_pre + attn_out + mlp_out = resid_post" in text  # which bert breaks


def test_check_of_an_unknown_name_is_bad_input_in_its_row(capsys):
    assert main(["models", "check", "no-such-model"]) == 0
    assert "| no-such-model |  | refused |" in capsys.readouterr().out


def test_verify_names_what_is_wrong(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert main(["models", "verify"]) == 1
    out, err = capsys.readouterr()
    assert "manifest.json: missing" in out and "--rebuild" in err


def test_fetch_of_the_wrong_file_is_bad_input(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"GGUF")
    monkeypatch.setattr(bundled, "SPACE_BYTES", 0)
    assert main(["models", "fetch", "--source", str(wrong)]) == 2
    assert "wrong.gguf" in capsys.readouterr().err


def test_training_refuses_what_it_cannot_do_in_one_line(refused):
    line = refused("train", "erasure-probes", "--model", "toy-induction", "--epochs", "0")
    assert "--epochs 0" in line and "at least 1" in line


def test_importing_what_is_not_there_loads_no_model(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("apps.cli.model.load", lambda *_: pytest.fail("loaded a model for nothing"))
    assert "a probe file" in refused("import", "erasure-probes", str(tmp_path / "x.safetensors"), code=1)
