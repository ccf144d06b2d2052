"""Attention sinks, value-state drains and residual-state peaks: what the first token is used for."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import xarray as xr

from probes.attention.sinks.figures import (
    drain_figure,
    head_detail,
    head_values_detail,
    heads_figure,
    logit_figure,
    massive_detail,
    resid_figure,
    sink_rate_figure,
    value_figure,
)
from probes.attention.sinks.measures import (
    mean_known,
    median_after,
    median_known,
    own_attention,
    peak_state,
    received,
    received_by_others,
    sink_logit,
    sink_threshold,
    uniform_alpha,
    v_norm,
    value_norm,
    windowed,
)
from probes.checks import claims
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, Claim, View, chosen
from workbench.models.hooks import PATTERN, RESID_POST, RESID_PRE, SCORES, V
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PARTS, SOFTMAX, VISIBLE
from workbench.observation import Need, Observation
from workbench.observation.reducers import residual_norm
from workbench.words import counted

__all__ = ["VIEW", "AttentionSinks", "sink_claim"]

_MASSIVE = 5  # dimensions listed for every depth


class AttentionSinks(
    OnPrompt, name="attention-sinks", title="Attention sinks, drains and peaks", requires=(PARTS, SOFTMAX, VISIBLE)
):
    """What the first token is used for: attention that it receives, values that it drains, states that peak.

    Definition: alpha_k = 1/(T-k) sum over i >= k of A[i,k], the attention that key k receives of T tokens (positions
    from 0); a head sinks when alpha_0 exceeds epsilon and twice what uniform attention gives at that length, H_T / T;
    where that alone exceeds 0.3 (T up to 9), the prompt is too short to tell. Other keys: without i = k, from 16
    queries on; else late keys would qualify by themselves. A sink's value is small (drain: |v W_O| of the first token
    over the median's) while its residual stream is large (peak: |resid_post| over the median), carried by a few
    dimensions (massive activations). Sink logit: mean over q of score(q,0) - mean over 0 < j < q of score(q,j).
    mask_first asks the same with position 0 out of the picture: rows are renormalised over the other keys and position
    1 takes the first one's place.

    Limits: alpha falls with T: never compare prompts of unlike length. Uniform attention already gives alpha_0 = H_T /
    T (0.074 at T = 64). A head that sinks here may work elsewhere: see active-dormant. A learned sink that is no token
    (GPT-OSS) takes a share that no key shows. Layers whose sliding window is shorter than the prompt are not
    applicable: counts of attention are NaN there. mask_first counts anew; it does not rerun the model: sink-conditions
    does. Norms of v W_O are taken before a post-norm (Gemma 2 and 3), and their units say so.

    Source: arXiv 2410.10781 (Gu et al. 2024: alpha, epsilon), arXiv 2410.13835 (Guo et al. 2024: drain, peak, sink
    logit), arXiv 2402.17762 (Sun et al. 2024: massive activations). The stricter rule for other keys is ours.

    Returns: Sinks, drains and peaks of one prompt. `attention_received`, `received_by_others` (layer, head, key);
    `first_received` and its `_null` under uniform attention, `sink`, `other_sinks`, `sink_logit`, `value_drain` (layer,
    head); `sink_rate`, `layer_drain` (layer); `sink_share` (layer, key); `value_norm`, `v_norm` (layer, head, pos);
    `residual_norm`, `resid_ratio` (depth, pos); `peak_ratio`, `peak_pos` (depth), and the scalars `peak_appears`,
    `peak_disappears`; `massive_dimension`, `massive_value`, `massive_share` (depth, rank).
    """

    epsilon: Annotated[float, Range(0.0, 1.0), "alpha above which a key is a sink"] = 0.3
    mask_first: Annotated[bool, "leave position 0 out and renormalise"] = False
    peak: Annotated[float, Range(1.0, 1e6), "times the median norm that makes a peak"] = 10.0

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """What is reduced in the pass: nothing of [layer, head, query, key] is kept."""
        return tuple(_needs(self.mask_first).values())

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Sinks, drains and peaks of one prompt."""
        seen = {name: observation[need][:, 0].cpu().numpy() for name, need in _needs(self.mask_first).items()}
        first, tokens = int(self.mask_first), observation.tokens[0]
        hidden = windowed(observation.sizes, len(tokens))
        result = dataset(
            observation,
            **_sinks(seen, hidden, self.epsilon, first),
            **_drains(seen, first, observation.weights(0).written_units),
            **_peaks(seen, first, self.peak),
        )
        bos = "BOS at position 0" if tokens.bos else "no BOS"
        masked = ", position 0 masked" if self.mask_first else ""
        convention = f"T = {len(tokens)}, {bos}{masked}, epsilon = {self.epsilon:g}"
        return result.assign_attrs(convention=convention, summary=_summary(result, first, self.epsilon, len(hidden)))

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Beside a bare pass of 1 (measured): a share that grows with the pattern's part of the pass."""
        return 0.05 + 0.15 * min(n_tokens, 1024) / 1024


def _needs(mask_first: bool) -> dict[str, Need]:
    params = {"first": int(mask_first)}
    return {
        "received": Need((PATTERN,), received, dims="head key", params=params),
        "own": Need((PATTERN,), own_attention, dims="head key", params=params),
        "logit": Need((SCORES,), sink_logit, dims="head", params=params),
        "value": Need((V,), value_norm, dims="head pos"),
        "v": Need((V,), v_norm, dims="head pos"),
        "embedding": Need((RESID_PRE,), residual_norm, dims="pos", layers=(0,)),
        "resid": Need((RESID_POST,), residual_norm, dims="pos"),
        "embedding_state": Need((RESID_PRE,), peak_state, dims="dimension", params=params, layers=(0,)),
        "state": Need((RESID_POST,), peak_state, dims="dimension", params=params),
    }


def _summary(result: xr.Dataset, first: int, epsilon: float, hidden: int) -> str:
    """Sinks, drain and peak in sentences; what was not measured is left out. hidden: layers with a shorter window."""
    known = int((~np.isnan(result["sink"].values)).sum())
    said = []
    if known:
        null = float(np.nanmax(result["first_received_null"].values))
        said.append(
            f"Position {first} is a sink of {int(np.nansum(result['sink'].values))} of {counted(known, 'head')} "
            f"(uniform attention would give it {null:.2f}, and a sink gets {_bar(epsilon, null)})."
        )
    elif result["first_received"].notnull().any():
        said.append("The prompt is too short to tell a sink from uniform attention.")
    if hidden:
        said.append(
            f"{counted(hidden, 'layer')} left out: where a window is shorter than the prompt, it hides its start."
        )
    drain = float(median_known(result["value_drain"].values.ravel(), 0))
    if drain == drain:
        said.append(f"The v W_O of position {first} has {drain:.2g} times the median token's norm (median head).")
    height = np.nan_to_num(result["peak_ratio"].values, nan=-1.0)
    if float(result["peak_appears"]) == float(result["peak_appears"]):
        top = int(height.argmax())
        dimension, share = (result[name].values[top, 0] for name in ("massive_dimension", "massive_share"))
        end = float(result["peak_disappears"])
        until = f"to {end - 1:.0f}" if end == end else "to the end"
        said.append(
            f"Residual norms peak from depth {float(result['peak_appears']):.0f} {until}: the highest, "
            f"{height[top]:.0f} times the median, is at depth {top}, position {int(result['peak_pos'][top])}; "
            f"dimension {dimension} holds {share:.0%} of its squared norm."
        )
    return " ".join(said) or "Of so short a prompt neither a sink nor a drain nor a peak can be told."


def _bar(epsilon: float, uniform: float) -> str:
    """Above what position 0 is a sink: what was asked for, or twice uniform attention where that is more."""
    return f"more than {epsilon:g}" if epsilon >= 2 * uniform else f"more than twice that, {2 * uniform:.2f}"


def _sinks(seen: dict[str, np.ndarray], blind: list[int], epsilon: float, first: int) -> dict[str, Any]:
    alpha, logit = seen["received"].copy(), seen["logit"].copy()  # layer head key
    n_tokens = alpha.shape[-1]
    alpha[blind], logit[blind] = np.nan, np.nan
    others = received_by_others(alpha, seen["own"], first)
    if n_tokens <= first:
        at_first = np.full(alpha.shape[:2], np.nan)
    else:
        at_first = alpha[..., first]
    bar = sink_threshold(n_tokens - first, epsilon)
    unknown = np.isnan(at_first)
    sink = np.where(unknown | np.isnan(bar), np.nan, at_first > bar)
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


def _drains(seen: dict[str, np.ndarray], first: int, units: str) -> dict[str, Any]:
    norms, plain = seen["value"], seen["v"]  # layer head pos
    median = median_after(norms, first)
    drain = _at(norms, first) / np.where(median > 0, median, np.nan)
    return {
        "value_norm": ("layer head pos", norms, units, (0, None), "norm of v W_O"),
        "v_norm": ("layer head pos", plain, "value units", (0, None), "norm of v"),
        "value_drain": ("layer head", drain, "times the median", (0, None), f"norm of v W_O at position {first}"),
        "layer_drain": (
            "layer",
            median_known(drain, -1),
            "times the median",
            (0, None),
            "value drain of the median head",
        ),
    }


def _peaks(seen: dict[str, np.ndarray], first: int, peak: float) -> dict[str, Any]:
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
        "residual_norm": ("depth pos", norms, "residual units", (0, None), "norm of the residual stream"),
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


def _at(norms: np.ndarray, first: int) -> np.ndarray:
    return norms[..., first] if norms.shape[-1] > first else np.full(norms.shape[:-1], np.nan)


def sink_claim(result: xr.Dataset, selection: Mapping[str, Any]) -> Claim | None:
    """The sink of the selected head serves the prompt: where its key is hidden, the prediction becomes another."""
    at = chosen(result, selection, "layer", "head")
    if at is None:
        return None
    here = result[["first_received", "sink", "other_sinks", "attention_received"]].sel(layer=at[0], head=at[1])
    if float(here["sink"]) != 1 and not float(here["other_sinks"]) > 0:
        return None
    key = int(np.nanargmax(here["attention_received"].values))
    return claims.sink(result, selection, key)


VIEW = View(
    AttentionSinks,
    question="Where is attention dumped, what becomes of the values there, and which states are huge?",
    asks=(
        Ask("epsilon", "Call a key a sink above an attention share of"),
        Ask("mask_first", "leaving position 0 out:"),
    ),
    figures=(heads_figure, sink_rate_figure, resid_figure, value_figure, drain_figure, logit_figure),
    details=(head_detail, head_values_detail, massive_detail),
    claims=(sink_claim, claims.head),
)
