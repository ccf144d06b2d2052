"""Keep some attention edges of a pass and replace the value that every other one brings.

A removed edge (query, key, head) brings `pattern x mean value of the head`, key 0 its own clean value; patterns are
those of the clean prompt, and kept edges bring the values of the changed stream. Everything else the model computes
anew; a head whose output an intervention of the model sets (`Model.edited`) keeps that output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import einsum

from probes.routes.extraction import Rule, kept_parts
from workbench.intervene import Edit, Where, tensor_digest
from workbench.intervene.rows import Rows
from workbench.models.hooks import PATTERN, V, Z
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation import Need, Observation, keep, observe
from workbench.observation.recording import Means

__all__ = ["BATCH_TOKENS", "CleanPass", "OnlyEdges", "edge_masks"]

BATCH_TOKENS = 2048  # of a batch of passes


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
        weights = model.weights(layer)
        seen: dict[str, torch.Tensor] = {}
        per_head = lambda v: weights.repeated(v, dim=-2)
        mean, first = (per_head(v) for v in (self.means.mean(V, layer, model), self.first_v[layer]))
        carried = [edit for intervention in model.interventions for edit in intervention.edits(model)]
        own = [edit for edit in carried if edit.where[:2] == (Z, layer) and edit.write is not None]

        def write(z: torch.Tensor, mesh: Any, rows: Any) -> None:
            pattern = self.patterns[layer].to(z)
            kept = pattern * self.masks[:, layer].to(z)
            removed = pattern - kept
            new = einsum(kept, per_head(seen.pop("v")).to(z), "row h q k, row k h e -> row q h e")
            new += einsum(removed[..., 0], first.to(z), "row h q, h e -> row q h e")
            new += einsum(removed[..., 1:].sum(-1), mean.to(z), "row h q, h e -> row q h e")
            for where, places in ((edit.where, mesh) for edit in own for mesh, _ in Rows(None, 0).meshes(edit, z)):
                # what was set before stays, and what was scaled is
                new[places] = z[places] if where.factor is None or where.sets else new[places] * where.factor
            z.copy_(new)

        return Edit(Where(V, layer), read=lambda v: seen.update(v=v)), Edit(Where(Z, layer), write)


@dataclass(frozen=True, eq=False)
class CleanPass:
    """One prompt with its clean patterns `[layer, head, query, key]` and values `[layer, pos, key_value_head, d_head]`,
    and how to run it with edges removed."""

    model: Model
    tokens: Tokens
    means: Means
    patterns: torch.Tensor = field(repr=False)
    values: torch.Tensor = field(repr=False)
    seen: Observation = field(repr=False)

    @classmethod
    def of(cls, model: Model, tokens: Tokens, means: Means, *needs: Need, **options: Any) -> "CleanPass":
        """Run the prompt once. needs, options: what `seen` is to hold beside, as for `observe`."""
        kept = [Need((hook,), keep, dims=hook.dims[1:]) for hook in (PATTERN, V)]
        seen = observe(model, tokens, [*kept, *needs], **{"positions": "none", **options})
        patterns, values = (seen[need][:, 0] for need in kept)
        return cls(model, tokens, means, patterns, values, seen)

    def with_only(self, masks: torch.Tensor, *needs: Need, positions: Sequence[int]) -> Iterator[Observation]:
        """Passes with the masked edges alone, `[row, layer, head, query, key]`; some rows at a time, in their order."""
        for some in masks.split(max(1, BATCH_TOKENS // len(self.tokens))):
            edges = OnlyEdges(some, self.patterns, self.values[:, 0], self.means)
            rows = [self.tokens] * len(some)
            yield observe(self.model, rows, needs, positions=list(positions), interventions=[edges], batch_tokens=2**40)


def edge_masks(result: xr.Dataset, rules: Sequence[Rule], n_heads: int) -> torch.Tensor:
    """Edges that each rule keeps, bool `[rule, layer, head, query, key]`, in all rows: a graph of any start token."""
    n_layers, n_pos = result["resid_attn"].shape
    masks = np.zeros((len(rules), n_layers, n_heads, n_pos, n_pos), bool)
    at = tuple(result[name].values.astype(np.int64) for name in ("edge_layer", "edge_head", "edge_query", "edge_key"))
    for mask, rule in zip(masks, rules, strict=True):
        mask[at] = kept_parts(result, rule)[0]
    return torch.from_numpy(masks)
