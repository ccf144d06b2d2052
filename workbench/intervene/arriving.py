"""How much of what a layer's heads move, and its neurons write, arrives in the residual stream, under interventions."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from workbench.intervene.edit import Where
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, MLP_OUT, RESID_MID, RESID_POST, RESID_PRE, Hook, Z
from workbench.models.model import Model

__all__ = ["arriving", "arriving_of_neurons", "surviving"]

_BEHIND = (Z, ATTN_RESULT, ATTN_OUT, RESID_POST)  # behind the pattern
_BEHIND_NEURONS = (MLP_OUT, RESID_POST)
_WITH_BIAS = (ATTN_RESULT, ATTN_OUT)


def arriving(
    model: Model, interventions: Sequence[Any], layer: int, n_pos: int, hooks: Sequence[Hook] = _BEHIND
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors on what each head moves to each query, `[head, query]`, and on the layer's b_O, `[query]`.

    1 where nothing edits it, 0 where it is overwritten (what is written instead came from no key), else by how much it
    is multiplied. hooks: where edits count.
    """
    heads, bias = torch.ones(model.sizes.n_heads, n_pos, dtype=torch.float32), torch.ones(n_pos, dtype=torch.float32)
    for where, at in _writing(model, interventions, layer, n_pos, hooks):
        units = range(len(heads)) if where.units is None else where.units
        heads[torch.tensor(list(units))[:, None], at] *= where.factor or 0.0
        if where.hook in _WITH_BIAS:
            bias[at] *= where.factor or 0.0
    return heads, bias


def arriving_of_neurons(
    model: Model, interventions: Sequence[Any], layer: int, n_pos: int, hooks: Sequence[Hook] = _BEHIND_NEURONS
) -> torch.Tensor:
    """The same factor on what a layer's neurons write to each position, and on b_out, `[pos]`."""
    found = torch.ones(n_pos, dtype=torch.float32)
    for where, at in _writing(model, interventions, layer, n_pos, hooks):
        found[at] *= where.factor or 0.0
    return found


def surviving(model: Model, interventions: Sequence[Any], pos: int, n_pos: int) -> torch.Tensor:
    """Factor on the stream at a position in front of each block, and between its attention and its MLP, on the way to
    the last state, `[layer, 2]`: by interventions that set (0) or multiply a state behind."""
    found = torch.ones(model.sizes.n_layers, 2, dtype=torch.float32)
    for hook, half in ((RESID_PRE, 0), (RESID_MID, 1), (RESID_POST, 2)):
        for edit in (edit for one in interventions for edit in one.edits(model) if edit.write is not None):
            where = edit.where
            # what patches resid_mid claims attn_out alone, and says of the state itself that it shares it
            passes = where.additive and hook is not RESID_MID
            if where.hook is not hook or where.layer is None or passes:
                continue
            if pos in _positions(where, n_pos, edit.skip_first).tolist():
                found.view(-1)[: 2 * where.layer + half] *= where.factor or 0.0
    return found


def _writing(
    model: Model, interventions: Sequence[Any], layer: int, n_pos: int, hooks: Sequence[Hook]
) -> Iterator[tuple[Where, torch.Tensor]]:
    """Where what was there is set or multiplied, and the positions of that."""
    for intervention in interventions:
        for edit in intervention.edits(model):
            where = edit.where
            if edit.write is not None and not where.additive and where.layer == layer and where.hook in hooks:
                yield where, _positions(where, n_pos, edit.skip_first)


def _positions(where: Where, n_pos: int, skip_first: bool) -> torch.Tensor:
    named = range(n_pos) if where.positions is None else (p % n_pos for p in where.positions)
    return torch.tensor([p for p in named if p or not skip_first], dtype=torch.long)
