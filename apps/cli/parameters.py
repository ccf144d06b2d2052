"""Parameters of analyses as options: `--window 5`, or `--param window=5`, or of one analysis only
`--param attention-knockout.window=5`.

All three are checked by the analyses' own fields and reach every analysis that has such a parameter.
"""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.cli.progress import say
from workbench.analysis.kinds import Analysis
from workbench.analysis.parameters import Parameter, Values
from workbench.analysis.view import View
from workbench.errors import InputError

__all__ = ["Asked", "add_parameters", "asked", "option"]


@dataclass(frozen=True)
class Asked:
    """One analysis that is to be run, and how its result is drawn."""

    view: View
    analysis: Analysis
    display: Values


def option(parameter: Parameter) -> str:
    """Its name on the command line."""
    return f"--{parameter.name.replace('_', '-')}"


def add_parameters(parser: argparse.ArgumentParser, views: Sequence[View]) -> None:
    """An option for each parameter of these analyses; a name that the command has already is left to --param."""
    for same in _by_name(views).values():
        is_flag = all(parameter.type is bool for parameter in same)
        names = [option(same[0])] + ([f"--no-{option(same[0])[2:]}"] if is_flag else [])
        with contextlib.suppress(argparse.ArgumentError):
            parser.add_argument(*names, action=_Given, nargs=0 if is_flag else None, help=argparse.SUPPRESS)


class _Given(argparse.Action):
    """Notes a parameter as --param does."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        value = str(not str(option_string).startswith("--no-")).lower() if self.nargs == 0 else values
        namespace.param = [*namespace.param, f"{self.option_strings[0][2:]}={value}"]


def asked(views: Sequence[View], given: Sequence[str], more: Mapping[str, str] | None = None) -> list[Asked]:
    """What was asked for, from texts such as "top_k=5"; says where a result must be finer than that. more: values that
    come with a prompt, of every analysis that takes them."""
    values: dict[str, dict[str, Any]] = {view.name: {} for view in views}
    for name, value in (more or {}).items():
        takers = [view for view in views if any(one.name == name for one in view.analysis.parameters())]
        if value and not takers:
            raise InputError(f"{name}={value!r} with a prompt", f"an analysis that takes {name}", "Name another one")
        for view in takers if value else ():
            values[view.name][name] = value
    for text in given:
        named, equals, value = text.partition("=")
        owner, _, name = named.strip().rpartition(".")
        name = name.replace("-", "_")
        if not equals:
            raise InputError(f"--param {text}", "name=value", "Write for example --param seed=1")
        for view, parameter in _takers(views, owner, name):
            if name in values[view.name]:
                raise InputError(f"the parameter {name} twice", "one value for each parameter", "Leave one out")
            values[view.name][name] = parameter.parse(value)
    return [_asked(view, values[view.name]) for view in views]


def _takers(views: Sequence[View], owner: str, name: str) -> list[tuple[View, Parameter]]:
    """The analyses that have a parameter of that name, owner or all; InputError where none has."""
    meant = [view for view in views if owner in ("", view.name)]
    if not meant:
        raise InputError(
            f"a parameter of {owner!r}", f"one of {', '.join(view.name for view in views)}", "Correct the name"
        )
    found = [(view, parameter) for view in meant for parameter in _parameters(view) if parameter.name == name]
    if not found:
        known = ", ".join(_by_name(meant)) or "none"
        whom = ", ".join(view.name for view in meant)
        raise InputError(f"the parameter {name!r} for {whom}", f"one of {known}", "Correct the name")
    return found


def _asked(view: View, values: dict[str, Any]) -> Asked:
    analysis, display = view.split(values)
    drawn = {parameter.name for parameter in view.display_parameters}
    plain = view.analysis.of({name: value for name, value in values.items() if name not in drawn}).values()
    for name, value in analysis.values().items():
        if value != plain[name]:
            say(f"Note: {name}={value:g}, so that the result holds what is to be drawn.")
    return Asked(view, analysis, display)


def _parameters(view: View) -> Iterator[Parameter]:
    yield from view.analysis.parameters()
    yield from view.display_parameters


def _by_name(views: Sequence[View]) -> dict[str, list[Parameter]]:
    found: dict[str, list[Parameter]] = {}
    for view in views:
        for parameter in _parameters(view):
            found.setdefault(parameter.name, []).append(parameter)
    return found
