"""What is measured of sinks: reducers of attention, values and states, and the numbers made of them.

Attention that a key receives, with A[i, k] the attention of query i to key k and T tokens (positions from 0):

    alpha_k = 1 / (T - k) * sum over i >= k of A[i, k]
"""

import numpy as np
import torch

from workbench.models.hooks import masked_below
from workbench.models.model import Sizes
from workbench.observation import Site

__all__ = [
    "MIN_QUERIES",
    "MOST_UNIFORM",
    "mean_known",
    "median_after",
    "median_known",
    "own_attention",
    "peak_state",
    "received",
    "received_by_others",
    "sink_logit",
    "sink_threshold",
    "uniform_alpha",
    "v_norm",
    "value_norm",
    "windowed",
]

MOST_UNIFORM = 0.3  # alpha of uniform attention above which a prompt is too short to tell a sink: 9 tokens
MIN_QUERIES = 16  # of other tokens, before a key other than the first may count as a sink


# --- reducers -------------------------------------------------------------------------------------------------------


def received(pattern: torch.Tensor, site: Site, first: int = 0) -> torch.Tensor:
    """alpha: mean attention that each key receives from itself and the queries behind it.

    pattern: (batch, head, query, key). first: keys before it are left out and rows renormalised over the others.
    Returns (batch, head, key), 0 to 1; NaN before `first`.
    """
    pattern = pattern.float()
    total = torch.matmul(_row_weights(pattern, site, first).unsqueeze(-2), pattern).squeeze(-2)  # batch head key
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    alpha = total / (site.lengths[:, None] - keys).clamp(min=1)[:, None]
    return alpha.masked_fill(keys < first, torch.nan)


def own_attention(pattern: torch.Tensor, site: Site, first: int = 0) -> torch.Tensor:
    """Attention of every query to itself, weighted as in `received`. Returns (batch, head, key), 0 to 1."""
    pattern = pattern.float()
    return pattern.diagonal(dim1=-2, dim2=-1) * _row_weights(pattern, site, first)


def _row_weights(pattern: torch.Tensor, site: Site, first: int) -> torch.Tensor:
    """What each row counts, (batch, head, query): 0 on padding; 1 over its mass on keys >= first."""
    real = site.mask[:, None].float()
    if not first:
        return real.expand(pattern.shape[:-1])
    rest = pattern[..., first:].sum(-1)
    # A row that gives all its attention to the masked keys says nothing about the others.
    return torch.where(rest > 1e-6, real / rest.clamp(min=1e-6), torch.zeros_like(rest))


def sink_logit(scores: torch.Tensor, site: Site, first: int = 0) -> torch.Tensor:
    """Mean over queries q of score(q, first) - mean over first < j < q of score(q, j), before the softmax.

    scores: (batch, head, query, key). Keys that interventions hide from a query are left out of its mean, and a query
    that does not see `first`. Returns (batch, head), any real; NaN below first + 3 tokens.
    """
    if scores.shape[-1] <= first:
        return scores.new_full(scores.shape[:2], torch.nan, dtype=torch.float32)
    earlier = scores.float().tril(-1)  # zeroes what a mask has made hugely negative
    keys_between = torch.arange(scores.shape[-2], device=scores.device) - first - 1
    counted = (site.mask & (keys_between >= 1))[:, None]
    if earlier.min() <= masked_below(scores.dtype):  # an intervention hides keys: that is no score, but that of a mask
        hidden = earlier <= masked_below(scores.dtype)
        seen = (~hidden).tril(-1)
        earlier, keys_between = earlier.masked_fill(hidden, 0.0), seen[..., first + 1 :].sum(-1)
        counted = counted & seen[..., first] & (keys_between >= 1)
    others = earlier[..., first + 1 :].sum(-1) / keys_between.clamp(min=1)
    gap = (earlier[..., first] - others).masked_fill(~counted, 0.0)
    return gap.sum(-1) / counted.sum(-1)


def value_norm(v: torch.Tensor, site: Site) -> torch.Tensor:
    """Norm of v W_O of every head and token, by way of the Gram matrix W_O W_O^T (no [head, pos, d_model] is made).

    v: (batch, pos, key_value_head, d_head), its bias included. Returns (batch, head, pos), >= 0, in units of the
    residual stream; before a post-norm where there is one.
    """
    v = site.weights.repeated(v.float(), dim=2).transpose(1, 2)  # batch head pos d_head
    return ((v @ site.weights.W_O_gram) * v).sum(-1).clamp(min=0).sqrt()


def v_norm(v: torch.Tensor, site: Site) -> torch.Tensor:
    """Norm of v itself, (batch, head, pos); heads that share a value share the number."""
    return site.weights.repeated(v.float().norm(dim=-1), dim=2).transpose(1, 2).clone()


def peak_state(resid: torch.Tensor, site: Site, first: int = 0) -> torch.Tensor:
    """The residual stream at the position (>= first) where its norm is largest, (batch, dimension)."""
    resid = resid.float()
    norms = resid.norm(dim=-1).masked_fill(~site.mask, -1.0)
    norms[:, :first] = -1.0
    return resid[torch.arange(len(resid), device=resid.device), norms.argmax(-1)]


# --- numbers of what was reduced ------------------------------------------------------------------------------------


def windowed(sizes: Sizes, n_tokens: int) -> list[int]:
    """Layers in which some query of a prompt cannot see the first token: no sink can be measured there."""
    return [layer for layer in sizes.sliding if sizes.first_key(layer, n_tokens - 1) > 0]


def received_by_others(alpha: np.ndarray, own: np.ndarray, first: int = 0) -> np.ndarray:
    """alpha of keys behind `first` without their own query, NaN where fewer than MIN_QUERIES queries are left.

    alpha, own: (..., key), from `received` and `own_attention`. Returns the same shape.
    """
    queries = alpha.shape[-1] - np.arange(alpha.shape[-1])
    others = (alpha * queries - own) / np.maximum(queries - 1, 1)
    allowed = (queries - 1 >= MIN_QUERIES) & (np.arange(alpha.shape[-1]) > first)
    return np.where(allowed, np.maximum(others, 0.0), np.nan)


def uniform_alpha(n_tokens: int) -> float:
    """alpha of the first position under uniform causal attention: H_T / T; NaN without tokens."""
    return float(np.mean(1.0 / np.arange(1, n_tokens + 1))) if n_tokens > 0 else float("nan")


def sink_threshold(n_tokens: int, epsilon: float) -> float:
    """alpha above which position 0 is a sink: epsilon, and twice what uniform attention gives at that length; NaN where
    that gives more than 0.3 (up to 9 tokens): too short to tell."""
    uniform = uniform_alpha(n_tokens)
    return max(epsilon, 2 * uniform) if uniform <= MOST_UNIFORM else float("nan")


def median_after(norms: np.ndarray, first: int) -> np.ndarray:
    """Median over the positions behind `first`, of the shape without the last axis; NaN where there are none."""
    return median_known(norms[..., first + 1 :], -1)


def median_known(values: np.ndarray, axis: int) -> np.ndarray:
    """Median of known values; NaN (without a warning) where none is known."""
    known = np.isfinite(values).any(axis)
    if not known.any():
        return np.full(known.shape, np.nan)
    filled = np.where(np.expand_dims(known, axis), values, 0.0)
    return np.where(known, np.nanmedian(filled, axis), np.nan)


def mean_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean of known values; NaN (without a warning) where none is known."""
    count = (~np.isnan(values)).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)
