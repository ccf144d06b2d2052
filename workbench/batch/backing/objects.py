"""A store below an address of an object store, through fsspec: `s3://bucket/run`, and what else it has a driver for.

An object is there whole or not at all, but it cannot be appended to, renamed, or touched; and every look at one is a
request, which takes some hundredths of a second and may fail for a while. So requests go out together where there are
many, what was read is kept as long as its object is the same, and a network that is gone is waited for.
"""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

from workbench.batch.backing.backing import Looks
from workbench.batch.backing.secret import without_secrets
from workbench.errors import InputError, UnavailableError, WorkbenchError, in_words

__all__ = ["Objects"]

_MOST_LEASE = 1 << 16  # bytes
_OUTAGE = 120.0  # seconds that a store which was there is waited for
_AT_ONCE = 16  # requests
_KEPT = 1 << 28  # bytes of objects that were read
_IN_MEMORY = 1 << 26  # bytes of an object that is written without a file of its own
_PIECE = 1 << 22  # bytes of a long object that are read at once
_FINAL = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, TypeError,
          NotImplementedError, ValueError, MemoryError, WorkbenchError)  # fmt: skip

T = TypeVar("T")
U = TypeVar("U")


class _Held(NamedTuple):
    """What was read of an object, as long as it is the same; content: None where there was no room for it."""

    sign: str
    sha256: str
    content: bytes | None


class Objects:
    """A place of an object store, see `Backing`. system: of fsspec, without a cache of listings; root: in it."""

    pause = 2.0

    def __init__(self, system: Any, root: str, address: str):
        self._system, self._root, self.address = system, root.rstrip("/"), address
        self.title = without_secrets(address)
        self._reached = False
        self._lock = threading.Lock()  # of what is held
        self._held: dict[str, _Held] = {}
        self._room = _KEPT

    @property
    def is_private(self) -> bool:
        """Whether it is memory of this process."""
        return "memory" in _protocols(self._system)

    def has(self, name: str) -> bool:
        """See `Backing`."""
        return self._info(name) is not None

    def read(self, name: str, most: int) -> bytes:
        """As it was when its digest was asked for last, where that was kept."""
        with self._lock:
            held = self._held.get(name)
        if held is not None and held.content is not None and len(held.content) <= most:
            return held.content
        content = self._bytes(name, 0, most + 1)
        if len(content) > most:
            raise InputError(f"{self.title}/{name} with over {most:,} bytes", f"at most {most:,}", "Check it")
        return content

    def _bytes(self, name: str, start: int, end: int) -> bytes:
        """A range: drivers ask for the size of a whole object first, which is a request more."""
        try:
            return bytes(self._asked(name, self._range, name, start, end))
        except FileNotFoundError:
            raise self._none(name) from None

    def _range(self, name: str, start: int, end: int) -> bytes:
        try:
            return bytes(self._system.cat_file(self._path(name), start=start, end=end))
        except Exception as error:
            if _status(error) == 416:  # of an object without bytes there is no range
                return b""
            raise

    def _none(self, name: str) -> InputError:
        return InputError(f"no object at {self.title}/{name}", "one", "Check the address")

    def lines(self, name: str) -> Iterator[bytes]:
        """Read piece by piece: of a million prompts they are a gigabyte."""
        info = self._info(name)
        if info is None:
            raise self._none(name)
        begun = b""
        for piece in self._pieces(name, int(info["size"])):
            *whole, begun = (begun + piece).split(b"\n")
            yield from (line + b"\n" for line in whole)
        if begun:
            yield begun

    def _pieces(self, name: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, _PIECE):
            yield self._bytes(name, start, min(start + _PIECE, size))

    def write(self, name: str, parts: Iterable[bytes]) -> None:
        """Made on this machine first: what is broken off half-way is no object."""
        left, content = iter(parts), bytearray()
        for part in left:
            content += part
            if len(content) > _IN_MEMORY:
                return self._write_long(name, chain([bytes(content)], left))
        self._put(name, lambda: self._system.pipe_file(self._path(name), bytes(content)))

    def _write_long(self, name: str, parts: Iterable[bytes]) -> None:
        with tempfile.NamedTemporaryFile(prefix="workbench-") as file:
            try:
                file.writelines(parts)
                file.flush()
            except OSError as error:
                raise UnavailableError(
                    f"{in_words(error)} at {file.name}", "a place for temporary files", "Make room, run again"
                ) from error
            self._put(name, lambda: self._system.put_file(file.name, self._path(name)))

    def _put(self, name: str, put: Callable[[], Any]) -> None:
        self._forget(name)
        try:
            self._asked(name, put)
        except FileNotFoundError as error:
            raise self._unavailable(error, name) from error

    def create(self, name: str, content: bytes) -> bool:
        """By a write that the store refuses where there is an object already. Of two answers one may have been lost:
        then it is ours all the same."""
        try:
            self._asked(name, self._create, name, content)
            return True
        except FileExistsError:
            with suppress(InputError):
                return self._bytes(name, 0, len(content) + 1) == content
            return False
        except FileNotFoundError as error:
            raise self._unavailable(error, name) from error

    def _create(self, name: str, content: bytes) -> None:
        try:
            self._system.pipe_file(self._path(name), content, mode="create")
        except Exception as error:
            if _status(error) in (409, 412):  # "is there", and "is just being created"
                raise FileExistsError(name) from error
            raise

    def delete(self, name: str) -> None:
        """See `Backing`."""
        self._forget(name)
        with suppress(FileNotFoundError):
            self._asked(name, self._system.rm_file, self._path(name))

    def names(self, folder: str) -> list[str]:
        """In one request for a thousand of them."""
        return sorted(self._infos(folder))

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Of what has changed since it was asked last, as the list of objects says; the others are known."""
        infos = self._infos_of(names)
        there = [name for name in names if name in infos]
        found = dict(zip(there, self.each(lambda name: self._digest(name, infos[name]), there), strict=True))
        return {name: digest for name, digest in found.items() if digest}

    def _infos_of(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Of those that are there: of one by itself, of more by the lists of their folders."""
        if len(names) == 1:
            info = self._info(names[0])
            return {} if info is None else {names[0]: info}
        return {
            f"{folder}/{name}" if folder else name: info
            for folder in {name.rpartition("/")[0] for name in names}
            for name, info in self._infos(folder).items()
        }

    def _digest(self, name: str, info: dict[str, Any]) -> str:
        with self._lock:
            held = self._held.get(name)
        if held is not None and held.sign == _sign(info):
            return held.sha256
        found, content = hashlib.sha256(), None
        try:
            if int(info["size"]) <= _IN_MEMORY:
                content = self._bytes(name, 0, int(info["size"]) + 1)
            for piece in self._pieces(name, int(info["size"])) if content is None else (content,):
                found.update(piece)
        except InputError:  # gone meanwhile
            return ""
        self._hold(name, _Held(_sign(info), found.hexdigest(), content))
        return found.hexdigest()

    def _hold(self, name: str, held: _Held) -> None:
        """Keep it, and its content as long as there is room."""
        with self._lock:
            before = self._held.pop(name, None)
            self._room += len(before.content or b"") if before else 0
            fits = len(held.content or b"") <= self._room
            self._held[name] = held if fits else held._replace(content=None)
            self._room -= len(held.content or b"") if fits else 0

    def _forget(self, name: str) -> None:
        with self._lock:
            before = self._held.pop(name, None)
            self._room += len(before.content or b"") if before else 0

    def sign(self, name: str) -> str:
        """What the store says of an object: its tag or number, its size and when it was written."""
        info = self._info(name)
        return "-" if info is None else _sign(info)

    def each(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """Many at once."""
        left = iter(items)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(left, 4 * _AT_ONCE)):
                yield from pool.map(function, some)

    def looks(self, name: str) -> Looks | None:
        """Its line, and the count of beats below."""
        try:
            text = self._asked(name, self._said_by, name)
        except FileNotFoundError:
            return None
        said, _, beats = text.partition("\n")
        return said, beats

    def beat(self, name: str, text: str, n: int) -> None:
        """Written anew with the count. Who took it over at this instant loses it to us, and both compute the same."""
        with suppress(Exception):  # a store that is away for a moment
            if self._said_by(name).partition("\n")[0] == text:
                self._system.pipe_file(self._path(name), f"{text}\n{n}".encode())

    def give_back(self, name: str, text: str) -> None:
        """Where it was taken over, or the store went away, it ends with us."""
        with suppress(Exception):
            if self._said_by(name).partition("\n")[0] == text:
                self._system.rm_file(self._path(name))

    def _said_by(self, name: str) -> str:
        return self._range(name, 0, _MOST_LEASE).decode(errors="replace")

    def take_over(self, name: str, looks: Looks) -> None:
        """Looked at once more: between that and the end of it another may do the same, and both compute the same."""
        if self.looks(name) == looks:
            self.delete(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _info(self, name: str) -> dict[str, Any] | None:
        try:
            info = dict(self._asked(name, self._system.info, self._path(name)))
        except FileNotFoundError:
            return None
        return info if info.get("type") == "file" else None

    def _infos(self, folder: str) -> dict[str, dict[str, Any]]:
        """What the store says of the objects in a folder, by their names in it."""
        place = self._path(folder).rstrip("/")
        try:
            found = self._asked(folder, lambda: self._system.ls(place, detail=True))
        except FileNotFoundError:
            return {}
        files = {str(info["name"]).rpartition("/")[2]: info for info in found if info.get("type") == "file"}
        return {name: info for name, info in files.items() if name}  # some programs make an object for a folder

    def _asked(self, name: str, function: Callable[..., Any], *given: Any) -> Any:
        """A request, made again for a while where the store was there before and is not now.

        Raises what says something of the object (FileNotFoundError, FileExistsError) as it is.
        """
        began, wait = time.monotonic(), 0.5
        with self._said(name):
            while True:
                try:
                    found = function(*given)
                    self._reached = True
                    return found
                except _FINAL as error:
                    if isinstance(error, FileNotFoundError) and _of_bucket(error):
                        raise self._unavailable(error, name) from error
                    self._reached |= isinstance(error, FileNotFoundError | FileExistsError)  # which are answers
                    raise
                except Exception:
                    if not self._reached or time.monotonic() - began + wait > _OUTAGE:
                        raise
                time.sleep(wait)
                wait = min(2 * wait, 15.0)

    @contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """Whatever a driver raises, in a sentence."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, WorkbenchError):
            raise
        except Exception as error:
            raise self._unavailable(error, name) from error

    def _unavailable(self, error: Exception, name: str) -> UnavailableError:
        words = without_secrets(in_words(error), self.address)
        remedy = "Check the address, the credentials and the network; what is finished is kept, and a run goes on"
        if isinstance(error, FileNotFoundError):
            words, remedy = f"no such bucket or container ({words})", "Make it, or correct the address"
        return UnavailableError(f"{words} at {self.title}/{name}", "a store that can be read and written", remedy)


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _sign(info: dict[str, Any]) -> str:
    """Of what drivers say of an object, that which changes with it: its tag, or when it was written."""
    for names in (("etag", "md5", "generation"), ("modified", "mtime", "updated", "created")):
        found = {key: value for key, value in info.items() if value and any(name in key.lower() for name in names)}
        if found:
            when = [getattr(found[key], "timestamp", lambda value=found[key]: value)() for key in sorted(found)]
            return f"{info.get('size')} {when}"
    return f"{info.get('size')}"


def _of_bucket(error: FileNotFoundError) -> bool:
    """Whether not the object is missing but all that it would be in; drivers raise the same for both."""
    said = f"{error} {error.__cause__!r}".lower()
    return any(words in said for words in ("bucket does not exist", "nosuchbucket", "container does not exist"))


def _status(error: BaseException | None) -> int:
    """The HTTP status that a store answered with, 0 where there is none."""
    while error is not None:
        answer = getattr(error, "response", None)
        meta = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        for found in (meta.get("HTTPStatusCode"), *(getattr(error, one, None) for one in ("status", "code"))):
            if isinstance(found, int):
                return found
        error = error.__cause__
    return 0
