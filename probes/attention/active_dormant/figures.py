"""What is drawn: grids of all heads, and of one head a point for every text."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.attention.active_dormant.contrast import FALSE_DISCOVERY
from probes.attention.active_dormant.verdict import largest, verdict
from workbench.analysis.view import chosen, reads

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "ablation_detail",
    "attention_figure",
    "contrast_figure",
    "dormant_figure",
    "output_detail",
    "texts_detail",
    "texts_figure",
]


def contrast_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the contrast; heads that pass correction are ringed."""
    first, second = result["domain"].values[:2]
    return _grid(result, "contrast", f"Dormant texts, {first} minus {second}")


def dormant_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the share of dormant texts, in whichever of the domains it is larger."""
    share = result["dormant_share"].max("domain", skipna=True).assign_attrs(result["dormant_share"].attrs)
    return _grid(result.assign(dormant_share=share), "dormant_share", "Dormant texts in the sleepier domain")


@reads("active-dormant")
def attention_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the difference in attention to the sink set."""
    first, second = result["domain"].values[:2]
    return _grid(result, "sink_contrast", f"Attention to sinks, {first} minus {second}")


def _grid(result: xr.Dataset, variable: str, title: str) -> "go.Figure":
    from workbench.figures import heads_grid

    marked = [(int(layer), int(head)) for layer, head in np.argwhere(result["candidate"].values == 1)]
    name = f"q < {FALSE_DISCOVERY:g}"
    return heads_grid(result, variable, title=f"{title} ({result.attrs['convention']})", mark=marked, mark_name=name)


def texts_figure(result: xr.Dataset) -> "go.Figure":
    """Attention to the sink set of the head that differs most, one point per text and domain."""
    return texts_detail(result, {})


@reads("active-dormant")
def texts_detail(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """Of the selected head: attention to the sink set, one point per text and domain; the verdict below."""
    at = _selected(result, selection)
    if at is None:
        return None
    layer, head = at
    figure = _strip(result, layer, head, "sink_attention", "attention to sinks, by text")
    return figure.update_layout(meta={**figure.layout.meta, "said": verdict(result, layer, head)})


def output_detail(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """Of the selected head: its output norm against its largest, one point per text and domain."""
    at = _selected(result, selection)
    return None if at is None else _strip(result, *at, "relative_output", "output norm, by text")


@reads("active-dormant")
def ablation_detail(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """Of the selected head: the change of each text's loss when it is ablated by zero; None before that is known."""
    at = _selected(result, selection)
    if at is None:
        return None
    layer, head = at
    if np.isnan(result["text_ablation_dloss"].values[..., layer, head]).all():
        return None
    ends = {f"ablation_dloss_{end}": f"text_ablation_dloss_{end}" for end in ("low", "high")}
    return _strip(result.rename(ends), layer, head, "text_ablation_dloss", "zero ablation, by text")


def _strip(result: xr.Dataset, layer: int, head: int, variable: str, what: str) -> "go.Figure":
    from workbench.figures import head_name, strip

    names = [name for name in (variable, f"{variable}_low", f"{variable}_high") if name in result]
    part = result[[*names, "document"]].sel(layer=layer, head=head, drop=True)
    title = f"{head_name(layer, head)}: {what} ({result.attrs['convention']})"
    return strip(part, variable, "domain", title=title, text="document")


def _selected(result: xr.Dataset, selection: dict[str, Any]) -> tuple[int, int] | None:
    """The selected head, or the one that differs most where none is; None for one that the result does not have."""
    if selection.get("layer") is None or selection.get("head") is None:
        return largest(result)
    at = chosen(result, selection, "layer", "head")
    return None if at is None else (at[0], at[1])
