"""Reducers that several analyses share: pure functions of an activation and its site, see `Need`."""

import torch
from torch.nn.functional import cross_entropy

from workbench.intervene.arriving import arriving, arriving_of_neurons
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, RESID_POST, Hook, Z
from workbench.observation.need import Site
from workbench.pauses import pause

__all__ = [
    "arrives",
    "head_output_norm",
    "head_pattern",
    "mean_behind_first",
    "neurons_arrive",
    "residual_norm",
    "token_loss",
]

_BEHIND_Z = (ATTN_RESULT, ATTN_OUT, RESID_POST)

_CHUNK = 64  # rows of logits that are normalised at once: 12 MB at a vocabulary of 49,152


def head_pattern(pattern: torch.Tensor, site: Site, head: int) -> torch.Tensor:
    """The attention pattern of one head, `[batch, query, key]`, float32."""
    return pattern[:, head].detach().to(torch.float32, copy=True)


def head_output_norm(z: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean norm of z W_O over positions behind the first, (batch, head), >= 0, in units of the residual stream.

    z: (batch, pos, head, d_head). Before a post-norm where there is one. Where an intervention overwrites a head's
    output behind z nothing arrives: 0; what is scaled there is louder or quieter.
    """
    z = z.float().transpose(1, 2)  # batch head pos d_head
    norms = ((z @ site.weights.W_O_gram) * z).sum(-1).clamp(min=0).sqrt()
    return mean_behind_first(norms * arrives(site, read=Z).abs().to(norms), site)


def arrives(site: Site, *, read: Hook) -> torch.Tensor:
    """Factor on what each head moves to each query, by interventions behind what is read (Z, or PATTERN for Z too),
    `[batch, head, query]`: see `arriving`."""
    n_heads, n_pos = site.model.sizes.n_heads, site.tokens.shape[1]
    if not site.model.interventions or site.layer is None:
        return torch.ones(1, 1, 1, dtype=torch.float32)
    found = torch.ones(len(site.lengths), n_heads, n_pos, dtype=torch.float32)
    for row, length in enumerate(site.lengths.tolist()):
        hooks = _BEHIND_Z if read is Z else (Z, *_BEHIND_Z)
        found[row, :, :length] = arriving(site.model, site.model.interventions, site.layer, length, hooks)[0]
    return found


def neurons_arrive(site: Site) -> torch.Tensor:
    """The same factor on what the layer's neurons write, `[batch, pos]`: see `arriving_of_neurons`."""
    found = torch.ones(site.tokens.shape, dtype=torch.float32)
    if site.model.interventions and site.layer is not None:
        for row, length in enumerate(site.lengths.tolist()):
            found[row, :length] = arriving_of_neurons(site.model, site.model.interventions, site.layer, length)
    return found


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

    logits: (batch, pos, d_vocab). A few dozen rows are normalised at a time, so that no second copy is made, and before
    each prompt's something shorter may run: those of a batch take as long as many passes of a short prompt.
    """
    loss = torch.full(site.tokens.shape, torch.nan, dtype=torch.float32, device=logits.device)
    for row, (tokens, scores) in enumerate(zip(site.tokens, logits, strict=True)):
        pause()
        for start in range(0, len(tokens) - 1, _CHUNK):
            targets = tokens[start + 1 : start + 1 + _CHUNK]
            part = scores[start : start + len(targets)].float()
            loss[row, start + 1 : start + 1 + len(targets)] = cross_entropy(part, targets, reduction="none")
    return loss
