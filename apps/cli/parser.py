"""The parser of a command: it says what is wrong in a sentence, and learns its options when it is first used."""

import argparse
import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from workbench.errors import InputError

__all__ = ["Parser"]

_PATHS = ("FILE", "FOLDER", "PATH")  # how the words begin that stand for a path in the help


class _Once(argparse.Action):
    """An option that takes its value once: argparse would take the last of several and drop the others."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string is not None and getattr(self, "_given", None) is namespace:
            raise argparse.ArgumentError(self, "given twice")
        self._given = namespace
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Bad words on the command line are bad input like any other: one sentence, and no page of usage in front of it.

    fill: adds its arguments when it is first used, so that the help of all commands needs nothing that one of them
    needs; it finds the words to parse in `words`. anywhere: the list that words between options belong to as well.
    """

    def __init__(self, *, fill: "Callable[[Parser], None] | None" = None, **options: Any):
        super().__init__(allow_abbrev=False, **options)
        for action in (None, "store"):
            self.register("action", action, _Once)
        self._fill = fill
        self.words: Sequence[str] = ()
        self.anywhere = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As any parser does; InputError for an option that nobody knows."""
        if self._fill is not None:
            fill, self._fill, self.words = self._fill, None, args
            fill(self)
        namespace, others = super().parse_known_args(None if args is None else self._joined(args), namespace)
        unknown = next((word for word in others if word.startswith("-")), None)
        if unknown is not None:
            self._unknown(unknown.partition("=")[0])
        if self.anywhere:
            setattr(namespace, self.anywhere, [*getattr(namespace, self.anywhere), *others])
            others = []
        self._find_home(namespace)
        return namespace, others

    def _find_home(self, namespace: Any) -> None:
        """Paths whose `~` is the home directory: a shell leaves it as it is in `--out=~/result.nc`, and a folder of
        that name would be made, which nobody dares to remove."""
        at_home = lambda value: os.path.expanduser(value) if isinstance(value, str) and value[:2] == "~/" else value
        for action in self._actions:
            if isinstance(action.metavar, str) and action.metavar.startswith(_PATHS):
                given = getattr(namespace, action.dest, None)
                found = list(map(at_home, given)) if isinstance(given, list) else at_home(given)
                setattr(namespace, action.dest, found)

    def _joined(self, words: Sequence[str]) -> list[str]:
        """Words where an option's value that begins with "-" is joined to it: argparse would take it for an option."""
        found: list[str] = []
        for word in words:
            before = self._option_string_actions.get(found[-1]) if found else None
            takes_one = before is not None and before.nargs is None and before.const is None
            is_value = word.startswith("-") and word.partition("=")[0] not in self._option_string_actions
            if takes_one and is_value:
                found[-1] = f"{found[-1]}={word}"
            else:
                found.append(word)
        return found

    def error(self, message: str) -> NoReturn:
        """What argparse calls for anything that it cannot parse."""
        raise InputError(
            f"a command with an error ({message})", f"a command as in `{self.prog} --help`", "Correct the command"
        )

    def _unknown(self, option: str) -> NoReturn:
        known = {name.lstrip("-"): name for name in self._option_string_actions}
        near = [known[name] for name in get_close_matches(option.lstrip("-"), known, n=2)]
        expected = f"one such as {', '.join(near)}" if near else "one of its options"
        raise InputError(f"the option {option}", expected, f"See `{self.prog} --help`")
