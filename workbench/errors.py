"""Errors a user can act on: what was got, what was expected, what to do.

Every error that reaches a user, in Python, on the command line or on the page, is a `WorkbenchError` and reads as
one or two sentences. Anything else that escapes is a bug of ours.
"""

from functools import partial
from typing import Any

__all__ = ["Cancelled", "InputError", "ModelError", "RefusedError", "SlowWarning", "UnavailableError", "WorkbenchError"]


class WorkbenchError(Exception):
    """Base of all our errors; prints as `Got ...; expected .... What to do.`

    got, expected, remedy: phrases without a final full stop; `remedy` is an imperative sentence. first: the name of an
    analysis to run first, where that is the remedy: the page offers it.
    """

    def __init__(self, got: str, expected: str, remedy: str, *, first: str = ""):
        self.got, self.expected, self.remedy, self.first = got, expected, remedy, first
        super().__init__(f"Got {got}; expected {expected}. {remedy}.")

    def __reduce__(self) -> Any:
        return partial(type(self), first=self.first), (self.got, self.expected, self.remedy)


class InputError(WorkbenchError, ValueError):
    """The user's input does not fit: the command line leaves with exit code 2."""


class UnavailableError(WorkbenchError):
    """Something that is needed cannot be had: a file, the network, a library, a port."""


class RefusedError(WorkbenchError):
    """We could compute a number but it would be wrong: an assumption failed, or memory would run out."""


class ModelError(InputError, RefusedError, UnavailableError):
    """The model that was named or given cannot be taken: its files are not whole, or its numbers would be wrong.

    Bad input to who typed its name, and for that reason exit code 2; an UnavailableError and a RefusedError to who
    asks for either.
    """


class Cancelled(WorkbenchError):
    """The user stopped the work; what was finished is kept."""

    def __init__(self, what: str = "a request to stop"):
        super().__init__(what, "the work to run to its end", "Start it again to finish; finished parts are kept")

    def __reduce__(self) -> Any:
        return type(self), ()


class SlowWarning(UserWarning):
    """What was asked will be done, with the numbers that were asked for, but takes far longer than it had to.

    One sentence; the command line prints it as a note.
    """
