"""Where a result and its figures are saved: a file each, or for several analyses a folder each."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import InputError, UnavailableError

__all__ = ["Places", "need_writable", "write"]


@dataclass(frozen=True)
class Places:
    """What --out and --figure name.

    analyses: where there are several, each is saved under its name in the folders that the options name.
    """

    out: str | None = None
    figure: str | None = None
    analyses: Sequence[str] = ()

    def of_prompts(self, n: int) -> "list[Places]":
        """Where each of n prompts is saved: of several, in the folders that the options name, under its number."""
        if n == 1:
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
            if path and Path(path).suffix:
                raise InputError(
                    f"{option} {path} for {n} prompts",
                    "a folder, in which each has its number",
                    f"Name one, such as {option} results",
                )
        return found

    def need_writable(self) -> None:
        """Say what is wrong with them before anything is computed for nothing."""
        for option, path in (("--out", self.out), ("--figure", self.figure)):
            if not path:
                continue
            if self._several and path.endswith((".nc", ".html")):
                raise InputError(
                    f"{option} {path} for {len(self.analyses)} analyses",
                    "a folder, in which each is saved under its name",
                    f"Name one, such as {option} results",
                )
            need_writable(str(Path(path) / self.analyses[0]) if self._several else path)

    def of(self, name: str) -> tuple[Path | None, Path | None]:
        """Where the result of an analysis goes, and where its figures."""
        ends = ((self.out, ".nc"), (self.figure, ".html"))
        found = [path and Path(path) / f"{name}{end}" if self._several else path and Path(path) for path, end in ends]
        return found[0] or None, found[1] or None

    @property
    def _several(self) -> bool:
        return len(self.analyses) > 1


def need_writable(path: str) -> None:
    """Say before a long run that its result could not be saved."""
    target = Path(path).absolute()
    if target.is_dir():
        raise InputError(f"{path}, a directory", "the path of a file", "Add a file name")
    parent = next(place for place in target.parents if place.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"{path}, where nothing can be written ({error.strerror})", "a place to write", "Choose another path"
        ) from error


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UnavailableError(f"{error.strerror} at {path}", "a place to write", "Choose another path") from error
    finally:
        partial.unlink(missing_ok=True)
