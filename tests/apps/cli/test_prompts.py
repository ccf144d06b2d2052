"""Prompts on the command line: many from a file or from standard input, and odd ones."""

import io
import json
import sys
import tempfile
from argparse import Namespace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.cli import main
from apps.cli.prompt import prompt_of
from probes import CATALOG
from tests.long_run import examples
from workbench import open_result
from workbench.errors import InputError

TOY = ["--model", "toy-induction"]
IDS = [[5, 9, 13, 5], [7, 3, 7]]


def test_each_prompt_of_a_file_is_run_and_saved_under_its_number(tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"mine": ids}) for ids in IDS))
    words = [*TOY, "--prompt-file", str(path), "--column", "mine", "--out", str(tmp_path / "out")]
    assert main(["run", "logit-lens", *words]) == 0
    assert "Prompt 2 of 2" in capsys.readouterr().out
    for number, ids in enumerate(IDS, 1):
        record = json.loads(open_result(tmp_path / "out" / f"{number}.nc").attrs["provenance"])
        assert record["token_ids"] == ids
    assert main(["run", "logit-lens", "surprisal", *words]) == 0
    assert (tmp_path / "out" / "2" / "surprisal.nc").exists()


def test_standard_input_is_read(monkeypatch, capsys):
    raw = "\ufeff" + json.dumps(IDS)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw.encode())))
    assert main(["run", "surprisal", *TOY, "--prompt-file", "-", "--format", "json"]) == 0
    assert capsys.readouterr().out.count("Surprisal of toy-induction") == 2


def test_a_prompt_that_fails_costs_itself_alone(tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    path.write_text("[5, 9]\n[5, 400]\n[7, 3]")
    assert main(["run", "surprisal", *TOY, "--prompt-file", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out.count("Surprisal of toy-induction") == 2
    assert "workbench: prompt 2: Got token id 400" in err


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "out of memory"), (ZeroDivisionError("within"), "ZeroDivisionError: within")]
)
def test_whatever_ends_one_prompt_the_others_are_run(tmp_path, capsys, monkeypatch, error, said):
    """The longest of a night's prompts may not fit into memory."""
    analysis = CATALOG.view("surprisal").analysis
    whole = analysis.analyse

    def broken(self, observation):
        if len(observation.tokens[0]) == 3:
            raise error
        return whole(self, observation)

    monkeypatch.setattr(analysis, "analyse", broken)
    monkeypatch.delenv("WORKBENCH_DEBUG", raising=False)
    path = tmp_path / "prompts.jsonl"
    path.write_text("[5, 9]\n[5, 4, 7]\n[7, 3]")
    assert main(["run", "surprisal", *TOY, "--prompt-file", str(path), "--out", str(tmp_path / "out")]) == 1
    assert said in next(line for line in capsys.readouterr().err.splitlines() if "prompt 2: Got" in line)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.nc", "3.nc"]


def test_pairs_bring_their_parameters(tmp_path, tiny_dir, capsys):
    path = tmp_path / "pairs.CSV"
    path.write_text("clean,corrupt,answer,wrong\r\nWhat is,Whet is,a,b\r\nWhat is,Whot is,-,\r\n")
    words = ["--model", str(tiny_dir), "--pair-file", str(path), "--out", str(tmp_path / "out")]
    assert main(["run", "activation-patching", *words]) == 0
    first, second = (json.loads(open_result(tmp_path / "out" / f"{n}.nc").attrs["provenance"]) for n in (1, 2))
    assert (first["params"]["corrupt"], first["params"]["target"], first["params"]["against"]) == ("Whet is", "a", "b")
    assert (second["params"]["corrupt"], second["params"]["target"]) == ("Whot is", "-")


def test_columns_of_pairs_may_have_other_names(tmp_path, tiny_dir, capsys):
    path = tmp_path / "pairs.csv"
    path.write_text("clean,corrupted,correct,incorrect\r\nWhat is,Whet is,a,b\r\n")
    words = ["run", "activation-patching", "--model", str(tiny_dir), "--pair-file", str(path)]
    assert main([*words, "--column", "corrupt=corrupted"]) == 0
    out, err = capsys.readouterr()
    assert "Note: " in err and "answer=correct" in err and "'a' minus" not in out
    named = [f"--column={part}" for part in ("corrupt=corrupted", "answer=correct", "wrong=incorrect")]
    assert main([*words, *named, "--out", str(tmp_path / "out.nc")]) == 0
    assert "Note" not in capsys.readouterr().err
    given = json.loads(open_result(tmp_path / "out.nc").attrs["provenance"])["params"]
    assert (given["corrupt"], given["target"], given["against"]) == ("Whet is", "a", "b")
    for bad, said in (("correct", "answer=correct"), ("answer=", "answer=correct"), ("label=correct", "one of clean")):
        assert main([*words, "--column", bad]) == 2
        assert said in capsys.readouterr().err


def test_a_prompt_may_begin_with_a_dash_and_backslashes_are_said(tiny_dir, capsys):
    assert main(["run", "surprisal", "--prompt", "-a b\\nc", "--model", str(tiny_dir)]) == 0
    out, err = capsys.readouterr()
    assert "- a · b \\ n c" in out
    assert "Note: The prompt holds \\n as two characters" in err


def test_a_chat_file_may_be_odd(tmp_path, refused):
    path = tmp_path / "chat.JSON"
    for content in ('{"role": "user"}', "7", '"text"', "[]", "[1, 2]", "[" * 50_000, '[["user", "hi"]]'):
        path.write_text("\ufeff" + content, encoding="utf-8")
        refused("run", "surprisal", *TOY, "--chat", str(path))
    path.write_text('\ufeff{"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}', "utf-8")
    assert "no tokenizer" in refused("run", "surprisal", *TOY, "--chat", str(path))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "messages", "text"]), inner)
    ),
    max_leaves=10,
)


@settings(max_examples=examples(60), deadline=None)
@given(_JSON | st.builds(lambda role, content: [{"role": role, "content": content}], st.text(), _JSON))
def test_any_chat_file_is_a_chat_or_a_sentence(value):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(json.dumps(value).encode())
        file.flush()
        asked = Namespace(chat=file.name, prompt=None, ids=None, bos=None)
        try:
            assert prompt_of(asked).messages
        except InputError as error:
            assert "; expected " in str(error)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "caf\udce9"], "UTF-8"),
        (["--prompt-file", "none.txt"], "No such file"),
        (["--prompt-file", "none.doc"], "unknown format"),
        (["--column", "text", "--prompt", "a"], "without --prompt-file"),
        (["--format", "csv"], "without --prompt-file"),
        (["--column", "a", "--column", "b", "--prompt-file", __file__, "--format", "text"], "one column of prompts"),
    ],
)
def test_bad_prompts_are_refused_before_a_model_is_loaded(refused, words, said):
    assert said in refused("run", "surprisal", *words)


def test_a_file_of_one_prompt_is_saved_where_one_of_many_is(tmp_path, capsys):
    """Whoever runs many files does not look how many rows each has."""
    path = tmp_path / "one.json"
    path.write_text(json.dumps(IDS[:1]))
    for name, saved in (("out", "out/1.nc"), ("r.nc", "r.nc")):
        words = ["--prompt-file", str(path), "--out", str(tmp_path / name)]
        assert main(["run", "surprisal", *TOY, *words]) == 0 and (tmp_path / saved).is_file()


def test_many_prompts_need_a_folder(tmp_path, refused):
    path = tmp_path / "two.json"
    path.write_text(json.dumps(IDS))
    for option, name in (("--out", "r.nc"), ("--figure", "f.html")):
        assert "for 2 prompts" in refused("run", "surprisal", *TOY, "--prompt-file", str(path), option, name)
