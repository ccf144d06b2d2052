"""Figures that take part in the one selection."""

from typing import Any

from dash import dcc

__all__ = ["GRAPH_CONFIG", "SELECTED", "figure_id", "graph"]

SELECTED = "#e8590c"  # the colour of the selection
GRAPH_CONFIG: Any = {
    "displaylogo": False,
    "responsive": True,
    "displayModeBar": "hover",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "sendChartToCloud"],
}


def figure_id(name: str) -> dict[str, str]:
    """The id of a figure whose clicks are read and which shows the selection."""
    return {"type": "figure", "name": name}


def graph(name: str, figure: Any = None, **more: Any) -> dcc.Graph:
    """A figure that takes part in the one selection."""
    given = {} if figure is None else {"figure": figure}
    return dcc.Graph(id=figure_id(name), config=GRAPH_CONFIG, responsive=True, className="figure", **given, **more)
