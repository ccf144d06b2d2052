"""`workbench train toy:NAME`, and toys as models of every command."""

import json

import pytest

from apps.cli import main

TOY = "toy:exemplars,classes=10,d_model=16,steps=12,every=4"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


def test_training_prints_every_kept_step_and_goes_on_where_it_was(capsys):
    assert main(["train", TOY, "--step", "4"]) == 0
    assert main(["train", TOY, "--seed", "0", "1", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["step"] for line in lines] == 2 * [0, 1, 2, 3, 4, 5, 6, 8, 10, 12]
    assert lines[0]["loss"] > 0 and {"accuracy", "pair_mass", "accuracy_new_classes"} <= set(lines[0])
    assert lines[0]["toy"] != lines[-1]["toy"] and lines[0]["loss"] != lines[10]["loss"]


def test_a_trained_toy_is_a_model_like_any_other(capsys, tmp_path):
    out = tmp_path / "lens.json"
    words = ["run", "logit-lens", "--model", f"{TOY},step=8", "--prompt", "x1 A x2 C x1", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "step=8" in said and "Logit lens of toy:exemplars" in said
    assert main(["load", TOY]) == 0
    assert "toy, float32 on cpu" in capsys.readouterr().out
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "toy:scan-snap" in listed and "toy:exemplars, seed 0" in listed and "kept" in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "toy:exemplar"], "toy:exemplars"),
        (["train", TOY, "--step", "7"], "0, 1, 2, 3, 4, 5, 6, 8"),
        (["train", TOY + ",clamp=L0H7 own-token"], "1 heads"),
        (["train", TOY, "--seed", "-1"], "seed"),
        (["run", "logit-lens", "--model", "toy:reddy", "--ids", "1"], "toy:gaussian-classes"),
    ],
)
def test_what_is_not_there_is_one_line(refused, words, said):
    assert said in refused(*words)


def test_a_diverged_run_is_one_line(capsys):
    assert main(["train", TOY + ",lr=1e30"]) == 1
    out, err = capsys.readouterr()
    assert "diverged: the loss at step 1" in err and len(err.splitlines()) == 1 and "step     0" in out
