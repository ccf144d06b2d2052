"""How many checks were made of a prompt, over calls, windows and restarts: each makes a small p among them likelier."""

import logging
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from apps.explorer.engine.cache import check_key

__all__ = ["Tally"]


class Tally:
    """Keys of the checks of every prompt; about: the key of its states, which names model, tokens and interventions.

    In a directory a prompt has a file with one key a line, to which several explorers may add.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self._kept: dict[str, set[str]] = defaultdict(set)

    def add(self, about: str, key: str) -> None:
        """Count a check; one that was made before counts once."""
        if check_key(key) in self.of(about):
            return
        self._kept[about].add(key)
        if self.directory is not None:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                with self._file(about).open("a", encoding="utf-8") as lines:
                    lines.write(f"\n{key}\n")  # behind a line that was torn, and apart from its neighbours
            except OSError as error:
                logging.getLogger("workbench.explorer").warning("checks are counted in memory only: %s", error)

    def of(self, about: str) -> frozenset[str]:
        """The checks that were made."""
        found = self._kept[check_key(about)]
        if self.directory is not None:
            with suppress(OSError):  # no check yet, or another user's file that only its owner may read
                # What was damaged still counts as a check: fewer would make the others look better than they are.
                found |= set(self._file(about).read_text(encoding="utf-8", errors="replace").split())
        return frozenset(found)

    def _file(self, about: str) -> Path:
        assert self.directory is not None
        return self.directory / f"{about}.checks"
