"""The attention pattern of one head."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import InputError
from workbench.figures.axes import Axis, token_axis
from workbench.figures.heatmap import heatmap
from workbench.figures.text import show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["pattern_figure"]

_FLOOR = 0.01  # share of attention; a scale that ends below would make patterns out of rounding


def pattern_figure(
    pattern: np.ndarray,
    tokens: Sequence[str],
    title: str,
    *,
    exclude_first: bool = False,
    color_range: tuple[float, float] | None = None,
    scale: str = "share",
    limit: int = 400,
) -> "go.Figure":
    """Where one head looks: query (downwards) x key (from the left) attention, 0 to 1; keys after the query are blank.

    pattern: (query, key). exclude_first: take the colour range over keys >= 1, so that a sink on position 0 does not
    wash out the rest. color_range: by default 0 to the largest weight shown, 0.01 at least: rounding is no structure.
    scale: "signed" for a difference of two patterns, centred at zero. Beyond `limit` tokens the largest weight
    of each square block is drawn and the title says so (400 x 400 cells are 0.9 MB of JSON).
    """
    weights = np.asarray(pattern, dtype=np.float64)
    if weights.shape != (len(tokens), len(tokens)):
        raise InputError(
            f"a pattern of shape {weights.shape} for {len(tokens)} tokens",
            "one row and column per token",
            "Pass one head's (query, key) weights and the tokens of the same prompt",
        )
    weights = np.where(np.tri(len(weights), dtype=bool), weights, np.nan)
    block = -(-len(tokens) // limit)
    z = block_max(weights, block)
    x, y = (_axis(tokens, dim, block) for dim in ("key", "query"))
    ranged = weights[:, 1:] if exclude_first and len(tokens) > 1 else weights
    low, high = color_range or _range(ranged, scale)
    place = "query %{y}<br>attends to key %{x}" if block == 1 else f"{block} queries from %{{y}}<br>keys from %{{x}}"
    notes = [f"largest of each {block} x {block} tokens"] if block > 1 else []
    notes += ["colours without key 0"] if exclude_first else []
    figure = heatmap(
        z,
        x,
        y,
        title=title + (f" ({', '.join(notes)})" if notes else ""),
        scale=scale,
        coloraxis={"cmin": low, "cmax": high, "colorbar": {"title": {"text": "attention"}}},
        hover=f"{place}<br><b>%{{z:.3f}}</b>",
        crossed=False,
    )
    _name_positions(figure, x, y, tokens)
    return figure


def _range(weights: np.ndarray, scale: str) -> tuple[float, float]:
    """Ends of the colour scale for what is drawn."""
    high = max(_FLOOR, float(np.nanmax(np.abs(weights), initial=0.0)))
    return (-high if scale == "signed" else 0.0), high


def block_max(values: np.ndarray, block: int) -> np.ndarray:
    """The value of largest size in every `block` x `block` square, NaN left out; a square of NaN stays NaN."""
    if block == 1:
        return values
    short = -len(values) % block
    count = (len(values) + short) // block

    def pooled(filler: float) -> np.ndarray:
        padded = np.pad(np.where(np.isnan(values), filler, values), ((0, short), (0, short)), constant_values=filler)
        squares = padded.reshape(count, block, count, block)
        return squares.max(axis=(1, 3)) if filler < 0 else squares.min(axis=(1, 3))

    high, low = pooled(-np.inf), pooled(np.inf)
    return np.where(np.isneginf(high), np.nan, np.where(-low > high, low, high))


def _axis(tokens: Sequence[str], dim: str, block: int) -> Axis:
    starts = range(0, len(tokens), block)
    vertical = dim == "query"
    return token_axis([tokens[i] for i in starts], dim, starts, at=starts, is_vertical=vertical, is_reversed=vertical)


def _name_positions(figure: "go.Figure", x: Axis, y: Axis, tokens: Sequence[str]) -> None:
    """Let the axes say the token of every position on hover, also where no tick label stands."""
    for update, axis in ((figure.update_xaxes, x), (figure.update_yaxes, y)):
        update(labelalias={str(pos): f"{pos} {show_token(tokens[pos])}" for pos in axis.values}, hoverformat="d")
