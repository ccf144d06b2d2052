"""Nothing imports upwards: workbench -> probes -> apps; and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Who may know TransformerLens: the adapter. (Toys are our own small modules and do without so far.)
KNOWS_TRANSFORMER_LENS = ("workbench/loading/bridge.py", "workbench/models/toys/")


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
