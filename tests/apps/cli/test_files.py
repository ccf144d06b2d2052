"""Where results go: endings, what is no file, a disk that fills, programs that read; and files of strangers."""

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from apps.cli import main
from apps.cli.parser import Parser
from apps.cli.report import delivery, drawing, pictures
from workbench import open_result
from workbench.analysis import results
from workbench.analysis.results import saved
from workbench.errors import InputError, UnavailableError
from workbench.files import write_whole
from workbench.storage import endings, formats

TOY = ["--model", "toy-induction", "--ids", "5", "9", "13", "5"]


@pytest.fixture
def no_model(monkeypatch):
    """Whatever is refused here is refused before a model is loaded."""

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("workbench.loading.pretrained.load", load)


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--out", "r.xlsx", ".nc, .zarr, .csv, .parquet, .json"),
        ("--out", "results", "(none)"),
        ("--figure", "f.jpg", ".html, .json, .png, .svg, .pdf"),
        ("--figure", "f.nc", ".html"),
        ("--out", "n" * 260 + ".nc", "at most 255"),
        ("--out", "", "without a name"),
        ("--out", "r.csv/", "a directory"),
        ("--figure", "f.html/.", "a directory"),
    ],
)
def test_a_name_that_cannot_be_is_refused_first(refused, no_model, tmp_path, option, name, said):
    assert said in refused("run", "logit-lens", *TOY, option, f"{tmp_path}/{name}" if name else "")
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_missing_is_named_first(refused, no_model, tmp_path, monkeypatch):
    monkeypatch.setattr(endings, "find_spec", lambda name: None)
    assert "pip install kaleido" in refused("run", "logit-lens", *TOY, "--figure", str(tmp_path / "f.pdf"))
    assert "pip install zarr" in refused("run", "logit-lens", *TOY, "--out", str(tmp_path / "r.zarr"))


@pytest.fixture
def kaleido(tmp_path, monkeypatch):
    """A stand-in for the library, whose function the test writes; the process that draws finds it first."""
    (tmp_path / "fake").mkdir()
    monkeypatch.setattr(endings, "find_spec", lambda name: name == "kaleido")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))

    def write(body):
        (tmp_path / "fake" / "kaleido.py").write_text(f"def calc_fig_sync(figure, opts, kopts):\n    {body}\n")
        return ["--figure", str(tmp_path / "out" / "f.pdf"), "--out", str(tmp_path / "out" / "r.nc")]

    return write


def test_a_picture_asks_nothing_of_the_network_and_has_room_for_its_caption(tmp_path, kaleido):
    """kaleido would have its browser fetch a script, and behind a firewall wait for it until it gives up."""
    words = kaleido("import json; return json.dumps([figure['layout']['title']['text'], opts, kopts]).encode()")
    assert main(["run", "surprisal", *TOY, *words]) == 0
    made = sorted((tmp_path / "out").glob("*.pdf"))
    assert len(made) > 1
    for path in made:
        title, opts, kopts = json.loads(path.read_text())
        lines = title.partition("<span")[2].count("<br>") + 1
        assert kopts == {"mathjax": False} and opts["format"] == "pdf" and opts["height"] == 700 + 17 * lines


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no Chrome\\nfor many lines')", "(RuntimeError: no Chrome)"),
        ("import os; os._exit(9)", "ended with code 9"),
        ("import time; time.sleep(600)", "did not answer within 1 seconds"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_one_sentence(tmp_path, capsys, monkeypatch, kaleido, body, said):
    """A browser that is not there, one that takes its process with it, and one that hangs while it starts."""
    monkeypatch.setattr(drawing, "_SECONDS", 1.0 if "sleep" in body else 300.0)
    monkeypatch.setattr(drawing, "_EACH", 0.0)
    assert main(["run", "surprisal", *TOY, *kaleido(body)]) == 1
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and said in err and "BROWSER_PATH" in err
    assert "entropy" in out and [path.name for path in (tmp_path / "out").iterdir()] == ["r.nc"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not say what a process started")
def test_a_browser_that_hangs_is_ended_with_who_started_it():
    starts = "p = subprocess.Popen(['sleep', '600'], start_new_session=True); print(p.pid, flush=True); p.wait()"
    command = [sys.executable, "-c", f"import subprocess; {starts}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        browser, given_up = int(process.stdout.readline()), time.monotonic() + 60
        drawing._end(process)
    while lives(browser):
        assert time.monotonic() < given_up
        time.sleep(0.01)


def lives(process: int) -> bool:
    """Whether a process runs; one that ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("words", [["run", "logit-lens", *TOY], ["bench"]])
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(refused, no_model, tmp_path, monkeypatch, words):
    ending = ".json" if words == ["bench"] else ".nc"
    os.mkfifo(tmp_path / f"pipe{ending}")
    (tmp_path / f"null{ending}").symlink_to("/dev/null")
    assert "a pipe" in refused(*words, "--out", str(tmp_path / f"pipe{ending}"))
    assert "a device" in refused(*words, "--out", str(tmp_path / f"null{ending}"))
    assert (tmp_path / f"pipe{ending}").is_fifo()


def test_bench_refuses_another_ending(refused, tmp_path):
    assert ".json" in refused("bench", "--out", str(tmp_path / "b.txt"))


def test_tables_and_json_are_written_as_the_name_says(tmp_path, capsys):
    assert main(["run", "logit-lens", *TOY, "--out", str(tmp_path / "lens.csv")]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    printed = capsys.readouterr().out
    assert "lens.depth_pos.csv" in names and all(str(tmp_path / name) in printed for name in names)
    table = pd.read_csv(tmp_path / "lens.depth_pos.csv")
    assert len(table) == table["depth"].nunique() * table["pos"].nunique() and "entropy" in table
    assert (
        main(["run", "logit-lens", *TOY, "--out", str(tmp_path / "lens.json"), "--figure", f"{tmp_path}/f.json"]) == 0
    )
    assert json.loads((tmp_path / "lens.json").read_text())["analysis"] == "logit-lens"
    figures = json.loads((tmp_path / "f.json").read_text())
    assert len(figures) == 3 and all("toy-induction" in one["layout"]["title"]["text"] for one in figures)


def test_json_on_stdout_is_strict_and_alone(tmp_path, capsys):
    def refuse(constant):
        raise AssertionError(constant)

    assert main(["run", "logit-lens", "induction-heads", *TOY, "--json", "--out", str(tmp_path)]) == 0
    found = [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()]
    assert [one["analysis"] for one in found] == ["logit-lens", "induction-heads"]
    assert found[0]["token_ids"] == [5, 9, 13, 5] and found[0]["model"]["name"] == "toy-induction"
    assert all(one["summary"] and one["variables"] for one in found)
    assert found[0]["saved"] == {"result": [str(tmp_path / "logit-lens.nc")]}


@pytest.mark.parametrize("why", [UnavailableError("a full disk", "a place to write", "Choose another"), KeyError("x")])
def test_a_result_that_cannot_be_saved_is_printed_and_kept_elsewhere(tmp_path, capsys, monkeypatch, why):
    """Whatever it is: the system, or a library's own mistake."""

    def full(result, path):
        if path == tmp_path / "r.nc":
            raise why
        return saved(result, path)

    monkeypatch.setattr(delivery, "saved", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert main(["run", "logit-lens", *TOY, "--out", str(tmp_path / "r.nc")]) == 1
    out, err = capsys.readouterr()
    (kept,) = (tmp_path / "temporary").iterdir()
    assert "entropy" in out and str(kept) in err and len(err.splitlines()) == 1
    assert open_result(kept)["entropy"].size > 0


@pytest.mark.parametrize("asked", [["--figure"], ["--out", "--figure"]])
def test_a_result_whose_figures_cannot_be_written_is_kept_and_said_where(tmp_path, capsys, monkeypatch, asked):
    """A disk that is full takes neither: the work is kept, and the figure's error does not hide where."""

    def full(path, content):
        if "temporary" not in str(path):
            raise UnavailableError(f"no space left on the disk at {path}", "a place to write", "Choose another path")
        return write_whole(path, content)

    monkeypatch.setattr(formats, "write_whole", full)
    monkeypatch.setattr(pictures, "write_whole", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    files = {"--out": str(tmp_path / "r.nc"), "--figure": str(tmp_path / "f.html")}
    assert main(["run", "logit-lens", *TOY, *(word for option in asked for word in (option, files[option]))]) == 1
    out, err = capsys.readouterr()
    (kept,) = (tmp_path / "temporary").iterdir()
    assert "entropy" in out and str(kept) in err and files[asked[0]] in err and len(err.splitlines()) == 1
    assert open_result(kept)["entropy"].size > 0


def test_what_is_kept_elsewhere_is_kept_from_others_there(tmp_path, capsys, monkeypatch):
    """The folder for temporary files is everybody's: a file of another user's run may have the name, or their link."""
    real = tmp_path / "r.nc"

    def full(result, path):
        if path == real:
            raise UnavailableError("no space left on the disk at r.nc", "a place to write", "Choose another path")
        return saved(result, path)

    monkeypatch.setattr(delivery, "saved", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for _ in range(3):
        assert main(["run", "logit-lens", *TOY, "--out", str(real)]) == 1
        for path in (tmp_path / "temporary").iterdir():
            path.chmod(0o444)  # as somebody else's
    assert len(list((tmp_path / "temporary").iterdir())) == 3 and capsys.readouterr().err.count("kept in") == 3


def test_a_result_that_the_format_has_no_place_for_is_printed_and_kept_as_json(tmp_path, capsys, monkeypatch):
    """As where an analysis of one's own gives complex numbers: found out after the work is done."""

    def unfit(*_):
        raise InputError(
            "a result that netCDF cannot hold (such numbers)", "numbers and whole texts", "Take its tables"
        )

    monkeypatch.setattr(results, "checked", unfit)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert main(["run", "logit-lens", *TOY, "--out", str(tmp_path / "r.nc")]) == 1
    out, err = capsys.readouterr()
    (kept,) = (tmp_path / "temporary").iterdir()
    assert "entropy" in out and str(kept) in err and "such numbers" in err and len(err.splitlines()) == 1
    assert json.loads(kept.read_text(encoding="utf-8"))["variables"]["entropy"]["values"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (OSError(28, "No space left on device", "/x"), "no space left on the disk at /x"),
        (ValueError("shape\nof many lines"), "ValueError: shape"),
    ],
)
def test_no_error_is_a_traceback(capsys, monkeypatch, error, said):
    def broken(*_):
        raise error

    monkeypatch.setattr(import_module("apps.cli.commands.list"), "command", broken)
    monkeypatch.delenv("WORKBENCH_DEBUG", raising=False)
    assert main(["list"]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and said in err and "Traceback" not in err


def test_whoever_looks_for_a_mistake_gets_the_traceback(monkeypatch):
    def broken(*_):
        raise ValueError("shape")

    monkeypatch.setattr(import_module("apps.cli.commands.list"), "command", broken)
    monkeypatch.setenv("WORKBENCH_DEBUG", "1")
    with pytest.raises(ValueError, match="shape"):
        main(["list"])


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07.nc", "a\u202egpj.nc", "x" * 5_000])
def test_what_was_typed_comes_back_short_and_without_orders(refused, tmp_path, text):
    line = refused("compare", text, text)
    assert "\x1b" not in line and "\u202e" not in line and "\x07" not in line and len(line) < 600
    line = refused("run", "logit-lens", *TOY, "--param", f"top_k={text}")
    assert "\x1b" not in line and "\u202e" not in line and len(line) < 900


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(200)])
def test_a_damaged_file_is_bad_input(refused, tmp_path, content):
    (tmp_path / "a.nc").write_bytes(content)
    line = refused("compare", str(tmp_path / "a.nc"), str(tmp_path / "a.nc"))
    assert "a damaged file" in line and "a.nc" in line
    assert not any(word in line for word in ("OSError", "synchronously", "HDF5", "signature"))  # a library's own words


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_few_characters_loses_nothing(encoding, tmp_path):
    import subprocess

    words = [sys.executable, "-m", "apps.cli", "describe", "logit-lens", "--no-such", "東京"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(words, capture_output=True, env=environment, cwd=os.getcwd(), timeout=300)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"--no-such" in done.stderr


def test_no_name_of_a_model_is_an_order_to_the_terminal(capsys, tmp_path, tiny_dir):
    import shutil

    place = tmp_path / "tiny\x1b]0;owned\x07"
    shutil.copytree(tiny_dir, place)
    main(["load", str(place)])
    out, err = capsys.readouterr()
    assert "owned" in out and not {"\x1b", "\x07"} & set(out + err)
    saved = tmp_path / "r\x1b[2J.json"
    assert main(["run", "logit-lens", "--model", str(place), "--ids", "5", "9", "--out", str(saved)]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())


def test_text_to_train_on_is_read_before_a_model_is(refused, no_model, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    assert "no text in" in refused("train", "erasure-probes", "--corpus", str(tmp_path / "pictures"))
    out = str(tmp_path / "probes.bin")
    assert ".safetensors" in refused("train", "erasure-probes", "--out", out)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "logit-lens", *TOY, "--out", "r.json", "--figure", "./r.json"],
        ["run", "logit-lens", "--model", "toy-induction", "--prompt-file", "p.json", "--out", "p.json"],
        ["compare", "a.nc", "b.nc", "--out", "a.nc"],
        ["compare", "a.nc", "b.nc", "--out", "link.nc"],
        ["explain", *TOY, "--out", "r.html", "--out", "r.html"],
    ],
    ids=["figure", "prompts", "before", "link", "report"],
)
def test_no_file_is_written_over_another_of_the_same_run(no_model, refused, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text('[{"prompt": "3 5 3"}]')
    (tmp_path / "link.nc").symlink_to("b.nc")
    for name in "ab":
        (tmp_path / f"{name}.nc").write_bytes(b"of before")
    assert "which is" in refused(*words)
    assert (tmp_path / "a.nc").read_bytes() == b"of before" == (tmp_path / "b.nc").read_bytes()
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("option", ["--out=~/kept/r.nc", "--figure=~/kept/r.html"])
def test_a_home_that_the_shell_has_not_found_is_found(option, tmp_path, monkeypatch):
    """A shell leaves `~` as it is behind an equals sign; a folder of that name was made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "logit-lens", *TOY, option]) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["kept"]
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_home_is_found_in_each_of_several_paths_and_in_nothing_but_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    parser = Parser()
    parser.add_argument("--corpus", metavar="PATH", nargs="+")
    parser.add_argument("--out", metavar="FILE.html", action="append")
    parser.add_argument("--prompt", metavar="TEXT")
    found = parser.parse_args(["--prompt=~/a", "--corpus", "~/b", "~c", "--out=~/d", "--out", "e"])
    assert vars(found) == {
        "prompt": "~/a", "corpus": ["/home/somebody/b", "~c"], "out": ["/home/somebody/d", "e"],
    }  # fmt: skip
