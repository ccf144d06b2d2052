"""What is kept in the cache directory between runs: of which kind, how large, of which model; and how it is emptied.

All of it was computed or fetched, and is again when it is next asked for.
"""

import mmap
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from workbench.errors import InputError, UnavailableError, in_words
from workbench.files import cache_dir

__all__ = ["KINDS", "Kept", "empty", "kept"]

# Folders of the cache directory, and what lies in each.
KINDS: Mapping[str, str] = MappingProxyType({
    "results": "results of the page, until newer ones take their room",
    "probes": "trained readout probes",
    "toys": "toys, with the checkpoints of their training",
    "timelines": "what was measured along series of checkpoints",
    "models": "models that were fetched or converted",
    "selfchecks": "self-checks that were passed",
    "digests": "hashes of files",
    "code": "hashes of our own code",
    "descriptions": "texts of the command line",
})  # fmt: skip
_OF_MODELS = ("results", "probes", "toys", "timelines", "models", "selfchecks")
_STAY = (".checks",)  # how many checks were made of a prompt: forgotten, they would make each p look better than it is
_RECORDS = (".nc", ".json", ".jsonl", ".toml")  # files that name the weights that they are about


@dataclass(frozen=True)
class Kept:
    """Files of one kind. about: what they are. where: their folder."""

    kind: str
    about: str
    files: int
    nbytes: int
    where: str


def kept(weights: str | None = None, own: Collection[Path] = (), results: Path | None = None) -> tuple[Kept, ...]:
    """What is kept, by kind; kinds of which there is nothing are left out.

    weights: only what names these (`Identity.weights_hash`), and the folders that are its `own`, without hashes of
    files. It reads the records: about a second for each GB of results. results: where these lie, if not in the cache
    directory.
    """
    found = []
    for kind, folder in _folders(results):
        if weights is not None and kind not in _OF_MODELS:
            continue
        names = lambda entry: weights is None or entry in own or _names(entry, weights.encode())
        sizes = [size for entry in _entries(folder) if names(entry) for size in _sizes(entry)]
        if sizes:
            found.append(Kept(kind, KINDS.get(kind, "files of other versions"), len(sizes), sum(sizes), str(folder)))
    return tuple(found)


def empty(kinds: Sequence[str]) -> tuple[Kept, ...]:
    """Delete what is kept of some kinds; returns what that was.

    Raises InputError for a kind that there is not, UnavailableError where something cannot be deleted.
    """
    folders = dict(_folders(None))
    for kind in kinds:
        if kind not in folders:
            near = get_close_matches(kind, folders, n=1) or list(folders)
            raise InputError(f"{kind!r}, which is not kept", f"one of {', '.join(near)}", "Correct the name")
    gone = tuple(one for one in kept() if one.kind in kinds)
    for kind in kinds:
        for entry in _entries(folders[kind]):
            try:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            except FileNotFoundError:  # whoever else works with it was quicker
                continue
            except OSError as error:
                raise UnavailableError(
                    f"{in_words(error)} at {entry}", "a file that may be deleted", "Delete it as its owner"
                ) from error
    return gone


def _folders(results: Path | None) -> Iterator[tuple[str, Path]]:
    """By kind; behind those that are known what else lies there."""
    here = cache_dir()
    others = sorted(path.name for path in here.iterdir() if path.is_dir()) if here.is_dir() else []
    for kind in dict.fromkeys([*KINDS, *(name for name in others if not name.startswith("."))]):
        yield kind, results if kind == "results" and results is not None else here / kind


def _entries(folder: Path) -> list[Path]:
    """Files and folders that can be deleted one by one; what begins with a dot is somebody's lock, or half-written."""
    with suppress(OSError):
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.suffix not in _STAY)
    return []


def _sizes(entry: Path) -> Iterator[int]:
    for file in [entry] if entry.is_file() else sorted(entry.rglob("*")):
        with suppress(OSError):
            if file.is_file():
                yield file.stat().st_size


def _names(entry: Path, weights: bytes) -> bool:
    """Whether a file, or one in a folder, is a record that names these weights."""
    return any(
        file.suffix in _RECORDS and _holds(file, weights)
        for file in ([entry] if entry.is_file() else sorted(entry.rglob("*")))
    )


def _holds(file: Path, text: bytes) -> bool:
    with suppress(OSError, ValueError), file.open("rb") as stream:  # it is gone, or empty
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ).find(text) >= 0
    return False
