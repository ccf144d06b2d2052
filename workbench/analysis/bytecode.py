"""What a class without a file runs on, read from the running functions: one made in a notebook, a shell or a script."""

import dataclasses
import dis
import functools
import inspect
from types import CodeType, ModuleType
from typing import Any

__all__ = ["named_by"]

_PROSE = ("title", "owner", "name", "definition", "limits", "source", "returns")
_PLAIN = (str, int, float, complex, bool, bytes, type(None), type(...))


def named_by(kind: type) -> tuple[list[Any], list[tuple[str, str]]]:
    """The class as plain values, and (module, name) of what it uses of other modules.

    Functions of its own module are instructions with their constants, defaults and globals, at any depth; docstrings,
    comments and line numbers are not among them.
    """
    reader = _Reader(kind.__module__)
    reader.take(kind)
    return reader.own, sorted(reader.others)


class _Reader:
    def __init__(self, module: str):
        self.module = module
        self.own: list[Any] = []
        self.others: set[tuple[str, str]] = set()
        self._seen: dict[int, Any] = {}  # holds what was seen, so that no id is used twice

    def take(self, value: Any, name: str = "") -> None:
        """Take in a value that is used."""
        if isinstance(value, _PLAIN):
            self.own.append([name, repr(value)])
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        for inner in _wrapped(value):
            self.take(inner, name)
        if inspect.isfunction(value):
            self._function(value)
        elif inspect.isclass(value):
            self._class(value)
        elif isinstance(value, ModuleType):
            self.others.add((value.__name__, "*"))
        elif isinstance(value, tuple | list | set | frozenset):
            for part in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
                self.take(part, name)
        elif isinstance(value, dict):
            for key, part in value.items():
                self.take(part, f"{name}[{key!r}]")
        elif dataclasses.is_dataclass(value):
            self.take(type(value))
            for field in dataclasses.fields(value):
                self.take(getattr(value, field.name), f"{name}.{field.name}")
        else:
            self.take(type(value))

    def _function(self, function: Any) -> None:
        if function.__module__ != self.module:
            self.others.add((function.__module__, function.__qualname__.partition(".")[0]))
            return
        code, where = function.__code__, function.__globals__
        self.own.append([function.__qualname__, _instructions(code)])
        self.take(function.__defaults__, f"{function.__qualname__} defaults")
        self.take(function.__kwdefaults__, f"{function.__qualname__} defaults")
        for cell in function.__closure__ or ():
            self.take(cell.cell_contents, function.__qualname__)
        names = _names(code)
        for name in sorted(names & set(where)):
            self.take(where[name], name)
            home = getattr(where[name], "WHERE", None) if isinstance(where[name], ModuleType) else None
            self.others |= {(home[asked], asked) for asked in names if asked in home} if home else set()

    def _class(self, kind: type) -> None:
        if kind.__module__ != self.module:
            self.others.add((kind.__module__, kind.__qualname__.partition(".")[0]))
            return
        for base in kind.__bases__:
            self.take(base)
        for name, value in vars(kind).items():
            made = getattr(getattr(value, "__code__", None), "co_filename", "") == "<string>"  # by dataclasses
            if name not in _PROSE and not made and (not name.startswith("__") or inspect.isfunction(value)):
                self.take(value, f"{kind.__qualname__}.{name}")


def _wrapped(value: Any) -> list[Any]:
    """Functions inside of what is no function itself: methods, properties, caches."""
    if isinstance(value, property):
        return [part for part in (value.fget, value.fset) if part is not None]
    if isinstance(value, functools.cached_property):
        return [value.func]
    found = [getattr(value, name, None) for name in ("__func__", "__wrapped__")] if not inspect.isclass(value) else []
    return [part for part in found if inspect.isfunction(part)]


def _names(code: CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _instructions(code: CodeType) -> list[Any]:
    """Instructions with what they work on; constants that are code in turn, sets in order."""
    return [[step.opname, _plain(step.argval)] for step in dis.get_instructions(code)]


def _plain(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _instructions(value)
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    return repr(value)
