"""What only notebooks call: every function of theirs takes or refuses, in a sentence, what it is given."""

import ast
import inspect
import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

from probes import CATALOG
from probes.checks.removal import check
from probes.circuits import edges, evaluation
from probes.circuits.rankings import n_nodes, rank, tasks_of
from probes.erasure.readout_probes import card_of
from probes.erasure.trained.artifact import find
from probes.erasure.trained.trainer import train
from probes.routes.extraction import extract
from tests.test_public_calls import IDS, ODD
from workbench import Head, WorkbenchError, load
from workbench.figures import heads_grid

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PAIR = ([1, 2, 3, 1], [1, 4, 3, 1], "#2", "#4")
OTHERS = {"tokenise", "measure_means", "load", "observe", "run", "save", "tables", "dataset", "record"}  # public names
BARE = {"python_corpus"}  # takes nothing


def functions() -> Iterator[Callable[..., Any]]:
    """Every function that a notebook imports, or reads from a module that it imports."""
    found: dict[str, Callable[..., Any]] = {}
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith(("%", "!"))))
        names: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("probes", "workbench"):
                home = import_module(str(node.module))
                names |= {
                    one.asname or one.name: getattr(home, one.name, None) or import_module(f"{node.module}.{one.name}")
                    for one in node.names
                }
        read = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
        values = [*names.values(), *(getattr(names[node.value.id], node.attr) for node in read
                                     if isinstance(names.get(node.value.id), ModuleType))]  # fmt: skip
        found |= {f"{one.__module__}.{one.__name__}": one for one in values if inspect.isfunction(one)}
    yield from found.values()


@pytest.fixture(scope="module")
def given() -> dict[Callable[..., Any], dict[str, Any]]:
    """Functions that take more than a result, with arguments that fit."""
    model = load("toy-induction")
    routes, heads = (CATALOG.view(name).analysis().run(model, IDS) for name in ("flow-routes", "induction-on-prompt"))
    tasks = tasks_of(model, [PAIR])
    return {
        evaluation.evaluate: {"model": model, "tasks": tasks, "rankings": {"random": np.zeros(n_nodes(model))}},
        edges.evaluate: {"tasks": [], "rankings": {}},
        extract: {"result": routes, "start": None, "coverage": None, "threshold": None, "renormalise": False,
                  "hide_first": False},
        check: {"model": model, "prompts": [IDS], "units": [Head(0, 0)], "metric": None, "method": "zero",
                "side": "changes", "n_controls": 19, "caliper": 1.5, "peers": 1, "suggested_by": (), "corrupt": None,
                "reference": None, "matched": True, "seed": 0, "progress": None},
        tasks_of: {"model": model, "examples": [PAIR]},
        rank: {"model": model, "tasks": tasks, "by": "attribution patching", "seed": 0,
               "progress": None},
        card_of: {"probes": None, "asked": (0,)},
        find: {"key": "0" * 64, "path": None, "kind": "factored"},
        train: {"model": model, "corpus": {}, "depths": None, "offsets": (0,), "path": None, "control": False,
                "again": False, "progress": None},
        heads_grid: {"result": heads, "variable": "induction_score", "title": "a", "scale": None, "mark_name": "b",
                     "unit": "head"},
    }  # fmt: skip


def called(call: Callable[..., Any], fitting: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
    """A call with one argument of another kind, which is made anew: a generator is used up."""
    return call(**{**fitting, name: make()})


def broken(name: str, calls: Iterator[tuple[str, Callable[[], Any]]]) -> list[str]:
    """The calls that end in another error than ours."""
    found = []
    for what, call in calls:
        try:
            call()
        except WorkbenchError as error:
            assert len(str(error)) < 3_000, f"{name}({what})"
        except Exception as error:
            found.append(f"{name}({what}): {type(error).__name__}: {error}")
    return found


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_what_notebooks_call_takes_or_refuses_what_it_is_given(given, tmp_path, monkeypatch, every):
    """Each parameter in turn, with every fourth kind of odd value in CI, other ones for the next parameter."""
    monkeypatch.chdir(tmp_path)  # a text may be the name of a file
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    assert set(given) <= set(functions())
    said = []
    for call, fitting in given.items():
        tried = list(itertools.product(fitting, ODD.items()))[::every]
        calls = ((f"{name}={kind}", partial(called, call, fitting, name, make)) for name, (kind, make) in tried)
        said += broken(call.__name__, calls)
    assert not said, "\n".join([f"{len(said)} calls", *said])


def test_what_notebooks_draw_and_read_says_what_it_was_given(given):
    """Each figure and table: nothing, another kind, another analysis's result, and one of its own without what it
    draws."""
    result = given[extract]["result"]
    others = [one for one in functions() if one not in given and one.__name__ not in OTHERS | BARE]
    drawing = [one for one in others if hasattr(one, "__wrapped__")]  # by `reads`
    assert len(drawing) > 30
    said = []
    for draw in drawing:
        more = [p for p in inspect.signature(draw).parameters.values() if p.default is p.empty][1:]
        rest = {p.name: {"layer": 1, "head": 0} if p.name == "selection" else 0 for p in more}
        kinds = [xr.Dataset(), result, result.drop_vars(list(result.data_vars)), None, "a result", {}, [result], 5]
        said += broken(draw.__name__, ((str(kind)[:40], partial(draw, kind, **rest)) for kind in kinds))
    assert not said, "\n".join([f"{len(said)} calls", *said])
