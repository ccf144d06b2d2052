"""A store in a folder of this machine, or in one that many machines see.

A file is written under a temporary name, fsynced and renamed. No link is followed and nothing but a regular file is
read: a store may be anybody's.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from workbench.batch.backing.backing import Looks
from workbench.errors import InputError, UnavailableError, in_words
from workbench.files import read_whole, regular_file, whole_file

__all__ = ["Folder"]

_MOST = 1 << 16  # bytes of a lease
_MOVED = ("shards",)  # what a user may have put on a larger disk, behind a link

T = TypeVar("T")
U = TypeVar("U")


class Folder:
    """A folder that holds a store, see `Backing`."""

    is_private, pause = False, 0.0

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def title(self) -> str:
        """Its path as it was given."""
        return str(self.folder)

    @property
    def address(self) -> str:
        """The same."""
        return str(self.folder)

    def path(self, *names: str) -> Path:
        """A file of the store. Raises InputError where a link lies: it may lead to any file of this machine."""
        path = self.folder
        for part in [part for name in names for part in name.split("/")]:
            path = path / part
            if part not in _MOVED and path.is_symlink():
                raise InputError(
                    f"{path}, which is a link", "a file of the store", "Put the file there, or take it away"
                )
        return path

    def has(self, name: str) -> bool:
        """Whether something is there, see `Backing`."""
        path = self.path(name)
        try:
            return path.exists()
        except OSError as error:
            raise _unavailable(error, path) from error

    def read(self, name: str, most: int) -> bytes:
        """See `Backing`."""
        return read_whole(self.path(name), most)

    def lines(self, name: str) -> Iterator[bytes]:
        """See `Backing`."""
        with regular_file(self.path(name)) as file:
            yield from file

    def write(self, name: str, parts: Iterable[bytes]) -> None:
        """Written under another name, on the disk, renamed."""
        with whole_file(self.path(name)) as partial, open(partial, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())  # a full disk may say so only here

    def create(self, name: str, content: bytes) -> bool:
        """Whole: on a full disk a file could be created and not be written."""
        path = self._lease(name)  # nothing is created through a link
        try:
            path.parent.mkdir(exist_ok=True)  # not its parents: they are there, or the store is gone
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        except FileExistsError:
            return False
        except OSError as error:
            raise _unavailable(error, path) from error
        return True

    def delete(self, name: str) -> None:
        """See `Backing`."""
        self.path(name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """See `Backing`."""
        place = self.path(folder)
        try:
            return sorted(os.listdir(place))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unavailable(error, place) from error

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Read one after the other: of a disk several readers get no more."""
        found = {name: self._digest(self.path(name)) for name in names}
        return {name: digest for name, digest in found.items() if digest}

    def _digest(self, path: Path) -> str:
        if not path.exists():
            return ""
        try:
            with regular_file(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except InputError as error:
            raise UnavailableError(error.got, "a store that can be read", "Check the disk") from error

    def sign(self, name: str) -> str:
        """Its size and when it was written."""
        try:
            found = os.stat(self.path(name))
        except FileNotFoundError:
            return "-"
        return f"{found.st_size}.{found.st_mtime_ns}"

    def each(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """One after the other."""
        return map(function, items)

    def looks(self, name: str) -> Looks | None:
        """What it says and when it was touched; something is there, too, where it is a link or says nothing."""
        path = self._lease(name)
        try:
            return _text(path), path.lstat().st_mtime_ns
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(error, path) from error

    def beat(self, name: str, text: str, n: int) -> None:
        """Its time is a counter, not a time. A store may be away for a moment."""
        with suppress(OSError, ValueError):
            path = self._lease(name)
            if path.read_text(encoding="utf-8").startswith(text):
                os.utime(path, ns=(n, n))

    def give_back(self, name: str, text: str) -> None:
        """Where it was taken over, or the store went away, it ends with us."""
        with suppress(OSError, ValueError):
            path = self._lease(name)
            if path.read_text(encoding="utf-8") == text:
                path.unlink()

    def take_over(self, name: str, looks: Looks) -> None:
        """Renamed first: one alone can do that."""
        path = self._lease(name)
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            os.rename(path, aside)
            aside.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unavailable(error, path) from error

    def _lease(self, name: str) -> Path:
        """Not as `path`: a link that lies there is a lease that nobody holds, and is taken away as one."""
        folder, _, file = name.rpartition("/")
        return self.path(folder) / file


def _unavailable(error: OSError, path: Path) -> UnavailableError:
    return UnavailableError(f"{in_words(error)} at {path}", "a store that can be written", "Check the disk, run again")


def _text(path: Path) -> str:
    """What a lease says; "" for what is none. Raises FileNotFoundError where it was given back."""
    path.lstat()
    try:
        return read_whole(path, _MOST).decode()
    except ValueError:  # of no file that is one, or of no text
        return ""
