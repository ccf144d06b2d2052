"""Tokens and layers as a lattice, with the parts that flow between them as edges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.axes import Axis, token_axis
from workbench.figures.edges import Edge, merged_edges
from workbench.figures.heatmap import finish
from workbench.figures.text import number, show_token, thin
from workbench.figures.theme import ACCENT, CONTRAST, NEUTRAL

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["token_lattice"]

_WHOLE = 64  # tokens drawn whole; a longer prompt shows the positions that edges reach
_BINS = (0.1, 0.25, 0.5)  # upper ends of all but the last weight bin
_WIDTHS = (0.8, 1.6, 3.0, 5.0)  # pixels of a line in each bin
_SIZES = (4, 6, 8, 10)  # pixels of a marker in each bin


@dataclass(frozen=True)
class Style:
    """How some kinds of edges are drawn; beside colour they differ by dash and by the way they lean."""

    name: str
    kinds: tuple[str, ...]
    colour: str
    dash: str
    width: float
    symbol: str


_STYLES = (
    Style("residual", ("resid_attn", "resid_mlp"), NEUTRAL, "dot", 0.5, "circle"),
    Style("attention", ("attention",), ACCENT, "solid", 1.0, "triangle-right"),
    Style("MLP", ("mlp",), CONTRAST, "dash", 0.4, "diamond"),
)


def token_lattice(
    edges: Mapping[str, Sequence],
    tokens: Sequence[str],
    n_layers: int,
    *,
    title: str,
    start: int | None = None,
    positions: Sequence[int] | None = None,
) -> "go.Figure":
    """Token x depth lattice of the residual stream with weighted edges: depth upwards, tokens from the left.

    edges: equally long columns `kind`, `layer`, `query`, `key`, `weight` (a share, 0 to 1) and, for attention, `head`
    (-1: none named); an `xarray.Dataset` over `edge` will do. Kinds: "attention" (from key at depth `layer` to query),
    "mlp", and the residual stream past either, "resid_attn" and "resid_mlp"; all but attention stay on `query`. Edges
    of several heads between two tokens are drawn as one, its heads in the hover. start: the position whose top node the
    graph explains. positions: which tokens to draw, by default all up to 64, else those that edges reach.

    A click on an edge selects its kind as `part`, its layer, query, key and strongest head (else layer and pos); on a
    node depth and pos.
    """
    import plotly.graph_objects as go

    merged = list(merged_edges(edges))
    shown = _shown(merged, len(tokens), start) if positions is None else sorted(int(pos) for pos in positions)
    column = {pos: float(index) for index, pos in enumerate(shown)}
    drawn = [edge for edge in merged if edge.query in column and edge.key in column]
    names = {pos: f"{pos} {show_token(tokens[pos])}" for pos in shown}
    x, y = token_axis([tokens[pos] for pos in shown], "pos", shown), _depth_axis(n_layers)
    traces = [_lattice(y, names, column)]
    for style in _STYLES:
        traces += _lines([edge for edge in drawn if edge.kind in style.kinds], style, column)
    traces += _nodes(drawn, column)
    traces += [_start(column[start], n_layers)] if start in column else []
    traces += _middles(drawn, names, column)
    # As dicts: Plotly validates and copies thousands of points once, not twice.
    return finish(go.Figure().add_traces(traces), title, x, y)


def _shown(edges: list[Edge], n_tokens: int, start: int | None) -> list[int]:
    if n_tokens <= _WHOLE:
        return list(range(n_tokens))
    reached = {edge.query for edge in edges} | {edge.key for edge in edges}
    return sorted(reached | ({start} if start is not None else set()))


def _depth_axis(n_layers: int) -> Axis:
    ticks = tuple(thin(n_layers + 1, 12))
    return Axis("depth", tuple(range(n_layers + 1)), "depth, upwards", ticks, tuple(map(str, ticks)), is_vertical=True)


def _points(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    x, y = np.array(points, dtype=np.float32).reshape(-1, 2).T
    return {"type": "scatter", "x": x, "y": y, "showlegend": False}


def _lattice(y: Axis, names: Mapping[int, str], column: Mapping[int, float]) -> dict[str, Any]:
    """Every node, faintly: where an edge could have been."""
    nodes = [(pos, depth) for pos in column for depth in y.values]
    return _points([(column[pos], depth) for pos, depth in nodes]) | {
        "mode": "markers",
        "marker": {"size": 3, "color": NEUTRAL, "opacity": 0.35},
        "hovertext": [f"depth {depth}, token {names[pos]}" for pos, depth in nodes],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _lines(edges: list[Edge], style: Style, column: Mapping[int, float]) -> list[dict[str, Any]]:
    """One trace for each weight bin: a trace has one width, and thousands of traces would stall the browser."""
    gap = (np.nan, np.nan)
    bins: dict[int, list[tuple[float, float]]] = {}
    for edge in edges:
        bins.setdefault(_bin(edge), []).extend([*edge.path(column), gap])
    return [
        _points(points)
        | {
            "mode": "lines",
            "line": {"color": style.colour, "width": style.width * _WIDTHS[index], "dash": style.dash},
            "opacity": 0.85,
            "hoverinfo": "skip",
            "name": style.name,
            "legendgroup": style.name,
            "showlegend": index == max(bins),
        }
        for index, points in sorted(bins.items())
    ]


def _bin(edge: Edge) -> int:
    return sum(edge.weight >= bound for bound in _BINS)


def _nodes(edges: list[Edge], column: Mapping[int, float]) -> list[dict[str, Any]]:
    """What edges touch: circles between blocks, smaller squares for resid_mid. The faint lattice answers for them."""
    ends = {end for edge in edges for end in ((edge.key, edge.foot), (edge.query, edge.foot + 0.5))}
    traces = []
    for symbol, size, is_mid in (("circle", 5, False), ("square", 3, True)):
        nodes = sorted((column[pos], y) for pos, y in ends if (y % 1 != 0) == is_mid)
        marker = {"symbol": symbol, "size": size, "color": NEUTRAL}
        traces.append(_points(nodes) | {"mode": "markers", "marker": marker, "hoverinfo": "skip"})
    return traces


def _start(x: float, depth: int) -> dict[str, Any]:
    marker = {"symbol": "circle-open", "size": 13, "color": ACCENT, "line": {"width": 2.5}}
    return _points([(x, depth)]) | {"mode": "markers", "marker": marker, "cliponaxis": False, "hoverinfo": "skip"}


def _middles(edges: list[Edge], names: Mapping[int, str], column: Mapping[int, float]) -> list[dict[str, Any]]:
    """A point on the middle of every edge, since a line answers only at its ends.

    It is seen where the edge stays on its token and is too short to show a width: a diamond for an MLP, a triangle for
    attention to oneself, larger for more weight.
    """
    kinds = [([edge for edge in edges if not edge.lean], {"size": 8, "color": "rgba(0,0,0,0)"})]
    for style in _STYLES:
        own = [edge for edge in edges if edge.lean and edge.kind in style.kinds]
        sizes = [_SIZES[_bin(edge)] for edge in own]
        # Plotly rims and fades markers of many sizes unless told not to.
        look = {"symbol": style.symbol, "size": sizes, "color": style.colour, "line": {"width": 0}, "opacity": 1}
        kinds.append((own, look))
    return [
        _points([edge.middle(column) for edge in chosen])
        | {
            "mode": "markers",
            "marker": marker,
            "customdata": [_selected(edge) for edge in chosen],
            "hovertext": [_edge_text(edge, names) for edge in chosen],
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        for chosen, marker in kinds
        if chosen
    ]


def _selected(edge: Edge) -> dict[str, Any]:
    if edge.kind != "attention":
        return {"part": edge.kind, "layer": edge.layer, "pos": edge.query}
    strongest = {"head": edge.heads[0][0]} if edge.heads else {}
    return {"part": edge.kind, "layer": edge.layer, "query": edge.query, "key": edge.key, **strongest}


def _edge_text(edge: Edge, names: Mapping[int, str]) -> str:
    what = {"mlp": "MLP", "resid_attn": "residual past attention", "resid_mlp": "residual past the MLP"}
    if edge.kind != "attention":
        return f"layer {edge.layer}, {what[edge.kind]}, token {names[edge.query]}<br><b>{number(edge.weight)}</b>"
    heads = " ".join(f"H{head} {number(weight)}" for head, weight in edge.heads[:6])
    place = f"layer {edge.layer}, attention<br>from key {names[edge.key]}<br>to query {names[edge.query]}"
    return f"{place}<br><b>{number(edge.weight)}</b>{'<br>' + heads if heads else ''}"
