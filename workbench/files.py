"""Files that are there whole or not at all, with what they were when they were written; and where ours are kept."""

import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader
from pathlib import Path

import platformdirs

from workbench.errors import InputError, LeftOverWarning, UnavailableError, in_words, visible

__all__ = [
    "at_home",
    "at_once",
    "cache_dir",
    "clear_partials",
    "need_file_name",
    "need_unprotected",
    "need_writable",
    "read_whole",
    "regular_file",
    "sealed",
    "unsealed",
    "whole_file",
    "write_whole",
]

_PARTIAL = re.compile(r"^\.(?:.*\.)?([0-9a-f]{8})-(\d+)\.[0-9a-f]{8}\.part$", re.DOTALL)
_NAMED = 64  # bytes of a file's name that its half-written form has too: a name may be as long as the system allows
_OLD = 86_400.0  # seconds after which nobody writes a file any more, whatever process has its number
_SEAL = re.compile(rb"\nworkbench sha256 ([0-9a-f]{64})\n\Z")
_SEAL_BYTES = len(b"\nworkbench sha256 \n") + 64


def cache_dir() -> Path:
    """Where we keep what we made: WORKBENCH_CACHE, else the platform's cache directory of the user.

    Raises UnavailableError where there is neither.
    """
    chosen = os.environ.get("WORKBENCH_CACHE")
    if chosen:
        return at_home(chosen).absolute()
    with suppress(RuntimeError):  # some versions raise it where others answer "~"
        usual = Path(platformdirs.user_cache_dir("interp-workbench"))
        if usual.is_absolute():  # a folder called "~" would be made wherever the user stands
            return usual
    raise UnavailableError("a user without a home directory", "a place for the cache", "Set WORKBENCH_CACHE or HOME")


def at_home(path: str | Path) -> Path:
    """A path whose `~` is the home directory; as it is where there is no such one."""
    return Path(os.path.expanduser(path))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write to, which becomes the file at `path` at the end of the block.

    What is interrupted leaves no file that a later run would trust. Folders are made; a link is written through. Raises
    InputError where something is there that is no file, UnavailableError where nothing can be written. What a killed
    process of ours left half-written in the folder goes; a LeftOverWarning says so.
    """
    try:
        target = _target(path)
        partial = target.with_name(_partial_name(target))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, target)
        finally:
            with suppress(OSError):  # a folder that could not be made holds no half-written file
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    except OSError as error:
        raise UnavailableError(f"{in_words(error)} at {path}", "a place to write", "Choose another path") from error
    if gone := clear_partials(target.parent):  # behind the work: where warnings are errors, nothing is lost
        warnings.warn(_left_over(gone, target.parent), LeftOverWarning, stacklevel=3)


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all, with the mode that the umask says. Errors as `whole_file`."""
    with whole_file(path) as partial, open(partial, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a full disk may say so only here
    return path


@contextmanager
def regular_file(path: Path) -> Iterator[BufferedReader]:
    """A file to read from.

    Raises InputError where there is none, where it is no regular file (a device or a pipe may never end), or where it
    cannot be read, then or in the block.
    """
    _need_path(path)
    try:
        with open(path, "rb", opener=at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise InputError(f"{path}, which is {_kind(mode)}", "a file", "Check the path")
            yield file
    except FileNotFoundError:
        raise InputError(f"no file at {path}", "a file", "Check the path") from None
    except OSError as error:
        raise InputError(f"{in_words(error)} at {path}", "a file that can be read", "Check the path") from error


def at_once(path: str, flags: int) -> int:
    """An `opener` that does not wait for whoever writes to a pipe: one that nobody writes to is empty."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "set_blocking"):
        os.set_blocking(descriptor, True)  # who reads it waits for what is being written
    return descriptor


def read_whole(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises InputError as `regular_file`, and where it has more than `most` bytes."""
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InputError(f"{path} with {size:,} bytes", f"at most {most:,}", "Check the path")
        return file.read(size)  # not `most`: so much would be taken at once


def sealed(content: bytes, name: str = "") -> bytes:
    """The content with its sha256 behind it, which netCDF's readers pass over.

    name: what it is kept under; under another one it is not as it was written.
    """
    return content + b"\nworkbench sha256 " + _seal(content, name) + b"\n"


def unsealed(content: bytes, name: str = "") -> tuple[bytes, bool | None]:
    """The content without its seal, and whether it is as it was written: None where it has no seal."""
    found = _SEAL.search(content, max(0, len(content) - _SEAL_BYTES))
    if found is None:
        return content, None
    bare = content[: found.start()]
    return bare, _seal(bare, name) == found[1]


def _seal(content: bytes, name: str) -> bytes:
    digest = hashlib.sha256(content)
    digest.update(name.encode())
    return digest.hexdigest().encode()


def need_file_name(path: str | os.PathLike[str]) -> None:
    """Raise InputError for a text that names a folder, `r.nc/`, which as a path has lost its end, or an address, which
    would be a folder called `s3:`."""
    text = str(path)
    if "://" in text:
        raise InputError(f"{text}, an address", "the path of a file of this machine", "Save it here, and copy it there")
    if text.endswith(("/", "/.", os.sep, f"{os.sep}.")):
        raise InputError(f"{text}, a directory", "the path of a file", "Take the end off, or add a file name")


def need_writable(path: str | Path) -> None:
    """Say before a long run that its result could not be saved. Raises InputError."""
    need_file_name(path)
    need_unprotected(path)
    try:
        target = _target(Path(path))
        parent = next(place for place in target.parents if place.exists())
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"{path}, where nothing can be written ({in_words(error)})", "a place to write", "Choose another path"
        ) from error


def need_unprotected(path: str | Path) -> None:
    """Raise InputError for a file that somebody protected from being written: whoever may write to its folder could
    replace it all the same."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # none there, or no path: whoever writes says so
        return
    if stat.S_ISREG(mode) and (not mode & 0o222 or not os.access(path, os.W_OK)):
        raise InputError(
            f"{path}, which is protected from being written", "a new name, or a file that may be replaced",
            "Choose another path, or allow it (chmod u+w)",
        )  # fmt: skip


def clear_partials(folder: Path) -> tuple[str, ...]:
    """Take away what processes that were killed left half-written in a folder; returns the names.

    Only what has our form of name, is this user's, and was written from this machine by a process that is no more, or a
    day ago.
    """
    gone = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PARTIAL.match(entry.name)
            if found is None:
                continue
            with suppress(OSError):  # somebody else was quicker
                state = entry.stat(follow_symlinks=False)
                if hasattr(os, "getuid") and state.st_uid != os.getuid():
                    continue
                dead = found[1] == _machine() and not _lives(int(found[2]))
                if dead or time.time() - state.st_mtime > _OLD:
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
                    gone.append(entry.name)
    return tuple(sorted(gone))


def _left_over(names: Sequence[str], folder: Path) -> str:
    what = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} others"
    return (
        f"{visible(what)} was taken away from {visible(str(folder))}: a process that was killed left it half-written."
    )


@cache
def _machine() -> str:
    """8 hex digits of where numbers of processes mean something: this machine, or this container on it."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # only Linux has it
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _lives(process: int) -> bool:
    if os.name != "posix":  # os.kill(n, 0) ends a process elsewhere
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _need_path(path: Path) -> None:
    """Raise InputError for what no system has as a path: a NUL, or half a character."""
    try:
        wrong = "a NUL" if "\0" in str(path) else ""
        os.fsencode(path)
    except UnicodeEncodeError:
        wrong = "half a character"
    if wrong:
        raise InputError(f"a path with {wrong} in it", "the path of a file", "Choose another path")


def _target(path: Path) -> Path:
    """The file that is written: behind a link, the one that it names. InputError for what is no file."""
    _need_path(path)
    target = Path(os.path.realpath(path))
    name_bytes = len(os.fsencode(target.name))
    if name_bytes > 255:
        raise InputError(f"a file name of {name_bytes} bytes ({path})", "at most 255", "Choose a shorter name")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if str(path).endswith(("/", os.sep)):
            raise InputError(f"{path}, a directory", "the path of a file", "Add a file name") from None
        return target
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}, {_kind(mode)}", "the path of a file", "Choose another path")
    return target


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    )  # fmt: skip
    return next((name for is_kind, name in kinds if is_kind(mode)), "no regular file")


def _partial_name(target: Path) -> str:
    name = os.fsdecode(os.fsencode(target.name)[:_NAMED])
    return f".{name}.{_machine()}-{os.getpid()}.{secrets.token_hex(4)}.part"
