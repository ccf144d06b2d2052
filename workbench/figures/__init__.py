"""Drawing primitives: labelled numbers in, a Plotly figure out, for the notebook and the page alike.

They take numpy arrays and xarray Datasets, never a tensor, and import plotly only when something is drawn. Every figure
says in `layout.meta` what its axes show (see `axes`), keeps equal tokens apart, marks missing cells as not applicable,
and takes the light or dark theme with `apply`.
"""

from workbench.figures.axes import selection, selection_shapes
from workbench.figures.bar_charts import bars, token_strip
from workbench.figures.depth_grids import depth_pos_grid
from workbench.figures.head_grids import heads_grid
from workbench.figures.lattices import token_lattice
from workbench.figures.lines import series
from workbench.figures.pattern_pairs import pattern_pair
from workbench.figures.patterns import pattern_figure
from workbench.figures.strips import strip
from workbench.figures.text import head_name, pos_ticks, show_text, show_token, stretches
from workbench.figures.theme import apply, compact

__all__ = [
    "apply",
    "bars",
    "compact",
    "depth_pos_grid",
    "head_name",
    "heads_grid",
    "pattern_figure",
    "pattern_pair",
    "pos_ticks",
    "selection",
    "selection_shapes",
    "series",
    "show_text",
    "show_token",
    "stretches",
    "strip",
    "token_lattice",
    "token_strip",
]
