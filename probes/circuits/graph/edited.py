"""Interventions that a model carries, where its edges are changed: what of its heads arrives, and what is refused."""

import torch

from workbench.errors import RefusedError
from workbench.intervene.arriving import arriving
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, RESID_MID, RESID_POST, RESID_PRE
from workbench.models.model import Model

__all__ = ["arrived", "need_parts"]

_STATES = (RESID_PRE, RESID_MID, RESID_POST)


def arrived(model: Model, layer: int, added: torch.Tensor) -> torch.Tensor:
    """What heads add `[head, row, pos, d_model]`, as far as it reaches the stream: an attention output that is scaled
    takes it along, one that is overwritten lets none of it through."""
    if not model.interventions:
        return added
    share, _ = arriving(model, model.interventions, layer, added.shape[2], (ATTN_RESULT, ATTN_OUT))
    return added * share.to(added)[:, None, :, None]


def need_parts(model: Model) -> None:
    """RefusedError for interventions that set or scale the stream itself: what its sources add in front of that does
    not arrive behind it, so that an edge past it could not be changed alone."""
    for one in model.interventions:
        for edit in one.edits(model):
            where = edit.where
            is_embedding = where.hook is RESID_PRE and where.layer == 0 and edit.read is None
            if where.hook in _STATES and not where.additive and not is_embedding:
                raise RefusedError(
                    f"edges of {model.name} with the intervention {one}, which sets the residual stream",
                    "interventions on parts (heads, attention, MLPs), or such as add to the stream",
                    "Leave it out, or use analyses of nodes",
                )
