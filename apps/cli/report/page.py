"""The figures of a result as one HTML page that needs no network."""

import json
from typing import TYPE_CHECKING

import xarray as xr

from apps.cli.report.summary import summary
from apps.template import render
from workbench.analysis.parameters import Values
from workbench.analysis.view import View
from workbench.figures.caption import caption
from workbench.storage.record import record_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["page"]


def page(view: View, result: xr.Dataset, display: Values | None = None) -> str:
    """All figures of a result with model, definition, limits and provenance, as one HTML page that needs no network."""
    record = record_of(result)
    about = caption(result, view.said(result, (display or view.shown()).values()))
    drawn = [view.drawn(draw, result, display=display) for draw in view.figures]
    return render(
        "cli/report/page.html",
        view=view,
        about=about,
        figures=[_div(figure, first=i == 0) for i, figure in enumerate(f for f in drawn if f is not None)],
        numbers=summary(view, result, display),
        provenance=json.dumps(record, indent=1, ensure_ascii=False),
    )


def _div(figure: "go.Figure", *, first: bool) -> str:
    """A figure as a piece of HTML; the first one brings the drawing library with it."""
    said: str = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
    return said
