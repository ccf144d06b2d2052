"""Reducers that several analyses share: pure functions of an activation and its site, see `Need`."""

import torch

from workbench.observation.need import Site

__all__ = ["head_pattern"]


def head_pattern(pattern: torch.Tensor, site: Site, head: int) -> torch.Tensor:
    """The attention pattern of one head, `[batch, query, key]`, float32."""
    return pattern[:, head].detach().to(torch.float32, copy=True)
