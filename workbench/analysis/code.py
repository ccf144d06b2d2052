"""The hash of the code that answers: who changes a number changes the key of what was asked, who changes a comment, a
docstring, a help text or a drawing does not. Versions raised by hand were forgotten.

Of its own files (all but the workbench's and installed libraries) an analysis runs on what its class names, and on what
that names in turn, at any depth and across files. Of the workbench it runs on every file that the named ones import,
whole: there most depends on most. Figures change no number. A class that has no file, of a notebook say, is read from
its bytecode (`workbench.analysis.bytecode`).

To follow all that takes a third of a second, so the hash of one of our own classes is kept for the sources as they are.
"""

import ast
import builtins
import importlib.util
import platform
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from workbench import memo
from workbench.analysis.bytecode import named_by
from workbench.analysis.keys import digest
from workbench.files import cache_dir
from workbench.sources import digest_of
from workbench.syntax import parse

__all__ = ["code_digest"]

_WHOLE = "workbench"  # the package of which whole files are read
_INSTALLED_BUT_OURS = ("workbench", "probes")
_DRAWS = "workbench.figures"  # changes no number
_OF_PYTHON = frozenset(  # what reads the interpreter's documentation and sources, of the workbench's own names
    ("find_corpus", "measure_means", "python_corpus", "python_domains", "python_topic", "reference_text")
)
_PROSE = ("title",)  # class keywords for people
ALL = "*"


def code_digest(kind: type) -> str:
    """The hash of the code of a class: of what it names in its files, or of its bytecode where it has none."""
    _forget_reloaded()
    module = sys.modules.get(kind.__module__)
    if module is None or getattr(module, "__file__", None) is None or kind.__module__ == "__main__":
        own, named = named_by(kind)
        return digest([own, *(_digest(*name) for name in named)])
    return _digest(kind.__module__, kind.__qualname__.partition(".")[0])


@cache
def _specs() -> dict[str, Any]:
    """By module: what it was loaded by when its file was read, which a reload makes anew."""
    return {}


def _forget_reloaded() -> None:
    """Read anew where a module was loaded again: in a notebook that is how one that is being written is tried."""
    if any(_loaded_by(module) is not spec for module, spec in list(_specs().items())):
        for kept in (_specs, _digest, _file, _imported, _read, _is_ours, file_of, _tree, _syntax):
            kept.cache_clear()


def _loaded_by(module: str) -> Any:
    return getattr(sys.modules.get(module), "__spec__", None)


@cache
def _digest(module: str, name: str) -> str:
    place = _place(module, name)
    record = memo.read(place) if place else None
    try:
        if record and record["outside"] == {top: _origin(top) for top in record["outside"]}:
            return str(record["digest"])
    except (LookupError, TypeError):
        pass  # of another form: made anew
    code = Code()
    code.follow(module, name)
    found = digest([sorted(code.statements), sorted(code.files), *_texts_of(code.asked | {name})])
    if place and {top for top in code.outside if _is_ours(top)} <= set(_INSTALLED_BUT_OURS):
        outside = {top: _origin(top) for top in sorted(code.outside)}
        memo.write(place, {"digest": found, "outside": outside})
    return found


def _texts_of(asked: set[str]) -> list[str]:
    """The Python whose documentation and sources are read as texts, which are others in the next one."""
    return [f"texts of Python {platform.python_version()}"] if asked & _OF_PYTHON else []


def _place(module: str, name: str) -> Path | None:
    """Where the hash of a class of ours is kept, by what our sources are now and what reads them; None for others'."""
    top = module.partition(".")[0]
    if top not in _INSTALLED_BUT_OURS:
        return None
    return cache_dir() / "code" / f"{digest([module, name, _sources(top), sys.version])}.json"


@cache
def _sources(top: str) -> str:
    """What the sources are that this process runs, of the workbench and of another package of ours."""
    return digest_of([sys.modules[package] for package in dict.fromkeys((_WHOLE, top))])


def _origin(top: str) -> str:
    """The file that an import of a package outside of ours reads; "" where there is none, or none of Python's."""
    return str(file_of(top) or "")


class Code:
    """What a name runs on. statements: (module, syntax) of its own files; files: (module, syntax) of the workbench;
    asked: names that own files use of it; outside: the packages that were met, of which those that are installed are
    not followed."""

    def __init__(self) -> None:
        self.statements: set[tuple[str, str]] = set()
        self.files: set[tuple[str, str]] = set()
        self.asked: set[str] = set()
        self.outside: set[str] = set()
        self._done: set[tuple[str, str]] = set()
        self._taken: set[str] = set()

    def follow(self, module: str, name: str) -> None:
        """Take in what a name of a module runs on; ALL for the whole of it."""
        waiting = [(module, name)]
        while waiting:
            asked = waiting.pop()
            if asked in self._done:
                continue
            self._done.add(asked)
            self.outside.add(asked[0].partition(".")[0])
            path = file_of(asked[0])
            if path is not None and _is_ours(asked[0]):
                if asked[0] in sys.modules:
                    _specs()[asked[0]] = _loaded_by(asked[0])
                waiting += self._whole(path, *asked) if _in_workbench(asked[0]) else self._statements(path, *asked)

    def _whole(self, path: Path, module: str, name: str) -> Iterator[tuple[str, str]]:
        home = getattr(sys.modules.get(module), "WHERE", {}).get(name)  # a name that a package hands on
        if home is not None:
            yield home, name
        if not module.startswith(_DRAWS) and module not in self._taken:
            self._taken.add(module)  # whatever name of it is asked for, it runs on the same
            self.files.add((module, _syntax(path)))
            yield from (found for found in _imported(path, module) if _in_workbench(found[0]))

    def _statements(self, path: Path, module: str, name: str) -> Iterator[tuple[str, str]]:
        file = _file(path, module)
        if name != ALL and (target := file.aliases.get(name)):
            yield from file.target(target, ())
            return
        known = name in file.bound
        taken = [*file.bound[name], *file.always] if known else file.tree.body
        yield from () if known else ((star, name) for star in file.stars)
        for statement in taken:
            syntax, used = _read(file, statement)
            self.statements.add((module, syntax))
            self.asked |= {wanted for other, wanted in used if _in_workbench(other)}
            yield from used


class Target(NamedTuple):
    """What an imported name stands for: a module (name ""), or a name of one."""

    module: str
    name: str = ""


class File:
    """One file: its syntax, which statements bind a name, what its imports stand for, what runs in any case."""

    def __init__(self, path: Path, module: str):
        self.tree, self.module, self.path = _tree(path), module, path
        self.aliases = _aliases(self.tree, module, path, deep=False)
        self.everywhere = _aliases(self.tree, module, path)
        self.stars = _stars(self.tree, module, path)
        self.bound: dict[str, list[ast.stmt]] = {}
        self.always: list[ast.stmt] = []
        for statement in self.tree.body:
            for name in _bound(statement):
                self.bound.setdefault(name, []).append(statement)
            if isinstance(statement, ast.Expr | ast.If | ast.Try | ast.With | ast.For | ast.While):
                self.always.append(statement)

    def of(self, chain: tuple[str, ...], local: dict[str, Target] | None = None) -> Iterator[tuple[str, str]]:
        """What `a.b.c` runs on, by what stands at the top of the file and what a statement imports itself."""
        target = (local or {}).get(chain[0]) or self.aliases.get(chain[0])
        if target is not None:
            yield from self.target(target, chain[1:])
        elif chain[0] in self.bound:
            yield self.module, chain[0]
        elif not hasattr(builtins, chain[0]):  # of one of them, or a function's own: then too much is read
            yield from ((star, chain[0]) for star in self.stars)

    def target(self, target: Target, rest: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """What an imported name runs on; of a module only what is asked of it."""
        module, wanted = target.module, [*filter(None, [target.name]), *rest]
        while wanted and file_of(f"{module}.{wanted[0]}") is not None:
            module = f"{module}.{wanted.pop(0)}"
        yield module, wanted[0] if wanted else ALL

    def imported(self) -> Iterator[tuple[str, str]]:
        """What it imports anywhere, and the packages that lies in."""
        for target in self.everywhere.values():
            parts = target.module.split(".")
            yield from ((".".join(parts[:n]), ALL) for n in range(1, len(parts)))
            yield from self.target(target, ())


@cache
def _file(path: Path, module: str) -> File:
    return File(path, module)


@cache
def _imported(path: Path, module: str) -> tuple[tuple[str, str], ...]:
    """Everything that a file imports, anywhere."""
    return tuple(dict.fromkeys(_file(path, module).imported()))


@cache
def _read(file: File, statement: ast.stmt) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The syntax of a statement, and what it runs on."""
    local = _aliases(statement, file.module, file.path)
    used = (found for chain in sorted(_chains(statement)) for found in file.of(chain, local))
    return ast.dump(statement), tuple(dict.fromkeys(used))


def _in_workbench(module: str) -> bool:
    return module.partition(".")[0] == _WHOLE


@cache
def _is_ours(module: str) -> bool:
    """Whether a module is followed: not the standard library's, nor an installed one's."""
    top = module.partition(".")[0]
    path = file_of(top)
    if top in _INSTALLED_BUT_OURS or path is None:
        return top in _INSTALLED_BUT_OURS or "." in module
    # wherever they were installed: of another environment on the path, of the user, of the system
    if {"site-packages", "dist-packages"} & {*path.parts, *path.resolve().parts}:
        return False
    folders = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return not any(folder in path.resolve().parents for folder in folders)


@cache
def file_of(module: str) -> Path | None:
    """The source of a module; None where the name is not a module (a function, say), or has no source."""
    parent = module.rpartition(".")[0]
    if parent and not _is_ours(module):
        return None  # looking for it would import what it lies in
    if parent and (above := file_of(parent)) is not None and above.name != "__init__.py":
        return None  # a name inside a module
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _aliases(node: ast.AST, module: str, path: Path, *, deep: bool = True) -> dict[str, Target]:
    """What imported names stand for; deep: also of imports inside functions and classes."""
    found: dict[str, Target] = {}
    for part in ast.walk(node) if deep else _outside_functions(node):
        if isinstance(part, ast.Import):
            for alias in part.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = Target(alias.name if alias.asname else top)
        elif isinstance(part, ast.ImportFrom):
            base = _imported_from(part, module, path)
            for alias in part.names:
                found[alias.asname or alias.name] = Target(base, "" if alias.name == "*" else alias.name)
    return found


def _imported_from(node: ast.ImportFrom, module: str, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def _stars(tree: ast.AST, module: str, path: Path) -> tuple[str, ...]:
    """The modules of which a file imports whatever they have."""
    taken = (part for part in _outside_functions(tree) if isinstance(part, ast.ImportFrom))
    return tuple(_imported_from(part, module, path) for part in taken if part.names[0].name == "*")


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _outside_functions(child)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a file binds, or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for part in _outside_functions(statement):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield part.name
        for target in [*getattr(part, "targets", []), *filter(None, [getattr(part, "target", None)])]:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    yield name.id


def _chains(node: ast.AST) -> set[tuple[str, ...]]:
    """Names that are used, with the attributes asked of them: `a.b.c` is ("a", "b", "c")."""
    found: set[tuple[str, ...]] = set()
    waiting: list[ast.AST] = [node]
    while waiting:
        part, after = waiting.pop(), []
        inner = part
        while isinstance(inner, ast.Attribute):
            after.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            found.add((inner.id, *reversed(after)))
        else:
            waiting += ast.iter_child_nodes(part)
    return found


@cache
def _tree(path: Path) -> ast.Module:
    """The syntax of a file without what is there for people: docstrings, titles and help texts; nor what only a type
    checker or a shell runs."""
    tree = parse(path.read_bytes())
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, field, None), list):
                setattr(node, field, [s for s in statements if not _is_text(s) and not _is_guard(s)])
        if isinstance(node, ast.ClassDef):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _PROSE]
        elif isinstance(node, ast.Subscript) and ("Annotated",) in _chains(node.value):
            first, *notes = getattr(node.slice, "elts", [node.slice])
            node.slice = ast.Tuple([first, *(note for note in notes if not _is_string(note))], ast.Load())
    return tree


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and _is_string(statement.value)


def _is_guard(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.If):
        return False
    return bool({chain[-1] for chain in _chains(statement.test)} & {"TYPE_CHECKING", "__name__"})


@cache
def _syntax(path: Path) -> str:
    return digest(ast.dump(_tree(path)))
