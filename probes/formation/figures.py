"""How a training timeline is drawn: scores and losses against steps, a panel a head. One sequence: see `scrubbers`."""

import functools
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from workbench.analysis.view import chosen, reads

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["head_detail", "heads_figure", "losses_figure", "over_seeds", "scores_figure"]

_LINES = 5  # of a figure
_PANELS = 36


def over_seeds(result: xr.Dataset, names: list[str]) -> xr.Dataset:
    """The mean over seeds of scores, of heads the largest one, with the range over seeds as `_low` and `_high`."""
    found = xr.Dataset(coords={"step": result["step"]})
    for name in names:
        values = result[name]
        heads = [dim for dim in values.dims if dim not in ("seed", "step")]
        values = values.max(heads, keep_attrs=True)
        title = str(values.attrs["long_name"]) + (", largest over heads" if heads else "")
        found[name] = values.mean("seed", keep_attrs=True).assign_attrs(long_name=title)
        if result.sizes["seed"] > 1:
            found[f"{name}_low"], found[f"{name}_high"] = values.min("seed"), values.max("seed")
    return found


def _names(result: xr.Dataset, units: str, *, other: bool = False) -> list[str]:
    """Scores along steps with these units, or with others; those that change first come first."""
    names = [
        str(name) for name, values in result.data_vars.items()
        if values.dims[:2] == ("seed", "step") and (values.attrs["units"] == units) != other
    ]  # fmt: skip
    if "component" not in result.dims:
        return names
    first = {str(n): float(result["change_low"].sel(component=n)) for n in result["component"].values}
    return sorted(names, key=lambda name: (np.isnan(first.get(name, np.nan)), first.get(name, 0.0)))


@reads("training-timeline")
def scores_figure(result: xr.Dataset, log_steps: bool = True) -> "go.Figure":
    """Scores against step, with the loss on an axis of its own and change points as bands from the earliest to the
    latest seed."""
    from workbench.figures.theme import NEUTRAL

    names = _names(result, "nats", other=True)[:_LINES]
    if not names:
        return losses_figure(result, log_steps)
    figure = _lines(result, names, f"Scores along training{_bands(result)}", log_steps)
    if "loss" in result:
        loss = over_seeds(result, ["loss"])["loss"]
        figure.add_scatter(
            x=result["step"].values, y=loss.values, name="loss (nats, right)", yaxis="y2", mode="lines",
            line={"color": NEUTRAL, "width": 2, "dash": "dot"},
            hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
        )  # fmt: skip
        axis = {"overlaying": "y", "side": "right", "title": {"text": "loss (nats)"}, "showgrid": False}
        figure.update_layout(yaxis2=axis, showlegend=True)
    return figure


def losses_figure(result: xr.Dataset, log_steps: bool = True) -> "go.Figure":
    """Losses against step."""
    names = _names(result, "nats")[:_LINES]
    if not names:
        return _lines(result, _names(result, "nats", other=True)[:_LINES], "Scores along training", log_steps)
    return _lines(result, names, f"Losses along training{_bands(result)}", log_steps)


def _bands(result: xr.Dataset) -> str:
    n = result.sizes["seed"]
    return f" (bands: range over n = {n} seeds)" if n > 1 else ""


def _lines(result: xr.Dataset, names: list[str], title: str, log_steps: bool) -> "go.Figure":
    from workbench.figures import series
    from workbench.figures.theme import LINES, faded

    figure = series(over_seeds(result, names), names, "step", title=title, log_x=log_steps)
    for index, name in enumerate(names):
        if "component" in result.dims and name in result["component"].values:
            one = result.sel(component=name)
            low, high = float(one["change_low"]), float(one["change_high"])
            if np.isfinite(low):
                colour = LINES[index % len(LINES)]
                figure.add_vrect(
                    x0=max(low, 0.5), x1=max(high, low * 1.01, 0.5), fillcolor=faded(colour, 0.25), line_width=0
                )
    return figure


def heads_figure(result: xr.Dataset, log_steps: bool = True) -> "go.Figure":
    """A small panel for each head: its scores against step, mean over seeds; heads that move most where there are
    many."""
    from plotly.subplots import make_subplots

    from workbench.figures import head_name
    from workbench.figures.heatmap import finish, over_panels
    from workbench.figures.theme import LINES

    names = [name for name in _names(result, "nats", other=True) if "head" in result[name].dims][:3]
    if not names:
        return losses_figure(result, log_steps)
    heads = _moving(result, names)
    columns = min(6, len(heads))
    figure = make_subplots(
        rows=-(-len(heads) // columns), cols=columns, shared_xaxes=True, shared_yaxes=True,
        subplot_titles=[head_name(*head) for head in heads],
    )  # fmt: skip
    for place, (layer, head) in enumerate(heads):
        for index, name in enumerate(names):
            values = result[name].sel(layer=layer, head=head).mean("seed")
            figure.add_scatter(
                x=result["step"].values, y=values.values, mode="lines", line={"color": LINES[index], "width": 1.5},
                name=str(result[name].attrs["long_name"]), legendgroup=name, showlegend=place == 0,
                row=place // columns + 1, col=place % columns + 1,
            )  # fmt: skip
    finish(figure, "Each head along training (mean over seeds)", None, None)
    figure.update_xaxes(type="log" if log_steps else "linear")
    return over_panels(figure).update_layout(showlegend=True)


def _moving(result: xr.Dataset, names: list[str]) -> list[tuple[int, int]]:
    """Heads in their order, or those that move most."""
    span = lambda scores: scores.max("step").mean("seed") - scores.min("step").mean("seed")
    moves: xr.DataArray = functools.reduce(operator.add, [span(result[name]) for name in names])
    places = [(int(layer), int(head)) for layer in result["layer"].values for head in result["head"].values]
    if len(places) <= _PANELS:
        return places
    far = sorted(places, key=lambda at: -float(moves.sel(layer=at[0], head=at[1])))
    return sorted(far[:_PANELS])


def head_detail(result: xr.Dataset, selection: Mapping[str, Any], log_steps: bool = True) -> "go.Figure | None":
    """The scores of the selected head, a line for each seed of the one that moves most."""
    from workbench.figures import head_name, series

    at = chosen(result, selection, "layer", "head")
    if at is None:
        return None
    names = [name for name in _names(result, "nats", other=True) if "head" in result[name].dims]
    one = result[names].sel(layer=at[0], head=at[1], drop=True) if names else None
    if one is None:
        return None
    most = max(names, key=lambda name: float((one[name].max("step") - one[name].min("step")).mean()))
    return series(one, most, "step", by="seed", title=f"{head_name(*at)}, each seed", log_x=log_steps)
