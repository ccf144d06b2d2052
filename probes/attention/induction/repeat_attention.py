"""Attention where tokens repeat: three scores of every head, and what other keys of the same rows receive."""

import torch
from einops import rearrange, repeat

from workbench.models.hooks import PATTERN
from workbench.observation import Need, Site
from workbench.observation.repeats import previous_occurrence

__all__ = ["AT_LAG", "AT_REPEATS", "KINDS", "lag_attention", "repeat_attention"]

KINDS = ("induction", "previous_token", "duplicate_token")


def lag_attention(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """The three scores at a known lag per row (`fields["lag"]`), and the mean attention to other keys.

    pattern: (batch, head, query, key), rows sum to 1. Returns (batch, head, component=6), shares of attention, 0 to 1:
    induction, previous token, duplicate token, then for each the mean over other keys of the same rows. Other keys are
    all visible ones but the query itself, the previous token, key 0, the previous occurrence and its successor.
    """
    query = torch.arange(pattern.shape[-1], device=pattern.device)
    lag = site.fields["lag"].to(pattern.device)[:, None]  # batch one
    # Not beyond the second copy: there, two occurrences would share what a perfect head gives to one.
    is_second = (query > lag) & (query <= 2 * lag) & site.mask
    return _attention(pattern, torch.where(is_second, query - lag, -1), site)


def repeat_attention(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """The same where the tokens of a text repeat: lag from each query to the previous occurrence of its token.

    Shapes as `lag_attention`; NaN for a row without repeats. Other keys may hold still earlier occurrences.
    """
    return _attention(pattern, previous_occurrence(site.tokens, site.mask), site)


def _attention(pattern: torch.Tensor, previous: torch.Tensor, site: Site) -> torch.Tensor:
    """Means over queries with a previous occurrence (previous >= 0), as `lag_attention` returns them.

    Gathers five entries of each row and takes the rest as what is left of its sum, so that nothing as large as the
    pattern is made. A key outside a sliding layer's window is not counted; a score without any countable key is NaN.
    """
    query = torch.arange(previous.shape[1], device=previous.device).expand_as(previous)
    keys = torch.stack([previous + 1, query - 1, previous, query, torch.zeros_like(query)], dim=-1)
    assert site.layer is not None, "patterns are of layers"
    first = site.model.sizes.first_key(site.layer, query)
    seen = (previous >= 0)[..., None] & (keys >= first[..., None])  # batch query slot
    index = repeat(keys.clamp(min=0), "batch query slot -> batch head query slot", head=pattern.shape[1])
    values = pattern.gather(-1, index).float() * seen[:, None]
    n_others = query - first + 1 - seen.sum(-1)
    # A learned sink that joins the softmax (GPT-OSS) leaves a row less than 1.
    whole = 1.0 if site.weights.sinks is None else pattern.sum(-1, dtype=torch.float32)
    others = (whole - values.sum(-1)).clamp(min=0) / n_others.clamp(min=1)[:, None]
    weight = rearrange(seen[..., :3], "batch query slot -> batch 1 query slot").float()
    total = weight.sum(-2)  # 0 / 0 is the NaN we want
    scores = (values[..., :3] * weight).sum(-2) / total
    return torch.cat([scores, (others[..., None] * weight).sum(-2) / total], dim=-1)


AT_LAG = Need((PATTERN,), lag_attention, dims="head component")
AT_REPEATS = Need((PATTERN,), repeat_attention, dims="head component")
