"""A circuit drawn: heads and MLPs by layer, with its strongest edges between them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.axes import Axis
from workbench.figures.heatmap import finish
from workbench.figures.theme import ACCENT, CONTRAST, NEUTRAL

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["circuit_figure"]

_COLOURS = {"q": "#9a5cc6", "k": "#12936f", "v": ACCENT, "": CONTRAST}
_NAMES = {"q": "into queries", "k": "into keys", "v": "into values", "": "into MLPs and logits"}
_DASHES = {"q": "dot", "k": "dash", "v": "solid", "": "solid"}
_WIDEST = 5.0  # pixels of the strongest edge


def circuit_figure(circuit: Any, *, edges: int = 60) -> "go.Figure":
    """Layers upwards, heads from the left, MLPs at the right, the embedding below and the logits on top; the strongest
    edges, their width by absolute score, their colour and dash by what they lead into. A click on a head selects it."""
    import plotly.graph_objects as go

    graph, figure = circuit.graph, go.Figure()
    names = circuit.edges[:edges]
    most = max((abs(circuit.scores[graph.place(name)]) for name in names), default=1.0)
    lines: dict[str, dict[float, list[tuple[float, float]]]] = {}
    for name in names:
        source, target = name.split("->")
        into = target[-2] if target.endswith(">") else ""
        strength = np.nan_to_num(abs(circuit.scores[graph.place(name)]) / max(most, 1e-30))
        ends = [_place(graph, source), _place(graph, target.split("<")[0]), (np.nan, np.nan)]
        lines.setdefault(into, {}).setdefault(float(np.ceil(3 * strength) / 3), []).extend(ends)
    for into, by_width in lines.items():
        for index, (width, points) in enumerate(sorted(by_width.items())):
            x, y = zip(*points, strict=True)
            line = {"color": _COLOURS[into], "width": max(0.8, _WIDEST * width), "dash": _DASHES[into]}
            figure.add_scatter(x=x, y=y, mode="lines", line=line, opacity=0.6, name=_NAMES[into], hoverinfo="skip",
                               legendgroup=into, showlegend=index == 0)  # fmt: skip
    _add_nodes(figure, circuit)
    n = graph.n_heads
    heads = Axis("head", tuple(range(n)), "head, and MLP at the right", (*range(n), n), (*map(str, range(n)), "MLP"))
    layers = Axis("layer", tuple(range(graph.n_layers)), "layer, upwards", (), (), is_vertical=True)
    shown = f"{min(edges, len(circuit))} of {len(circuit)}" if len(circuit) > edges else f"{len(circuit)}"
    figure = finish(figure, f"Circuit: {shown} edges of {circuit.about.get('task', 'a task')}", heads, layers)
    figure.update_xaxes(range=[-0.7, n + 0.7])
    return figure.update_yaxes(range=[-1.7, graph.n_layers + 0.7])


def _place(graph: Any, node: str) -> tuple[float, float]:
    """Where a node is drawn; an MLP half a layer above its heads."""
    middle = (graph.n_heads - 1) / 2
    if node == "input":
        return middle, -1.0
    if node == "logits":
        return middle, float(graph.n_layers)
    if node.startswith("m"):
        return float(graph.n_heads), int(node[1:]) + 0.5
    layer, head = node[1:].split(".h")
    return float(head), float(layer)


def _add_nodes(figure: Any, circuit: Any) -> None:
    used = [*circuit.nodes, "logits"] if len(circuit) else ["input", "logits"]
    points = [_place(circuit.graph, node) for node in used]
    x, y = zip(*points, strict=True)
    symbols = ["square" if not node.startswith("a") else "circle" for node in used]
    marker = {"size": 8, "color": NEUTRAL, "symbol": symbols}
    figure.add_scatter(x=x, y=y, mode="markers", marker=marker, text=used, showlegend=False,
                       hovertemplate="%{text}<extra></extra>")  # fmt: skip
