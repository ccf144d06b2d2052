"""Information-flow routes of one prompt: every edge's share, from the one observed pass, and how they are shown.

result = FlowRoutes().run(model, "When Mary and John went to the store, John gave a bottle of milk to")
graph = extract(result, coverage=0.8)       # another start, rule or threshold: no second pass
routes_figure(result, start=3, threshold=0.01)
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import xarray as xr

from probes.routes import claims, one_layer
from probes.routes.contributions import (
    ATTENTION,
    BIAS,
    MLP,
    RESIDUE,
    attention_need,
    attention_needs,
    mlp_need,
    predict_bytes,
    split_table,
)
from probes.routes.contributions import (
    RESIDUAL as PAST_ATTENTION,
)
from probes.routes.extraction import DEFAULT_COVERAGE, Rule, summarise
from probes.routes.figures import DRAWN, edge_detail, layers_figure, routes_figure
from probes.routes.strength import head_strength
from workbench.analysis.kinds import Analysis, OnPrompt
from workbench.analysis.parameters import Choice, Position, Range, Slider, Values
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, View
from workbench.errors import RefusedError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PARTS, RESIDUAL
from workbench.observation import Need, Observation

__all__ = ["VIEW", "FlowRoutes", "RoutesDisplay", "finer", "follow", "said"]

_MIN_SHARE, _MIN_COVERAGE = 0.001, 0.95
_HEADS = 0.01  # threshold of the routes that heads are counted on
_BUDGET = 4_000_000_000  # bytes


class FlowRoutes(OnPrompt, name="flow-routes", title="Information-flow routes", requires=(RESIDUAL, PARTS)):
    """Which edges between tokens a prediction is made of, from one forward pass.

    Every representation is a sum: resid_mid of resid_pre, one part per (key, head) and a bias; resid_post of resid_mid
    and the MLP's output. A part's share says how much closer to the sum it brings (see `contributions`). Keeping the
    strong edges and walking down from one token gives its graph (see `extraction`); how much of the prediction the
    graph carries is measured, not assumed (see `faithfulness`).

    Definition: share of part z in y = max(0, ||y||_1 - ||y - z||_1), divided by the sum over all parts of y. y =
    resid_mid has the parts resid_pre, pattern[i, j, h] v[j, h] W_O[h] for every key j and head h, and b_O; y =
    resid_post has resid_mid and mlp_out. Coverage c keeps the fewest attention edges that hold a share c of a row's
    attention; a threshold keeps parts with a larger share. The graph is what the start token reaches downwards.

    Limits: Shares are local: a path is not worth the product of its edges, and a large share need not matter for the
    prediction. Attention patterns are taken as given. Compare the graph's faithfulness with that of random edges before
    reading a story into it. Where an intervention sets a head's output, what is written instead comes from no key: its
    edges have no share, and the residue says what the parts miss.

    Source: Ferrando & Voita 2024, arXiv 2403.00824; Tufanov et al. 2024, arXiv 2404.07004. Coverage, the bias as a
    part, the residue and faithfulness are ours.

    Returns: over `edge`: `edge_layer`, `edge_query`, `edge_key`, `edge_head`, `weight` (share of resid_mid, of
    resid_post in a parallel block, before any threshold), `covered` (share of the row's attention that its stronger
    edges hold); by row, the strongest first. Over (layer, pos): `attention` (all edges, kept or not), `resid_attn`,
    `bias_attn`, which sum to 1 (with `mlp` in a parallel block); `mlp` and `resid_mlp`, which sum to 1; `residue`, the
    norm of target minus parts over the norm of the target, the larger of the two sums. An edge is kept if its share is
    above min_share or if it belongs to the fewest that hold min_coverage of the row's attention; no later setting can
    be finer.
    """

    p: Annotated[int, Choice((1, 2)), "norm: 1 is the paper's; 2 is not, but shows how much the choice matters"] = 1
    min_share: Annotated[float, Range(0, 1), "keep every edge above this share; a lower threshold lowers it"] = (
        _MIN_SHARE
    )
    min_coverage: Annotated[float, Range(0, 1), "keep the fewest edges that hold this much of a row's attention"] = (
        _MIN_COVERAGE
    )

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """Two needs: behind attention and behind the MLP (one where a block is parallel or has no MLP).

        Raises RefusedError, with the predicted size, for prompts whose edges would not fit in 4 GB.
        """
        size = predict_bytes(model.sizes, len(tokens), self.min_share, self.min_coverage)
        if size > _BUDGET:
            raise RefusedError(
                f"routes of {len(tokens)} tokens, about {size / 1e9:.0f} GB of edges",
                f"at most {_BUDGET / 1e9:.0f} GB",
                "Shorten the prompt" + (", or keep less" if _is_changed(self.min_share, self.min_coverage) else ""),
            )
        found = attention_need(model, **self.values()), mlp_need(model.sizes, p=self.p)
        return tuple(need for need in found if need is not None)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Shares of all parts of one prompt."""
        tables, second = self._kept(observation)
        n_pos = len(observation.tokens[0])
        split = [split_table(table[0], n_pos) for table in tables]
        rows = {name: torch.stack([single[name] for _, single in split]).cpu() for name in split[0][1]}
        mlp = rows[MLP] if MLP in rows else torch.zeros_like(rows[BIAS]) if second is None else second[:, 0, :, 0].cpu()
        residue = rows[RESIDUE] if second is None else torch.maximum(rows[RESIDUE], second[:, 0, :, 1].cpu())
        norm = "" if self.p == 1 else " by L2, which is not the paper's norm"
        share, cell = "share" + norm, "layer pos"
        result = dataset(
            observation,
            {"pos": range(n_pos)},
            **_edges(split, share),
            attention=(cell, rows[ATTENTION], share, (0, 1), "share of attention"),
            resid_attn=(cell, rows[PAST_ATTENTION], share, (0, 1), "share of the residual stream past attention"),
            bias_attn=(cell, rows[BIAS], share, (0, 1), "share of the attention bias"),
            mlp=(cell, mlp, share, (0, 1), "share of the MLP"),
            resid_mlp=(cell, 1 - mlp, share, (0, 1), "share of the residual stream past the MLP"),
            residue=(cell, residue, "relative norm", (0, None), "what the parts miss of their sum"),
        )
        sizes = observation.sizes
        for name in ("edge_query", "edge_key", "edge_head", "edge_layer"):
            del result[name].attrs["absent"]  # none is missing
        result.attrs |= {**self.values(), "parallel": int(sizes.parallel), "n_heads": sizes.n_heads}
        return result.drop_vars("edge").assign_attrs(summary=said(result))  # 8 bytes for each of millions

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """As much as a bare pass (measured: 0.8 to 1.5 of one): the norm of every part of every pair of tokens."""
        return 1.0

    def averaged(self, result: xr.Dataset) -> xr.Dataset:
        """Beside what is there by layer: `strength` and `frequency` of every head as in `flow-route-heads`, its edges
        above 0.01 (or min_share) walked from every token but the first."""
        strength, is_on = head_strength(result, Rule(threshold=max(_HEADS, self.min_share)))
        starts = slice(1, None) if len(strength) > 1 else slice(0, None)
        cell = "layer head"
        heads = dataset(
            strength=(cell, strength[starts].mean(0), "share, summed", (0, None), "strength on routes"),
            frequency=(cell, is_on[starts].mean(0), "share of start tokens", (0, 1), "how often on a route"),
        )
        return heads.assign(result.drop_dims("edge").data_vars)

    def _kept(self, observation: Observation) -> tuple[Any, torch.Tensor | None]:
        """The tables by layer, and what the MLP step left (or None)."""
        fitting = attention_needs(observation.sizes, **self.values())
        first = next((need for need in fitting if need in observation), fitting[0])
        second = mlp_need(observation.sizes, p=self.p)
        return observation[first], None if second is None else observation[second]


def _is_changed(min_share: float, min_coverage: float) -> bool:
    return (min_share, min_coverage) != (_MIN_SHARE, _MIN_COVERAGE)


def _edges(split: list[tuple[torch.Tensor, dict[int, torch.Tensor]]], share: str) -> dict[str, Any]:
    """Columns of the edge table, as narrow as they can be: a long prompt has millions of edges."""
    tables = [edges.cpu().numpy() for edges, _ in split]
    column = lambda i, dtype: np.concatenate([table[:, i].astype(dtype) for table in tables])
    position = np.int16 if len(split[0][1][ATTENTION]) <= np.iinfo(np.int16).max else np.int32
    layer = np.repeat(np.arange(len(tables), dtype=np.int16), [len(table) for table in tables])
    totals = [single[ATTENTION].cpu().numpy() for _, single in split]
    covered = [_covered(table, total) for table, total in zip(tables, totals, strict=True)]
    return {
        "edge_query": ("edge", column(0, position), "position", (0, None), "where the edge leads"),
        "edge_key": ("edge", column(1, position), "position", (0, None), "where the edge comes from"),
        "edge_head": ("edge", column(2, np.int16), "head", (0, None), "head"),
        "weight": ("edge", column(3, np.float32), share, (0, 1), "share of what the edge leads into"),
        "covered": ("edge", np.concatenate(covered), share, (0, 1), "share of the row's attention in stronger edges"),
        "edge_layer": ("edge", layer, "layer", (0, None), "layer"),
    }


def _covered(table: np.ndarray, total: np.ndarray) -> np.ndarray:
    """For every edge, what the stronger ones of its row hold of the row's attention; edges stand by row, strongest
    first."""
    query, weight = table[:, 0].astype(np.int64), table[:, 3].astype(np.float64)
    before = np.cumsum(weight) - weight
    starts = np.searchsorted(query, np.arange(len(total)))
    in_row = before - before[np.minimum(starts, len(before) - 1)][query] if len(before) else before
    return np.clip(in_row / np.maximum(total[query], 1e-30), 0, 1).astype(np.float32)


class RoutesDisplay(Values):
    """Which graph of the kept edges is drawn, and how much of it."""

    owner: ClassVar[str] = "drawing flow-routes"

    start: Annotated[int | None, Position(), "token whose prediction is explained; default the last"] = None
    coverage: Annotated[float, Range(0, 1), Slider(0, 1), "share of each row's attention to keep"] = DEFAULT_COVERAGE
    threshold: Annotated[
        float | None, Range(0, 1), Slider(0, 0.1), "keep parts above this share instead (the paper's rule)"
    ] = None
    renormalise: Annotated[bool, "divide what is kept of a row by its sum"] = False
    hide_first: Annotated[bool, "leave out edges from position 0"] = False
    edges_drawn: Annotated[
        int,
        Range(1, 100_000),
        Slider(20, 1000),
        "attention edges to draw at most; heads between two tokens are one edge",
    ] = DRAWN


def finer(analysis: FlowRoutes, display: RoutesDisplay) -> FlowRoutes:
    """The routes that keep every edge which the graph of a display may hold."""
    if display.threshold is not None:
        return analysis.replaced(min_share=min(analysis.min_share, display.threshold))
    return analysis.replaced(min_coverage=max(analysis.min_coverage, display.coverage))


def follow(analysis: FlowRoutes, selection: Mapping[str, Any]) -> list[tuple[View, Analysis]]:
    """What to recompute for the part of the lattice that was clicked last: an edge, an MLP, or a state."""
    part = selection.get("part")
    layer, head, pos, depth = (_index(selection.get(name)) for name in ("layer", "head", "pos", "depth"))
    if part == "attention" and layer is not None and head is not None:
        return [(one_layer.HEAD, one_layer.FlowRouteHead(layer=layer, head=head, p=analysis.p))]
    if part == "mlp" and layer is not None and pos is not None:
        return [(one_layer.NEURONS, one_layer.FlowRouteNeurons(layer=layer, pos=pos))]
    if depth is None or pos is None:
        return []
    return [(one_layer.NODE, one_layer.FlowRouteNode(depth=depth, pos=pos))]


def _index(value: Any) -> int | None:
    """A number to count by; None for none, and for what is between two or below the first."""
    return None if value is None or value != int(value) or value < 0 else int(value)


def said(
    result: xr.Dataset,
    *,
    start: int | None = None,
    coverage: float | None = None,
    threshold: float | None = None,
    hide_first: bool = False,
) -> str:
    """The graph in one sentence with its numbers, what was kept where that is not the default, and the residue."""
    coverage = None if threshold is not None else coverage
    graph = summarise(result, start=start, coverage=coverage, threshold=threshold, hide_first=hide_first)
    share, cover = result.attrs["min_share"], result.attrs["min_coverage"]
    changed = _is_changed(share, cover)
    how = f" Kept are shares above {share:g} and what is within coverage {cover:g}." if changed else ""
    return f"{graph}{how} Parts miss their sums by at most {float(result['residue'].max()):.1e}."


VIEW = View(
    FlowRoutes,
    question="Which edges between tokens is the prediction made of?",
    asks=(
        Ask("start", "Explain the prediction at", pick="pos", empty="the last token"),
        Ask("coverage", "by the edges that hold", unit="of a row's attention"),
        Ask("threshold", "or by all parts above a share of", empty="none"),
        Ask("renormalise", "divide a row by what is kept of it"),
        Ask("hide_first", "leave out edges from the first token"),
        Ask("edges_drawn", "draw at most", unit="edges of attention"),
    ),
    figures=(routes_figure, layers_figure),
    details=(edge_detail,),
    claims=(claims.route, claims.edge),
    display=RoutesDisplay,
    sentence=said,
    finer=finer,
    follow=follow,
)
