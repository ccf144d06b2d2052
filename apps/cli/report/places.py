"""Where a result and its figures are saved: a file each, or for several analyses a folder each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import InputError
from workbench.files import need_writable
from workbench.storage.endings import ENDINGS, PICTURES, need_ending

__all__ = ["Places", "need_apart"]


def need_apart(written: Sequence[str | None], read: Sequence[str | None] = ()) -> None:
    """Raise InputError where one file is written twice, or is one that is read: what was in it first would be lost."""
    seen = {os.path.realpath(path): f"{path}, which is read" for path in read if path and path != "-"}
    for path in filter(None, written):
        if (place := os.path.realpath(path)) in seen:
            raise InputError(f"{path} as a place to write, and {seen[place]}", "another name", "Choose one")
        seen[place] = f"{path}, which is written, too"


@dataclass(frozen=True)
class Places:
    """What --out and --figure name.

    analyses: where there are several, each is saved under its name in the folders that the options name.
    """

    out: str | None = None
    figure: str | None = None
    analyses: Sequence[str] = ()

    def of_prompts(self, n: int, of_file: bool = False) -> "list[Places]":
        """Where each of n prompts is saved: of several, in the folders that the options name, under its number. So is
        the only one of a file where the options name folders: a file may have one row more tomorrow."""
        if n == 1 and not (of_file and self._names_folders):
            return [self]
        width = len(str(n))
        found = []
        for number in range(1, n + 1):
            name = f"{number:0{width}d}"
            out, figure = (path and str(Path(path) / name) for path in (self.out, self.figure))
            if not self._several:
                out, figure = out and f"{out}.nc", figure and f"{figure}.html"
            found.append(Places(out, figure, self.analyses))
        for option, path in (("--out", self.out), ("--figure", self.figure)):
            if path:
                self._need_folder(option, path, f"{n} prompts")
        return found

    def need_writable(self, read: Sequence[str | None] = ()) -> None:
        """Say what is wrong with them before anything is computed for nothing. Raises InputError.

        read: files that the run reads, which it does not replace.
        """
        need_apart([] if self._several else [self.out, self.figure], read)
        for option, path in (("--out", self.out), ("--figure", self.figure)):
            if path is None:
                continue
            if not path.strip():
                raise InputError(f"{option} without a name", "the path of a file", "Name one")
            if self._several:
                self._need_folder(option, path, f"{len(self.analyses)} analyses")
                need_writable(str(Path(path) / self.analyses[0]))
                continue
            need_writable(path.rstrip("/") if path.rstrip("/").lower().endswith(".zarr") else path)
            need_ending(path, ENDINGS if option == "--out" else PICTURES)

    def _need_folder(self, option: str, path: str, what: str) -> None:
        if Path(path).suffix.lower().removeprefix(".") in {*ENDINGS, *PICTURES} and not os.path.isdir(path):
            raise InputError(
                f"{option} {path} for {what}",
                "a folder, in which each is saved under its name",
                f"Name one, such as {option} results",
            )

    def of(self, name: str) -> tuple[Path | None, Path | None]:
        """Where the result of an analysis goes, and where its figures."""
        ends = ((self.out, ".nc"), (self.figure, ".html"))
        found = [path and Path(path) / f"{name}{end}" if self._several else path and Path(path) for path, end in ends]
        return found[0] or None, found[1] or None

    @property
    def _names_folders(self) -> bool:
        given = [path for path in (self.out, self.figure) if path and path.strip()]
        return not self._several and bool(given) and all(not Path(path).suffix or os.path.isdir(path) for path in given)

    @property
    def _several(self) -> bool:
        return len(self.analyses) > 1
