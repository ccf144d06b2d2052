"""`load`, `models`, `train` and `import`: models, and what is learned from data."""

import dataclasses
import gc
import re

import pytest

from apps.cli import main
from workbench import load
from workbench.loading import bundled, pretrained


def test_load_prints_every_item_of_the_self_check(capsys):
    assert main(["load", "toy-induction"]) == 0
    out = capsys.readouterr().out
    assert "toy-induction: toy, float32 on cpu" in out
    assert out.count("  pass  ") == 6 and "tolerance 1e-05" in out and "Self-check 6/6" in out


def test_a_kept_self_check_says_when_and_is_made_again_when_asked(capsys, tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    made, plain = [], pretrained.selfcheck
    monkeypatch.setattr(pretrained, "selfcheck", lambda *given: made.append(1) or plain(*given))
    said = []
    for more in ([], [], ["--check"]):
        assert main(["load", str(tiny_dir), *more]) == 0
        said.append(capsys.readouterr().out)
    assert len(made) == 2 and said[0] == said[1] and re.search(r"Self-check \d/\d, measured 20[-\d: ]+ UTC:", said[1])


def test_cycles_are_looked_for_again_after_a_command():
    for words, code in ((["load", "toy-induction"], 0), (["load", "no-such-model"], 2), (["describe"], 2)):
        assert main(words) == code and gc.isenabled() and gc.get_freeze_count() == 0


def test_a_failed_self_check_shows_and_sets_the_exit_code(capsys, monkeypatch):
    model = load("toy-induction")
    first, *rest = model.selfcheck.items
    broken = dataclasses.replace(first, measured=0.5, passed=False)
    model.selfcheck = dataclasses.replace(model.selfcheck, items=(broken, *rest))
    monkeypatch.setattr("apps.cli.model.load", lambda *_: model)
    assert main(["load", "toy-induction"]) == 1
    out = capsys.readouterr().out
    assert f"  FAIL  {broken.name}" in out and "Self-check 5/6" in out


def test_models_tells_states_apart(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "not fetched" in out and str(tmp_path) in out and "toy-induction" in out
    bundled.path().mkdir(parents=True)
    assert main(["models"]) == 0
    assert "damaged" in capsys.readouterr().out


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
