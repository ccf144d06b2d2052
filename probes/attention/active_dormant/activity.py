"""What is measured of a head on a text: how much of its attention goes to sinks, and how much it adds."""

import torch

from probes.attention.sinks.attention_sinks import MIN_QUERIES, own_attention, received
from workbench.models.hooks import PATTERN, Z
from workbench.observation import Need, Site

__all__ = ["needs", "output_norm", "sink_attention"]


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
    return _mean_behind_first(mass, site)


def output_norm(z: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean norm of z W_O over positions behind the first, (batch, head), >= 0, in units of the residual stream.

    z: (batch, pos, head, d_head). Before a post-norm where there is one.
    """
    z = z.float().transpose(1, 2)  # batch head pos d_head
    return _mean_behind_first(((z @ site.weights.W_O_gram) * z).sum(-1).clamp(min=0).sqrt(), site)


def _mean_behind_first(values: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean of (batch, head, pos) over real positions >= 1; NaN for one token."""
    counted = site.mask[:, None].clone()
    counted[..., 0] = False
    return values.masked_fill(~counted, 0.0).sum(-1) / counted.sum(-1)


def needs(epsilon: float) -> tuple[Need, Need]:
    """What the first pass reduces: sink attention and output norm, (layer, prompt, head)."""
    return (
        Need((PATTERN,), sink_attention, dims="head", params={"epsilon": epsilon}),
        Need((Z,), output_norm, dims="head"),
    )
