"""Information-flow routes of one prompt: every edge's share, from the one observed pass."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.routes.contributions import (
    ATTENTION,
    BIAS,
    MLP,
    RESIDUAL,
    RESIDUE,
    attention_need,
    attention_needs,
    mlp_need,
    predict_bytes,
    split_table,
)
from probes.routes.extraction import summarise
from workbench.analysis.results import dataset
from workbench.errors import RefusedError
from workbench.observation import Need, Observation

__all__ = ["MIN_COVERAGE", "MIN_SHARE", "finer", "flow_routes", "needs", "said"]

MIN_SHARE, MIN_COVERAGE = 0.001, 0.95
_BUDGET = 4_000_000_000  # bytes


def needs(model, tokens, *, p=1, min_share=MIN_SHARE, min_coverage=MIN_COVERAGE) -> tuple[Need, ...]:
    """Two needs: behind attention and behind the MLP (one where a block is parallel or has no MLP).

    Raises RefusedError, with the predicted size, for prompts whose edges would not fit in 4 GB.
    """
    size = predict_bytes(model.sizes, len(tokens), min_share, min_coverage)
    if size > _BUDGET:
        raise RefusedError(
            f"routes of {len(tokens)} tokens, about {size / 1e9:.0f} GB of edges",
            f"at most {_BUDGET / 1e9:.0f} GB",
            "Shorten the prompt" + ("" if (min_share, min_coverage) == (MIN_SHARE, MIN_COVERAGE) else ", or keep less"),
        )
    found = attention_need(model, min_share=min_share, min_coverage=min_coverage, p=p), mlp_need(model.sizes, p=p)
    return tuple(need for need in found if need is not None)


def flow_routes(
    observation: Observation,
    readout,
    *,
    p: int = 1,
    min_share: float = MIN_SHARE,
    min_coverage: float = MIN_COVERAGE,
) -> xr.Dataset:
    """Shares of all parts of one prompt.

    p: the norm; 1 is the paper's, 2 is not. min_share, min_coverage: a (key, head) edge is kept if its share is above
    the one or if it belongs to the fewest that hold the other of the row's attention; no later setting can be finer.

    Returns over `edge`: `layer`, `query`, `key`, `head`, `weight` (share of resid_mid, of resid_post in a parallel
    block, before any threshold), `covered` (share of the row's attention that its stronger edges hold); by row, the
    strongest first. Over (layer, pos): `attention` (all edges, kept or not), `resid_attn`, `bias_attn`, which sum to 1
    (with `mlp` in a parallel block); `mlp` and `resid_mlp`, which sum to 1; `residue`, the norm of target minus parts
    over the norm of the target, the larger of the two sums.
    """
    tables, second = _kept(observation, p, min_share, min_coverage)
    n_pos = len(observation.tokens[0])
    split = [split_table(table[0], n_pos) for table in tables]
    rows = {name: torch.stack([single[name] for _, single in split]).cpu() for name in split[0][1]}
    mlp = rows[MLP] if MLP in rows else (torch.zeros_like(rows[BIAS]) if second is None else second[:, 0, :, 0].cpu())
    residue = rows[RESIDUE] if second is None else torch.maximum(rows[RESIDUE], second[:, 0, :, 1].cpu())
    norm = "" if p == 1 else " by L2, which is not the paper's norm"
    share, cell = "share" + norm, "layer pos"
    result = dataset(
        observation,
        {"pos": range(n_pos)},
        **_edges(split, share),
        attention=(cell, rows[ATTENTION], share, (0, 1), "share of attention"),
        resid_attn=(cell, rows[RESIDUAL], share, (0, 1), "share of the residual stream past attention"),
        bias_attn=(cell, rows[BIAS], share, (0, 1), "share of the attention bias"),
        mlp=(cell, mlp, share, (0, 1), "share of the MLP"),
        resid_mlp=(cell, 1 - mlp, share, (0, 1), "share of the residual stream past the MLP"),
        residue=(cell, residue, "relative norm", (0, None), "what the parts miss of their sum"),
    )
    result.attrs |= {
        "p": p, "min_share": min_share, "min_coverage": min_coverage, "parallel": int(observation.sizes.parallel),
        "n_heads": observation.sizes.n_heads,
    }  # fmt: skip
    return result.drop_vars("edge").assign_attrs(summary=said(result))  # 8 bytes for each of millions


def _kept(observation: Observation, p, min_share, min_coverage):
    """The tables by layer, and what the MLP step left (or None)."""
    fitting = attention_needs(observation.sizes, min_share=min_share, min_coverage=min_coverage, p=p)
    first = next((need for need in fitting if need in observation), fitting[0])
    second = mlp_need(observation.sizes, p=p)
    return observation[first], None if second is None else observation[second]


def _edges(split: list[tuple[torch.Tensor, dict]], share: str) -> dict[str, tuple]:
    """Columns of the edge table, as narrow as they can be: a long prompt has millions of edges."""
    tables = [edges.cpu().numpy() for edges, _ in split]
    column = lambda i, dtype: np.concatenate([table[:, i].astype(dtype) for table in tables])
    position = np.int16 if len(split[0][1][ATTENTION]) <= np.iinfo(np.int16).max else np.int32
    layer = np.repeat(np.arange(len(tables), dtype=np.int16), [len(table) for table in tables])
    totals = [single[ATTENTION].cpu().numpy() for _, single in split]
    covered = [_covered(table, total) for table, total in zip(tables, totals, strict=True)]
    return {
        "query": ("edge", column(0, position), "position", (0, None), "where the edge leads"),
        "key": ("edge", column(1, position), "position", (0, None), "where the edge comes from"),
        "head": ("edge", column(2, np.int16), "head", (0, None)),
        "weight": ("edge", column(3, np.float32), share, (0, 1), "share of what the edge leads into"),
        "covered": ("edge", np.concatenate(covered), share, (0, 1), "share of the row's attention in stronger edges"),
        "layer": ("edge", layer, "layer", (0, None)),
    }


def _covered(table: np.ndarray, total: np.ndarray) -> np.ndarray:
    """For every edge, what the stronger ones of its row hold of the row's attention; edges stand by row, strongest
    first."""
    query, weight = table[:, 0].astype(np.int64), table[:, 3].astype(np.float64)
    before = np.cumsum(weight) - weight
    starts = np.searchsorted(query, np.arange(len(total)))
    in_row = before - before[np.minimum(starts, len(before) - 1)][query] if len(before) else before
    return np.clip(in_row / np.maximum(total[query], 1e-30), 0, 1).astype(np.float32)


def finer(params: Mapping[str, Any], display: Mapping[str, Any]) -> dict[str, Any]:
    """Params that keep every edge which the graph of a display may hold."""
    if display["threshold"] is not None:
        return {**params, "min_share": min(params["min_share"], display["threshold"])}
    return {**params, "min_coverage": max(params["min_coverage"], display["coverage"])}


def said(result: xr.Dataset, *, start=None, coverage=None, threshold=None, hide_first=False) -> str:
    """The graph in one sentence with its numbers, what was kept where that is not the default, and the residue."""
    coverage = None if threshold is not None else coverage
    graph = summarise(result, start=start, coverage=coverage, threshold=threshold, hide_first=hide_first)
    share, cover = result.attrs["min_share"], result.attrs["min_coverage"]
    changed = (share, cover) != (MIN_SHARE, MIN_COVERAGE)
    how = f" Kept are shares above {share:g} and what is within coverage {cover:g}." if changed else ""
    return f"{graph}{how} Parts miss their sums by at most {float(result['residue'].max()):.1e}."
