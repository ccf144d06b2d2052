"""The strongest route of a graph: how most of another token arrives at the one whose prediction is explained."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from workbench.figures import head_name, show_token

__all__ = ["Route", "said", "strongest_route"]


@dataclass(frozen=True)
class Route:
    """edges: indices of attention edges, from the bottom up. share: the product of the shares along the way, 0 to 1."""

    edges: tuple[int, ...]
    share: float


def strongest_route(result: xr.Dataset, passed: np.ndarray, kept: Mapping[str, np.ndarray], start: int) -> Route | None:
    """The way from another token to `start` along which the product of shares is largest; None where none leads there.

    result: of `flow-routes`. passed: the attention edges of the graph, bool (edge,), each of one head. kept: (layer,
    pos) for resid_attn, mlp and resid_mlp. Into and past an MLP a token's state stays at its token: both are one way.
    """
    place = [result[name].values for name in ("edge_layer", "edge_query", "edge_key")]
    layer, query, key = (values[passed] for values in place)
    number, weight = np.flatnonzero(passed), result["weight"].values[passed].astype(np.float64)
    names = ("resid_attn", "mlp", "resid_mlp")
    part = {name: np.where(kept[name], result[name].values.astype(np.float64), 0.0) for name in names}
    n_layers, n_pos = part["mlp"].shape
    value = np.ones(n_pos)
    value[start] = 0.0
    came = np.full((n_layers, n_pos), -1)  # the edge by which the best way comes; -1: from the same token
    for at in range(n_layers):
        if result.attrs["parallel"]:
            after, stays = np.ones(n_pos), part["resid_attn"][at] + part["mlp"][at]
        else:
            after, stays = part["mlp"][at] + part["resid_mlp"][at], part["resid_attn"][at]
        new = value * stays
        here = np.flatnonzero((layer == at) & (query != key))
        to, brought = query[here], weight[here] * value[key[here]]
        most = np.zeros(n_pos)
        np.maximum.at(most, to, brought)
        best = here[(brought == most[to]) & (brought > new[to])][::-1]  # of equal ones the first stays: it comes last
        came[at, query[best]] = best
        value = np.maximum(new, most) * after
    return _traced(came, query, key, number, start, float(value[start])) if value[start] > 0 else None


def _traced(
    came: np.ndarray, query: np.ndarray, key: np.ndarray, number: np.ndarray, start: int, share: float
) -> Route:
    at, edges = start, []
    for layer in reversed(range(len(came))):
        edge = came[layer, at]
        if edge >= 0:
            edges.append(int(number[edge]))
            at = int(key[edge])
    return Route(tuple(reversed(edges)), share)


def said(result: xr.Dataset, route: Route) -> str:
    """`from token 5 ·Paris by L14H3 to 12 ·of and by L23H2 to 19 ·is (product of its shares 0.013)`."""
    layer, head, query, key = (
        result[name].values[list(route.edges)] for name in ("edge_layer", "edge_head", "edge_query", "edge_key")
    )
    steps = [f"by {head_name(*unit)} to {_token(result, int(q))}" for *unit, q in zip(layer, head, query, strict=True)]
    way = " and ".join([", ".join(steps[:-1]), steps[-1]] if len(steps) > 1 else steps)
    return f"from token {_token(result, int(key[0]))} {way} (product of its shares {route.share:.2g})"


def _token(result: xr.Dataset, pos: int) -> str:
    text = [show_token(str(result["token_text"].values[pos]), html=False)] if "token_text" in result.coords else []
    return " ".join([str(pos), *text])
