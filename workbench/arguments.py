"""Arguments of what people call, held to what stands behind their names before anything is done with them.

    @fitted()
    def observe(model: Model, prompts: Any, needs: Sequence[Need] = (), *, stop: int | None = None): ...

What does not fit is an InputError that names the argument, in place of a TypeError from somewhere within, or of a value
that is taken for another one. A list may be a tuple, an array or a generator, a whole number numpy's or torch's; texts,
truth values and numbers do not stand for each other. (pydantic, which checks the parameters of analyses, takes either
no list for a tuple or "5" for 5, and looks into the classes of arguments.)
"""

import dataclasses
import inspect
import math
import operator
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge

from workbench.errors import InputError

__all__ = ["argument", "fitted", "hold_fields", "shown"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_WORDS = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a text", NoneType: "None"}
_LISTS = (tuple, list, Sequence, Iterable)
_PLAIN = (str, bytes, int, float, complex, NoneType, list, tuple, set, dict)


def fitted(*own: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Hold the arguments of a function to its annotations. own: those that it looks at itself."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python says best which names there are
            for name, kind in _parameters(function, own).items():
                if name in given.arguments:
                    given.arguments[name] = argument(name, given.arguments[name], kind, f"{function.__name__}()")
            return function(*given.args, **given.kwargs)

        return call

    return decorate


def hold_fields(value: Any, own: Collection[str] = ()) -> None:
    """Hold the fields of a frozen dataclass to their annotations. own: those that it looks at itself."""
    made: Any = type(value)
    for name, kind in _fields(made).items():
        if name not in own:
            object.__setattr__(value, name, argument(name, getattr(value, name), kind, made.__name__))


def argument(name: str, value: Any, kind: Any, of: str) -> Any:
    """A value as an annotation has it. of: what it is an argument of. InputError where it does not fit."""
    try:
        return _fitting(value, kind, name)
    except _Misfit as misfit:
        got = f"{misfit.name}={shown(misfit.value)} of {of}"
        raise InputError(got, _in_words(misfit.kind), "Correct that argument") from None


@cache
def _parameters(function: Callable[..., Any], own: tuple[str, ...]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [name for name, one in inspect.signature(function).parameters.items() if one.kind not in several]
    return {name: hints[name] for name in known if name in hints and name not in own}


@cache
def _fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


class _Misfit(Exception):
    def __init__(self, value: Any, kind: Any, name: str):
        self.value, self.kind, self.name = value, kind, name


def _fitting(value: Any, kind: Any, name: str) -> Any:
    """The value; a list as a tuple, a number as Python's own."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        try:
            found = _fitting(value, parts[0], name)
        except _Misfit as misfit:
            raise misfit if misfit.name != name else _Misfit(value, kind, name) from None
        if any(isinstance(note, Ge) and not found >= note.ge for note in parts[1:]):
            raise _Misfit(value, kind, name)
        return found
    if origin in (Union, UnionType):
        return _of_union(value, kind, name)
    if origin is Literal and isinstance(value, str) and value in parts:
        return value
    if origin is type and isinstance(value, type) and issubclass(value, parts[0]):
        return value
    if origin in _LISTS:
        return _several(value, kind, name)
    if origin is Mapping and isinstance(value, Mapping):
        return {key: _fitting(item, parts[1], f"{name}[{key!r}]") for key, item in value.items()}
    if kind in (int, float):
        return _number(value, kind, name)
    if not _is(value, NoneType if kind is None else origin or kind):
        raise _Misfit(value, kind, name)
    return value


def _is(value: Any, kind: Any) -> bool:
    if kind is Callable:
        return callable(value)
    return (
        kind is not Literal and isinstance(value, kind) and not isinstance(value, type)
    )  # a class has the methods, too


def _of_union(value: Any, kind: Any, name: str) -> Any:
    deeper = None
    for part in get_args(kind):
        try:
            return _fitting(value, part, name)
        except _Misfit as misfit:
            deeper = misfit if misfit.name != name else deeper  # an item of a list says more than the list
    raise deeper or _Misfit(value, kind, name)


def _several(value: Any, kind: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise _Misfit(value, kind, name)
    try:
        found = list(value)
    except TypeError:  # an array without axes
        raise _Misfit(value, kind, name) from None
    return tuple(_fitting(item, get_args(kind)[0], f"{name}[{at}]") for at, item in enumerate(found))


def _number(value: Any, kind: type, name: str) -> Any:
    if type(value).__name__ in ("bool", "bool_") or isinstance(value, str | bytes | bytearray):
        raise _Misfit(value, kind, name)
    try:
        found = operator.index(value) if kind is int else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise _Misfit(value, kind, name) from None
    if kind is float and not math.isfinite(found):
        raise _Misfit(value, kind, name)
    return found


def shown(value: Any) -> str:
    """What was given, short: large values, and those whose text is a page, by their kind."""
    if isinstance(value, _PLAIN):
        return reprlib.repr(value)
    return (
        f"the class {value.__name__}" if isinstance(value, type) else f"{_article(type(value))} {type(value).__name__}"
    )


def _in_words(kind: Any) -> str:
    """What an annotation asks for; a class may say itself what it is called (`in_words`)."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        said = next((note for note in parts[1:] if isinstance(note, str)), "")
        return said or " ".join([_in_words(parts[0]), *(f"from {note.ge} on" for note in parts[1:])])
    if origin in (Union, UnionType):
        return " or ".join(_in_words(part) for part in parts)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in _LISTS:
        return "a list" if parts[0] is Any else f"a list, each item {_in_words(parts[0])}"
    if origin is type:
        return f"a class of {parts[0].__name__}"
    kind = NoneType if kind is None else origin or kind
    if kind is Callable:
        return "a function"
    if kind is Mapping:
        return "a dictionary"
    return str(_WORDS.get(kind) or getattr(kind, "in_words", "") or f"{_article(kind)} {kind.__name__}")


def _article(kind: type) -> str:
    return "an" if kind.__name__[0] in "AEIOU" else "a"
