"""Two maps of one head beside each other: where it looks, and what that brings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import InputError
from workbench.figures.patterns import pattern_figure
from workbench.figures.text import number, show_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["pattern_pair"]

_GAP = 0.03  # of the width, on either side of the middle
_FLOOR = 1e-6  # a map of zeros has no largest value to be coloured by


def pattern_pair(maps: Mapping[str, np.ndarray], tokens: Sequence[str], title: str) -> "go.Figure":
    """Two (query, key) maps side by side on one query axis, each named below with the end of its colour scale.

    maps: name -> values from 0 up, for keys up to the query. A scale ends at the map's largest value over keys >= 1, so
    that a sink on position 0 does not wash out the rest. Positions are labelled by number: there is room for no more.
    """
    if len(maps) != 2:
        raise InputError(f"{len(maps)} maps", "two, to stand beside each other", "Draw others one by one")
    ends = [_end(np.asarray(values), len(tokens)) for values in maps.values()]
    left, right = (
        pattern_figure(values / end, tokens, title, color_range=(0.0, 1.0))
        for values, end in zip(maps.values(), ends, strict=True)
    )
    left.add_trace(right.data[0].update(xaxis="x2"))
    for trace, end in zip(left.data, ends, strict=True):
        trace.update(customdata=trace.z * end, hovertemplate=trace.hovertemplate.replace("%{z:", "%{customdata:"))
    for axis in (left.layout.xaxis, left.layout.yaxis):
        axis.ticktext = [str(axis.tickvals[i]).removesuffix(".0") for i in range(len(axis.tickvals))]
        axis.tickangle = 0
    names = [f"{show_text(name)}, to {number(end)}" for name, end in zip(maps, ends, strict=True)]
    other = left.layout.xaxis.to_plotly_json() | {"anchor": "y", "domain": [0.5 + _GAP, 1], "title": {"text": names[1]}}
    left.update_layout(xaxis2=other, xaxis={"domain": [0, 0.5 - _GAP], "title": {"text": names[0]}})
    left.update_xaxes(title_font_size=11)
    return left.update_coloraxes(showscale=False)


def _end(values: np.ndarray, n_tokens: int) -> float:
    shown = np.where(np.tri(len(values), dtype=bool), values, np.nan)
    return float(np.nanmax(shown[:, 1:] if n_tokens > 1 else shown, initial=_FLOOR))
