"""Attention sinks, value-state drains and residual-state peaks: what the first token is used for.

Attention that a key receives, with A[i, k] the attention of query i to key k and T tokens (positions from 0):

    alpha_k = 1 / (T - k) * sum over i >= k of A[i, k]

A head sinks on a prompt when alpha_0 > epsilon. Uniform attention already gives alpha_0 = H_T / T (0.074 at T = 64), so
sinks of prompts of unlike length must not be compared. Another key counts as a sink of a head when it passes epsilon
without its own query (i = k) and with at least 16 queries left; else late keys would qualify by themselves.

A sink's value is small (drain: the norm of v W_O against the median token's) while its residual stream is large (peak:
the norm of resid_post against the median token's), carried by a few dimensions (massive activations).

`mask_first` asks the same with position 0 out of the picture: rows are renormalised over the other keys and position 1
takes the first one's place. It changes how attention is counted, not the pass; `sink-conditions` changes the pass.

Sources: Gu et al. 2024, arXiv 2410.10781 (alpha, epsilon); Guo et al. 2024, arXiv 2410.13835 (drain, peak, sink logit);
Sun et al. 2024, arXiv 2402.17762 (massive activations). The stricter rule for other keys is ours.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from workbench import PATTERN, RESID_POST, RESID_PRE, SCORES, Entry, Need, Observation, Param, Readout, Site, V, dataset

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.analysis.legacy import Claim
    from workbench.models.model import Model, Sizes

__all__ = [
    "ENTRY",
    "MIN_QUERIES",
    "attention_sinks",
    "convention",
    "drain_figure",
    "head_detail",
    "head_values_detail",
    "heads_figure",
    "logit_figure",
    "massive_detail",
    "mean_known",
    "median_after",
    "needs",
    "own_attention",
    "peak_state",
    "received",
    "received_by_others",
    "resid_figure",
    "resid_norm",
    "sink_logit",
    "sink_rate_figure",
    "uniform_alpha",
    "v_norm",
    "value_figure",
    "value_norm",
    "windowed",
]

MIN_QUERIES = 16  # of other tokens, before a key other than the first may count as a sink
_MASSIVE = 5  # dimensions listed for every depth


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

    scores: (batch, head, query, key). Returns (batch, head), any real; NaN below first + 3 tokens.
    """
    if scores.shape[-1] <= first:
        return scores.new_full(scores.shape[:2], torch.nan, dtype=torch.float32)
    earlier = scores.float().tril(-1)  # zeroes what a mask has made hugely negative
    keys_between = torch.arange(scores.shape[-2], device=scores.device) - first - 1
    others = earlier[..., first + 1 :].sum(-1) / keys_between.clamp(min=1)
    queries = (site.mask & (keys_between >= 1))[:, None]
    gap = (earlier[..., first] - others).masked_fill(~queries, 0.0)
    return gap.sum(-1) / queries.sum(-1)


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


def resid_norm(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """Norm of the residual stream, (batch, pos)."""
    return resid.float().norm(dim=-1)


def peak_state(resid: torch.Tensor, site: Site, first: int = 0) -> torch.Tensor:
    """The residual stream at the position (>= first) where its norm is largest, (batch, dimension)."""
    resid = resid.float()
    norms = resid.norm(dim=-1).masked_fill(~site.mask, -1.0)
    norms[:, :first] = -1.0
    return resid[torch.arange(len(resid), device=resid.device), norms.argmax(-1)]


# --- analysis -------------------------------------------------------------------------------------------------------


def needs(
    model: "Model", tokens: Any = None, *, epsilon: float = 0.3, mask_first: bool = False, peak: float = 10.0
) -> tuple[Need, ...]:
    """What is reduced in the pass: nothing of [layer, head, query, key] is kept."""
    return tuple(_needs(mask_first).values())


def _needs(mask_first: bool) -> dict[str, Need]:
    params = {"first": int(mask_first)}
    return {
        "received": Need((PATTERN,), received, dims="head key", params=params),
        "own": Need((PATTERN,), own_attention, dims="head key", params=params),
        "logit": Need((SCORES,), sink_logit, dims="head", params=params),
        "value": Need((V,), value_norm, dims="head pos"),
        "v": Need((V,), v_norm, dims="head pos"),
        "embedding": Need((RESID_PRE,), resid_norm, dims="pos", layers=(0,)),
        "resid": Need((RESID_POST,), resid_norm, dims="pos"),
        "embedding_state": Need((RESID_PRE,), peak_state, dims="dimension", params=params, layers=(0,)),
        "state": Need((RESID_POST,), peak_state, dims="dimension", params=params),
    }


def attention_sinks(
    observation: Observation,
    readout: Readout,
    *,
    epsilon: float = 0.3,
    mask_first: bool = False,
    peak: float = 10.0,
) -> xr.Dataset:
    """Sinks, drains and peaks of one prompt. Counts of attention are NaN in layers whose window is shorter than it.

    epsilon: alpha above which a key is a sink. mask_first: position 0 left out. peak: a depth has a peak where the
    largest norm is at least this many times the median's.
    """
    seen = {name: observation[need][:, 0].cpu().numpy() for name, need in _needs(mask_first).items()}
    first, tokens = int(mask_first), observation.tokens[0]
    result = dataset(
        observation,
        **_sinks(seen, windowed(observation.sizes, len(tokens)), epsilon, first),
        **_drains(seen, first),
        **_peaks(seen, first, peak),
    )
    bos = "BOS at position 0" if tokens.bos else "no BOS"
    masked = ", position 0 masked" if mask_first else ""
    convention = f"T = {len(tokens)}, {bos}{masked}, epsilon = {epsilon:g}"
    return result.assign_attrs(convention=convention, summary=_summary(result, first))


def _summary(result: xr.Dataset, first: int) -> str:
    """Sinks, drain and peak in sentences; what was not measured is left out."""
    known = int((~np.isnan(result["sink"].values)).sum())
    said = [f"Position {first} is a sink of {int(np.nansum(result['sink'].values))} of {known} heads."] if known else []
    drain = float(_median(result["value_drain"].values.ravel(), 0))
    if drain == drain:
        said.append(f"Its v W_O has {drain:.2g} times the median token's norm (median head).")
    height = np.nan_to_num(result["peak_ratio"].values, nan=-1.0)
    if float(result["peak_appears"]) == float(result["peak_appears"]):
        top = int(height.argmax())
        dimension, share = (result[name].values[top, 0] for name in ("massive_dimension", "massive_share"))
        end = float(result["peak_disappears"])
        until = f"to {end - 1:.0f}" if end == end else "to the end"
        said.append(
            f"The residual stream peaks at position {int(result['peak_pos'][top])} from depth "
            f"{float(result['peak_appears']):.0f} {until}, {height[top]:.0f} times the median's; dimension {dimension} "
            f"holds {share:.0%} of its squared norm."
        )
    return " ".join(said)


def windowed(sizes: "Sizes", n_tokens: int) -> list[int]:
    """Layers in which some query of a prompt cannot see the first token: no sink can be measured there."""
    return [layer for layer in sizes.sliding if sizes.window is None or n_tokens > sizes.window]


def _sinks(seen: dict[str, np.ndarray], blind: list[int], epsilon: float, first: int) -> dict[str, tuple]:
    alpha, logit = seen["received"].copy(), seen["logit"].copy()  # layer head key
    n_tokens = alpha.shape[-1]
    alpha[blind], logit[blind] = np.nan, np.nan
    others = received_by_others(alpha, seen["own"], first)
    if n_tokens <= first:
        at_first = np.full(alpha.shape[:2], np.nan)
    else:
        at_first = alpha[..., first]
    unknown = np.isnan(at_first)
    sink = np.where(unknown, np.nan, at_first > epsilon)
    flags = np.where(np.isnan(others), np.nan, others > epsilon)
    if n_tokens > first:
        flags[..., first] = sink
    null = np.where(unknown, np.nan, uniform_alpha(n_tokens - first))
    return {
        "attention_received": ("layer head key", alpha, "share of attention", (0, 1), "attention received (alpha)"),
        "received_by_others": ("layer head key", others, "share of attention", (0, 1), "alpha without the own query"),
        "first_received": ("layer head", at_first, "share of attention", (0, 1), f"alpha of position {first}"),
        "first_received_null": ("layer head", null, "share of attention", (0, 1), "alpha of uniform attention"),
        "sink": ("layer head", sink, "flag", (0, 1), f"position {first} is a sink"),
        "other_sinks": (
            "layer head",
            np.where(unknown, np.nan, (others > epsilon).sum(-1)),
            "keys",
            (0, None),
            f"sinks behind position {first}",
        ),
        "sink_rate": ("layer", mean_known(sink, -1), "share of heads", (0, 1), f"heads that sink on position {first}"),
        "sink_share": ("layer key", mean_known(flags, 1), "share of heads", (0, 1), "heads that sink on this key"),
        "sink_logit": ("layer head", logit, "logits", None, f"score of position {first} above the others'"),
    }


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


def _drains(seen: dict[str, np.ndarray], first: int) -> dict[str, tuple]:
    norms, plain = seen["value"], seen["v"]  # layer head pos
    median = median_after(norms, first)
    drain = _at(norms, first) / np.where(median > 0, median, np.nan)
    return {
        "value_norm": ("layer head pos", norms, "residual units", (0, None), "norm of v W_O"),
        "v_norm": ("layer head pos", plain, "value units", (0, None), "norm of v"),
        "value_drain": ("layer head", drain, "times the median", (0, None), f"norm of v W_O at position {first}"),
        "layer_drain": ("layer", _median(drain, -1), "times the median", (0, None), "value drain of the median head"),
    }


def _peaks(seen: dict[str, np.ndarray], first: int, peak: float) -> dict[str, tuple]:
    norms = np.concatenate([seen["embedding"], seen["resid"]])  # depth pos
    states = np.concatenate([seen["embedding_state"], seen["state"]]).astype(np.float64)  # depth dimension
    median = median_after(norms, first)[:, None]
    ratios = norms / np.where(median > 0, median, np.nan)
    counted = np.where(np.arange(norms.shape[1]) >= first, ratios, np.nan)
    there = np.where(np.isnan(counted), -1.0, counted)
    height = np.where(there.max(1) >= 0, there.max(1), np.nan)
    appears, disappears = _span(height, peak)
    largest = np.argsort(-np.abs(states), axis=1, kind="stable")[:, :_MASSIVE]
    values = np.take_along_axis(states, largest, axis=1)
    share = values**2 / np.maximum((states**2).sum(1, keepdims=True), 1e-30)
    return {
        "resid_norm": ("depth pos", norms, "residual units", (0, None), "norm of the residual stream"),
        "resid_ratio": ("depth pos", ratios, "times the median", (0, None), "norm against the median token's"),
        "peak_ratio": ("depth", height, "times the median", (0, None), "largest norm"),
        "peak_pos": ("depth", there.argmax(1), "position", (0, None), "position of the largest norm"),
        "peak_appears": ("", appears, "depth", (0, None), f"first depth of the highest peak (from {peak:g} medians)"),
        "peak_disappears": ("", disappears, "depth", (0, None), "first depth after the peak; NaN: it lasts"),
        "massive_dimension": ("depth rank", largest, "dimension", (0, None), "dimension that carries the largest norm"),
        "massive_value": ("depth rank", values, "residual units", None, "its value"),
        "massive_share": ("depth rank", share, "share of the squared norm", (0, 1), "its share of the squared norm"),
    }


def _span(height: np.ndarray, peak: float) -> tuple[float, float]:
    """First depth of the highest peak, and the first one behind it; NaN where there is none."""
    is_peak = np.nan_to_num(height, nan=0.0) >= peak
    if not is_peak.any():
        return float("nan"), float("nan")
    top = int(np.nan_to_num(height, nan=-1.0).argmax())
    before, after = np.flatnonzero(~is_peak[:top]), np.flatnonzero(~is_peak[top:])
    return float(before[-1] + 1 if before.size else 0), float(top + after[0]) if after.size else float("nan")


def median_after(norms: np.ndarray, first: int) -> np.ndarray:
    """Median over the positions behind `first`, of the shape without the last axis; NaN where there are none."""
    return _median(norms[..., first + 1 :], -1)


def _at(norms: np.ndarray, first: int) -> np.ndarray:
    return norms[..., first] if norms.shape[-1] > first else np.full(norms.shape[:-1], np.nan)


def _median(values: np.ndarray, axis: int) -> np.ndarray:
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


# --- figures --------------------------------------------------------------------------------------------------------


def convention(result: xr.Dataset) -> str:
    """T, BOS convention and epsilon, as they belong under every number: `T = 64, BOS at position 0, epsilon = 0.3`."""
    return str(result.attrs["convention"])


def heads_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of alpha of the first position; heads that sink are ringed."""
    from workbench.figures import heads_grid

    marked = [(int(layer), int(head)) for layer, head in np.argwhere(result["sink"].values == 1)]
    title = f"Attention that the sink receives ({convention(result)})"
    return heads_grid(result, "first_received", title=title, mark=marked, mark_name="sinks")


def sink_rate_figure(result: xr.Dataset) -> "go.Figure":
    """Share of heads that sink, per layer."""
    from workbench.figures import series

    return series(result, "sink_rate", "layer", title=f"Share of heads that sink ({convention(result)})")


def drain_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the value drain, on a log scale: small is drained."""
    from workbench.figures import heads_grid

    title = f"Value drain: the sink's |v W_O| over the median's ({convention(result)})"
    return heads_grid(result, "value_drain", title=title, scale="log")


def logit_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the sink logit."""
    from workbench.figures import heads_grid

    return heads_grid(result, "sink_logit", title=f"Sink logit ({convention(result)})")


def resid_figure(result: xr.Dataset) -> "go.Figure":
    """Depth x position map of the residual norm, on a log scale."""
    from workbench.figures import depth_pos_grid

    return depth_pos_grid(result, "resid_norm", title=f"Residual norm ({convention(result)})", scale="log")


def value_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x position map of the norm of v W_O, mean over heads, on a log scale."""
    from workbench.figures import depth_pos_grid

    mean = result["value_norm"].mean("head").assign_attrs(result["value_norm"].attrs)
    title = f"Value norm, mean over heads ({convention(result)})"
    return depth_pos_grid(result.assign(value_norm=mean), "value_norm", title=title, scale="log")


def head_detail(result: xr.Dataset, selection: dict) -> "go.Figure":
    """Of the selected head: the attention that every key receives."""
    return _head_strip(result, selection, "attention_received", "attention received")


def head_values_detail(result: xr.Dataset, selection: dict) -> "go.Figure":
    """Of the selected head: the norm of every token's v W_O."""
    return _head_strip(result, selection, "value_norm", "norm of v W_O")


def _head_strip(result: xr.Dataset, selection: dict, variable: str, what: str) -> "go.Figure":
    from workbench.figures import head_name, token_strip

    layer, head = selection.get("layer"), selection.get("head")
    if layer is None or head is None:
        layer, head = np.unravel_index(np.nan_to_num(result["first_received"].values).argmax(), result["sink"].shape)
    array = result[variable].sel(layer=layer, head=head, drop=True)
    tokens = {"token_text": ("pos", result["token_text"].values)} if "token_text" in result.coords else {}
    part = xr.Dataset({variable: ("pos", array.values, array.attrs)}, coords={"pos": result["pos"].values, **tokens})
    return token_strip(part, variable, title=f"{head_name(layer, head)}: {what} ({convention(result)})")


def massive_detail(result: xr.Dataset, selection: dict) -> "go.Figure":
    """The dimensions that carry the largest norm at the selected depth (by default where it is largest)."""
    from workbench.figures import bars

    depth = selection.get("depth")
    if depth is None:
        depth = int(result["depth"].values[np.nan_to_num(result["peak_ratio"].values, nan=-1.0).argmax()])
    part = result[["massive_dimension", "massive_value", "massive_share"]].sel(depth=depth, drop=True)
    names = [
        f"{dimension}: {share:.0%}"
        for dimension, share in zip(part["massive_dimension"].values, part["massive_share"].values, strict=True)
    ]
    where = int(result["peak_pos"].sel(depth=depth))
    title = f"Dimensions and shares of the squared norm at depth {depth}, position {where} ({convention(result)})"
    return bars(part, "massive_value", "rank", title=title, labels=names)


def sink_claim(result: xr.Dataset, selection: dict) -> "Claim | None":
    """The sink of the selected head serves the prompt: where its key is hidden, the prediction becomes another."""
    if not {"layer", "head"} <= set(selection):
        return None
    here = result[["first_received", "sink", "other_sinks", "attention_received"]].sel(
        layer=selection["layer"], head=selection["head"]
    )
    if float(here["sink"]) != 1 and not float(here["other_sinks"]) > 0:
        return None
    key = int(np.nanargmax(here["attention_received"].values))
    return claims.sink(selection, key)


def _cost(sizes: Any, n_tokens: int, **params: Any) -> float:
    """Beside a bare pass of 1 (measured): a share that grows with the pattern's part of the pass."""
    return 0.05 + 0.15 * min(n_tokens, 1024) / 1024


ENTRY = Entry(
    name="attention-sinks",
    title="Attention sinks, drains and peaks",
    source="arXiv 2410.10781, arXiv 2410.13835, arXiv 2402.17762",
    definition=(
        "alpha_k = 1/(T-k) sum over i >= k of A[i,k]; a head sinks when alpha_0 > epsilon. Other keys: without i = k, "
        "from 16 queries on. Drain: |v W_O| of the first token over the median's. Peak: |resid_post| over the median. "
        "Sink logit: mean over q of score(q,0) - mean over 0 < j < q of score(q,j)."
    ),
    limits=(
        "alpha falls with T: never compare prompts of unlike length. A head that sinks here may work elsewhere: see "
        "active-dormant. Layers whose sliding window is shorter than the prompt are not applicable. mask_first counts "
        "anew; it does not rerun the model."
    ),
    needs=needs,
    analyse=attention_sinks,
    figures=(heads_figure, sink_rate_figure, resid_figure, value_figure, drain_figure, logit_figure),
    details=(head_detail, head_values_detail, massive_detail),
    claims=(sink_claim, claims.head),
    params=(
        Param("epsilon", float, 0.3, "alpha above which a key is a sink", low=0.0, high=1.0),
        Param("mask_first", bool, False, "leave position 0 out and renormalise"),
        Param("peak", float, 10.0, "times the median norm that makes a peak", low=1.0, high=1e6),
    ),
    requires=("per-head parts plus bias sum to attn_out",),
    cost=_cost,
)
run = ENTRY.run
