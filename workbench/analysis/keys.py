"""Keys: 64 hex digits that name what was asked, and the hash of the code that answers.

Equal keys ask for the same numbers: weights, token ids, analysis, its code, parameters, interventions, and what was
learned from data. The code of an analysis is the source of its module and of every file of ours that it imports,
without comments, docstrings and layout, and without figures: who changes a number changes the key, who changes a
comment or a drawing does not. Versions raised by hand were forgotten.
"""

import ast
import hashlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["code_digest", "digest", "imported_files", "spec_key"]

_OURS = "workbench"  # beside the package that an analysis is of
_DRAWS = "workbench.figures"  # changes no number


def spec_key(
    weights_hash: str,
    token_ids: Any,
    analysis: str,
    code: str,
    params: Mapping[str, Any],
    *,
    interventions: Sequence[Any] = (),
    artifact_hash: str | None = None,
) -> str:
    """The key of what was asked.

    token_ids: nested lists of ints, or None for an analysis with its own stimulus. code: `code_digest` of the analysis.
    """
    return digest(
        [weights_hash, token_ids, analysis, code, dict(params), [str(i) for i in interventions], artifact_hash]
    )


def digest(value: Any) -> str:
    """sha256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str, separators=(",", ":")).encode()).hexdigest()


def code_digest(kind: type) -> str:
    """The hash of the code of an analysis; of its bytecode where it has no file (made in a notebook or a shell)."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or kind.__module__ == "__main__":
        return digest(list(_bytecode(kind)))
    return _module_digest(kind.__module__)


@cache
def _module_digest(module: str) -> str:
    return digest([[name, _file_digest(path)] for name, path in sorted(imported_files(module).items())])


def imported_files(module: str) -> dict[str, Path]:
    """Files of ours that a module runs on, by module name: its own, and what they import, at any depth."""
    ours = {_OURS, module.split(".")[0]}
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.split(".")[0] not in ours or name.startswith(_DRAWS):
            continue
        path = _file_of(name)
        if path is not None:
            found[name] = path
            waiting += _imports(path, name)
    return found


@cache
def _file_of(name: str) -> Path | None:
    """The source of a module; None where the name is not a module (a function, say)."""
    parent = name.rpartition(".")[0]
    if parent and (above := _file_of(parent)) is not None and above.name != "__init__.py":
        return None  # a name inside a module
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


@cache
def _imports(path: Path, name: str) -> tuple[str, ...]:
    """Names that a file imports; of `from a import b` both a and a.b, and the packages they lie in."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            found += [base, *(_home(base, alias.name) for alias in node.names)]
    return tuple(dict.fromkeys(part for full in found for part in _with_packages(full)))


def _home(base: str, name: str) -> str:
    """Where a name that a package hands on lies; `from workbench import observe` runs more than `workbench`."""
    module = sys.modules.get(base)
    home = getattr(module, "WHERE", {}).get(name)
    return home or f"{base}.{name}"


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        yield ".".join(parts[:n])


@cache
def _tree(path: Path) -> ast.Module:
    """The syntax of a file, without docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return tree


@cache
def _file_digest(path: Path) -> str:
    return hashlib.sha256(ast.dump(_tree(path)).encode()).hexdigest()


def _bytecode(kind: type) -> Iterator[str]:
    """Names, instructions and constants of every function of a class, and of what its module defines beside it."""
    module = sys.modules.get(kind.__module__)
    beside = [value for value in vars(module).values() if inspect.isfunction(value)] if module else []
    for function in [*filter(inspect.isfunction, vars(kind).values()), *beside]:
        if function.__module__ == kind.__module__:
            code = function.__code__
            yield f"{function.__qualname__} {code.co_code.hex()} {code.co_consts!r} {code.co_names!r}"
