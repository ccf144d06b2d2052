"""The shell: commands and their help, exit codes, and how it says no."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps.cli import main
from apps.cli.shell import COMMANDS

ROOT = Path(__file__).resolve().parents[3]


HEAVY = {"torch", "transformers", "numpy", "scipy", "pandas", "xarray", "pydantic", "plotly", "dash"}


def without_heavy_imports(*words: str) -> subprocess.CompletedProcess:
    """Run a command in another process, which must import none of the heavy libraries and no analysis."""
    code = (
        "import sys\n"
        "from apps.cli import main\n"
        f"try: code = main({list(words)})\n"
        "except SystemExit as leave: code = leave.code\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert [name for name in sys.modules if name.startswith('probes.')] == []\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_help_answers_at_once_and_without_torch():
    done = without_heavy_imports("--help")
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_that_wait_sleep_unless_told_otherwise(monkeypatch, capsys, given, policy):
    """Before torch is imported, which reads it once: that nothing heavy is by then, the test above says."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    main(["list"])
    assert os.environ["OMP_WAIT_POLICY"] == policy and capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as leave:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert leave.value.code == 0 and said.startswith(f"usage: workbench {command}")
    assert " ".join(COMMANDS[command][1:].split()) in " ".join(said.split())


@pytest.mark.parametrize("words", [("run", "--help"), ("run", "--list"), ("list",), ("load", "--help")])
def test_what_needs_no_analysis_imports_none(words):
    assert without_heavy_imports(*words).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["frob"], "frob"),
        (["run"], "no analysis"),
        (["run", "logit-lense"], "logit-lens"),
        (["run", "logit-lense", "--top-k", "3"], "logit-lens"),
        (["run", "logit-lens"], "without a prompt"),
        (["run", "logit-lens", "--topk", "3"], "--top-k"),
        (["run", "logit-lens", "logit-lens", "--ids", "1"], "twice"),
        (["run", "logit-lens", "--prompt", "x", "--top-k", "0"], "1 to 100"),
        (["run", "logit-lens", "--prompt", "x", "--top-k", "2", "--param", "top_k=2"], "twice"),
        (["run", "logit-lens", "--prompt", "x", "--param", "flow-routes.p=2"], "logit-lens"),
        (["run", "logit-lens", "flow-routes", "--prompt", "x", "--out", "all.nc"], "a folder"),
        (["run", "logit-lens", "--prompt", "x", "--intervene", "everything"], "L18H6"),
        (["run", "logit-lens", "--ids", "1", "--model", "toy-induction", "--intervene", "L7H0"], "L7"),
        (["run", "logit-lens", "--ids", "1", "--model", "toy-induction", "--intervene", "3 cannot see 1"], "token"),
        (["describe", "logit-lense"], "logit-lens"),
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
def test_bad_input_is_one_sentence_and_code_2(refused, words, said):
    assert said in refused(*words)


def test_a_model_that_is_not_there_is_bad_input(refused, tmp_path):
    assert "config.json" in refused("load", str(tmp_path))
    assert "no file at" in refused("load", str(tmp_path / "x.gguf"))


@pytest.mark.parametrize("limit", [900, 400])  # at 400 MB `run` ended in C code of a library, or not at all
@pytest.mark.parametrize(
    "words", [("load",), ("app", "--port", "9"), ("run", "logit-lens", "--prompt", "a"), ("batch", "plan", "x.toml")]
)
def test_too_few_addresses_are_said_before_libraries_run_out_of_them(words, limit):
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit} * 10**6,) * 2)\n"
    code += f"import sys; from apps.cli import main; code = main({list(words)}); "
    done = subprocess.run([sys.executable, "-c", f"{code}sys.exit(code)"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"a limit of {limit} MB on the address space" in done.stderr


@pytest.mark.parametrize("words", [["load"], ["run", "logit-lens", "--ids", "1"]])
def test_a_working_directory_that_is_no_more_is_said(tmp_path, words):
    code = f"import os, sys; from apps.cli import main; os.rmdir(os.getcwd()); sys.exit(main({words}))"
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "working directory that is no more" in done.stderr and "\n" not in done.stderr[:-1]


@pytest.mark.parametrize("words", [["describe", "surprisal"], ["load"]])
def test_without_docstrings_it_says_so_and_blames_no_analysis(words):
    command = [sys.executable, "-OO", "-m", "apps.cli", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "started without docstrings (-OO" in done.stderr and "\n" not in done.stderr[:-1]


def test_ctrl_c_is_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("apps.cli.model.load", interrupted)
    assert main(["load", "toy-induction"]) == 130
    assert capsys.readouterr().err == "workbench: stopped\n"


@pytest.mark.parametrize(("words", "code"), [(["run", "--list"], 0), (["frob"], 2)])
def test_closed_streams_change_no_exit_code(words, code):
    command = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "apps.cli", *words]
    assert subprocess.run(command, cwd=ROOT).returncode == code


def test_what_the_terminal_cannot_print_is_printed_as_its_code(monkeypatch):
    from apps.cli.commands import describe

    old = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", old)
    monkeypatch.setattr(describe, "command", lambda arguments: print("a token \u2581\u65e5"))
    assert main(["describe", "logit-lens"]) == 0
    assert old.buffer.getvalue() == b"a token \\u2581\\u65e5\n"


def test_a_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "apps.cli", "run", "--list"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


CYCLE = """
import gc, os
gc.disable()
class Heavy:
    def __del__(self): os.write(1, b"looked through")
heavy = Heavy()
heavy.itself = heavy
{command}
del heavy
"""


@pytest.mark.parametrize(
    ("command", "looked"), [("", True), ("from apps.cli import main; main(['run', '--list'])", False)]
)
def test_nothing_is_looked_through_at_the_end(command, looked):
    """A model that is loaded makes a million objects: to look through them took a second, to give back memory that the
    process gives back anyway. What is left of Python's own end (files that are flushed, functions that are registered)
    is as ever."""
    done = subprocess.run([sys.executable, "-c", CYCLE.format(command=command)], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout.endswith(b"looked through")) == (0, looked), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run", "logit-lens", "--prompt", "one", "--prompt", "two"],
        ["run", "logit-lens", "--ids", "5", "9", "--model", "toy-induction", "--ids", "7"],
        ["run", "logit-lens", "--model=toy-induction", "--ids", "5", "--model", "smollm2-135m"],
        ["run", "logit-lens", "--model", "toy-induction", "--ids", "5", "--top-k", "3", "--top-k=4"],
        ["compare", "a.nc", "b.nc", "--out", "c.nc", "--out", "d.nc"],
    ],
)
def test_an_option_given_twice_is_not_dropped(refused, words):
    assert "twice" in refused(*words)


def test_a_command_may_be_given_again_in_one_process(refused):
    for _ in range(2):
        assert "expected" in refused("run", "logit-lens", "--model", "toy-induction", "--ids", "99")
