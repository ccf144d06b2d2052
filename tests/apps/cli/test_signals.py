"""Ctrl+C, SIGTERM and the end of the terminal while a study runs."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.analysis.results import open_result

ROOT = Path(__file__).resolve().parents[3]


# A study that signals its own process once its second partial result is there, for each case in turn: (the signal, what
# SIGINT does in the process that starts). Signals are set as a shell would: SIG_IGN is what it gives to a job in the
# background, whoever runs these tests.
STOPPED = """
import json, os, signal, sys
from apps import cli
from probes import CATALOG
analysis = CATALOG.view('activation-patching').analysis
plain, sent = analysis.partials, None
def partials(*arguments, **options):
    for count, part in enumerate(plain(*arguments, **options)):
        if count == 1: os.kill(os.getpid(), sent)
        yield part
analysis.partials = partials
codes = {}
for name, sent, on_interrupt in json.loads(sys.argv[1]):
    signal.signal(signal.SIGINT, signal.SIG_IGN if on_interrupt == 'ignored' else signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN if on_interrupt == 'ignored' else signal.SIG_DFL)
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
        ("hung up", int(signal.SIGHUP), "raises"),
        ("hung up under nohup", int(signal.SIGHUP), "ignored"),
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
    ("case", "code"), [("ctrl-c", 130), ("terminated", 143), ("terminated in the background", 143), ("hung up", 129)]
)
def test_a_stopped_study_keeps_what_is_done(stopped, case, code):
    """A job in the background cannot be interrupted from the keyboard, but it can be terminated."""
    left_with, out, err, result = stopped[case]
    assert left_with == code, err
    assert "stopped before the end" in err and f"{case}.nc" in out
    assert result.attrs["partial"] == 1
    assert result["effect"].notnull().any() and result["effect"].isnull().any()


@pytest.mark.parametrize("case", ["ctrl-c for another job", "hung up under nohup"])
def test_what_a_job_in_the_background_ignores_does_not_reach_it(stopped, case):
    code, _, err, result = stopped[case]
    assert code == 0 and "stopped" not in err
    assert "partial" not in result.attrs and result["effect"].notnull().all()
