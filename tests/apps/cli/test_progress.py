"""What is said on stderr while a command works."""

import errno
import sys
import warnings

import pytest

from apps.cli import main
from apps.cli.progress import progress, warnings_as_notes
from workbench import processor
from workbench.errors import SlowWarning
from workbench.processor import Processor


@pytest.mark.parametrize("terminal", [False, True])
def test_half_precision_on_an_old_processor_is_one_note_and_no_warning(capsys, monkeypatch, tiny_dir, terminal):
    monkeypatch.setattr(processor, "this_processor", lambda: Processor("AVX2", bfloat16=False, float16=False))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    words = ["run", "logit-lens", "--model", str(tiny_dir), "--device", "cpu", "--prompt", "abc"]
    assert main([*words, "--dtype", "bfloat16"]) == 0
    out, err = capsys.readouterr()
    notes = [line.split("\x1b[2K")[-1] for line in err.splitlines() if "Note: " in line]
    assert len(notes) == 1 and notes[0].startswith("Note: bfloat16 will be slow") and notes[0].count(". ") == 0
    assert "bfloat16" not in err.replace(notes[0], "") and "will be slow" not in out
    assert main(words) == 0 and "Note" not in capsys.readouterr().err


def test_warnings_of_other_libraries_are_shown_as_ever(capsys):
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: said.append(str(message))
        with warnings_as_notes(lambda *note: said.append(note)):
            warnings.warn("theirs", UserWarning, stacklevel=1)
            warnings.warn("ours", SlowWarning, stacklevel=1)
    assert said == ["theirs", ("note", 0.0, "ours")]


def test_progress_is_drawn_on_a_terminal_only(capsys, monkeypatch):
    with progress() as report:
        report("load", 0.5, "loading")
        report("convert", 0.0, "reading the GGUF")
        report("convert", 0.5, "reading on")
    assert capsys.readouterr().err == "reading the GGUF\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as report:
        report("load", 0.5, "loading")
    drawn = capsys.readouterr().err
    assert "[##########          ] loading" in drawn and drawn.endswith("\r\x1b[2K")


class Gone:
    """A terminal that went away."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")

    flush = close = lambda self: None


def test_a_terminal_that_went_away_stops_no_work(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "stderr", Gone())
    words = ["run", "logit-lens", "attention-sinks", "--model", "toy-induction", "--ids", "5", "9", "13", "5"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.nc"))) == 2 and "logit-lens.nc" in capsys.readouterr().out
