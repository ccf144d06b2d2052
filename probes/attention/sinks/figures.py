"""How sinks, drains and peaks of one prompt are drawn, T, BOS convention and epsilon in every title."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from workbench.analysis.view import chosen, reads

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "convention",
    "drain_figure",
    "head_detail",
    "head_values_detail",
    "heads_figure",
    "logit_figure",
    "massive_detail",
    "resid_figure",
    "sink_rate_figure",
    "value_figure",
]


@reads("attention-sinks")
def convention(result: xr.Dataset) -> str:
    """T, BOS convention and epsilon, as they belong under every number: `T = 64, BOS at position 0, epsilon = 0.3`."""
    return str(result.attrs["convention"])


@reads("attention-sinks")
def heads_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of alpha of the first position; heads that sink are ringed."""
    from workbench.figures import heads_grid

    marked = [(int(layer), int(head)) for layer, head in np.argwhere(result["sink"].values == 1)]
    title = f"Attention that the sink receives ({convention(result)})"
    return heads_grid(result, "first_received", title=title, mark=marked, mark_name="sinks")


def sink_rate_figure(result: xr.Dataset) -> "go.Figure":
    """Share of heads that sink, per layer."""
    from workbench.figures import series

    return series(result, "sink_rate", "layer", title=f"Share of heads that sink ({convention(result)})")


def drain_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the value drain, on a log scale: small is drained."""
    from workbench.figures import heads_grid

    title = f"Value drain: the sink's |v W_O| over the median's ({convention(result)})"
    return heads_grid(result, "value_drain", title=title, scale="log")


def logit_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the sink logit."""
    from workbench.figures import heads_grid

    return heads_grid(result, "sink_logit", title=f"Sink logit ({convention(result)})")


@reads("attention-sinks")
def resid_figure(result: xr.Dataset) -> "go.Figure":
    """Depth x position map of the residual norm, on a log scale."""
    from workbench.figures import depth_pos_grid

    return depth_pos_grid(result, "residual_norm", title=f"Residual norm ({convention(result)})", scale="log")


@reads("attention-sinks")
def value_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x position map of the norm of v W_O, mean over heads, on a log scale."""
    from workbench.figures import depth_pos_grid

    mean = result["value_norm"].mean("head").assign_attrs(result["value_norm"].attrs)
    title = f"Value norm, mean over heads ({convention(result)})"
    return depth_pos_grid(result.assign(value_norm=mean), "value_norm", title=title, scale="log")


def head_detail(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """Of the selected head, by default the one that sinks most: the attention that every key receives."""
    return _head_strip(result, selection, "attention_received", "attention received")


def head_values_detail(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """Of the selected head, by default the one that sinks most: the norm of every token's v W_O."""
    return _head_strip(result, selection, "value_norm", "norm of v W_O")


def _head_strip(result: xr.Dataset, selection: Mapping[str, Any], variable: str, what: str) -> "go.Figure | None":
    from workbench.figures import head_name, token_strip

    at = chosen(result, selection, "layer", "head")
    if selection.get("layer") is None or selection.get("head") is None:
        at = np.unravel_index(np.nan_to_num(result["first_received"].values).argmax(), result["sink"].shape)
    if at is None:
        return None
    layer, head = at
    array = result[variable].sel(layer=layer, head=head, drop=True)
    tokens = {"token_text": ("pos", result["token_text"].values)} if "token_text" in result.coords else {}
    part = xr.Dataset({variable: ("pos", array.values, array.attrs)}, coords={"pos": result["pos"].values, **tokens})
    return token_strip(part, variable, title=f"{head_name(layer, head)}: {what} ({convention(result)})")


@reads("attention-sinks")
def massive_detail(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """The dimensions that carry the largest norm at the selected depth (by default where it is largest)."""
    from workbench.figures import bars

    depth = selection.get("depth")
    if depth is None:
        depth = int(result["depth"].values[np.nan_to_num(result["peak_ratio"].values, nan=-1.0).argmax()])
    elif chosen(result, selection, "depth") is None:
        return None
    part = result[["massive_dimension", "massive_value", "massive_share"]].sel(depth=depth, drop=True)
    names = [
        f"{dimension}: {share:.0%}"
        for dimension, share in zip(part["massive_dimension"].values, part["massive_share"].values, strict=True)
    ]
    where = int(result["peak_pos"].sel(depth=depth))
    title = f"Dimensions and shares of the squared norm at depth {depth}, position {where} ({convention(result)})"
    return bars(part, "massive_value", "rank", title=title, labels=names)
