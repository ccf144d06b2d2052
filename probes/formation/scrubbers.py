"""One sequence along the steps of a training: patterns, the lens and routes, with a slider and a button that plays it.

Everything is in the figure: whoever moves the slider asks no server for anything.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.formation.figures import losses_figure
from workbench.analysis.view import chosen, reads

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["scrubbed", "scrubbed_lens", "scrubbed_routes"]

_SINGLE = {"mlp": "route_mlp", "resid_attn": "route_resid_attn", "resid_mlp": "route_resid_mlp"}
_EDGE = ("edge_layer", "edge_head", "edge_query", "edge_key")


@reads("training-timeline")
def scrubbed(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """The pattern of the selected head on one sequence, at every step: a slider, and a button that plays it."""
    at = chosen(result, selection, "layer", "head")
    if at is None or "pattern" not in result:
        return None
    from workbench.figures import head_name

    values = result["pattern"].sel(layer=at[0], head=at[1], drop=True)
    return _animated(values, "key", "query", f"{head_name(*at)} on one sequence")


def scrubbed_lens(result: xr.Dataset) -> "go.Figure":
    """What each depth says of the right next token, on one sequence, at every step."""
    if "lens" not in result:
        return losses_figure(result)
    return _animated(result["lens"], "pos", "depth", "Probability of the right next token, by depth")


def scrubbed_routes(result: xr.Dataset) -> "go.Figure":
    """The graph behind the last token's prediction, on one sequence, at every step."""
    if "route" not in result:
        return losses_figure(result)
    from workbench.figures import token_lattice
    from workbench.figures.lattices import Room, lattice_frame

    known = result[["route", *_SINGLE.values()]].dropna("step", how="all")
    tokens, n_layers = [str(text) for text in result["token_text"].values], result.sizes["layer"]
    kinds = ("attention", *(kind for kind, name in _SINGLE.items() if bool((known[name] > 0).any())))
    room, start = Room(kinds, result.sizes["head"]), len(tokens) - 1
    edges = [_edges(known.isel(step=i)) for i in range(known.sizes["step"])]
    frames = [lattice_frame(one, tokens, n_layers, room, start) for one in edges]
    title = "What flows into the last token"
    figure = token_lattice(
        edges[-1], tokens, n_layers, title=title, start=start, positions=range(len(tokens)), room=room
    )
    return _played(figure, [int(step) for step in known["step"].values], frames)


def _edges(routes: xr.Dataset) -> dict[str, Any]:
    """The edge table of one step, as a lattice takes it; see `watched`."""
    where = np.nonzero(routes["route"].values)
    columns = {name: [values] for name, values in zip(_EDGE, where, strict=True)}
    columns |= {"kind": [np.full(len(where[0]), "attention")], "weight": [routes["route"].values[where]]}
    for kind, name in _SINGLE.items():
        layer, pos = np.nonzero(routes[name].values)
        values = layer, np.full(len(layer), -1), pos, pos, np.full(len(layer), kind), routes[name].values[layer, pos]
        for column, more in zip((*_EDGE, "kind", "weight"), values, strict=True):
            columns[column].append(more)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _animated(values: xr.DataArray, x: str, y: str, title: str) -> "go.Figure":
    """One heat map a step."""
    from workbench.figures.axes import coord_axis, token_axis
    from workbench.figures.heatmap import heatmap

    values = values.dropna("step", how="all").transpose("step", y, x)
    texts = {
        dim: [str(t) for t in values[f"{'token' if dim == 'pos' else dim}_text"].values]
        for dim in (x, y)
        if dim != "depth"
    }
    axes = [
        coord_axis(values[0], dim, is_vertical=dim == y) if dim == "depth"
        else token_axis(texts[dim], dim, is_vertical=dim == y, is_reversed=dim == "query")
        for dim in (x, y)
    ]  # fmt: skip
    steps = [int(step) for step in values["step"].values]
    z = np.round(values.values.astype(float), 3)
    most = 1.0 if values.attrs.get("valid_max") == 1.0 else float(np.nanmax(z))
    figure = heatmap(
        z[-1], *axes, title=title, scale="share", coloraxis={"cmin": 0.0, "cmax": most}, hover="%{z:.3f}", crossed=False
    )  # fmt: skip
    parts = [[[None if np.isnan(v) else v for v in row] for row in part.tolist()] for part in z]
    return _played(figure, steps, [{"data": [{"type": "heatmap", "z": part}], "traces": [0]} for part in parts])


def _played(figure: "go.Figure", steps: Sequence[int], frames: Sequence[dict[str, Any]]) -> "go.Figure":
    """The figure, which shows the last step, with a frame a step, a slider and buttons."""
    figure.frames = [{"name": str(step), **frame} for step, frame in zip(steps, frames, strict=True)]
    go_to = lambda names, wait: {"args": [names, {"mode": "immediate", "frame": {"duration": wait, "redraw": True}}],
                                 "method": "animate"}  # fmt: skip
    figure.update_layout(
        sliders=[{"active": len(steps) - 1, "currentvalue": {"prefix": "step "}, "x": 0.22, "len": 0.78, "y": 0,
                  "yanchor": "top", "pad": {"t": 70},
                  "steps": [{"label": str(step), **go_to([str(step)], 0)} for step in steps]}],
        updatemenus=[{"type": "buttons", "showactive": False, "direction": "left", "x": 0, "y": 0, "pad": {"t": 84},
                      "xanchor": "left", "yanchor": "top",
                      "buttons": [{"label": "play", **go_to(None, 150)}, {"label": "stop", **go_to([None], 0)}]}],
    )  # fmt: skip
    return figure
