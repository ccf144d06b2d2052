"""One look for every figure, light and dark.

Greys for the frame, colour for data only. Backgrounds are transparent: the page's own shows through. Line and bar
colours are middle tones that hold on both backgrounds, so switching the theme changes only the frame and the colour
scale; hues are told apart by colour-blind readers, and figures use dash, shape or position beside them.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["ACCENT", "LINES", "MONO", "NEUTRAL", "SCALES", "apply", "compact", "faded", "template"]

MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ACCENT = "#3b7dd8"
CONTRAST = "#d9730d"
NEUTRAL = "#868e96"
LINES = (ACCENT, CONTRAST, "#12936f", "#9a5cc6", "#c8476f", NEUTRAL)


@dataclass(frozen=True)
class Frame:
    """Everything of a figure that is not data."""

    text: str
    quiet: str
    grid: str
    hover: str


LIGHT = Frame(text="#212529", quiet="#5c636a", grid="#e3e6e9", hover="#ffffff")
DARK = Frame(text="#e4e6e8", quiet="#a3a9af", grid="#33383d", hover="#25282c")

_BLUE = ("#eef2f6", "#c6d8ec", "#8fb6de", "#4f8cc9", "#2463a6", "#0b3c73")
_BLUE_DARK = ("#20262d", "#24405f", "#2b5f96", "#4386c6", "#7cb3e6", "#d3e8fb")
_PLUM = ("#f4f1f6", "#dccfe6", "#b79fd0", "#8f6bb5", "#6a4197", "#43206f")
_PLUM_DARK = ("#27232c", "#43325c", "#654a8e", "#8c6dbb", "#b79fdd", "#e9def7")
_TEAL = ("#eef5f2", "#c2e0d5", "#86c0ad", "#469c86", "#1c7564", "#054a40")
_TEAL_DARK = ("#1f2826", "#1f463e", "#26695c", "#3f917f", "#7cbfae", "#cdeee4")
_ORANGE_BLUE = ("#7f3200", "#c9651a", "#eebb8d", "#f1f2f3", "#a3c3e6", "#3b7ac0", "#0b3c73")
_ORANGE_BLUE_DARK = ("#ffcb99", "#e08a3c", "#85501f", "#26292d", "#2a5488", "#4a90d9", "#bcdcfc")

# What kind of quantity -> its colours on a light and on a dark page. The end that matters stands out on either.
SCALES = MappingProxyType(
    {
        "share": (_BLUE, _BLUE_DARK),  # probabilities, attention, scores with a natural 0 and 1
        "amount": (_PLUM, _PLUM_DARK),  # nats, norms: from zero up without an end
        "log": (_TEAL, _TEAL_DARK),  # over orders of magnitude
        "rank": (_TEAL[::-1], _TEAL_DARK[::-1]),  # logarithmic too; 1 is the strongest
        "signed": (_ORANGE_BLUE, _ORANGE_BLUE_DARK),  # centred at zero; blue is positive
    }
)


def apply(figure: "go.Figure", dark: bool = False) -> "go.Figure":
    """Put on the light or the dark theme; changes the figure and returns it. Can be applied again."""
    scale = (figure.layout.meta or {}).get("scale")
    figure.update_layout(template=template(dark))
    if scale is not None:
        colours = SCALES[scale][dark]
        figure.update_layout(coloraxis_colorscale=[[i / (len(colours) - 1), c] for i, c in enumerate(colours)])
    return figure


def compact(figure: "go.Figure") -> "go.Figure":
    """Make a figure readable as a small multiple (about 360 x 280): no cell text, fewer labels, smaller type.

    Changes the figure and returns it. Hover and clicks answer as before.
    """
    figure.update_traces(texttemplate=None, text=None, selector={"type": "heatmap"})
    if "cells" in (figure.layout.meta or {}):
        figure.layout.meta = {name: value for name, value in figure.layout.meta.items() if name != "cells"}
    for axis, most in [(x, 16) for x in figure.select_xaxes()] + [(y, 10) for y in figure.select_yaxes()]:
        axis.update(tickfont_size=9, title_font_size=10, title_standoff=2)
        step = -(-len(axis.tickvals or ()) // most)
        if step > 1:
            axis.update(tickvals=axis.tickvals[::step], ticktext=axis.ticktext[::step])
    bar = {"thickness": 6, "tickfont_size": 9, "title_font_size": 9}
    return figure.update_layout(title_font_size=12, legend_font_size=9, coloraxis_colorbar=bar)


def faded(colour: str, alpha: float) -> str:
    """`#rrggbb` with an opacity of 0 to 1, as CSS."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def template(dark: bool = False) -> "go.layout.Template":
    """The frame of every figure as a Plotly template."""
    import plotly.graph_objects as go

    frame = DARK if dark else LIGHT
    axis = {
        "automargin": True,
        "gridcolor": frame.grid,
        "linecolor": frame.grid,
        "tickcolor": frame.grid,
        "tickfont": {"family": MONO, "size": 10, "color": frame.quiet},
        "title": {"font": {"size": 12, "color": frame.quiet}, "standoff": 6},
        "zeroline": False,
    }
    colorbar = {
        "outlinewidth": 0,
        "thickness": 10,
        "tickfont": {"family": MONO, "size": 10, "color": frame.quiet},
        "title": {"side": "right", "font": {"family": SANS, "size": 11, "color": frame.quiet}},
        "xpad": 6,
    }
    return go.layout.Template(
        layout={
            "coloraxis": {"colorbar": colorbar},
            "colorway": list(LINES),
            "font": {"family": SANS, "size": 12, "color": frame.text},
            "hoverlabel": {
                "align": "left",
                "bgcolor": frame.hover,
                "bordercolor": frame.grid,
                "font": {"family": MONO, "size": 12, "color": frame.text},
            },
            "hovermode": "closest",
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
                "font": {"size": 11},
            },
            "margin": {"l": 8, "r": 8, "t": 40, "b": 8, "pad": 0},
            # Prompts are nobody else's: no button, wherever a figure is shown, that sends it away.
            "modebar": {
                "bgcolor": "rgba(0,0,0,0)",
                "color": frame.quiet,
                "activecolor": ACCENT,
                "remove": ["sendChartToCloud"],
            },
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            # Above the plot and growing upwards; the top margin is set by the number of lines.
            "title": {
                "x": 0,
                "xref": "container",
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "font": {"size": 13},
            },
            "xaxis": axis,
            "yaxis": axis,
        }
    )
