"""What a user types: `from workbench import ...`."""

import ast
import subprocess
import sys
from pathlib import Path

import workbench

ROOT = Path(__file__).resolve().parents[2]


def test_every_name_is_there_and_comes_from_where_it_is_said_to():
    from importlib import import_module

    for name, home in workbench.WHERE.items():
        assert getattr(workbench, name) is getattr(import_module(home), name)
    assert workbench.__all__ == sorted(workbench.WHERE)


def test_editors_are_told_the_same():
    stub = ast.parse((ROOT / "workbench" / "__init__.pyi").read_text(encoding="utf-8"))
    told = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {name: home for name, home in told.items() if home != "typing"} == workbench.WHERE


def test_a_call_is_not_hidden_by_a_room_of_its_name():
    """`workbench.observe` must stay a function however rooms are imported."""
    code = (
        "import workbench.observation.run, workbench.analysis.run, workbench.loading.pretrained\n"
        "from workbench import load, observe, run, wrap\n"
        "assert all(map(callable, (load, observe, run, wrap)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_it_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import workbench\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & {'torch', 'numpy', 'xarray', 'pydantic', 'transformers'}, new"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
