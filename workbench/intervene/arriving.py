"""How much of what a layer's heads move arrives in the residual stream, under interventions."""

from collections.abc import Sequence
from typing import Any

import torch

from workbench.intervene.edit import Where
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, RESID_POST, Hook, Z
from workbench.models.model import Model

__all__ = ["arriving"]

_BEHIND = (Z, ATTN_RESULT, ATTN_OUT, RESID_POST)  # behind the pattern
_WITH_BIAS = (ATTN_RESULT, ATTN_OUT)


def arriving(
    model: Model, interventions: Sequence[Any], layer: int, n_pos: int, hooks: Sequence[Hook] = _BEHIND
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors on what each head moves to each query, `[head, query]`, and on the layer's b_O, `[query]`.

    1 where nothing edits it, 0 where it is overwritten (what is written instead came from no key), else by how much it
    is multiplied. hooks: where edits count.
    """
    heads, bias = torch.ones(model.sizes.n_heads, n_pos, dtype=torch.float32), torch.ones(n_pos, dtype=torch.float32)
    for intervention in interventions:
        for edit in intervention.edits(model):
            where = edit.where
            if edit.write is None or where.additive or where.layer != layer or where.hook not in hooks:
                continue
            at = _positions(where, n_pos, edit.skip_first)
            units = range(len(heads)) if where.units is None else where.units
            heads[torch.tensor(list(units))[:, None], at] *= where.factor or 0.0
            if where.hook in _WITH_BIAS:
                bias[at] *= where.factor or 0.0
    return heads, bias


def _positions(where: Where, n_pos: int, skip_first: bool) -> torch.Tensor:
    named = range(n_pos) if where.positions is None else (p % n_pos for p in where.positions)
    return torch.tensor([p for p in named if p or not skip_first], dtype=torch.long)
