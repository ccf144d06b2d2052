"""Figures of routes: the lattice of the graph, the layers' shares, and the heads of a clicked edge."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.routes.extraction import between, extract, strongest
from workbench.analysis.view import chosen, reads

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["DRAWN", "edge_detail", "layers_figure", "routes_figure"]

DRAWN = 120  # attention edges: more of them hide each other, at any length


@reads("flow-routes")
def routes_figure(
    result: xr.Dataset,
    *,
    start: int | None = None,
    coverage: float | None = None,
    threshold: float | None = None,
    renormalise: bool = False,
    hide_first: bool = False,
    edges_drawn: int = DRAWN,
) -> "go.Figure":
    """Lattice of tokens and depths with the graph behind one prediction; see `extract`.

    coverage: by default 0.8. threshold: this rule instead of coverage. edges_drawn: attention edges to draw at
    most, heads between two tokens as one; the title says how many more the graph has (see `strongest`).
    """
    from workbench.figures import token_lattice

    coverage = None if threshold is not None else coverage
    rule = {"coverage": coverage, "threshold": threshold}
    graph = extract(result, start=start, renormalise=renormalise, hide_first=hide_first, **rule)
    shown = strongest(graph, edges_drawn)
    start = graph.attrs["start"]
    title = f"What flows into token {start} ({graph.attrs['rule']})"
    if shown.attrs["above"]:
        drawn, pairs, above = (shown.attrs[name] for name in ("drawn", "pairs", "above"))
        title += f": {drawn} of {pairs} edges drawn, heads as one, shares above {above:.2g}"
    tokens = [str(text) for text in result["token_text"].values]
    return token_lattice(shown, tokens, result.sizes["layer"], title=title, start=start)


@reads("flow-routes")
def layers_figure(result: xr.Dataset) -> "go.Figure":
    """What each layer's sums are made of, averaged over positions >= 1."""
    from workbench.figures import series

    names = ["attention", "mlp", "resid_attn", "bias_attn"]
    after_first = result[names].isel(pos=slice(1, None) if result.sizes["pos"] > 1 else slice(None))
    means = after_first.mean("pos", keep_attrs=True)
    return series(means, names, "layer", title="Shares by layer, mean over positions after the first")


def edge_detail(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """Heads of the edge that was clicked last (layer, query, key), by their share."""
    from workbench.figures import bars

    at = chosen(result, selection, "layer", "query", "key")
    if at is None or selection.get("part") != "attention":
        return None
    here, (layer, query, key) = between(result, *at), at
    weights = np.zeros(result.attrs["n_heads"], np.float32)
    weights[result["edge_head"].values[here]] = result["weight"].values[here]
    table = xr.Dataset({"weight": ("head", weights, result["weight"].attrs)}, {"head": np.arange(len(weights))})
    labels = [f"L{layer}H{head}" for head in range(len(weights))]
    return bars(table, "weight", "head", labels=labels, title=f"Heads from {key} to {query} in layer {layer}")
