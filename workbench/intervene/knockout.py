"""Knockout: keys taken out of queries' sight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import InputError
from workbench.intervene.checks import need_layer
from workbench.intervene.edit import Edit, Printed, Where, spans
from workbench.intervene.units import Head
from workbench.models.hooks import SCORES, masked_below
from workbench.models.model import Model

__all__ = ["Knockout", "hide"]


@dataclass(frozen=True, eq=False, repr=False)
class Knockout(Printed):
    """Take keys out of queries' sight before the softmax, in a window of layers; the rest of each row is renormalised.

    heads: None for all. Keys behind a query are not seen anyway. A query never loses its only key.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        heads = "" if self.heads is None else f" heads {spans(self.heads)}"
        places = f"keys {spans(self.keys)} from queries {spans(self.queries)}"
        return f"Knockout({places} in layers {spans(self.layers)}{heads}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the scores per layer."""
        if not (self.queries and self.keys and self.layers):
            raise InputError(f"{self}", "at least one query, key and layer", "Name them")
        for layer in self.layers:
            need_layer(model, layer, str(self))
            for head in self.heads or ():
                Head(layer, head).check(model)
        return [
            Edit(Where(SCORES, layer, self.heads, self.queries, self.rows, additive=True), self._write)
            for layer in self.layers
        ]

    def _write(self, scores: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
        hide(scores, mesh, length, self.keys, self)


def hide(scores: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int, keys: Sequence[int], what: Any) -> None:
    """Hide keys from the queries of a mesh, in place; InputError, naming `what`, for a query that sees no other key.

    length: tokens of the prompts of the mesh, which keys are counted in. Scores of hidden keys become the dtype's
    lowest number (what causal masks hold), so that no row becomes NaN.
    """
    lowest = torch.finfo(scores.dtype).min
    counted = [key + length if key < 0 else key for key in keys]
    if any(not 0 <= key < length for key in counted):
        raise InputError(f"key {spans(keys)}", f"positions 0 to {length - 1}", "Choose keys in the prompt")
    chosen = scores[mesh]
    chosen[..., counted] = lowest
    blind = (chosen <= masked_below(scores.dtype)).all(-1)
    if blind.any():
        query = int(mesh[2].expand(blind.shape)[blind][0])
        raise InputError(
            f"{what}, which takes the only key(s) of query {query}", "one key left to every query", "Spare a key"
        )
    scores[mesh] = chosen
