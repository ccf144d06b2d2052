"""What a store needs of the place where its files lie.

A name is relative to it, with slashes: "shards/KEY.nc". Every file is there whole or not at all; one process alone can
create a file with `create`. Nothing else is asked of a place, so that a folder and an object store both do.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

__all__ = ["Backing", "Looks"]

T = TypeVar("T")
U = TypeVar("U")
Looks = tuple[str, object]  # what a lease says, and what a heartbeat changes


class Backing(Protocol):
    """A place for the files of one store.

    Where a place cannot be read or written, all of these raise UnavailableError: what, where, what to do.
    """

    @property
    def title(self) -> str:
        """What people call it; no secret stands in it."""

    @property
    def address(self) -> str:
        """What opens it again."""

    @property
    def is_private(self) -> bool:
        """Whether no other process can see it."""

    @property
    def pause(self) -> float:
        """Seconds between two looks at it of one that works: on an object store each takes a request."""

    def has(self, name: str) -> bool:
        """Whether a file is there."""

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a file. Raises InputError where there is none and for more than `most` bytes."""

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file, one at a time. Raises InputError where there is none."""

    def write(self, name: str, parts: Iterable[bytes]) -> None:
        """A file of parts that follow each other, whole and kept or not there at all."""

    def create(self, name: str, content: bytes) -> bool:
        """A file that was not there; False where somebody else has created it."""

    def delete(self, name: str) -> None:
        """Take a file away, where it is there."""

    def names(self, folder: str) -> list[str]:
        """Of the files below a name, without it; none where nothing is."""

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """sha256 of the bytes of those that are there."""

    def sign(self, name: str) -> str:
        """Changes with the bytes of a file; "-" where there is none. It costs no look at them."""

    def each(self, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
        """The function of every item, in their order; several at once where waiting is what takes the time."""

    def looks(self, name: str) -> Looks | None:
        """How a lease looks now; None where there is none."""

    def beat(self, name: str, text: str, n: int) -> None:
        """Make a lease that still says `text` look otherwise; n counts the beats."""

    def give_back(self, name: str, text: str) -> None:
        """Take a lease away that still says `text`."""

    def take_over(self, name: str, looks: Looks) -> None:
        """Take a lease away whose holder is believed dead and that looks as it did then; by one of those who see it."""
