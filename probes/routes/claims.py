"""What a drawn route claims: that its edges carry the prediction of its start token."""

from typing import Any

import numpy as np
import xarray as xr

from probes.checks.claims import check_of
from probes.routes.extraction import between, extract
from workbench.analysis.view import Claim, chosen

__all__ = ["edge", "route"]

_STRONGEST = 24  # edges of a route that are cut together: as many as can be read and passed on in a link


def route(
    result: xr.Dataset,
    selection: dict[str, Any],
    *,
    start: int | None = None,
    coverage: float | None = None,
    threshold: float | None = None,
    hide_first: bool = False,
) -> Claim | None:
    """The strongest attention edges of the shown graph carry the model's prediction: cut together, they lower it.

    Edges into position 0 are left out: it sees nothing but itself.
    """
    coverage = None if threshold is not None else coverage
    graph = extract(result, start=start, coverage=coverage, threshold=threshold, hide_first=hide_first)
    edges = np.flatnonzero((graph["kind"].values == "attention") & (graph["edge_query"].values > 0))
    strongest = edges[np.argsort(-graph["weight"].values[edges], kind="stable")[:_STRONGEST]]
    if not len(strongest):
        return None
    units, n = _names(graph.isel(edge=np.sort(strongest))), len(strongest)
    return check_of(units, f"the route's {n} strongest edges" if n > 1 else "", pos=graph.attrs["start"], side="lowers")


def edge(result: xr.Dataset, selection: dict[str, Any], *, start: int | None = None) -> Claim | None:
    """The selected edge enters the prediction: all heads that bring something from key to query in that layer."""
    at = chosen(result, selection, "layer", "query", "key")
    if at is None:
        return None
    here = between(result, *at)
    if not here.any():
        return None
    n_pos, (layer, query, key) = result.sizes["pos"], at
    one = f"the edge {key} to {query} in layer {layer}"
    return check_of(_names(result.isel(edge=here)), one, pos=(n_pos - 1 if start is None else start % n_pos))


def _names(edges: xr.Dataset) -> str:
    """`L5H3:4<-1 L6H0:4<-2`, as the causal check reads them."""
    columns = [
        edges[name].values.astype(int).tolist() for name in ("edge_layer", "edge_head", "edge_query", "edge_key")
    ]
    return " ".join(f"L{layer}H{head}:{query}<-{key}" for layer, head, query, key in zip(*columns, strict=True))
