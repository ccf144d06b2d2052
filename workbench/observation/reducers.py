"""Reducers that several analyses share: pure functions of an activation and its site, see `Need`."""

import torch

from workbench.observation.need import Site

__all__ = ["head_pattern", "resid_norm"]


def head_pattern(pattern: torch.Tensor, site: Site, head: int) -> torch.Tensor:
    """The attention pattern of one head, `[batch, query, key]`, float32."""
    return pattern[:, head].detach().to(torch.float32, copy=True)


def resid_norm(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """Norm of the residual stream, `[batch, pos]`."""
    return resid.float().norm(dim=-1)
