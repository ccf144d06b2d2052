"""Figures of routes: the lattice of the graph, the layers' shares, and what a clicked edge is made of."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.flow_routes.extraction import extract

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["edge_detail", "head_map_detail", "layers_figure", "routes_figure"]

_DRAWN = 1500  # edges; more would stall the browser and show nothing


def routes_figure(result: xr.Dataset, **view: Any) -> "go.Figure":
    """Lattice of tokens and depths with the graph behind one prediction.

    view: start, coverage, threshold, renormalise, hide_first as in `extract`; by default what the result was asked for.
    """
    from workbench.figures import token_lattice

    asked = json.loads(result.attrs["view"])
    if "coverage" in view or "threshold" in view:
        asked = {key: value for key, value in asked.items() if key not in ("coverage", "threshold")}
    graph = extract(result, **(asked | view))
    shown = _strongest(graph)
    start = graph.attrs["start"]
    title = f"What flows into token {start} ({graph.attrs['rule']})"
    if shown.sizes["edge"] < graph.sizes["edge"]:
        title += f": the strongest {shown.sizes['edge']} of {graph.sizes['edge']} edges"
    tokens = [str(text) for text in result["token_text"].values]
    return token_lattice(shown, tokens, result.sizes["layer"], title=title, start=start)


def _strongest(graph: xr.Dataset) -> xr.Dataset:
    if graph.sizes["edge"] <= _DRAWN:
        return graph
    order = np.argsort(-graph["weight"].values, kind="stable")[:_DRAWN]
    return graph.isel(edge=np.sort(order))


def layers_figure(result: xr.Dataset) -> "go.Figure":
    """What each layer's sums are made of, averaged over positions >= 1."""
    from workbench.figures import series

    names = ["attention", "mlp", "resid_attn", "bias_attn"]
    after_first = result[names].isel(pos=slice(1, None) if result.sizes["pos"] > 1 else slice(None))
    means = after_first.mean("pos", keep_attrs=True).assign_coords(layer=np.arange(result.sizes["layer"]))
    return series(means, names, "layer", title="Shares by layer, mean over positions after the first")


def edge_detail(result: xr.Dataset, selection: dict) -> "go.Figure | None":
    """Heads of the selected edge (layer, query, key), by their share."""
    from workbench.figures import bars

    if not {"layer", "query", "key"} <= set(selection):
        return None
    layer, query, key = (int(selection[name]) for name in ("layer", "query", "key"))
    here = (result["layer"].values == layer) & (result["query"].values == query) & (result["key"].values == key)
    weights = np.zeros(result.attrs["n_heads"], np.float32)
    weights[result["head"].values[here]] = result["weight"].values[here]
    table = xr.Dataset({"weight": ("head", weights, result["weight"].attrs)}, {"head": np.arange(len(weights))})
    labels = [f"L{layer}H{head}" for head in range(len(weights))]
    return bars(table, "weight", "head", labels=labels, title=f"Heads from {key} to {query} in layer {layer}")


def head_map_detail(result: xr.Dataset, selection: dict) -> "go.Figure | None":
    """Kept shares of the selected head, query x key."""
    from workbench.figures import pattern_figure

    if not {"layer", "head"} <= set(selection):
        return None
    layer, head, n_pos = int(selection["layer"]), int(selection["head"]), result.sizes["pos"]
    here = (result["layer"].values == layer) & (result["head"].values == head)
    shares = np.zeros((n_pos, n_pos), np.float32)
    shares[result["query"].values[here], result["key"].values[here]] = result["weight"].values[here]
    tokens = [str(text) for text in result["token_text"].values]
    return pattern_figure(shares, tokens, f"L{layer}H{head}: share of what each edge leads into", exclude_first=True)
