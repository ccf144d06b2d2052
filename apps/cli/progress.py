"""What is said on stderr while a command works: sentences, and one line of progress."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from apps.cli.startup import need_surroundings, uncollected
from workbench.errors import Note, visible

__all__ = ["Progress", "loading", "progress", "say", "warnings_as_notes"]

Report = Callable[[str, float, str], None]

_ERASE = "\r\x1b[2K"
_LONG = ("wait", "download", "convert")  # stages that a log gets a line of


def say(text: str) -> None:
    """A sentence on stderr, in which the terminal finds no order."""
    _show(visible(text) + "\n")


def _show(text: str) -> None:
    """Written to stderr. A terminal that went away, or a log on a full disk, stops no work and loses no result."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:  # there is nobody to say it to
        return


class Progress:
    """Called with (stage, share, text).

    On a terminal one line that is rewritten; elsewhere a line per stage of what takes long (fetching and converting a
    model). The stage "note" is a sentence that stays, in both.
    """

    def __init__(self) -> None:
        self._terminal, self._drawn = sys.stderr.isatty(), False
        self._told: set[str] = set()

    def __call__(self, stage: str, share: float, text: str) -> None:
        if stage == "note":
            self.clear()
            say(f"Note: {text}")
        elif self._terminal:
            bar = "#" * round(20 * share)
            _show(f"{_ERASE}[{bar:<20}] {visible(text[:90], '')}")
            self._drawn = True
        elif stage in _LONG and stage not in self._told:
            self._told.add(stage)
            say(text)

    @property
    def drawn(self) -> bool:
        """Whether its line is on the terminal."""
        return self._drawn

    def clear(self) -> None:
        """Take the line away, before something else is printed."""
        if self._drawn:
            _show(_ERASE)
            self._drawn = False


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Progress while something is done; its line is taken away afterwards. RefusedError where nothing can be."""
    need_surroundings()
    report = Progress()
    try:
        yield report
    finally:
        report.clear()


@contextlib.contextmanager
def loading(name: str) -> Iterator[Progress]:
    """Progress while a model is loaded, from before the libraries that load it are imported."""
    with progress() as report, warnings_as_notes(report), uncollected():
        report("load", 0.0, f"loading {name}")
        yield report


@contextlib.contextmanager
def warnings_as_notes(report: Report) -> Iterator[None]:
    """Our own warnings are one sentence, without a file and a line; other libraries' are shown as ever."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Note):
                report("note", 0.0, str(message))
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        warnings.simplefilter("always", Note)  # whatever PYTHONWARNINGS says: a note never stops a command
        yield
