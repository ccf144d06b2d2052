"""Numbers of a few named things as bars: components, heads, groups; and one bar per token."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.axes import Axis, coord_axis, need_dims
from workbench.figures.heatmap import finish
from workbench.figures.quantity import flags, interval_text, label, numbers, pick
from workbench.figures.text import show_text, show_token, thin
from workbench.figures.theme import ACCENT, CONTRAST, NEUTRAL

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["bars", "token_strip"]

_NAMED = 24  # bars with a name beside them; the others say it on hover


def bars(
    result: "xr.Dataset",
    variable: str,
    dim: str,
    *,
    title: str,
    labels: Sequence[str] | None = None,
    limit: int | None = None,
    selects: Sequence[Mapping[str, Any]] | None = None,
) -> "go.Figure":
    """One horizontal bar for each entry of a variable over `dim`, the first on top.

    `variable_low` and `_high` become whiskers and `variable_null` a grey tick, where the result has them. labels: plain
    names of the entries, by default their coordinate. limit: draw only the entries of largest magnitude, in order of
    their value. selects: what a click on each entry chooses beside the entry, such as its layer and head. Positive and
    negative bars differ in side and colour.
    """
    import plotly.graph_objects as go

    array = need_dims(pick(result, variable), dim)
    chosen = _largest(numbers(array), limit)
    part = result.isel({dim: chosen})
    values_of = result[dim].values.tolist()
    values, texts = numbers(part[variable]), interval_text(part, part[variable])
    names = part[dim].values if labels is None else [labels[i] for i in chosen]
    names = [show_text(str(name)) for name in names]
    axis = _named_axis(dim, part[dim].values, names)
    figure = go.Figure(
        go.Bar(
            x=values,
            y=list(axis.drawn),
            orientation="h",
            marker={"color": _sides(values)},
            error_x=_whiskers(part, variable, values),
            hovertext=[f"{name}: {text}" for name, text in zip(names, texts, strict=True)],
            hovertemplate="%{hovertext}<extra></extra>",
            customdata=None if selects is None else [{dim: values_of[i], **selects[i]} for i in chosen],
            showlegend=False,
        )
    )
    if f"{variable}_null" in part:
        _add_nulls(figure, numbers(part[f"{variable}_null"].broadcast_like(part[variable])), axis)
    finish(figure, title, None, axis)
    figure.update_layout(bargap=0.25)
    figure.update_xaxes(title_text=label(array), zeroline=True, zerolinecolor=NEUTRAL, zerolinewidth=1)
    return figure


def token_strip(
    result: "xr.Dataset", variable: str, *, title: str, mark: str | None = None, mark_name: str = "marked"
) -> "go.Figure":
    """One bar per token of a variable over (pos): surprisal, a norm, an erasure score.

    Positive and negative bars differ in side and colour; NaN has no bar. mark: a boolean variable over (pos) whose true
    tokens get a dot, which `mark_name` explains in the legend.
    """
    import plotly.graph_objects as go

    array = need_dims(pick(result, variable), "pos")
    axis, values, texts = coord_axis(array, "pos"), numbers(array), interval_text(result, array)
    tokens = array["token_text"].values if "token_text" in array.coords else [""] * len(axis)
    hover = [
        f"token {pos} {show_token(str(token))}<br>{label(array)}: {text}"
        for pos, token, text in zip(axis.values, tokens, texts, strict=True)
    ]
    figure = go.Figure(
        go.Bar(
            x=list(axis.drawn),
            y=values,
            marker={"color": _sides(values)},
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
        )
    )
    if mark is not None:
        _add_marks(figure, flags(need_dims(pick(result, mark), "pos")), values, mark_name)
    finish(figure, title, axis, None)
    figure.update_layout(bargap=0.15)
    figure.update_yaxes(title_text=label(array), zeroline=True, zerolinecolor=NEUTRAL, zerolinewidth=1)
    return figure


def _largest(values: np.ndarray, limit: int | None) -> np.ndarray:
    """Indices of all entries, or of the `limit` largest in magnitude by falling value; NaN is never among those."""
    if limit is None or limit >= len(values):
        return np.arange(len(values))
    kept = np.argsort(-np.nan_to_num(np.abs(values), nan=-1.0), kind="stable")[:limit]
    kept = kept[~np.isnan(values[kept])]
    return kept[np.argsort(-values[kept], kind="stable")]


def _named_axis(dim: str, values: np.ndarray, names: list[str]) -> Axis:
    plain = tuple(value.item() if hasattr(value, "item") else value for value in values)
    ticks = tuple(thin(len(names), _NAMED))
    shown = tuple(names[i] for i in ticks)
    return Axis(dim, plain, "", ticks, shown, None, is_vertical=True, is_reversed=True)


def _sides(values: np.ndarray) -> list[str]:
    return [CONTRAST if value < 0 else ACCENT for value in values]


def _whiskers(part: "xr.Dataset", variable: str, values: np.ndarray) -> dict[str, Any] | None:
    if f"{variable}_low" not in part or f"{variable}_high" not in part:
        return None
    low, high = numbers(part[f"{variable}_low"]), numbers(part[f"{variable}_high"])
    return {"array": high - values, "arrayminus": values - low, "color": NEUTRAL, "thickness": 1.5, "width": 3}


def _add_nulls(figure: "go.Figure", nulls: np.ndarray, axis: Axis) -> None:
    figure.add_scatter(
        x=nulls,
        y=list(axis.drawn),
        mode="markers",
        marker={"symbol": "line-ns", "size": 14, "line": {"width": 2, "color": NEUTRAL}},
        name="null",
        showlegend=True,
        hovertemplate="null %{x:.3g}<extra></extra>",
    )


def _add_marks(figure: "go.Figure", marked: np.ndarray, values: np.ndarray, name: str) -> None:
    chosen = np.flatnonzero(marked)
    figure.add_scatter(
        x=chosen.tolist(),
        y=np.nan_to_num(values[chosen]),
        mode="markers",
        marker={"symbol": "circle", "size": 7, "color": "#ffffff", "line": {"width": 1.5, "color": "#212529"}},
        name=show_text(name),
        showlegend=True,
        hoverinfo="skip",
    )
