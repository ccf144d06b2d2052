"""Figures of token erasure on a prompt."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.erasure.psi import WINDOW, triangle
from probes.erasure.readout import OFFSETS, SHOWN
from workbench.analysis.results import dataset
from workbench.analysis.view import chosen, reads

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["class_detail", "lines_figure", "readout_detail", "tokens_figure", "triangle_figure"]

_PER_LINE = {64: 8, 192: 12}  # tokens of a line, for texts up to a length
_LONG = 16  # tokens of a line of a longer text
_LINES = 8  # room for as many, so that a short text does not stand in tall cells
_WIDTH = 100  # characters that fit into a line of cells
_NAMED = 12  # characters of a token that a probe names
_CLASSES = {"last": "last tokens of words", "others": "tokens that end no such word", "all": "tokens of all kinds"}
_TRIANGLE = 128  # tokens: beyond that a span is smaller than a pixel


@reads("token-erasure")
def tokens_figure(result: xr.Dataset) -> "go.Figure":
    """The text in lines, every token coloured by psi of its segment; segments of several tokens are underlined."""
    import plotly.graph_objects as go

    from workbench.figures.heatmap import finish
    from workbench.figures.text import escape, shorten, show_token

    positions = np.flatnonzero(~np.isnan(result["token_psi"].values))
    per_line = next((n for most, n in _PER_LINE.items() if len(positions) <= most), _LONG)
    n_lines = -(-len(positions) // per_line)
    shape = (n_lines, per_line)
    z, text, hover, data = (np.full(shape, fill, dtype=object) for fill in (None, "", "", None))
    strings = [str(t) for t in result["token_text"].values]
    for index, pos in enumerate(positions.tolist()):
        cell = divmod(index, per_line)
        z[cell] = float(result["token_psi"].values[pos])
        text[cell] = escape(shorten(show_token(strings[pos], html=False), _WIDTH // per_line))
        hover[cell] = _hover(result, pos, strings)
        data[cell] = {"pos": pos}
    figure = go.Figure(
        go.Heatmap(
            z=z.tolist(),
            text=text.tolist(),
            texttemplate="%{text}",
            textfont={"size": 11},
            hovertext=hover.tolist(),
            hovertemplate="%{hovertext}<extra></extra>",
            customdata=data.tolist(),
            coloraxis="coloraxis",
            hoverongaps=False,
            xgap=1,
            ygap=8,
        )
    )
    _underline(figure, result, positions, per_line)
    reach = max(0.2, float(np.nanmax(np.abs(result["token_psi"].values))))
    figure.update_layout(coloraxis={"cmin": -reach, "cmax": reach, "colorbar": {"title": {"text": "psi"}}})
    early, late = result.attrs["early"], result.attrs["late"]
    title = f"Tokens by psi, depth {early} to {late}; a line under each segment, thicker for a higher psi"
    finish(figure, title, None, None, scale="signed")
    figure.update_xaxes(visible=False, range=[-0.5, per_line - 0.5])
    return figure.update_yaxes(visible=False, range=[max(n_lines, _LINES) - 0.3, -0.5])


def _hover(result: xr.Dataset, pos: int, strings: list[str]) -> str:
    from workbench.figures.text import number, show_token

    lines = [
        f"<b>token {pos} {show_token(strings[pos])}</b>",
        f"psi of its segment: {number(float(result['token_psi'][pos]))}",
    ]
    early, late = result.attrs["early"], result.attrs["late"]
    for column, offset in enumerate(result["offset"].values.tolist()):
        before, after = result["probe_prob"].values[:, pos, column]
        if not np.isnan(before):
            named = show_token(strings[pos + offset])
            lines.append(f"offset {offset} {named}: {number(before)} at depth {early}, {number(after)} at {late}")
    lines += [f"offset {offset}: no probes" for offset in _missing(result)]
    return "<br>".join(lines)


def _missing(result: xr.Dataset) -> list[int]:
    """Offsets that could be shown and have no probes at both depths."""
    return [offset for offset in SHOWN if offset not in result["offset"].values]


def _underline(figure: "go.Figure", result: xr.Dataset, positions: np.ndarray, per_line: int) -> None:
    """A line under every segment of several tokens, thicker for a higher psi; cut where a line of text ends."""
    from workbench.figures.theme import NEUTRAL

    place = {int(pos): divmod(index, per_line) for index, pos in enumerate(positions)}
    for start, end, psi in zip(result["start"].values, result["end"].values, result["psi"].values, strict=True):
        if end == start:
            continue
        rows: dict[int, list[int]] = {}
        for pos in range(int(start), int(end) + 1):
            row, column = place[pos]
            rows.setdefault(row, []).append(column)
        for row, columns in rows.items():
            figure.add_shape(
                type="line",
                x0=columns[0] - 0.42, x1=columns[-1] + 0.42, y0=row + 0.5, y1=row + 0.5,
                line={"color": NEUTRAL, "width": 1 + 5 * min(1.0, max(0.0, float(psi)))},
            )  # fmt: skip


def lines_figure(result: xr.Dataset) -> "go.Figure":
    """Erasure at every token, one line for each offset."""
    from workbench.figures import series

    early, late = result.attrs["early"], result.attrs["late"]
    missing = "".join(f" (no probes for offset {offset})" for offset in _missing(result))
    title = f"What a probe forgets from depth {early} to {late}{missing}"
    return series(result, "erasure", "pos", by="offset", title=title)


@reads("token-erasure")
def triangle_figure(result: xr.Dataset) -> "go.Figure":
    """psi of every span: where it starts (from the left) and where it ends (downwards)."""
    from workbench.figures.axes import token_axis
    from workbench.figures.heatmap import heatmap

    positions = np.flatnonzero(~np.isnan(result["token_psi"].values))
    shown = positions[: min(_TRIANGLE, WINDOW)]
    grid = triangle(result["erasure"].values[shown, : len(OFFSETS)].astype(np.float64)).T  # end, start
    strings = [str(result["token_text"].values[pos]) for pos in shown]
    x = replace(token_axis(strings, "pos", shown.tolist()), title="first token of the span")
    y = token_axis(strings, "pos", shown.tolist(), is_vertical=True, is_reversed=True)
    y = replace(y, title="last token of the span")
    reach = max(0.2, float(np.nanmax(np.abs(grid))))
    title = "psi of every span"
    return heatmap(
        grid,
        x,
        y,
        title=title + (f", first {len(shown)} tokens" if len(shown) < len(positions) else ""),
        scale="signed",
        coloraxis={"cmin": -reach, "cmax": reach, "colorbar": {"title": {"text": "psi"}}},
        hover="from %{x} to %{y}<br>psi <b>%{z:.3f}</b>",
        crossed=False,
    )


def readout_detail(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """What the probes read at the selected token: probability of the true tokens, and what they would name."""
    from workbench.figures import bars, show_token
    from workbench.figures.text import shorten

    at = chosen(result, selection, "pos")
    if at is None:
        return None
    (pos,) = at
    rows = [(d, o) for o in range(result.sizes["offset"]) for d in range(2)]
    rows = [(d, o) for d, o in rows if not np.isnan(result["probe_prob"].values[d, pos, o])]
    if not rows:
        return None
    labels = []
    for d, o in rows:
        offset, named = int(result["offset"].values[o]), str(result["probe_top"].values[d, pos, o])
        shown = shorten(show_token(named, html=False), _NAMED)
        labels.append(f"{offset}, depth {int(result['depth'].values[d])}: {shown}")
    values = [float(result["probe_prob"].values[d, pos, o]) for d, o in rows]
    spec = ("probability", (0, 1), "of the true token")
    small = dataset(prob=("rank", np.array(values), *spec))
    return bars(small, "prob", "rank", labels=labels, title=f"Probes at token {pos}: offset, depth, and what they name")


def class_detail(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """How well the probes read tokens of the selected one's class at every depth that the card knows."""
    from workbench.figures import series

    at = chosen(result, selection, "pos")
    if at is None:
        return None
    pos, groups = at[0], result["curve_group"].values
    other = "others" if "others" in groups else "all"
    group = "last" if result["word_end"].values[pos] > 0 else other
    rows = np.flatnonzero(groups == group)
    if not len(rows):
        return None
    depths, offsets = result["curve_depth"].values[rows], result["curve_offset"].values[rows]
    known_depths, known_offsets = np.unique(depths), np.unique(offsets)[::-1]
    grid = np.full((len(known_depths), len(known_offsets)), np.nan)
    cells = np.searchsorted(known_depths, depths), np.searchsorted(-known_offsets, -offsets)
    grid[cells] = result["curve_accuracy"].values[rows]
    small = dataset(
        coords={"depth": known_depths.tolist(), "offset": known_offsets.tolist()},
        accuracy=("depth offset", grid, "share of tokens", (0, 1), "held-out accuracy"),
    )
    return series(small, "accuracy", "depth", by="offset", title=f"Probes on {_CLASSES[group]}, as token {pos} is")
