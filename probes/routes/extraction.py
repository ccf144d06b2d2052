"""The graph behind one prediction, from the kept edges: no model, no second pass.

Two rules say which (key, head) edges of a row stay. Coverage c: the fewest that hold a share c of the row's attention
contributions; residual and MLP always stay. Threshold tau: parts whose share of the whole row is above tau, before
heads are summed; the residual and the MLP must pass it too, and a row in which nothing does keeps its largest part.
Then the graph is walked from the start token down: an edge is in it when the node above it was reached.

The default coverage, 0.8, comes from a sweep of faithfulness on the default model, ten prompts of 5 to 17 tokens,
median (lower quartile) of F, first with every edge subject to the rule, then with layer 0 whole (see `faithfulness`:
at 0.8 the failures that remain in the first line are tokens that mean values have turned into attention sinks):

    coverage          0.3          0.5          0.6          0.7          0.8          0.9          0.95
    F                 0.02 (0.00)  0.32 (0.02)  0.84 (0.16)  0.96 (0.22)  0.97 (0.29)  0.97 (0.32)  0.99 (0.29)
    F, layer 0 whole  0.76 (0.66)  0.95 (0.80)  0.97 (0.93)  0.98 (0.96)  1.01 (0.98)  1.01 (0.99)  1.01 (0.98)
    random            -0.02        -0.02        0.01         0.17         0.43         0.73         0.85
    edges per row     1.8          3.3          4.4          5.9          8.0          11.8         15.4

    threshold         0.001        0.003        0.01         0.02         0.04
    F                 0.99 (0.29)  0.97 (0.24)  0.88 (0.06)  0.25 (0.00)  0.01 (-0.02)
    F, layer 0 whole  1.01 (0.98)  1.00 (0.90)  0.94 (0.79)  0.70 (0.65)  0.40 (0.26)
    random            0.81         0.45         0.00         0.00         0.00
    edges per row     12.3         6.5          2.1          0.9          0.3
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from probes.routes.strongest_route import said, strongest_route
from workbench.analysis.results import dataset
from workbench.analysis.view import reads
from workbench.arguments import fitted
from workbench.errors import InputError

__all__ = ["DEFAULT_COVERAGE", "Rule", "between", "extract", "kept_parts", "rule_of", "single_parts", "strongest"]

DEFAULT_COVERAGE = 0.8
KINDS = ("attention", "resid_attn", "mlp", "resid_mlp")
_PLACE = ("edge_layer", "edge_query", "edge_key", "edge_head")


@dataclass(frozen=True)
class Rule:
    """Which edges stay: one of coverage and threshold is a number, the other None."""

    coverage: float | None = None
    threshold: float | None = None

    def __str__(self) -> str:
        return f"coverage {self.coverage:g}" if self.threshold is None else f"threshold {self.threshold:g}"


def rule_of(result: xr.Dataset, coverage: float | None, threshold: float | None) -> Rule:
    """The rule that was asked for, held against what was computed; by default coverage 0.8 or what was computed.

    Raises InputError for both rules at once, values outside 0 to 1, and settings finer than the kept edges.
    """
    if coverage is not None and threshold is not None:
        raise InputError(
            f"coverage={coverage} and threshold={threshold}", "one of the two", "Leave one out: they are two rules"
        )
    if threshold is None:
        most = result.attrs["min_coverage"]
        coverage = min(DEFAULT_COVERAGE, most) if coverage is None else float(coverage)
        _inside("coverage", coverage)
        if coverage > most:
            raise InputError(f"coverage={coverage}", f"at most the computed {most}", _again("min_coverage", coverage))
        return Rule(coverage=coverage)
    threshold = float(threshold)
    _inside("threshold", threshold)
    least = result.attrs["min_share"]
    if threshold < least:
        raise InputError(f"threshold={threshold}", f"at least the computed {least}", _again("min_share", threshold))
    return Rule(threshold=threshold)


def _inside(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name}={value}", "a share from 0 to 1", "Correct the value")


def _again(name: str, value: float) -> str:
    return f"Compute the routes again with {name}={value:g}: finer edges were not kept"


def between(result: xr.Dataset, layer: int, query: int, key: int) -> np.ndarray:
    """Which edges lead in a layer from one key to one query: bool (edge,), True for each head that was kept."""
    places = zip(_PLACE, (layer, query, key), strict=False)
    return np.all([result[name].values == at for name, at in places], axis=0)


def single_parts(result: xr.Dataset) -> dict[str, np.ndarray]:
    """resid_attn, mlp and resid_mlp as (layer, pos) arrays."""
    return {name: result[name].values for name in ("resid_attn", "mlp", "resid_mlp")}


def kept_parts(result: xr.Dataset, rule: Rule) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which parts of every row a rule keeps: bool (edge,), and bool (layer, pos) for resid_attn, mlp and resid_mlp."""
    single = single_parts(result)
    if rule.threshold is None:
        return result["covered"].values < rule.coverage, {name: value > 0 for name, value in single.items()}
    weight, rows = result["weight"].values, _rows(result)
    keep, kept = weight > rule.threshold, {name: value > rule.threshold for name, value in single.items()}
    in_first_sum = ("resid_attn", "mlp") if result.attrs["parallel"] else ("resid_attn",)
    _keep_largest(keep, kept, weight, rows, single, in_first_sum)
    if not result.attrs["parallel"]:
        empty = ~(kept["mlp"] | kept["resid_mlp"])
        mlp_wins = single["mlp"] > single["resid_mlp"]
        kept["mlp"] |= empty & mlp_wins
        kept["resid_mlp"] |= empty & ~mlp_wins
    else:
        kept["resid_mlp"] = np.ones_like(kept["mlp"])  # not a part: it stands for the others on the way past the MLP
    return keep, kept


def _rows(result: xr.Dataset) -> np.ndarray:
    """The row of every edge: layer * n_pos + query."""
    return result["edge_layer"].values.astype(np.int64) * result.sizes["pos"] + result["edge_query"].values


def _keep_largest(
    keep: np.ndarray,
    kept: dict[str, np.ndarray],
    weight: np.ndarray,
    rows: np.ndarray,
    single: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> None:
    """In rows where nothing passed, keep the single largest part. Edges of a row stand the strongest first."""
    n_rows = single["resid_attn"].size
    has_edge = np.zeros(n_rows, bool)
    has_edge[rows[keep]] = True
    empty = ~has_edge & ~np.any([kept[name].ravel() for name in names], axis=0)
    first = np.full(n_rows, -1)
    first[rows[::-1]] = np.arange(len(rows))[::-1]
    best_edge = np.where(first >= 0, weight[first], -1.0) if len(weight) else np.full(n_rows, -1.0)
    shares = np.stack([single[name].ravel() for name in names])
    best = shares.max(0)
    keep[first[empty & (best_edge > best)]] = True
    for index, name in enumerate(names):
        wins = empty & (best_edge <= best) & (shares.argmax(0) == index)
        kept[name] |= wins.reshape(kept[name].shape)


@reads("flow-routes")
@fitted()
def extract(
    result: xr.Dataset,
    *,
    start: int | None = None,
    coverage: float | None = None,
    threshold: float | None = None,
    renormalise: bool = False,
    hide_first: bool = False,
) -> xr.Dataset:
    """The graph of what flows into one prediction.

    result: of `flow-routes`. start: the position whose prediction is explained (negative from the end; default the
    last). coverage, threshold: one rule, see above. renormalise: divide the parts of a row that stay by their sum.
    hide_first: leave out edges from position 0 to others; weights do not change.

    Returns edges over `edge`: `kind` ("attention", "resid_attn", "mlp", "resid_mlp"), `edge_layer`, `edge_query`,
    `edge_key`, `edge_head` (-1 where it is no attention), `weight` (a share, 0 to 1), ready for
    `figures.token_lattice`; and `reached` (depth, pos), 0 or 1.
    """
    rule = rule_of(result, coverage, threshold)
    start, keep, kept = _kept(result, rule, start, hide_first)
    weight, single = result["weight"].values, single_parts(result)
    if renormalise:
        weight, single = _renormalised(result, keep, kept, weight, single)
    reached, mid, passed = _walk(result, keep, kept, start, result.attrs["parallel"])
    graph = _table(result, passed, kept, mid, weight, single, reached)
    settings = {"start": start, "rule": str(rule), "renormalised": int(renormalise), "hide_first": int(hide_first)}
    settings |= {"parallel": int(result.attrs["parallel"])}
    return graph.assign_attrs(settings, summary=_sentence(result, passed, reached, kept, start, rule))


def summarise(
    result: xr.Dataset,
    *,
    start: int | None = None,
    coverage: float | None = None,
    threshold: float | None = None,
    hide_first: bool = False,
) -> str:
    """The sentence that `extract` would give, without its table."""
    rule = rule_of(result, coverage, threshold)
    start, keep, kept = _kept(result, rule, start, hide_first)
    reached, _, passed = _walk(result, keep, kept, start, result.attrs["parallel"])
    return _sentence(result, passed, reached, kept, start, rule)


def _sentence(
    result: xr.Dataset,
    passed: np.ndarray,
    reached: np.ndarray,
    kept: Mapping[str, np.ndarray],
    start: int,
    rule: Rule,
) -> str:
    n_edges, n_tokens = int(passed.sum()), int(reached[0].sum())
    edges = "1 attention edge of a single head" if n_edges == 1 else f"{n_edges} attention edges of single heads"
    tokens, reach = ("1 token" if n_tokens == 1 else f"{n_tokens} tokens"), "reaches" if n_edges == 1 else "reach"
    route = strongest_route(result, passed, kept, start)
    best = f"The strongest route to token {start} comes {said(result, route)}. " if route else ""
    return f"{best}{edges}, from {tokens}, {reach} token {start} ({rule}), of {result.sizes['edge']} kept."


def _kept(
    result: xr.Dataset, rule: Rule, start: int | None, hide_first: bool
) -> tuple[int, np.ndarray, dict[str, np.ndarray]]:
    """The start as an index, and what the rule keeps."""
    start = _start(start, result.sizes["pos"], hide_first)
    keep, kept = kept_parts(result, rule)
    if hide_first:
        keep &= (result["edge_key"].values > 0) | (result["edge_query"].values == 0)
    return start, keep, kept


def _start(start: int | None, n_pos: int, hide_first: bool) -> int:
    start = n_pos - 1 if start is None else int(start)
    resolved = start + n_pos if start < 0 else start
    if not 0 <= resolved < n_pos:
        raise InputError(f"start={start}", f"a position from 0 to {n_pos - 1}", "Choose a token of the prompt")
    if hide_first and resolved == 0 and n_pos > 1:
        raise InputError(
            "start=0 with position 0 hidden", "a start that is shown", "Show position 0, or start elsewhere"
        )
    return resolved


def _renormalised(
    result: xr.Dataset,
    keep: np.ndarray,
    kept: Mapping[str, np.ndarray],
    weight: np.ndarray,
    single: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Shares of what stays in every sum."""
    rows, shape = _rows(result), single["mlp"].shape
    total = np.bincount(rows[keep], weight[keep], minlength=single["mlp"].size).reshape(shape)
    parallel = result.attrs["parallel"]
    total = total + single["resid_attn"] * kept["resid_attn"] + (single["mlp"] * kept["mlp"] if parallel else 0)
    safe = np.where(total > 0, total, 1)
    out = {"resid_attn": single["resid_attn"] / safe}
    if parallel:
        out["mlp"] = single["mlp"] / safe
        out["resid_mlp"] = 1 - out["mlp"] * kept["mlp"]
    else:
        second = single["mlp"] * kept["mlp"] + single["resid_mlp"] * kept["resid_mlp"]
        out |= {name: single[name] / np.where(second > 0, second, 1) for name in ("mlp", "resid_mlp")}
    return weight / safe.ravel()[rows], out


def _walk(
    edges: xr.Dataset, keep: np.ndarray, kept: Mapping[str, np.ndarray], start: int, parallel: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the start token down: states reached (depth, pos), sums reached (layer, pos), edges passed (edge,).

    edges: `edge_layer`, `edge_query`, `edge_key` of attention, by layer.
    """
    n_layers, n_pos = kept["mlp"].shape
    reached = np.zeros((n_layers + 1, n_pos), bool)
    reached[n_layers, start] = True
    mid, passed = np.zeros((n_layers, n_pos), bool), np.zeros(len(keep), bool)
    bounds = np.searchsorted(edges["edge_layer"].values, np.arange(n_layers + 1))
    query, key = edges["edge_query"].values, edges["edge_key"].values
    for layer in range(n_layers - 1, -1, -1):
        through_mlp = reached[layer + 1] & kept["mlp"][layer]
        past_mlp = reached[layer + 1] & kept["resid_mlp"][layer]
        mid[layer] = through_mlp | past_mlp
        here = slice(bounds[layer], bounds[layer + 1])
        passed[here] = keep[here] & mid[layer][query[here]]
        below = mid[layer] & kept["resid_attn"][layer]
        if parallel:
            below |= through_mlp  # it reads resid_pre
        below[key[here][passed[here]]] = True
        reached[layer] = below
    return reached, mid, passed


def _table(
    result: xr.Dataset,
    passed: np.ndarray,
    kept: Mapping[str, np.ndarray],
    mid: np.ndarray,
    weight: np.ndarray,
    single: Mapping[str, np.ndarray],
    reached: np.ndarray,
) -> xr.Dataset:
    """Reached edges of all kinds in one table."""
    above = reached[1:]
    on = {"resid_attn": mid & kept["resid_attn"], "mlp": above & kept["mlp"], "resid_mlp": above & kept["resid_mlp"]}
    attention = {name: result[name].values[passed] for name in _PLACE}
    columns = {name: [values] for name, values in attention.items()} | {"weight": [weight[passed]]}
    codes = [np.zeros(int(passed.sum()), np.intp)]
    for code, (name, where) in enumerate(on.items(), start=1):
        layer, pos = np.nonzero(where)
        for column, values in zip(_PLACE, (layer, pos, pos, np.full(len(pos), -1)), strict=True):
            columns[column].append(values)
        columns["weight"].append(single[name][where])
        codes.append(np.full(len(pos), code))
    flat = {name: np.concatenate(parts) for name, parts in columns.items()}
    graph = dataset(
        None,
        {"depth": range(len(reached)), "pos": range(reached.shape[1])},
        kind=("edge", np.array(KINDS, dtype=object)[np.concatenate(codes)], "kind of edge", None),
        edge_query=("edge", flat["edge_query"].astype(np.int32), "position", (0, None), "query"),
        edge_key=("edge", flat["edge_key"].astype(np.int32), "position", (0, None), "key"),
        edge_head=("edge", flat["edge_head"].astype(np.int32), "head, -1 for none", (-1, None), "head"),
        weight=("edge", flat["weight"].astype(np.float32), "share", (0, 1), "share of what the edge leads into"),
        edge_layer=("edge", flat["edge_layer"].astype(np.int32), "layer", (0, None), "layer"),
        reached=("depth pos", reached.astype(np.int8), "0 or 1", (0, 1), "state is on a route"),
    )
    return graph.assign_coords({name: result[name] for name in ("token_text",) if name in result.coords})


def strongest(graph: xr.Dataset, most: int) -> xr.Dataset:
    """What can be drawn of a graph: its residual stream and the parts above one share, walked again from its start.

    The share is the smallest for which at most `most` attention edges are passed, heads between two tokens counted as
    one. Attributes: `above`, the share (0 where the graph has no more edges), and `drawn` and `pairs`, the attention
    edges that are left and those of the graph, counted so.
    """
    is_attention = graph["kind"].values == "attention"
    edges = graph.isel(edge=is_attention)
    n_layers, n_pos = graph.sizes["depth"] - 1, graph.sizes["pos"]
    layer, query, key = (edges[name].values.astype(np.int64) for name in _PLACE[:3])
    pairs, pair_of = np.unique((layer * n_pos + query) * n_pos + key, return_inverse=True)
    if len(pairs) <= most:
        return graph.assign_attrs(above=0.0, drawn=len(pairs), pairs=len(pairs))
    total = np.bincount(pair_of, edges["weight"].values)
    single = {name: _single(graph, name, n_layers, n_pos) for name in KINDS[1:]}
    levels = np.sort(total)

    def walked(share: float) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        kept = {name: (weight > share) if name == "mlp" else weight > 0 for name, weight in single.items()}
        reached, mid, passed = _walk(edges, total[pair_of] > share, kept, graph.attrs["start"], graph.attrs["parallel"])
        return kept, reached, mid, passed

    n_passed = lambda passed: len(np.unique(pair_of[passed]))
    low, high = 0, len(levels) - 1  # passed edges only become fewer with a larger share
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if n_passed(walked(levels[middle])[3]) <= most else (middle + 1, high)
    share = float(levels[low])
    kept, reached, mid, passed = walked(share)
    shown = _table(edges, passed, kept, mid, edges["weight"].values, single, reached)
    return shown.assign_attrs(graph.attrs | {"above": share, "drawn": n_passed(passed), "pairs": len(pairs)})


def _single(graph: xr.Dataset, kind: str, n_layers: int, n_pos: int) -> np.ndarray:
    """Weights (layer, pos) of a kind that stays on its token; 0 where the graph has none."""
    own = graph["kind"].values == kind
    weights = np.zeros((n_layers, n_pos), np.float32)
    weights[graph["edge_layer"].values[own], graph["edge_query"].values[own]] = graph["weight"].values[own]
    return weights
