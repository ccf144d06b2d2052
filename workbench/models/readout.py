"""Readout: from a state of the residual stream to logits, as pure functions outside the hooked forward pass.

The model's own final norm and unembedding are called underneath their hooks, so reading out changes nothing, fires no
hook and needs no lock; a soft cap or a logit scale is applied where the model has one. The self-check holds
`logits(last resid_post)` against the model's own logits.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

__all__ = ["Readout"]


@dataclass(frozen=True, eq=False)
class Readout:
    """Final norm, unembedding, soft cap.

    norm: the model's final norm (an identity where it has none). unembed: linear, `[d_vocab, d_model]` weight.
    gain, norm_bias: what the norm multiplies and adds after dividing by its scale, float32 `[d_model]`.
    kind: "rms", "layer" (subtracts the mean first) or "none".
    """

    norm: nn.Module
    unembed: nn.Linear
    kind: str
    eps: float
    gain: torch.Tensor = field(repr=False)
    norm_bias: torch.Tensor = field(repr=False)
    soft_cap: float | None = None
    logit_scale: float = 1.0

    @property
    def W_U(self) -> torch.Tensor:
        """Unembedding, `[d_vocab, d_model]`, a view of the model's own weight."""
        return self.unembed.weight

    @property
    def b_U(self) -> torch.Tensor | None:
        """Unembedding bias `[d_vocab]`, or None."""
        return getattr(self.unembed, "bias", None)

    @torch.no_grad()
    def logits(self, resid: torch.Tensor, *, normalise: bool = True) -> torch.Tensor:
        """Logits of states of the residual stream.

        resid: `[..., d_model]`. normalise: through the final norm (False is the raw variant). Returns `[..., d_vocab]`
        in the model's dtype; with d_vocab in the tens of thousands, call it on few rows at a time.
        """
        resid = resid.to(self.W_U)
        logits = self.unembed(self.norm(resid) if normalise else resid)
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.soft_cap:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits

    @torch.no_grad()
    def scale(self, resid: torch.Tensor) -> torch.Tensor:
        """What the final norm divides by, `[..., 1]` float32: freeze it to split a logit into additive parts."""
        resid = resid.float()
        if self.kind == "none":
            return torch.ones_like(resid[..., :1])
        if self.kind == "layer":
            resid = resid - resid.mean(-1, keepdim=True)
        return (resid.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    @torch.no_grad()
    def directions(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Rows of `gain * W_U`, float32 `[token, d_model]`.

        A part x of a state with scale s adds `directions(t) @ x / s` to token t's logit (mean-centred x for "layer").
        """
        rows = self.W_U[token_ids].float() * self.logit_scale * self.gain
        return rows - rows.mean(-1, keepdim=True) if self.kind == "layer" else rows

    @torch.no_grad()
    def constant(self, token_ids: torch.Tensor) -> torch.Tensor:
        """What reaches the logits of tokens from the norm's bias and b_U alone, float32 `[token]`."""
        constant = self.W_U[token_ids].float() @ self.norm_bias
        if self.b_U is not None:
            constant = constant + self.b_U[token_ids].float()
        return constant * self.logit_scale
