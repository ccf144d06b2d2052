"""Tokens that a part of the residual stream promotes and suppresses."""

import torch

from workbench.models.readout import Readout

__all__ = ["logit_contributions", "promoted"]

_TOKENS = 15  # promoted, and as many suppressed


@torch.no_grad()
def logit_contributions(readout: Readout, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """What parts `x [..., d_model]` of a final state `[d_model]` add to every logit, `[..., d_vocab]`.

    Final norm with the state's own scale, unembedding, no bias. Another state's scale changes the size of all
    contributions alike, and so not which tokens are promoted.
    """
    scaled = x.float() / readout.scale(state)
    if readout.kind == "layer":
        scaled = scaled - scaled.mean(-1, keepdim=True)
    return (scaled * readout.gain).to(readout.W_U.dtype) @ readout.W_U.T * readout.logit_scale


def promoted(logits: torch.Tensor, k: int = _TOKENS) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the k most raised and the k most lowered tokens, the strongest first: `[..., k]` each."""
    k = min(k, logits.shape[-1])
    return logits.topk(k, -1).indices, logits.topk(k, -1, largest=False).indices
