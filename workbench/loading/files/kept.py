"""Folders of models that we made and keep: one writer at a time, sealed with checksums, which are verified when read.

Nothing half-made is ever trusted: work is done in a folder beside its place, sealed with a manifest of the size and
sha256 of every file, and one rename makes it visible. A manifest's word is held against the files each time they are to
be used: small files are hashed then, large ones once for each state (see `digests`).
"""

import contextlib
import errno
import importlib.metadata
import json
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench import memo
from workbench.errors import Note, UnavailableError, in_words
from workbench.files import cache_dir
from workbench.loading.files import digests
from workbench.pauses import whole

__all__ = ["MANIFEST", "alone", "alteration", "manifest", "no_space", "seal", "storage_errors", "tell_damage"]

MANIFEST = "manifest.json"
_LIBRARIES = ("torch", "transformers", "gguf", "safetensors", "tokenizers", "numpy")
_NUMBERED = re.compile(r"\(os error (\d+)\)")

Progress = Callable[[str, float, str], None]


def manifest(place: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where it is missing, unreadable or not of the form that we write."""
    try:
        record = memo.unmarked(json.loads((place / MANIFEST).read_text(encoding="utf-8")))
        sound = all(isinstance(e["bytes"], int) and isinstance(e["sha256"], str) for e in record["files"].values())
        return record if sound and record["files"] and record["source"]["sha256"] and record["format"] else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def alteration(place: Path) -> str | None:
    """What of a folder is not as it was sealed, in words that name the first such file; None where all is.

    Raises UnavailableError for a file of somebody else's that may not be read: it need not be damaged.
    """
    record = manifest(place)
    if record is None:
        return f"{place / MANIFEST} missing or unreadable"
    for name, entry in sorted(record["files"].items()):
        try:
            got = digests.sha256(place / name, cache_dir() / "digests")
        except PermissionError as error:
            raise UnavailableError(
                f"no permission to read {place / name}",
                "a model that this user may read",
                "Ask its owner to change its mode, or set WORKBENCH_CACHE to a directory of yours",
            ) from error
        except OSError as error:
            return f"{place / name}: {error.strerror}"
        if got != entry["sha256"]:
            return f"{place / name}, whose content has changed since it was written"
    here = {file.name for file in place.iterdir() if not file.name.startswith(".")}
    strays = sorted(here - set(record["files"]) - {MANIFEST})
    return f"{place / strays[0]}, a file that was not written with the others" if strays else None


def tell_damage(what: str, progress: Progress | None) -> None:
    """The word with which something damaged is made anew: to whoever follows, else as a Note."""
    note = f"{what}; it is made anew."
    if progress is None:
        warnings.warn(note, Note, stacklevel=2)
    else:
        progress("note", 0.0, note)


def seal(made: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest, and see to it that everything has reached the disk before a rename makes it visible.

    All files get the mode that the umask says: safetensors keeps its own to their owner, and others share the cache.

    about: at least `format` and `source` with its `sha256`.
    """
    files = sorted(file for file in made.iterdir() if file.is_file())
    record = {
        **about,
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": digests.of_bytes(file)} for file in files},
        "converted_with": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
    }
    (made / MANIFEST).write_text(json.dumps(memo.marked(record), indent=2) + "\n", encoding="utf-8")
    mode = (made / MANIFEST).stat().st_mode & 0o777
    for file in (*files, made / MANIFEST):
        file.chmod(mode)
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


@contextlib.contextmanager
def alone(report: Progress, place: Path) -> Iterator[None]:
    """Hold the lock of a place. The system frees it when a process dies, so a killed one blocks nobody."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.parent / f".{place.name}.lock")
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            report("wait", 0.0, f"another process is preparing {place.name}; waiting for it")
    try:
        with whole():
            yield
    finally:
        lock.release()


@contextlib.contextmanager
def storage_errors(nbytes: int, what: str) -> Iterator[None]:
    """Turn errors of storage that a user can act on into sentences. nbytes: what is needed, for `what`."""
    try:
        yield
    except Exception as raised:
        error = _of_the_system(raised)
        if error is None:
            raise
        place = cache_dir()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(f"a full disk under {place}", nbytes, what) from raised
        where = Path(str(error.filename or place))  # it may be a number, of an open file
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            got = f"no permission to write {where} ({error.strerror})"
        elif error.filename and (where.is_relative_to(place) or place.is_relative_to(where)):
            got = f"{in_words(error)} at {where}"  # as where a link leads to a disk that is not there
        else:
            raise
        raise UnavailableError(
            got, f"a directory that can be written, for {nbytes / 1e6:.0f} MB",
            "Set WORKBENCH_CACHE to a directory of yours",
        ) from raised  # fmt: skip


def _of_the_system(error: Exception) -> OSError | None:
    """The system's error behind one that was raised: safetensors carries its number in a text."""
    if isinstance(error, OSError):
        return error if error.errno else None
    from safetensors import SafetensorError

    number = _NUMBERED.search(str(error)) if isinstance(error, SafetensorError) else None
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def no_space(got: str, nbytes: int, what: str) -> UnavailableError:
    """The sentence for a disk that is too small."""
    remedy = "Free some space or set WORKBENCH_CACHE to a directory on another disk"
    return UnavailableError(got, f"{nbytes / 1e6:.0f} MB for {what}", remedy)
