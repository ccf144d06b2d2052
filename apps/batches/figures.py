"""Figures of a batch: aggregates of an analysis, and columns of the table of prompts against each other."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from workbench.figures import apply, bars, heads_grid, series, show_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["averaged", "figures", "one_figure", "scatter"]

_SHOWN = 60  # characters of a prompt beside its point
_POINTS = 10_000  # that a browser draws at once


def averaged(result: xr.Dataset) -> list[str]:
    """The variables of an aggregate that have a mean."""
    return [str(name) for name in result.data_vars if f"{name}_n" in result]


def figures(result: xr.Dataset, variable: str | None = None) -> "Iterator[go.Figure]":
    """Figures of an aggregate, one a model and group. variable: of one only."""
    for name in averaged(result) if variable is None else [variable]:
        if variable is None and name.endswith("_null"):
            continue  # drawn beside what it is the null of
        for model in result["model"].values:
            for group in result["group"].values:
                figure = one_figure(result.sel(model=model, group=group), name)
                if figure is not None:
                    yield figure


def one_figure(one: xr.Dataset, name: str) -> "go.Figure | None":
    """A variable of one model and group: a grid of heads, a line over layers or depths, bars; None for what is not
    there, has no axis or several others. Its title says of how many documents."""
    if not np.isfinite(one[name].values).any():
        return None
    inner, n = one[name].dims, int(one[f"{name}_n"].max())
    about = [name.replace("_", " "), one["group"].item(), one["model"].item(), f"n = {n:,}"]
    title = ", ".join(str(part) for part in about if str(part))
    if inner == ("layer", "head"):
        return heads_grid(one, name, title=title)
    if inner in (("layer",), ("depth",)):
        return series(one, name, x=str(inner[0]), title=title)
    if len(inner) == 1:
        figure = bars(one, name, str(inner[0]), title=title, limit=40)
        return figure if one[inner[0]].dtype.kind in "OUS" else figure.update_yaxes(title_text=str(inner[0]))
    return None


def scatter(table: pd.DataFrame, x: str, y: str, dark: bool = False) -> "go.Figure":
    """One column of the table of prompts against another, a colour a group; `customdata` is the number of the row.

    Of more prompts than can be drawn every second, third, ... is, and the title says so.
    """
    import plotly.graph_objects as go

    known = table[np.isfinite(table[x].astype(float)) & np.isfinite(table[y].astype(float))]
    figure, drawn = go.Figure(), known.iloc[:: -(-max(1, len(known)) // _POINTS)]
    for group, rows in drawn.groupby("group", sort=False):
        texts = [show_text(str(text)[:_SHOWN]) for text in rows["text"]]
        figure.add_scatter(
            x=rows[x], y=rows[y], mode="markers", name=show_text(str(group)), customdata=rows.index.to_list(),
            text=texts, hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra>%{fullData.name}</extra>",
            marker={"size": 5, "opacity": 0.7},
        )  # fmt: skip
    thinned = f", {len(drawn):,} of them drawn" if len(drawn) < len(known) else ""
    figure.update_layout(title_text=f"{y} against {x}, n = {len(known):,} prompts{thinned}")
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y.replace(".", "<br>", 1))  # in one line it would run into the title
    return apply(figure, dark)
