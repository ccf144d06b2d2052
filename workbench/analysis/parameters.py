"""Parameters: typed fields of a frozen value, stated once, checked by pydantic.

    class Entropy(Values):
        draws: Annotated[int, Range(100, 100_000), "bootstrap draws"] = 2000

From the fields come the shell's options, the page's forms, links, keys, specs and documentation (`Values.parameters`).
The first text of an annotation is its help; `Range`, `Choice`, `Slider`, `Position` and `Lines` say more. `T | None`
also takes nothing.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import annotated_types
import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import PydanticCustomError, core_schema

from workbench.arguments import argument, shown
from workbench.errors import InputError

__all__ = ["Choice", "Lines", "OfPrompt", "Parameter", "Position", "Range", "Slider", "Values"]


@dataclass(frozen=True)
class Range(annotated_types.GroupedMetadata):
    """Inclusive ends of a number; None where open. NaN lies in no range."""

    low: float | None = None
    high: float | None = None

    def __iter__(self) -> Iterator[Any]:
        if self.low is not None:
            yield annotated_types.Ge(self.low)
        if self.high is not None:
            yield annotated_types.Le(self.high)


@dataclass(frozen=True)
class Choice:
    """The only values.

    files: beside them, a file or folder of texts or hub:NAME (see `corpora.find_corpus`).
    """

    values: tuple[Any, ...]
    files: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def known(value: Any) -> Any:
            if value is not None and value not in self.values and not self.files:
                raise PydanticCustomError("choice", "not one of them")
            return value

        return core_schema.no_info_after_validator_function(known, handler(source))


@dataclass(frozen=True)
class Slider:
    """Drawn with a slider between these ends."""

    low: float
    high: float


@dataclass(frozen=True)
class Position:
    """A token of the prompt, by its position; of a text, several."""

    dim: str = "pos"


@dataclass(frozen=True)
class Lines:
    """A text of one or more lines, such as a prompt: a form must not take them out."""


@dataclass(frozen=True)
class OfPrompt:
    """Means something beside one prompt only: a part of its text, or a prompt of as many tokens."""


@dataclass(frozen=True)
class Parameter:
    """One field, as the shell, the page and the documentation read it.

    type: int, float, str or bool. low, high: inclusive. choices: the only values. optional: None is allowed too. files:
    beside the choices, files of texts. slider: the ends of its slider on the page; dim: "pos" where it names a token.
    paired: it means something beside one prompt only, see `OfPrompt`. lines: whether a text may have several.
    """

    name: str
    type: type
    default: Any
    help: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False
    files: bool = False
    slider: tuple[float, float] | None = None
    dim: str | None = None
    paired: bool = False
    lines: bool = False
    annotation: Any = dataclasses.field(default=None, repr=False, compare=False)

    def parse(self, text: str) -> Any:
        """A value from the command line or a page's field; InputError with what may stand there."""
        if self.optional and text.strip().lower() in ("", "none"):
            return None
        if self.type is bool:
            known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
            if text.lower() not in known:
                raise InputError(f"{self.name}={text!r}", "true or false", "Correct the value")
            return known[text.lower()]
        try:
            value = self.type(text)
        except ValueError:
            raise self.refused(text) from None
        return self.check(value)

    def is_of_prompt(self, value: Any) -> bool:
        """Whether a value says nothing of another prompt: it names a token by its place from the start (what counts
        from the end does in both), or belongs to the prompt's own text."""
        if value is None or value == self.default:
            return False
        return self.paired or (self.dim is not None and re.search(r"(?<![-\d])\d", str(value)) is not None)

    def check(self, value: Any) -> Any:
        """The value, if it may be used; InputError with the range otherwise."""
        try:
            return _adapter(self.annotation).validate_python(_own(value), strict=True)
        except ValidationError:
            raise self.refused(value) from None

    def refused(self, value: Any) -> InputError:
        """What is wrong with a value, and what may stand in its place."""
        value = _own(value)
        fits = isinstance(value, self.type) and not (self.type is not bool and isinstance(value, bool))
        fits = fits or (self.type is float and type(value) is int)
        if fits and self.choices:
            named = ", ".join(map(str, self.choices))
            return InputError(f"{self.name}={value!r}", f"one of {named}", "Choose one of these")
        if fits and self.type is float and not math.isfinite(value) and value not in (self.low, self.high):
            return InputError(f"{self.name}={value!r}", "a finite number", "Correct the value")
        if fits and self.type in (int, float):
            span = f"{'any' if self.low is None else self.low} to {'any' if self.high is None else self.high}"
            return InputError(f"{self.name}={value!r}", f"a value in the range {span}", "Correct the value")
        return InputError(f"{self.name}={value!r}", f"a value of type {self.type.__name__}", "Correct the value")


def _own(value: Any) -> Any:
    """A number or text of numpy's as Python's own: places come from `argwhere`, and are the same places."""
    return value.item() if isinstance(value, np.generic) else value


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=_CONFIG)


_CONFIG = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Values:
    """A frozen value whose annotated fields are its parameters. Subclasses need no decorator.

    InputError, when the class is made, for a field without a default, one whose default may not be used, and one that
    is no int, float, str or bool.
    """

    owner: ClassVar[str] = ""  # what an error calls it

    def __init_subclass__(cls, **more: Any):
        super().__init_subclass__(**more)
        checked_dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)
        plain = cls.__init__

        def checked(self: Any, *arguments: Any, **given: Any) -> None:
            names = [field.name for field in dataclasses.fields(type(self))]  # without what belongs to the class
            if arguments:
                named = ", ".join(f"{name}=" for name in names) or "none"
                got = f"{shown(arguments[0])} of {type(self).__name__} without a name"
                raise InputError(got, f"parameters by name: {named}", "Name it")
            unknown = [name for name in given if name not in names]
            if unknown:
                raise type(self)._unknown(unknown[0])
            try:
                plain(self, **{name: _own(value) for name, value in given.items()})
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False)[0]
                known = {parameter.name: parameter for parameter in type(self).parameters()}
                raise known[str(first["loc"][0])].refused(given[str(first["loc"][0])]) from None

        init: Any = checked
        init.__signature__ = plain.__signature__ if hasattr(plain, "__signature__") else None
        cls.__init__ = init  # type: ignore[method-assign]  # pydantic's own stays inside: ours says what is wrong
        for parameter in cls.parameters():
            if parameter.default is dataclasses.MISSING:
                raise InputError(
                    f"the parameter {parameter.name!r} of {cls.__name__} without a default",
                    "one, so that it can be run as it is",
                    "Write it behind the type",
                )
            parameter.check(parameter.default)

    @classmethod
    def _unknown(cls, name: str) -> InputError:
        known = ", ".join(parameter.name for parameter in cls.parameters()) or "none"
        return InputError(
            f"the parameter {name!r} for {cls.owner or cls.__name__}", f"one of {known}", "Correct the name"
        )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The value of a mapping, defaults filled in; InputError for unknown names and bad values."""
        return cls(**argument("given", given, Mapping[str, Any], f"{cls.__name__}.of()"))

    @classmethod
    def parameters(cls) -> tuple[Parameter, ...]:
        """Its fields, in their order."""
        hints = get_type_hints(cls, include_extras=True)
        # (ignored: every subclass is a dataclass, by __init_subclass__, which mypy does not follow)
        return tuple(_parameter(field, hints[field.name]) for field in dataclasses.fields(cls))  # type: ignore[arg-type]

    def values(self) -> dict[str, Any]:
        """Its parameters by name."""
        # (ignored: every subclass is a dataclass, by __init_subclass__, which mypy does not follow)
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def replaced(self, **changes: Any) -> Self:
        """The same with other values of some parameters."""
        return type(self)(**{**self.values(), **changes})


def _parameter(field: dataclasses.Field[Any], annotation: Any) -> Parameter:
    plain: Any = annotation
    notes: list[Any] = []
    if get_origin(annotation) is Annotated:
        plain, *notes = get_args(annotation)
    optional = get_origin(plain) in (Union, UnionType) and NoneType in get_args(plain)
    if optional:
        (plain,) = (part for part in get_args(plain) if part is not NoneType)
    choices: tuple[Any, ...] = ()
    if get_origin(plain) is Literal:
        choices = get_args(plain)
        plain = type(choices[0])
    if plain not in (int, float, str, bool):
        raise InputError(
            f"the parameter {field.name!r} of type {plain}", "int, float, str or bool", "Write it as a text"
        )
    of = lambda kind: next((note for note in notes if isinstance(note, kind)), None)
    bounds, choice, slider, position = of(Range), of(Choice), of(Slider), of(Position)
    return Parameter(
        field.name,
        plain,
        field.default,
        of(str) or "",
        bounds.low if bounds else None,
        bounds.high if bounds else None,
        choice.values if choice else choices,
        optional,
        choice.files if choice else False,
        (slider.low, slider.high) if slider else None,
        position.dim if position else None,
        of(OfPrompt) is not None,
        of(Lines) is not None,
        annotation,
    )
