"""Attend: a head looks where it is told."""

from dataclasses import dataclass

import torch

from workbench.errors import InputError
from workbench.intervene.edit import Edit, Printed, Where, tensor_digest
from workbench.intervene.units import Head
from workbench.models.hooks import PATTERN
from workbench.models.model import Model

__all__ = ["ATTENDED", "Attend"]

# Where a head can be told to look whatever the tokens are. Position 0 has only itself.
ATTENDED = ("previous-token", "first-token", "own-token")


@dataclass(frozen=True, eq=False, repr=False)
class Attend(Printed):
    """Put all attention of a head on one key a query; gradients go through everything else.

    to: "previous-token", "first-token" or "own-token"; or the keys, integers `[query]` or `[row, query]`, where -1
    leaves a query as it is.
    """

    unit: Head
    to: str | torch.Tensor
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.to, str):
            return
        try:
            keys = torch.as_tensor(self.to).clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"to={self.to!r}", f"one of {', '.join(ATTENDED)}, or keys", "Give integers") from error
        if keys.is_floating_point() or keys.is_complex() or keys.ndim not in (1, 2) or bool((keys < -1).any()):
            raise InputError(
                f"keys of shape {tuple(keys.shape)} in {keys.dtype}", "integers from -1 on, [query] or [row, query]",
                "Give -1 for a query that stays as it is",
            )  # fmt: skip
        object.__setattr__(self, "to", keys.long())

    def __str__(self) -> str:
        to = self.to if isinstance(self.to, str) else f"keys {tensor_digest(self.to)}"
        return f"Attend({self.unit} to {to}{self._scope()})"

    @property
    def by_row(self) -> bool:
        """Whether rows of a batch are told unlike keys."""
        return isinstance(self.to, torch.Tensor) and self.to.ndim == 2

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the pattern. InputError for a head that the model has not, and for another word or key."""
        if not isinstance(self.unit, Head):
            raise InputError(f"{self.unit} that attends", "a head, such as Head(0, 1)", "Name one")
        self.unit.check(model)
        if isinstance(self.to, str) and self.to not in ATTENDED:
            raise InputError(f"to={self.to!r}", f"one of {', '.join(ATTENDED)}, or keys", "Choose one of these")
        where = Where(PATTERN, self.unit.layer, self.unit.units, None, self.rows)
        return [Edit(where, self._write, of_call=True)]

    def _write(self, pattern: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int, first: int) -> None:
        rows, queries = mesh[0].flatten().tolist(), mesh[-1].flatten()
        keys = self._keys([first + row for row in rows], queries, pattern.shape[-1]).to(pattern.device)
        told = torch.nn.functional.one_hot(keys.clamp(min=0), pattern.shape[-1]).to(pattern)
        own = pattern[rows, self.unit.head][:, queries]
        written = torch.where((keys >= 0)[..., None], told, own)
        pattern[rows, self.unit.head, : written.shape[1]] = written

    def _keys(self, rows: list[int], queries: torch.Tensor, n_keys: int) -> torch.Tensor:
        """`[row, query]`. rows: of the call."""
        if isinstance(self.to, str):
            places = {"previous-token": (queries - 1).clamp(min=0), "first-token": queries * 0, "own-token": queries}
            return places[self.to].expand(len(rows), -1)
        keys = self.to if self.to.ndim == 2 else self.to.expand(max(rows) + 1, -1)
        if keys.shape[0] <= max(rows) or keys.shape[1] < len(queries) or bool((keys[rows][:, queries] > queries).any()):
            raise InputError(
                f"{self} with keys of shape {tuple(self.to.shape)}",
                f"a key that each of {len(queries)} queries in {len(rows)} rows sees", "Give one for each",
            )  # fmt: skip
        return keys[rows][:, queries]
