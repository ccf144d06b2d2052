"""Token ids of many prompts, four bytes each: as tuples of Python's numbers they would take ten times as much."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

__all__ = ["Packed"]


class Packed(Sequence[tuple[int, ...]]):
    """Rows of token ids behind each other. Raises ValueError for an id that no vocabulary has."""

    def __init__(self, rows: Iterable[Iterable[int]] = ()) -> None:
        self._flat, self._ends = array("i"), array("q", [0])
        for row in rows:
            self.append(row)

    def append(self, row: Iterable[int]) -> None:
        """One row more."""
        try:
            self._flat.extend(row)
        except OverflowError as error:
            raise ValueError(str(error)) from error
        self._ends.append(len(self._flat))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> "Packed": ...
    def __getitem__(self, index: "int | slice") -> "tuple[int, ...] | Packed":
        if isinstance(index, slice):
            return Packed(self[i] for i in range(*index.indices(len(self))))
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(index)
        return tuple(self._flat[self._ends[at] : self._ends[at + 1]])

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and (self._flat, self._ends) == (other._flat, other._ends)

    def length(self, row: int) -> int:
        """Tokens of a row."""
        return self._ends[row + 1] - self._ends[row]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [self.length(row) for row in range(len(self))]

    @property
    def n_tokens(self) -> int:
        """Of all rows."""
        return len(self._flat)
