"""What is measured of a head on a text: how much of its attention goes to sinks, and how much it adds."""

import numpy as np
import torch

from probes.attention.sinks.measures import MIN_QUERIES, own_attention, received
from workbench.models.hooks import PATTERN, Z
from workbench.observation import Need, Site
from workbench.observation.reducers import head_output_norm, mean_behind_first

__all__ = ["needs", "sink_attention", "uniform_sink"]


def sink_attention(pattern: torch.Tensor, site: Site, epsilon: float) -> torch.Tensor:
    """Attention that queries behind position 0 send to the head's sinks on this text, (batch, head), 0 to 1.

    pattern: (batch, head, query, key).
    """
    pattern = pattern.float()
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    queries = (site.lengths[:, None] - keys)[:, None]  # batch 1 key
    total = received(pattern, site) * queries.clamp(min=1)
    others = (total - own_attention(pattern, site)) / (queries - 1).clamp(min=1)
    is_sink = (others > epsilon) & (queries - 1 >= MIN_QUERIES)
    is_sink[..., 0] = True
    mass = torch.matmul(pattern, is_sink.float().unsqueeze(-1)).squeeze(-1)  # batch head query
    return mean_behind_first(mass, site)


def uniform_sink(n_tokens: int) -> float:
    """What uniform attention would send to position 0, mean over the queries behind it: the null of sink attention."""
    return float(np.mean(1 / np.arange(2, n_tokens + 1)))


def needs(epsilon: float) -> tuple[Need, Need]:
    """What the first pass reduces: sink attention and output norm, (layer, prompt, head)."""
    return (
        Need((PATTERN,), sink_attention, dims="head", params={"epsilon": epsilon}),
        Need((Z,), head_output_norm, dims="head"),
    )
