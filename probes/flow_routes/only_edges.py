"""Keep some attention edges of a pass and replace the value that every other one brings.

A removed edge (query, key, head) brings `pattern x mean value of the head`, key 0 its own clean value; patterns are
those of the clean prompt, and kept edges bring the values of the changed stream. Everything else the model computes
anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from einops import einsum

from probes.flow_routes.extraction import Rule, kept_parts
from workbench.hooks import V, Z
from workbench.intervene import Edit, Where, tensor_digest
from workbench.models.model import Model
from workbench.recording import Means

__all__ = ["OnlyEdges", "edge_masks"]


@dataclass(frozen=True, eq=False)
class OnlyEdges:
    """Keep some attention edges; the others bring their head's mean value, key 0 its own.

    masks: bool `[row, layer, head, query, key]`, the edges kept in each row of the batch. patterns `[layer, head,
    query, key]` and first_v `[layer, key_value_head, d_head]` of the clean prompt. means: over a reference text.
    """

    masks: torch.Tensor = field(repr=False)
    patterns: torch.Tensor = field(repr=False)
    first_v: torch.Tensor = field(repr=False)
    means: Means
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        kept = int(self.masks.sum())
        return f"OnlyEdges({kept} kept, {tensor_digest(self.masks)}, others by the mean of {self.means})"

    def edits(self, model: Model) -> list[Edit]:
        """Two edits per layer: v is read, z is written."""
        return [edit for layer in range(model.sizes.n_layers) for edit in self._layer(model, layer)]

    def _layer(self, model: Model, layer: int) -> tuple[Edit, Edit]:
        weights, seen = model.weights(layer), {}
        per_head = lambda v: weights.repeated(v, dim=-2)
        mean, first = (per_head(v) for v in (self.means.mean(V, layer, model), self.first_v[layer]))

        def write(z: torch.Tensor, mesh, rows) -> None:
            pattern = self.patterns[layer].to(z)
            kept = pattern * self.masks[:, layer].to(z)
            removed = pattern - kept
            new = einsum(kept, per_head(seen.pop("v")).to(z), "row h q k, row k h e -> row q h e")
            new += einsum(removed[..., 0], first.to(z), "row h q, h e -> row q h e")
            new += einsum(removed[..., 1:].sum(-1), mean.to(z), "row h q, h e -> row q h e")
            z.copy_(new)

        return Edit(Where(V, layer), read=lambda v: seen.update(v=v)), Edit(Where(Z, layer), write)


def edge_masks(result: xr.Dataset, rules: Sequence[Rule], n_heads: int) -> torch.Tensor:
    """Edges that each rule keeps, bool `[rule, layer, head, query, key]`, in all rows: a graph of any start token."""
    n_layers, n_pos = result["resid_attn"].shape
    masks = np.zeros((len(rules), n_layers, n_heads, n_pos, n_pos), bool)
    at = tuple(result[name].values.astype(np.int64) for name in ("layer", "head", "query", "key"))
    for mask, rule in zip(masks, rules, strict=True):
        mask[at] = kept_parts(result, rule)[0]
    return torch.from_numpy(masks)
