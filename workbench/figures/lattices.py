"""Tokens and layers as a lattice, with the parts that flow between them as edges.

Edges and nodes are drawn as a few paths, one for each style and width, since a browser is slow with thousands of marks;
what hover and clicks answer to are points that are not drawn.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.axes import Axis, pack, token_axis
from workbench.figures.edges import Edge, merged_edges
from workbench.figures.heatmap import finish
from workbench.figures.text import number, show_token, thin
from workbench.figures.theme import ACCENT, CONTRAST, NEUTRAL

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["lattice_frame", "token_lattice"]

_WHOLE = 64  # tokens drawn whole; a longer prompt shows the positions that edges reach
_BINS = (0.1, 0.25, 0.5)  # upper ends of all but the last weight bin
_WIDTHS = (1.0, 1.8, 3.0, 5.0)  # pixels of a line in each bin
_FADES = (0.65, 0.8, 0.85, 0.9)  # the many weak edges must not hide the few strong ones
_SIZES = (4, 6, 8, 10)  # pixels of a mark in each bin
_PANEL = (640, 320)  # pixels of the plot on a page of 1280 x 800: what the sizes of marks are meant for


@dataclass(frozen=True)
class Style:
    """How some kinds of edges are drawn; beside colour they differ by dash, by mark and by the way they lean."""

    name: str
    kinds: tuple[str, ...]
    colour: str
    dash: str
    width: float
    mark: tuple[tuple[float, float], ...]


_STYLES = (
    Style("residual", ("resid_attn", "resid_mlp"), NEUTRAL, "dot", 0.5, ()),
    Style("attention", ("attention",), ACCENT, "solid", 1.0, ((-0.4, -0.5), (0.6, 0.0), (-0.4, 0.5))),
    Style("MLP", ("mlp",), CONTRAST, "dash", 0.4, ((-0.5, 0.0), (0.0, 0.5), (0.5, 0.0), (0.0, -0.5))),
)


@dataclass(frozen=True)
class Room:
    """What a series of lattices has places for: kinds of edges, also where there are none of one, and heads."""

    kinds: tuple[str, ...]
    n_heads: int


@dataclass(frozen=True)
class _Board:
    """Where things stand: column of every drawn position, and what a pixel is on either axis."""

    column: Mapping[int, float]
    n_layers: int

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel of the panel, in columns and in depths."""
        return max(1, len(self.column)) / _PANEL[0], (self.n_layers + 1) / _PANEL[1]

    def mark(self, x: float, y: float, outline: Iterable[tuple[float, float]], size: float) -> str:
        """A closed outline of some pixels around a point."""
        width, height = (size * one for one in self.pixel)
        return "M" + "L".join(f"{x + dx * width:.3f},{y + dy * height:.3f}" for dx, dy in outline) + "Z"

    def dot(self, x: float, y: float) -> str:
        """An upright dash of three pixels: as wide as its line, it looks like a dot."""
        half = 1.5 * self.pixel[1]
        return f"M{x:g},{y - half:.3f}V{y + half:.3f}"


def token_lattice(
    edges: "Mapping[str, Sequence[Any]] | xr.Dataset",
    tokens: Sequence[str],
    n_layers: int,
    *,
    title: str,
    start: int | None = None,
    positions: Sequence[int] | None = None,
    room: "Room | None" = None,
) -> "go.Figure":
    """Token x depth lattice of the residual stream with weighted edges: depth upwards, tokens from the left.

    edges: equally long columns `kind`, `edge_layer`, `edge_query`, `edge_key`, `weight` (a share, 0 to 1) and, for
    attention, `edge_head` (-1: none named); an `xarray.Dataset` over `edge` will do. Kinds: "attention" (from the key
    at the depth of its layer to the query), "mlp", and the residual stream past either, "resid_attn" and "resid_mlp";
    all but attention stay on the query. Edges of several heads between two tokens are drawn as one, its heads in the
    hover. start: the position whose top node the graph explains. positions: which tokens to draw, by default all up to
    64, else those that edges reach. room: for a figure that others follow as its frames (see `lattice_frame`).

    A click on an attention or MLP edge selects its kind as `part`, its layer, query, key and strongest head (else layer
    and pos); on a node, whose hover has the shares of the residual stream that leads there, depth and pos.
    """
    import plotly.graph_objects as go

    merged = list(merged_edges(edges))
    shown = _shown(merged, len(tokens), start) if positions is None else sorted(int(pos) for pos in positions)
    names = {pos: f"{pos} {show_token(tokens[pos])}" for pos in shown}
    board, traces, shapes, packed = _drawn(merged, names, n_layers, start, room)
    # As dicts: Plotly validates and copies thousands of points once, not twice.
    figure = go.Figure().add_traces(traces).update_layout(shapes=shapes)
    axes = token_axis([tokens[pos] for pos in shown], "pos", shown), _depth_axis(n_layers)
    finish(figure, title, *axes, packed=packed)
    aliases = {f"{place:g}": names[pos] for pos, place in board.column.items()}
    figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})
    return figure.update_xaxes(labelalias=aliases, hoverformat="d")


def lattice_frame(
    edges: "Mapping[str, Sequence[Any]] | xr.Dataset",
    tokens: Sequence[str],
    n_layers: int,
    room: Room,
    start: int | None = None,
) -> dict[str, Any]:
    """What of a `token_lattice` of all tokens is another one with other edges: `data` and `layout` of a frame.

    Frames are laid over what is there one by one, by place: with the same room, traces and shapes have theirs.
    """
    names = {pos: f"{pos} {show_token(text)}" for pos, text in enumerate(tokens)}
    _, traces, shapes, _ = _drawn(list(merged_edges(edges)), names, n_layers, start, room)
    plain = lambda values: [None if v is None else round(float(v), 2) for v in values]  # a frame's arrays stay unpacked
    data = [trace | {"x": plain(trace["x"]), "y": plain(trace["y"])} for trace in traces]
    return {"data": data, "layout": {"shapes": shapes}}


def _drawn(
    merged: list[Edge], names: Mapping[int, str], n_layers: int, start: int | None, room: Room | None
) -> tuple[_Board, list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Where things stand, traces, shapes, and how what traces answer is packed."""
    board = _Board({pos: float(index) for index, pos in enumerate(names)}, n_layers)
    drawn = [edge for edge in merged if edge.query in board.column and edge.key in board.column]
    kinds = {edge.kind for edge in drawn} | set(room.kinds if room else ())
    answers = list(_answers(drawn, names, board, kinds, room.n_heads if room else 0))
    traces = [*(points for points, _ in answers), *_nodes(drawn, board, kinds), *_start(start, board), *_legend(kinds)]
    packed = {str(index): how for index, (_, how) in enumerate(answers)}
    styles = [style for style in _STYLES if kinds & set(style.kinds)]
    paths = [*_lattice(drawn, board), *(shape for style in styles for shape in _paths(drawn, style, board))]
    return board, traces, paths if room else [path for path in paths if path["visible"]], packed


def _shown(edges: list[Edge], n_tokens: int, start: int | None) -> list[int]:
    if n_tokens <= _WHOLE:
        return list(range(n_tokens))
    reached = {edge.query for edge in edges} | {edge.key for edge in edges}
    return sorted(reached | ({start} if start is not None else set()))


def _depth_axis(n_layers: int) -> Axis:
    ticks = tuple(thin(n_layers + 1, 12))
    return Axis("depth", tuple(range(n_layers + 1)), "depth, upwards", ticks, tuple(map(str, ticks)), is_vertical=True)


def _bin(edge: Edge) -> int:
    return sum(edge.weight >= bound for bound in _BINS)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _path(pieces: Iterable[str], colour: str, width: float, **more: Any) -> dict[str, Any]:
    line, path = {"color": colour, "width": width, "dash": more.pop("dash", "solid")}, " ".join(pieces)
    drawn = {"path": path or "M0,0", "visible": bool(path)}
    return {"type": "path", "layer": "below", **drawn, "line": line, **more}


def _lattice(edges: list[Edge], board: _Board) -> list[dict[str, Any]]:
    """What edges touch, states wider than resid_mid; and all other states, faintly."""
    ends = {(edge.key, edge.foot) for edge in edges} | {(edge.query, edge.foot + 0.5) for edge in edges}
    every = {(pos, float(depth)) for pos in board.column for depth in range(board.n_layers + 1)}
    found = ((every - ends, 2.5, 0.3), (ends & every, 4.5, 1.0), (ends - every, 2.5, 1.0))
    dots = lambda nodes: [board.dot(board.column[pos], y) for pos, y in sorted(nodes)]
    return [_path(dots(nodes), NEUTRAL, width, opacity=opacity) for nodes, width, opacity in found]


def _paths(edges: list[Edge], style: Style, board: _Board) -> list[dict[str, Any]]:
    """One path for each weight bin, and one of the marks on edges that are too short to show a width."""
    bins: list[list[Edge]] = [[] for _ in _WIDTHS]
    for edge in edges:
        if edge.kind in style.kinds:
            bins[_bin(edge)].append(edge)
    found = []
    for index, own in enumerate(bins):
        group = {"name": style.name, "opacity": _FADES[index]}
        lines = _upright(own, board) if style.name == "residual" else [_line(edge.path(board.column)) for edge in own]
        found.append(_path(lines, style.colour, style.width * _WIDTHS[index], dash=style.dash, **group))
        marks = [board.mark(*edge.middle(board.column), style.mark, _SIZES[index]) for edge in own if edge.lean]
        found.append(_path(marks, style.colour, 0, fillcolor=style.colour, **group))
    return found


def _legend(kinds: set[str]) -> list[dict[str, Any]]:
    """A line of each style that is drawn, since a path's own sign in a legend does not look like it."""
    line = lambda style: {"color": style.colour, "width": max(1.5, style.width * _WIDTHS[2]), "dash": style.dash}
    return [
        {"type": "scatter", "x": [None], "y": [None], "mode": "lines", "name": style.name, "line": line(style)}
        | {"showlegend": True, "hoverinfo": "skip"}
        for style in _STYLES
        if kinds & set(style.kinds)
    ]


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


def _upright(edges: list[Edge], board: _Board) -> list[str]:
    """Edges that stay on their token, those that follow each other as one line."""
    runs: list[list[float]] = []
    for x, foot in sorted((board.column[edge.query], edge.foot) for edge in edges):
        if runs and runs[-1][0] == x and runs[-1][2] == foot:
            runs[-1][2] = foot + 0.5
        else:
            runs.append([x, foot, foot + 0.5])
    return [f"M{x:g},{low:g}V{high:g}" for x, low, high in runs]


# --- what answers -----------------------------------------------------------------------------------------------------


def _points(points: Sequence[tuple[float, float]], template: str, **more: Any) -> dict[str, Any]:
    """Points that answer to hover and clicks, and are not drawn."""
    x, y = np.array(points, dtype=np.float32).reshape(-1, 2).T
    said = {"hovertemplate": f"{template}<extra></extra>", "showlegend": False}
    return {"type": "scatter", "mode": "none", "x": x, "y": y} | said | more


def _nodes(edges: list[Edge], board: _Board, kinds: set[str]) -> list[dict[str, Any]]:
    """Every state; where a block's residual edges lead to it, with their shares."""
    into = {(edge.query, edge.layer + 1, edge.kind): edge.weight for edge in edges if edge.kind.startswith("resid")}
    nodes = [(pos, depth) for pos in board.column for depth in range(board.n_layers + 1)]
    shares = np.array([[into.get((*node, kind), np.nan) for kind in ("resid_attn", "resid_mlp")] for node in nodes])
    known = np.isfinite(shares.reshape(-1, 2)).all(-1)
    at = np.array([(board.column[pos], depth) for pos, depth in nodes]).reshape(-1, 2)
    place, past = (
        "depth %{y}, token %{x}",
        "<br>residual past attention %{customdata[0]:.3f}, past the MLP %{customdata[1]:.3f}",
    )
    plain, told = at[~known], at[known]
    return [_points(plain, place)] + (
        [_points(told, place + past, customdata=shares[known].round(4).tolist())]
        if len(told) or "resid_attn" in kinds
        else []
    )


def _answers(
    edges: list[Edge], names: Mapping[int, str], board: _Board, kinds: set[str], n_heads: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The middles of attention and of MLP edges: points, and how what they stand for is packed into a number."""
    head = n_heads or 1 + max((head for edge in edges for head, _ in edge.heads), default=0)
    place = [("layer", board.n_layers), ("pos", 1 + max(board.column, default=0))]
    ends = [("layer", board.n_layers), ("query", place[1][1]), ("key", place[1][1]), ("head", head)]
    for kind, sizes in (("attention", ends), ("mlp", place)):
        own = [edge for edge in edges if edge.kind == kind]
        columns = {"layer": [edge.layer for edge in own], "key": [edge.key for edge in own]}
        columns |= {name: [edge.query for edge in own] for name in ("query", "pos")}
        columns["head"] = [edge.heads[0][0] if edge.heads else -1 for edge in own]
        more = {"hovertext": [_edge_text(edge, names) for edge in own], "customdata": pack(sizes, columns)}
        packed = {"also": {"part": kind}, "sizes": [[name, size + 1] for name, size in sizes]}
        if kind in kinds:
            yield _points([edge.middle(board.column) for edge in own], "%{hovertext}", **more), packed


def _start(start: int | None, board: _Board) -> list[dict[str, Any]]:
    if start is None or start not in board.column:
        return []
    marker = {"symbol": "circle-open", "size": 13, "color": ACCENT, "line": {"width": 2.5}}
    ring = {"x": [board.column[start]], "y": [board.n_layers], "mode": "markers", "marker": marker}
    return [{"type": "scatter", "showlegend": False, "cliponaxis": False, "hoverinfo": "skip"} | ring]


def _edge_text(edge: Edge, names: Mapping[int, str]) -> str:
    if edge.kind != "attention":
        return f"layer {edge.layer}, MLP, token {names[edge.query]}<br><b>{number(edge.weight)}</b>"
    heads = " ".join(f"H{head} {number(weight)}" for head, weight in edge.heads[:6])
    place = f"layer {edge.layer}, attention<br>from key {names[edge.key]}<br>to query {names[edge.query]}"
    return f"{place}<br><b>{number(edge.weight)}</b>{'<br>' + heads if heads else ''}"
