"""How the explorer is built: rooms that import one way, small files and functions, callbacks that name what they do."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import networkx
import pytest

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import make_app

ROOT = Path(__file__).resolve().parents[3]
EXPLORER = ROOT / "apps" / "explorer"
ROOMS = ("engine", "page", "callbacks", "web")  # each may import those before it
FILES = sorted(EXPLORER.rglob("*.py"))
SCREEN, LONGEST, MANY = 52, 400, 4


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, modules: set[str]) -> set[str]:
    """Modules of the explorer that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found & modules if name != module_of(path)}


def test_rooms_import_one_way_and_no_files_in_a_circle():
    modules = {module_of(path) for path in FILES}
    graph = {module_of(path): imported(path, modules) for path in FILES}
    assert graph["apps.explorer.callbacks.run"]  # the reader of imports reads
    for module, others in graph.items():
        room = module.split(".")[2] if module.count(".") >= 2 else None
        for other in others if room in ROOMS else ():
            above = other.split(".")[2] if other.count(".") >= 2 else "web"
            assert ROOMS.index(above) <= ROOMS.index(room), f"{module} imports {other}"
    # A package's __init__ is imported by its files' importers in any case: only real files can make a circle.
    real = {m: {o for o in others if o not in packages()} for m, others in graph.items() if m not in packages()}
    try:
        list(TopologicalSorter(real).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle: {error.args[1]}") from None


def packages() -> set[str]:
    return {module_of(path) for path in FILES if path.name == "__init__.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXPLORER)))
def test_files_and_functions_fit_and_are_annotated(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        assert _own_lines(node) <= SCREEN, f"{node.name} is {_own_lines(node)} lines"
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare and node.returns is not None, f"{node.name} has no types for {bare or 'what it returns'}"


def _own_lines(node: ast.FunctionDef) -> int:
    """Lines of a function's body; what only declares a callback's places and arguments is no code to follow."""
    inner = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef) and n is not node]
    nested = sum(n.end_lineno - (n.decorator_list[0].lineno if n.decorator_list else n.lineno) + 1 for n in inner)
    return node.end_lineno - node.body[0].lineno + 1 - nested


def test_callbacks_name_their_outputs_inputs_and_state():
    app = make_app(Engine(Settings(models=("m",)), []))
    app._setup_server()
    served = {name: spec for name, spec in app.callback_map.items() if "callback" in spec}
    assert len(served) > 20
    for name, spec in served.items():
        given = len(spec["inputs"]) + len(spec["state"])
        assert given <= MANY or isinstance(spec["inputs_state_indices"], dict), name
        made = spec["output"] if isinstance(spec["output"], list) else [spec["output"]]
        assert len(made) <= MANY or isinstance(spec["outputs_indices"], dict), name


def test_callbacks_form_no_ring_that_nothing_wakes():
    """A ring waits for ever in Dash's renderer where one of it is asked for anew while it runs and nothing else is
    under way: the old call is taken away in the very look that still counted it. One whose callbacks wake the looking
    goes on at the next look."""
    app = make_app(Engine(Settings(models=("m",)), []))
    app._setup_server()
    bare = lambda output: [one.partition("@")[0] for one in output.strip(".").split("...")]
    given = [(bare(one["output"]), {f"{i['id']}.{i['property']}" for i in one["inputs"]}) for one in app._callback_list]
    links = [(a, b) for a, (made, _) in enumerate(given) for b, (_, read) in enumerate(given)
             if a != b and read & {*made}]  # fmt: skip
    assert len(links) > 50
    for ring in networkx.strongly_connected_components(networkx.DiGraph(links)):
        made = {output for one in ring for output in given[one][0]}
        assert len(ring) == 1 or "woken.data" in made, made
