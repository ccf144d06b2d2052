"""Reducers that several analyses share: pure functions of an activation and its site, see `Need`."""

import torch
from torch.nn.functional import cross_entropy

from workbench.intervene.contradictions import is_void
from workbench.intervene.edit import Where
from workbench.models.hooks import Z
from workbench.observation.need import Site

__all__ = ["head_output_norm", "head_pattern", "mean_behind_first", "residual_norm", "token_loss"]

_CHUNK = 64  # rows of logits that are normalised at once: 12 MB at a vocabulary of 49,152


def head_pattern(pattern: torch.Tensor, site: Site, head: int) -> torch.Tensor:
    """The attention pattern of one head, `[batch, query, key]`, float32."""
    return pattern[:, head].detach().to(torch.float32, copy=True)


def head_output_norm(z: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean norm of z W_O over positions behind the first, (batch, head), >= 0, in units of the residual stream.

    z: (batch, pos, head, d_head). Before a post-norm where there is one. 0 of a head whose output an intervention
    overwrites behind it: nothing arrives.
    """
    z = z.float().transpose(1, 2)  # batch head pos d_head
    norms = ((z @ site.weights.W_O_gram) * z).sum(-1).clamp(min=0).sqrt()
    lost = [head for head in range(norms.shape[1]) if is_void(site.model, Where(Z, site.layer, (head,)))]
    return mean_behind_first(norms.index_fill(1, torch.tensor(lost, device=z.device, dtype=torch.long), 0.0), site)


def mean_behind_first(values: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean of (batch, head, pos) over real positions >= 1; NaN for one token."""
    counted = site.mask[:, None].clone()
    counted[..., 0] = False
    return values.masked_fill(~counted, 0.0).sum(-1) / counted.sum(-1)


def residual_norm(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """Norm of the residual stream, (batch, pos)."""
    return resid.float().norm(dim=-1)


def token_loss(logits: torch.Tensor, site: Site) -> torch.Tensor:
    """Loss of predicting each token from those before it, nats, (batch, pos); NaN for position 0.

    logits: (batch, pos, d_vocab). A few dozen rows are normalised at a time, so that no second copy is made.
    """
    loss = torch.full(site.tokens.shape, torch.nan, dtype=torch.float32, device=logits.device)
    for row, (tokens, scores) in enumerate(zip(site.tokens, logits, strict=True)):
        for start in range(0, len(tokens) - 1, _CHUNK):
            targets = tokens[start + 1 : start + 1 + _CHUNK]
            part = scores[start : start + len(targets)].float()
            loss[row, start + 1 : start + 1 + len(targets)] = cross_entropy(part, targets, reduction="none")
    return loss
