"""Processes that we start meet nothing of what lies in the user's folder."""

import subprocess

import pytest

from apps.bench import processes
from apps.explorer.engine import batches
from workbench.children import own_python


@pytest.fixture
def shadows(tmp_path, monkeypatch):
    """A working directory with files named as the library's and ours are."""
    for name in ("random", "json", "threading", "runpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file in the working directory')")
    for name in ("apps", "workbench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the folder in the working directory')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_in_the_working_directory_hide_nothing_from_our_processes(shadows):
    command, environment = own_python("-c", "import random, json, apps.cli, workbench; print(workbench.__name__)")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "workbench\n"), done.stdout + done.stderr


def test_whoever_starts_the_command_line_starts_it_so(shadows, monkeypatch):
    started = []

    def start(words, **how):
        started.append((words, how))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(subprocess, "run", start)
    batches.begin(shadows)
    processes.command("list")(None)()
    for words, how in started:
        found, environment = own_python(*words[2:])
        assert words == found and how["env"] == environment
    assert len(started) == 2
