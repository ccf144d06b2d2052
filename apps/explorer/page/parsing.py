"""Reading what a browser sends as one of the kinds of `state`, or saying in one sentence why it is none."""

from collections.abc import Callable
from reprlib import Repr
from typing import Any

from pydantic import TypeAdapter, ValidationError

from apps.explorer.engine.engine import Engine
from workbench.errors import InputError

__all__ = ["Malformed", "parse", "parser"]

_short = Repr()
_short.maxlevel, _short.maxdict, _short.maxlist, _short.maxstring, _short.maxother = 2, 2, 2, 60, 60


class Malformed(InputError):
    """Something that no page of ours sends."""


def parser(kind: Any, name: str, engine: Engine | None = None) -> Callable[[Any], Any]:
    """What reads values of a kind; see `parse`."""
    adapter = TypeAdapter(kind)

    def read(value: Any) -> Any:
        try:
            return adapter.validate_python(value, context=engine)
        except ValidationError as error:
            raise _malformed(name, error) from None

    return read


def parse(kind: Any, value: Any, name: str = "a value", engine: Engine | None = None) -> Any:
    """The value as one of a kind; Malformed where it is none. engine: whose models and views its names must be.

    name: what the sentence calls it.
    """
    return parser(kind, name, engine)(value)


def _malformed(name: str, error: ValidationError) -> Malformed:
    first = error.errors(include_url=False, include_context=False)[0]
    path = ".".join([name, *(str(part)[:40] for part in first["loc"])])[:200]
    wanted = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removesuffix(".")
    wanted = wanted[:1].lower() + wanted[1:]
    return Malformed(f"{path} = {_short.repr(first['input'])}", wanted, "Load the page again")
