"""`load`, `models`, `train` and `import`: models, and what is learned from data."""

import dataclasses
import gc
import json
import re
import shutil
from importlib import metadata
from importlib.util import find_spec

import pytest

from apps.cli import main
from tests.tiny_gguf import write_gguf
from tests.tiny_models import tiny_hf
from workbench import load
from workbench.loading import bundled, pretrained


def test_load_prints_every_item_of_the_self_check(capsys):
    assert main(["load", "toy-induction"]) == 0
    out = capsys.readouterr().out
    assert "toy-induction: toy, float32 on cpu" in out
    n = len(load("toy-induction").selfcheck.items)
    assert out.count("  pass  ") == n > 6 and "tolerance 1e-05" in out
    assert f"Self-check {n}/{n}, on 2 x 24 ids spread over the vocabulary (no tokenizer), in float32" in out


def test_show_prints_the_whole_card_for_people_and_for_programs(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert main(["models", "show", "toy-induction"]) == 0
    out = capsys.readouterr().out
    assert "tolerance 1e-05" in out and "positions" in out and "learned, a vector for each" in out
    assert "d_head" in out and "Kept on disk of it: nothing." in out and "`workbench cache`" in out
    assert "experts" in out and "toy-induction, which has neither MLPs nor experts" in " ".join(out.split())
    assert main(["models", "show", "toy-induction", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    model = load("toy-induction")
    assert said["sizes"]["d_head"] == model.sizes.d_head and said["facts"]["norm"] == "none" and said["kept"] == []
    assert [item["name"] for item in said["selfcheck"]["items"]] == [item.name for item in model.selfcheck.items]
    words = {one["name"]: one["refusal"] for one in said["analyses"]}
    assert "has neither MLPs" in words["experts"] and words["logit-lens"] == ""


def test_show_of_what_is_no_model_is_one_sentence(refused):
    assert "no-such-model" in refused("models", "show", "no-such-model")


def test_a_kept_self_check_says_when_and_is_made_again_when_asked(capsys, tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    made, plain = [], pretrained.selfcheck
    monkeypatch.setattr(pretrained, "selfcheck", lambda *given: made.append(1) or plain(*given))
    said = []
    for more in ([], [], ["--check"]):
        assert main(["load", str(tiny_dir), *more]) == 0
        said.append(capsys.readouterr().out)
    assert (
        len(made) == 2
        and said[0] == said[1]
        and re.search(r"Self-check (\d+)/\1, on .*, measured 20[-\d: ]+ UTC:", said[1])
    )


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
    assert f"  FAIL  {broken.name}" in out and f"Self-check {len(rest)}/{len(rest) + 1}" in out


def test_models_tells_states_apart(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "not fetched" in out and str(tmp_path) in out and "toy-induction" in out
    bundled.path().mkdir(parents=True)
    assert main(["models"]) == 0
    assert "damaged" in capsys.readouterr().out


def test_models_lists_conversions_of_gguf_files(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    load(str(write_gguf(tmp_path / "mine.gguf", tiny_hf("llama"))))
    assert main(["models"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mine.gguf (converted)")]
    assert "kept" in line and str(tmp_path / "cache" / "models" / "gguf-") in line


def test_a_model_that_cannot_be_taken_is_one_sentence_and_code_2(refused, tiny_dir, tmp_path):
    whole = write_gguf(tmp_path / "cut.gguf", tiny_hf("llama"))
    whole.write_bytes(whole.read_bytes()[:400])
    assert "no usable model" in refused("load", str(whole))
    shutil.copytree(tiny_dir, tmp_path / "half")
    (tmp_path / "half" / "tokenizer.json").unlink()
    assert "no tokenizer" in refused("run", "logit-lens", "--ids", "1", "--model", str(tmp_path / "half"))
    (tmp_path / "half" / "adapter_config.json").write_text("{}")
    said = refused("load", str(tmp_path / "half"))
    assert ("no peft to merge it" if find_spec("peft") is None else "an adapter") in said


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
    assert "a probe file" in refused("import", "erasure-probes", str(tmp_path / "x.safetensors"))
