"""Where edits land in a batch: rows of the call, positions of each prompt, index tensors of an activation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from workbench.errors import InputError
from workbench.intervene.edit import Edit, Positions
from workbench.models.prompt import place
from workbench.words import counted

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """Which prompts are in a batch and how long they are."""

    lengths: list[int] | None
    first: int

    def holds(self, rows: tuple[int, ...] | None) -> bool:
        """Whether any of these rows of the call is in this batch."""
        return rows is None or self.lengths is None or bool(self.local(rows))

    def local(self, rows: tuple[int, ...]) -> list[int]:
        """Rows of the call as rows of this batch."""
        n = len(self.lengths) if self.lengths is not None else None
        return [row - self.first for row in rows if row >= self.first and (n is None or row < self.first + n)]

    def lengths_of(self, row: int | None) -> list[int]:
        """The different lengths of the prompts in this batch, or of the one that is this row of the call (if it is)."""
        found = self.lengths or []
        return sorted(set(found)) if row is None else [found[i] for i in self.local((row,)) if i < len(found)]

    def meshes(self, edit: Edit, x: torch.Tensor) -> Iterator[tuple[tuple[torch.Tensor, ...], int]]:
        """Index tensors over the leading axes of an activation that an edit writes to, for the prompts of each length,
        and that length."""
        where, dims = edit.where, edit.where.hook.dims
        axis = next(i for i, dim in enumerate(dims) if dim in ("pos", "query"))  # every hook has one
        lengths = self.lengths or [x.shape[axis]] * x.shape[0]
        groups: dict[int, list[int]] = {}
        for row in range(x.shape[0]) if where.rows is None else self.local(where.rows):
            if row >= x.shape[0]:
                raise InputError(f"row {row}", f"rows 0 to {x.shape[0] - 1} of the batch", "Choose one of these")
            if edit.length is not None and edit.length != lengths[row]:
                raise InputError(
                    f"a recorded run of {edit.length} tokens for a prompt of {lengths[row]}",
                    "prompts of equal length",
                    "Choose another prompt, or pad the text with words",
                )
            groups.setdefault(lengths[row], []).append(row)
        for length, rows in groups.items():
            positions = _resolved(where.positions, length, edit.skip_first)
            _need_place(positions, length)
            axes: list[Sequence[int]] = []
            for i, dim in enumerate(dims):
                if dim == "batch":
                    axes.append(rows)
                elif dim in ("pos", "query"):
                    axes.append(positions)
                elif dim in ("head", "key_value_head", "neuron", "expert"):
                    axes.append(range(x.shape[i]) if where.units is None else where.units)
                else:
                    break
            yield _mesh(axes, x.device), length


def _resolved(positions: Positions, length: int, skip_first: bool) -> tuple[int, ...]:
    if positions is None:
        return tuple(range(1 if skip_first else 0, length))
    found = tuple(place(p, length) for p in positions)
    return tuple(p for p in found if p or not skip_first)


def _need_place(positions: tuple[int, ...], length: int) -> None:
    """InputError for an edit that leaves position 0 alone, of a prompt that has no other: it would do nothing."""
    if not positions:
        raise InputError(
            f"an edit that leaves position 0 alone, of {counted(length, 'position')} there",
            "a position behind it: means are of those, and what sees itself alone keeps that",
            "Take a longer prompt, or ablate by zero",
        )


def _mesh(axes: list[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, ...]:
    n = len(axes)
    return tuple(
        torch.tensor(list(axis), dtype=torch.long, device=device).view([-1 if i == j else 1 for j in range(n)])
        for i, axis in enumerate(axes)
    )
