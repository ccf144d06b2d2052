"""The command line: what it prints, what it saves, and how it says no."""

import inspect
import io
import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from apps import cli
from probes import CATALOG
from workbench import processor
from workbench.errors import InputError, SlowWarning
from workbench.models import bundled
from workbench.processor import Processor
from workbench.results import open_result

ROOT = Path(__file__).resolve().parents[2]


def refused(capsys, *words: str, code: int = 2) -> str:
    """Run a command that must fail; returns its one line on stderr."""
    assert cli.main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("workbench: Got ") and "; expected " in lines[0]
    return lines[0]


def test_help_answers_without_torch():
    code = (
        "import sys\n"
        "from apps.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as leave: assert leave.code == 0\n"
        "assert not {'torch', 'transformers', 'numpy', 'plotly', 'dash'} & set(sys.modules)"
    )
    wide = {**os.environ, "COLUMNS": "100"}  # in a narrow terminal the commands are wrapped
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=wide, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("load", "models", "app", "run", "describe", "train", "bench"):
        assert f"\n    {command} " in done.stdout


def test_run_list_prints_the_catalogs_names(capsys):
    assert cli.main(["run", "--list"]) == 0
    assert capsys.readouterr().out.split() == list(CATALOG.with_plugins().names)


@pytest.mark.parametrize("words", [["describe", "logit-lens"], ["run", "logit-lens", "--help"]])
def test_an_analysis_is_described_with_its_parameters(capsys, words):
    try:
        code = cli.main(words)
    except SystemExit as leave:
        code = leave.code
    out = capsys.readouterr().out
    assert code == 0
    assert "Limits: " in out and "top_k=10  (int, 1 to 100)" in out


def test_training_refuses_what_it_cannot_do_in_one_line(capsys):
    line = refused(capsys, "train", "erasure-probes", "--model", "toy-induction", "--epochs", "0")
    assert "--epochs 0" in line and "at least 1" in line


def test_load_prints_every_item_of_the_self_check(capsys):
    assert cli.main(["load", "toy-induction"]) == 0
    out = capsys.readouterr().out
    assert "toy-induction: toy, float32 on cpu" in out
    assert out.count("  pass  ") == 6 and "tolerance 1e-05" in out and "Self-check 6/6" in out


@pytest.mark.parametrize("terminal", [False, True])
def test_half_precision_on_an_old_processor_is_one_note_and_no_warning(capsys, monkeypatch, tiny_dir, terminal):
    monkeypatch.setattr(processor, "this_processor", lambda: Processor("AVX2", bfloat16=False, float16=False))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    words = ["run", "logit-lens", "--model", str(tiny_dir), "--device", "cpu", "--prompt", "abc"]
    assert cli.main([*words, "--dtype", "bfloat16"]) == 0
    out, err = capsys.readouterr()
    notes = [line.split("\x1b[2K")[-1] for line in err.splitlines() if "Note: " in line]
    assert len(notes) == 1 and notes[0].startswith("Note: bfloat16 will be slow") and notes[0].count(". ") == 0
    assert "bfloat16" not in err.replace(notes[0], "") and "will be slow" not in out
    assert cli.main(words) == 0 and "Note" not in capsys.readouterr().err


def test_warnings_of_other_libraries_are_shown_as_ever(capsys):
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: said.append(str(message))
        with cli._warnings_as_notes(lambda *note: said.append(note)):
            warnings.warn("theirs", UserWarning, stacklevel=1)
            warnings.warn("ours", SlowWarning, stacklevel=1)
    assert said == ["theirs", ("note", 0.0, "ours")]


def test_a_failed_self_check_shows_and_sets_the_exit_code(capsys, monkeypatch):
    import dataclasses

    from workbench import load

    model = load("toy-induction")
    first, *rest = model.selfcheck.items
    broken = dataclasses.replace(first, measured=0.5, passed=False)
    model.selfcheck = dataclasses.replace(model.selfcheck, items=(broken, *rest))
    monkeypatch.setattr(cli, "_model", lambda arguments: model)
    assert cli.main(["load", "toy-induction"]) == 1
    out = capsys.readouterr().out
    assert f"  FAIL  {broken.name}" in out and "Self-check 5/6" in out


def test_run_saves_what_it_computed(tmp_path, capsys):
    from workbench import open_result

    out, figure = tmp_path / "new" / "lens.nc", tmp_path / "lens.html"
    words = ["--model", "toy-induction", "--ids", "5", "9", "13", "5", "--param", "top_k=3", "--param", "positions=all"]
    assert cli.main(["run", "logit-lens", *words, "--out", str(out), "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    result = open_result(out)
    record = json.loads(result.attrs["provenance"])
    assert result["top_token"].shape == (3, 4, 3)
    assert record["token_ids"] == [5, 9, 13, 5] and record["params"]["top_k"] == 3
    assert str(out) in printed and str(figure) in printed
    assert "entropy" in printed and "nats" in printed and "toy-induction" in printed
    page = figure.read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot(") == 3 and "Limits:" in page
    assert 'src="http' not in page  # needs no network
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_the_page_is_safe_whatever_the_tokens_say(monkeypatch):
    from apps.report import page, summary
    from workbench import load

    entry = CATALOG.get("logit-lens")
    result = entry.run(load("toy-induction"), [5, 9, 13, 5])
    evil = "</script><script>alert(1)</script>\x1b[31m"
    result = result.assign_coords(token_text=("pos", [evil] * result.sizes["pos"]))
    result["top_text"].values[...] = evil
    assert "<script>alert(1)" not in page(entry, result)
    assert "\x1b" not in summary(entry, result)


def test_the_summary_says_where_it_is_largest():
    from apps.report import summary
    from workbench import dataset

    values = [[0.1, 0.2], [0.9, float("nan")]]
    result = dataset(None, score=("layer head", np.array(values), "probability", (0, 1)))
    text = summary(CATALOG.get("logit-lens"), result)
    assert "score  (layer, head) probability: 0.1 to 0.9, median 0.2, largest at L1H0, 25% not applicable" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["frob"], "frob"),
        (["run"], "no analysis"),
        (["run", "logit-lense"], "logit-lens"),
        (["run", "logit-lens"], "without a prompt"),
        (["run", "logit-lens", "--prompt", "x", "--param", "k=3"], "top_k"),
        (["run", "logit-lens", "--prompt", "x", "--param", "top_k"], "name=value"),
        (["run", "logit-lens", "--prompt", "x", "--param", "top_k=1", "--param", "top-k=2"], "twice"),
        (["run", "logit-lens", "--prompt", "x", "--param", "top_k=0"], "1 to 100"),
        (["run", "logit-lens", "--prompt", "x", "--param", "top_k=many"], "int"),
        (["run", "logit-lens", "--prompt", "x", "--ids", "1"], "--ids"),
        (["run", "logit-lens", "--ids", "1", "x"], "integers"),
        (["run", "logit-lens", "--ids", "1", "--no-bos"], "--no-bos"),
        (["run", "logit-lens", "--chat", "/nowhere.json"], "No such file"),
        (["run", "logit-lens", "--prompt", "x", "--dtype", "int4"], "float32"),
        (["run", "logit-lens", "--ids", "64", "--model", "toy-induction"], "0 to 63"),
        (["run", "logit-lens", "--prompt", "x", "--model", "toy-induction"], "no tokenizer"),
        (["run", "logit-lens", "--prompt", "x", "--model", "no-such-model"], "smollm2-135m"),
        (["load", "no-such-model"], "--allow-network"),
        (["app", "--port", "99999"], "65535"),
        (["bench", "--out", "/dev/null/bench.json"], "a place to write"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(capsys, words, said):
    assert said in refused(capsys, *words)


def test_no_write_permission_is_said_before_the_model_is_loaded(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_model", lambda arguments: pytest.fail("loaded a model for nothing"))
    (tmp_path / "file").write_text("")
    for option in ("--out", "--figure"):
        words = ["run", "logit-lens", "--prompt", "x", option]
        assert "Not a directory" in refused(capsys, *words, str(tmp_path / "file" / "x.nc"))
        assert "a directory" in refused(capsys, *words, str(tmp_path))


def test_a_chat_file_that_is_not_one(capsys, tmp_path):
    file = tmp_path / "chat.json"
    file.write_text("{")
    assert "not JSON" in refused(capsys, "run", "logit-lens", "--chat", str(file))
    file.write_text('[{"role": "user"}]')
    assert "content" in refused(capsys, "run", "logit-lens", "--chat", str(file))


def test_missing_things_are_code_1(capsys, tmp_path):
    assert "config.json" in refused(capsys, "load", str(tmp_path), code=1)
    assert "no file at" in refused(capsys, "load", str(tmp_path / "x.gguf"), code=1)


def test_a_port_in_use_is_said(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = ["app", "--port", str(taken.getsockname()[1]), "--model", "toy-induction"]
        assert "--port" in refused(capsys, *words, code=1)


def test_the_explorer_gets_what_was_typed(monkeypatch):
    import apps.explorer
    from apps.explorer import server

    given = {}
    monkeypatch.setattr(apps.explorer, "serve", lambda **options: given.update(options))
    words = ["app", "--host", "0.0.0.0", "--port", "8051", "--model", "toy-induction", "--no-token", "--allow-network"]
    words += ["--also", "other.gguf", "--allow-files"]
    assert cli.main(words) == 0
    assert given == {
        "model": "toy-induction", "host": "0.0.0.0", "port": 8051, "token": False, "allow_network": True,
        "models": ["other.gguf"], "any_file": True, "any_model": False,
    }  # fmt: skip
    inspect.signature(server.serve).bind(**given)


def test_models_tells_states_apart(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert "not fetched" in out and str(tmp_path) in out and "toy-induction" in out
    bundled.path().mkdir(parents=True)
    assert cli.main(["models"]) == 0
    assert "damaged" in capsys.readouterr().out


def test_verify_names_what_is_wrong(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert cli.main(["models", "verify"]) == 1
    out, err = capsys.readouterr()
    assert "manifest.json: missing" in out and "--rebuild" in err


def test_fetch_of_the_wrong_file_is_bad_input(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"GGUF")
    monkeypatch.setattr(bundled, "SPACE_BYTES", 0)
    assert cli.main(["models", "fetch", "--source", str(wrong)]) == 2
    assert "wrong.gguf" in capsys.readouterr().err


# A study that signals its own process once its second partial result is there, for each case in turn: (the signal, what
# SIGINT does in the process that starts). Signals are set as a shell would: SIG_IGN is what it gives to a job in the
# background, whoever runs these tests.
STOPPED = """
import json, os, signal, sys
from apps import cli
from probes.activation_patching import ENTRY
plain, sent = ENTRY.study, None
def study(*arguments, **options):
    for count, part in enumerate(plain(*arguments, **options)):
        if count == 1: os.kill(os.getpid(), sent)
        yield part
object.__setattr__(ENTRY, 'study', study)
codes = {}
for name, sent, on_interrupt in json.loads(sys.argv[1]):
    signal.signal(signal.SIGINT, signal.SIG_IGN if on_interrupt == 'ignored' else signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    codes[name] = cli.main([*sys.argv[3:], '--out', f'{sys.argv[2]}/{name}.nc'])
    print('---', flush=True)
    print('---', file=sys.stderr, flush=True)
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """(exit code, stdout, stderr, saved result) by case, all from one other process."""
    place = tmp_path_factory.mktemp("stopped")
    cases = [
        ("ctrl-c", int(signal.SIGINT), "raises"),
        ("terminated", int(signal.SIGTERM), "raises"),
        ("terminated in the background", int(signal.SIGTERM), "ignored"),
        ("ctrl-c for another job", int(signal.SIGINT), "ignored"),
    ]
    ids = [str(i % 60) for i in range(64)]  # 64 cells for each of two layers: more than one batch
    words = ["run", "activation-patching", "--model", "toy-induction", "--ids", *ids]
    command = [sys.executable, "-c", STOPPED, json.dumps(cases), str(place), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *outs, codes = done.stdout.split("---\n")
    files = [place / f"{name}.nc" for name, *_ in cases]
    rows = zip(json.loads(codes).items(), outs, done.stderr.split("---\n"), files, strict=False)
    return {name: (code, out, err, open_result(file)) for (name, code), out, err, file in rows}


@pytest.mark.parametrize(
    ("case", "code"), [("ctrl-c", 130), ("terminated", 143), ("terminated in the background", 143)]
)
def test_a_stopped_study_keeps_what_is_done(stopped, case, code):
    """A job in the background cannot be interrupted from the keyboard, but it can be terminated."""
    left_with, out, err, result = stopped[case]
    assert left_with == code, err
    assert "stopped before the end" in err and f"{case}.nc" in out
    assert result.attrs["partial"] == 1
    assert result["effect"].notnull().any() and result["effect"].isnull().any()


def test_ctrl_c_does_not_reach_a_job_in_the_background(stopped):
    code, _, err, result = stopped["ctrl-c for another job"]
    assert code == 0 and "stopped" not in err
    assert "partial" not in result.attrs and result["effect"].notnull().all()


def test_a_small_table_is_printed_whole(capsys):
    """The toy's moved prompt leaves no gap to be faithful to: numbers are missing, and it is said why."""
    words = ["run", "circuit-evaluation", "--model", "toy-induction", "--ids", "3", "9", "27", "14", "3", "9"]
    assert cli.main([*words, "--param", "target=#27", "--param", "against=#50"]) == 0
    out = capsys.readouterr().out
    assert "nothing to be faithful to" in out and "faithfulness at 5%" in out
    rows = [line for line in out.splitlines() if line.startswith(("attribution", "activation", "direct", "routes"))]
    assert len(rows) == 4 and all(set(row.split()[-5:]) == {"-"} for row in rows)


def test_ctrl_c_is_130(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_model", interrupted)
    assert cli.main(["load", "toy-induction"]) == 130
    assert capsys.readouterr().err == "workbench: stopped\n"


def test_a_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "apps.cli", "run", "--list"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("words", "code"), [(["run", "--list"], 0), (["frob"], 2)])
def test_closed_streams_change_no_exit_code(words, code):
    command = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "apps.cli", *words]
    assert subprocess.run(command, cwd=ROOT).returncode == code


def test_what_the_terminal_cannot_print_is_printed_as_its_code(monkeypatch):
    old = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", old)
    monkeypatch.setattr(cli, "_describe", lambda arguments: print("a token \u2581\u65e5"))
    assert cli.main(["describe", "logit-lens"]) == 0
    assert old.buffer.getvalue() == b"a token \\u2581\\u65e5\n"


def test_progress_is_drawn_on_a_terminal_only(capsys, monkeypatch):
    with cli._progress() as report:
        report("load", 0.5, "loading")
        report("convert", 0.0, "reading the GGUF")
        report("convert", 0.5, "reading on")
    assert capsys.readouterr().err == "reading the GGUF\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with cli._progress() as report:
        report("load", 0.5, "loading")
    drawn = capsys.readouterr().err
    assert "[##########          ] loading" in drawn and drawn.endswith("\r\x1b[2K")


def test_params_become_what_the_entry_declares():

    entry = CATALOG.get("logit-lens")
    assert cli._params(entry, ["top-k=3", "normalise=no", "target= Paris"]) == {
        "top_k": 3, "normalise": False, "target": " Paris",
    }  # fmt: skip
    with pytest.raises(InputError):
        cli._params(entry, ["normalise=maybe"])


def test_two_saved_results_are_compared(tmp_path, capsys):
    from workbench import open_result

    for name, ids in (("before", "3 7 9 3"), ("after", "3 7 9 9 3")):
        words = [
            "run",
            "logit-lens",
            "--model",
            "toy-induction",
            "--ids",
            *ids.split(),
            "--out",
            f"{tmp_path}/{name}.nc",
        ]
        assert cli.main(words) == 0
    files = [f"{tmp_path}/{name}.nc" for name in ("before", "after", "change")]
    page = tmp_path / "change.html"
    assert cli.main(["compare", *files[:2], "--out", files[2], "--figure", str(page)]) == 0
    assert "1 of 5 tokens have no counterpart" in capsys.readouterr().out.replace("\n", " ")
    change = open_result(files[2])
    assert change.sizes["pos"] == 5 and bool(change["entropy"].sel(pos=3).isnull().all())
    drawn = page.read_text(encoding="utf-8")
    assert drawn.count("plotly-graph-div") == 3 and "Difference: Logit lens" in drawn


def test_display_params_are_split_off_and_a_finer_result_is_said(capsys):
    entry = CATALOG.get("flow-routes")
    params, display = cli._asked(entry, ["threshold=0.0005", "start=3", "p=2"])
    assert (params["min_share"], params["min_coverage"], params["p"]) == (0.0005, 0.95, 2)
    assert display["threshold"] == 0.0005 and display["start"] == 3 and not display["hide_first"]
    assert capsys.readouterr().err.startswith("Note: min_share=0.0005")
    assert cli._asked(entry, ["coverage=0.5"])[0] == entry.checked({}) and not capsys.readouterr().err
    with pytest.raises(InputError, match="coverage=2"):
        cli._asked(entry, ["coverage=2"])
