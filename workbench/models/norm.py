"""Norm: the model's own norm in front of a sublayer, and how gradients go back through it."""

from dataclasses import dataclass, field

import torch
from torch import nn

__all__ = ["SQUARED", "Norm"]

SQUARED = 1e18  # what a norm can still square and sum in float32: of larger states it makes zeros, without a word


@dataclass(frozen=True, eq=False)
class Norm:
    """The norm between the residual stream and what reads it.

    module: the model's own, called underneath its hooks (an identity where there is none). gain: what it multiplies by
    after dividing by its scale, float32 `[d_model]`. kind: "rms", "layer" (subtracts the mean first) or "none".
    """

    module: nn.Module
    kind: str
    gain: torch.Tensor = field(repr=False)
    eps: float

    def __call__(self, resid: torch.Tensor) -> torch.Tensor:
        """What the sublayer reads of states `[..., d_model]`."""
        return self.module(resid)

    def scale(self, resid: torch.Tensor) -> torch.Tensor:
        """What it divides by, `[..., 1]`, float32."""
        if self.kind == "none":
            return torch.ones_like(resid[..., :1], dtype=torch.float32)
        resid = resid.float()
        if self.kind == "layer":
            resid = resid - resid.mean(-1, keepdim=True)
        return (resid.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def pulled_back(self, grad: torch.Tensor, resid: torch.Tensor, *, frozen: bool) -> torch.Tensor:
        """Gradient by the state, from that by what the norm gives; both broadcast, `[..., d_model]`.

        frozen: its scale is a constant.
        """
        if self.kind == "none":
            return grad
        scale, grad = self.scale(resid), grad * self.gain
        if not frozen:
            state = resid.float()
            if self.kind == "layer":
                state = state - state.mean(-1, keepdim=True)
            unit = state / scale
            grad = grad - unit * (unit * grad).mean(-1, keepdim=True)
        if self.kind == "layer":
            grad = grad - grad.mean(-1, keepdim=True)
        return grad / scale
