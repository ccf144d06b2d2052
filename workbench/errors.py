"""Errors a user can act on: what was got, what was expected, what to do.

Every error that reaches a user, in Python, on the command line or on the page, is a `WorkbenchError` and reads as
one or two sentences. Anything else that escapes is a bug of ours.
"""

import errno
import re
import unicodedata
from contextlib import suppress
from functools import partial
from typing import Any

__all__ = [
    "Cancelled",
    "FileError",
    "InputError",
    "LeftOverWarning",
    "ModelError",
    "Note",
    "RefusedError",
    "SlowWarning",
    "UnavailableError",
    "WorkbenchError",
    "in_words",
    "of_the_machine",
    "visible",
]

_ASKED = re.compile(r"([\w-]+).*extra == ['\"](\w+)['\"]")  # a line of what a distribution asks for
_LONGEST_VALUE = 300  # characters of what was got: whoever gave more knows it
_LONGEST_WORDS = 2_000  # of what is expected, which may list names
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, directions, halves of pairs, other ends of lines


def visible(text: str, keep: str = "\n") -> str:
    """A text that no terminal acts on: controls, marks of direction and lone surrogates as their codes.

    keep: those of them that stay. A terminal would take `\\x1b]0;...` as an order, and the text may be anybody's: a
    file's name, a token, what another library says.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _HIDDEN else _code(c) for c in text)


def _code(character: str) -> str:
    point = ord(character)
    return f"\\x{point:02x}" if point <= 0xFF else f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def _phrase(text: str, limit: int) -> str:
    """Part of a sentence: visible, and cut in the middle where it is long."""
    text = visible(text, "\n\t")
    if len(text) <= limit:
        return text
    return f"{text[: limit * 2 // 3]} ... {text[-limit // 4 :]} ({len(text):,} characters)"


def in_words(error: BaseException) -> str:
    """What an error of a library says, as part of a sentence: its first line, and its kind where it says nothing."""
    if isinstance(error, OSError) and error.errno is not None:
        return "no space left on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror)
    if isinstance(error, MemoryError):
        return "out of memory"
    lines = _text(error).strip().splitlines()
    return f"{type(error).__name__}: {_phrase(lines[0].rstrip(' .'), 160)}" if lines else type(error).__name__


def _text(error: BaseException) -> str:
    """What an error says; of one that was given several sentences, which Python prints as a tuple, the first."""
    said = str(error)
    return error.args[0] if error.args and said == str(error.args) and isinstance(error.args[0], str) else said


# Of the allocators, of the loader of libraries, and of the system.
_NO_MEMORY = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "unable to allocate",
    "failed to map segment", "can't start new thread",
)  # fmt: skip
_FULL = "no space left on device"
_OURS = ("workbench", "probes", "apps")  # which nobody installs by themselves


def of_the_machine(error: BaseException) -> "WorkbenchError | None":
    """An error that is the machine's, in a sentence: memory, storage or files that ran out, a library that is not
    installed. None for any other: a bug."""
    said = str(error).lower()
    no_memory = any(words in said for words in _NO_MEMORY) or getattr(error, "errno", None) == errno.ENOMEM
    ours = isinstance(error, WorkbenchError | ValueError | LookupError)  # which quote what was given
    if isinstance(error, MemoryError) or (no_memory and not ours):
        return RefusedError(
            "work that ran out of memory", "enough for it on this device", "Shorten the prompt or ask for less at once"
        )
    if _FULL in said and not ours and not isinstance(error, OSError):  # of what writes files in another language
        return UnavailableError("no space left on the disk", "a place to write", "Free some space")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
        where = f" at {error.filename}" if error.filename else ""
        return UnavailableError(
            f"{in_words(error)}{where}", "a place to write", "Free some space or choose another place"
        )
    if isinstance(error, PermissionError) and error.filename:
        return UnavailableError(
            f"no permission for {error.filename}", "what this user may read and write",
            "Ask its owner; another cache is named by WORKBENCH_CACHE",
        )  # fmt: skip
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing(error.name.partition(".")[0])
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return UnavailableError("too many open files", "room for more", "Close others, or raise the limit (ulimit -n)")
    return None


def _missing(library: str) -> "WorkbenchError | None":
    """A library that is not installed, and what installs it: the extra of ours that asks for it, or its own name."""
    if library in _OURS:
        return None
    from importlib import metadata  # which commands that answer at once do without

    what = library
    with suppress(metadata.PackageNotFoundError):
        for line in metadata.requires("interp-workbench") or ():
            if (found := _ASKED.match(line)) and found[1].replace("-", "_") == library:
                what = f"'interp-workbench[{found[2]}]'"
    return UnavailableError(f"no installed library {library}", "what this needs", f"Install it: pip install {what}")


class WorkbenchError(Exception):
    """Base of all our errors; prints as `Got ...; expected .... What to do.`

    got, expected, remedy: phrases without a final full stop; `remedy` is an imperative sentence. first: the name of an
    analysis to run first, where that is the remedy: the page offers it.
    """

    def __init__(self, got: str, expected: str, remedy: str, *, first: str = ""):
        self.got, self.first = _phrase(got, _LONGEST_VALUE), first
        self.expected, self.remedy = _phrase(expected, _LONGEST_WORDS), _phrase(remedy, _LONGEST_WORDS)
        super().__init__(f"Got {self.got}; expected {self.expected}. {self.remedy}.")

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


class FileError(InputError, UnavailableError):
    """A file that was named is not there, or is not as it was written.

    Bad input to who typed its name, and for that reason exit code 2; an UnavailableError to who needs what is in it.
    """


class Cancelled(WorkbenchError):
    """The user stopped the work; what was finished is kept."""

    def __init__(self, what: str = "a request to stop"):
        super().__init__(what, "the work to run to its end", "Start it again to finish; finished parts are kept")

    def __reduce__(self) -> Any:
        return type(self), ()


class Note(UserWarning):
    """What a user should know of work that is done as asked: one sentence, which the command line prints as a note."""


class LeftOverWarning(Note):
    """Something half-written of a process that was killed was taken away."""


class SlowWarning(Note):
    """What was asked will be done, with the numbers that were asked for, but takes far longer than it had to.

    One sentence; the command line prints it as a note.
    """
