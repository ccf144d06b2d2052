"""The README's examples run as printed."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_examples_run_as_printed(default_model, monkeypatch, tmp_path, capsys):
    """All blocks in one namespace, in order; only the loading of the model is replaced by the suite's own copy."""
    import workbench.loading.pretrained

    monkeypatch.setattr(workbench.loading.pretrained, "load", lambda *_: default_model)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    source = "\n".join(blocks("python"))
    # Reducers must stand at the top of a module: give the examples one.
    namespace["__name__"] = "__main__"
    exec(compile(source, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    for line, comment in re.findall(r"^print\((.*?)\) +# (.*)$", source, re.MULTILINE):
        assert comment in printed, line


SHELL = [line for line in "\n".join(blocks("sh")).splitlines() if line.startswith(".venv/bin/workbench")]


@pytest.mark.parametrize("line", [line for line in SHELL if " app " not in line], ids=lambda line: line.split()[2])
def test_shell_examples_run_as_printed(line, default_model, monkeypatch, tmp_path):
    import workbench.loading.pretrained
    from apps.cli import main

    monkeypatch.setattr(workbench.loading.pretrained, "load", lambda *_, **__: default_model)
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line)[1:]
    assert main(arguments) in (0, None)
    for name in (argument for argument in arguments if argument.endswith((".nc", ".html"))):
        assert (tmp_path / name).stat().st_size > 1000
