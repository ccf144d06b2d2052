"""Nothing imports upwards: workbench -> probes -> apps; nothing imports in a circle, neither rooms of a floor nor files
of a room; and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench import WHERE

ROOT = Path(__file__).resolve().parents[1]
# Who may know TransformerLens: the adapter. (Toys are our own small modules and do without so far.)
KNOWS_TRANSFORMER_LENS = ("workbench/loading/bridge.py", "workbench/loading/toys/")
FLOORS = ("workbench", "probes", "apps")
# Circles that are known and to be mended; none may be added.


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def imports(path: Path, *, at_import: bool = False) -> Iterator[str]:
    """Absolute names of the modules that a file imports; at_import: leaves out what stands inside functions, and what
    only a type checker reads."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), path, at_import)


def _imports(node: ast.AST, path: Path, at_import: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from _from(child, path)
        yield from _imports(child, path, at_import)


def _from(node: ast.ImportFrom, path: Path) -> Iterator[str]:
    if node.level:
        package = path.relative_to(ROOT).parent.parts
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    else:
        base = node.module or ""
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


def offenders(paths: list[Path], forbidden: tuple[str, ...], **how: bool) -> list[str]:
    assert paths, "no source found: the test would pass on nothing"
    return sorted(
        {
            f"{path.relative_to(ROOT)} imports {name}"
            for path in paths
            for name in imports(path, **how)
            if name.split(".")[0] in forbidden
        }
    )


@pytest.mark.parametrize(
    ("room", "above"), [("workbench", ("probes", "apps", "tests")), ("probes", ("apps", "tests")), ("apps", ("tests",))]
)
def test_nothing_imports_upwards(room, above):
    assert offenders(sources(room), above) == []


def modules(*floors: str) -> dict[str, Path]:
    """Files by the name they are imported by."""
    found = {}
    for path in sources(*floors):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The first folder level; a file beside the folders is a room of its own."""
    return ".".join(module.split(".")[:2])


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Who imports whom, by files; also behind TYPE_CHECKING, inside functions and through the names that the workbench
    hands on. The one file that hands names on imports nothing by itself."""
    return {module: set(edges(path, files)) & set(files) - {module} for module, path in files.items()}


def edges(path: Path, files: dict[str, Path]) -> Iterator[str]:
    """The files that a file imports. Of `from a import b` it is a.b where that is a file, else a."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base, *names = _from(node, path)
            for name in names:
                handed_on = WHERE.get(name.removeprefix("workbench.")) if base == "workbench" else None
                yield name if name in files else handed_on or base


def of_rooms(files: dict[str, set[str]]) -> dict[str, set[str]]:
    """Which room imports which other one of its floor."""
    found: dict[str, set[str]] = {}
    for module, imported in files.items():
        if module not in FLOORS:
            floor = module.split(".")[0]
            same = {room(other) for other in imported if other not in FLOORS and other.split(".")[0] == floor}
            found.setdefault(room(module), set()).update(same - {room(module)})
    return found


def circles(imported: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Sets of nodes that reach each other, in order."""
    reached = {node: set(others) for node, others in imported.items()}
    for middle in imported:  # Warshall: whoever reaches the middle reaches what it reaches
        for node in imported:
            if middle in reached[node]:
                reached[node] |= reached[middle]
    together = {node: {other for other in reached[node] if node in reached.get(other, ())} for node in imported}
    return sorted({tuple(sorted(others)) for others in together.values() if others})


def test_circles_are_found():
    drawn = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"e"}, "e": {"f"}, "f": {"d"}, "g": {"a", "h"}}
    assert circles(drawn) == [("b", "c"), ("d", "e", "f")]
    assert circles({"a": {"b"}, "b": set()}) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_no_circle_between_rooms(floor):
    assert circles(of_rooms(graph(modules(floor)))) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_no_circle_between_files(floor):
    assert circles(graph(modules(floor))) == []


def test_the_graph_sees_lazy_names_and_imports_inside_functions(tmp_path):
    files = graph(modules("workbench", "probes"))
    assert {"workbench.analysis.results", "workbench.observation"} <= files["workbench.analysis.run"]
    assert "workbench.figures" in files["probes.lens.logit_lens"]  # inside its figures
    assert files["workbench"] == set()
    lines = ["import a.b", "from workbench import observe, figures", "if TYPE_CHECKING:", "    import workbench.errors"]
    (tmp_path / "one.py").write_text("\n".join(lines))
    known = modules("workbench") | {"a.b": tmp_path}
    assert set(edges(tmp_path / "one.py", known)) == {
        "a.b",
        "workbench.observation",
        "workbench.figures",
        "workbench.errors",
    }


def test_only_the_adapter_knows_transformer_lens():
    others = [
        path
        for path in sources("workbench", "probes", "apps")
        if not path.relative_to(ROOT).as_posix().startswith(KNOWS_TRANSFORMER_LENS)
    ]
    assert offenders(others, ("transformer_lens",)) == []
    assert offenders([ROOT / "workbench/loading/bridge.py"], ("transformer_lens",)) != []  # the reader of imports reads


def test_figures_never_import_torch():
    assert offenders(sources("workbench/figures"), ("torch", "transformers", "transformer_lens")) == []


def test_probes_and_figures_import_plotly_only_when_drawing():
    assert offenders(sources("workbench", "probes"), ("plotly",), at_import=True) == []


def test_no_dash_outside_the_explorer():
    others = [path for path in sources("workbench", "probes", "apps") if "explorer" not in path.parts]
    assert offenders(others, ("dash", "dash_mantine_components", "dash_ag_grid", "waitress")) == []


def test_nothing_is_pickled():
    assert offenders(sources("workbench", "probes", "apps"), ("pickle", "dill", "cloudpickle", "joblib")) == []


def test_listing_the_catalog_imports_no_analysis():
    """Names must be had without torch: the help of the command line and the plan of a batch read them."""
    code = (
        "import sys; from probes import CATALOG; assert CATALOG.names\n"
        "heavy = {'torch', 'xarray', 'plotly', 'transformers', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert [m for m in sys.modules if m.startswith('probes.')] == []"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


MAKES_FLOATS = ("empty", "zeros", "ones", "randn", "rand")  # of the default dtype, which belongs to the notebook
MADE_FLOAT32 = "workbench/loading/toys/"  # inside `Float32`, or written into weights that are


def test_no_tensor_takes_the_dtype_that_a_notebook_set():
    """Random numbers of another format are other numbers, and sums of two formats another result or an error."""
    found = []
    for path in sources("workbench", "probes"):
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in [f"torch.{one}" for one in MAKES_FLOATS]:
                continue
            if "dtype" not in [word.arg for word in node.keywords] and not place.startswith(MADE_FLOAT32):
                found.append(f"{place}:{node.lineno}")
    assert not found, f"torch.zeros and the like without dtype: {', '.join(found)}"
