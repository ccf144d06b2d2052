"""The figures of a result as one HTML page that needs no network."""

import html
import json
from typing import TYPE_CHECKING

import xarray as xr

from apps.cli.report.summary import summary
from workbench.analysis.parameters import Values
from workbench.analysis.view import View
from workbench.figures.caption import caption
from workbench.storage.record import record_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["page"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font-family: system-ui, sans-serif; max-width: 1200px; margin: 1rem auto; padding: 0 1rem }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere }}</style></head>
<body><h1>{title}</h1>
{about}
<p>{definition}</p>
<p><strong>Limits:</strong> {limits}</p>
{figures}
<details><summary>Numbers and provenance</summary><pre>{numbers}</pre><pre>{provenance}</pre></details>
</body></html>
"""


def page(view: View, result: xr.Dataset, display: Values | None = None) -> str:
    """All figures of a result with model, definition, limits and provenance, as one HTML page that needs no network."""
    record = record_of(result)
    about = caption(result, view.said(result, (display or view.shown()).values()))
    drawn = [view.drawn(draw, result, display=display) for draw in view.figures]
    return _PAGE.format(
        title=html.escape(view.title),
        about="\n".join(f"<p>{html.escape(line)}</p>" for line in about),
        definition=html.escape(view.analysis.definition),
        limits=html.escape(view.analysis.limits),
        figures="\n".join(_div(figure, first=i == 0) for i, figure in enumerate(f for f in drawn if f is not None)),
        numbers=html.escape(summary(view, result, display)),
        provenance=html.escape(json.dumps(record, indent=1, ensure_ascii=False)),
    )


def _div(figure: "go.Figure", *, first: bool) -> str:
    """A figure as a piece of HTML; the first one brings the drawing library with it."""
    said: str = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
    return said
