"""From a result to what is seen: the figures of its view, and the sentence when there is none."""

from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import xarray as xr

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import Fate, State, sentence
from apps.explorer.engine.request import Request
from apps.explorer.page.graphs import SELECTED
from workbench.analysis.compare import difference_figure
from workbench.analysis.kinds import kind_of
from workbench.analysis.run import Failure
from workbench.analysis.view import View
from workbench.errors import InputError, RefusedError, WorkbenchError
from workbench.figures.caption import drawn_lines
from workbench.figures.text import thin, wrapped
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "changed",
    "detail_figures",
    "drawings",
    "drawn",
    "figure_label",
    "marked",
    "multiple",
    "narrow",
    "side_by_side",
    "small",
    "waiting",
    "with_caption",
]


_NARROW = 26  # characters of an axis title in the right panel
_NARROW_TICKS = 10
_NARROW_TITLE = 34
_TITLE_LINE = 17  # pixels
_UPRIGHT = -90  # degrees of labels that do not fit side by side


def drawings(view: View) -> tuple[Callable[..., Any], ...]:
    """What a view can show: its figures, and behind them its tables."""
    return (*view.figures, *view.tables)


def figure_label(draw: Callable[..., Any]) -> str:
    """A figure function's name for people: `target_rank_figure` becomes "target rank"."""
    return draw.__name__.removesuffix("_figure").replace("_", " ")


def drawn(
    view: View, result: xr.Dataset, index: int, dark: bool, display: Mapping[str, Any] | None = None
) -> "go.Figure":
    """One of the figures of an analysis, in the theme of the page. RefusedError where drawing it breaks."""
    draw = view.figures[min(index, len(view.figures) - 1)]
    try:
        return _themed(view.drawn(draw, result, display=view.shown(display)), dark)
    except Exception as error:  # a mistake in one figure must not take the page with it
        if result.attrs.get("partial"):
            raise InputError(f"no {figure_label(draw)} yet", "what a later part computes", "Let it end") from error
        if isinstance(error, WorkbenchError):
            raise
        raise RefusedError(f"no figure of {view.title} ({sentence('it', error)})", "a figure", "Report this") from error


def marked(figure: "go.Figure", selection: Mapping[str, Any]) -> "go.Figure":
    """The figure with the selection on it: the browser would draw it a second time to put it there."""
    from workbench.figures import selection_shapes

    for shape in selection_shapes(figure.layout.meta or {}, selection, SELECTED):
        figure.add_shape(name="selected", **shape)
    return figure


def with_caption(figure: "go.Figure", result: xr.Dataset, said: str) -> "go.Figure":
    """The figure with what a picture of it says besides: prompt, model and sentence, which the page itself shows
    elsewhere."""
    figure.update_layout(meta={**(figure.layout.meta or {}), "caption": drawn_lines(result, said)})
    return figure


def changed(
    view: View, change: xr.Dataset, index: int, dark: bool, display: Mapping[str, Any] | None = None
) -> "go.Figure":
    """A figure of the difference of two results. RefusedError where drawing it breaks."""
    try:
        return _themed(difference_figure(view, change, min(index, len(view.figures) - 1), display), dark)
    except WorkbenchError:
        raise
    except Exception as error:  # as above
        raise RefusedError(f"no difference of {view.title} ({sentence('it', error)})", "one", "Report this") from error


def small(
    engine: Engine, request: Request, name: str, dark: bool, display: Mapping[str, Any] | None = None
) -> "go.Figure | str":
    """The first figure of an analysis as a small multiple, or why there is none."""
    view, found = engine.standing[name], engine.found(request, name)
    if not isinstance(found, xr.Dataset):
        return "refused" if isinstance(found, Failure) else "not computed yet"
    try:
        return multiple(view, found, 0, dark, display)
    except WorkbenchError:
        return "cannot be drawn"


def multiple(
    view: View, result: xr.Dataset, index: int, dark: bool, display: Mapping[str, Any] | None = None
) -> "go.Figure":
    """One of the figures of an analysis as a small multiple: without words around it. RefusedError as `drawn`."""
    from workbench.figures import compact

    figure = compact(drawn(view, result, index, dark, display))
    figure.update_traces(hoverinfo="skip", hovertemplate=None, hovertext=None)
    figure.update_layout(title=None, margin={"l": 2, "r": 2, "t": 2, "b": 2}, showlegend=False)
    figure.update_coloraxes(showscale=False)
    figure.update_traces(marker_size=2.5, line_width=1, selector={"type": "scatter"})
    figure.update_xaxes(showticklabels=False, automargin=False, title_text="")
    figure.update_yaxes(showticklabels=False, automargin=False, title_text="")
    return figure


def side_by_side(one: "go.Figure", other: "go.Figure", word: str) -> None:
    """Give two figures of the same view one colour range, so that equal colours are equal numbers, and labels that
    stand alike, so that equal rows are side by side.
    """
    one.update_coloraxes(showscale=False)
    if any(axis.tickangle == _UPRIGHT for figure in (one, other) for axis in figure.select_xaxes()):
        for figure in (one, other):
            figure.update_xaxes(tickangle=_UPRIGHT)
    other.update_layout(title_text=f"{other.layout.title.text} ({word})")
    ranges = [(f.layout.coloraxis.cmin, f.layout.coloraxis.cmax) for f in (one, other)]
    if any(end is None for pair in ranges for end in pair):
        return
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    for figure in (one, other):
        figure.update_coloraxes(cmin=low, cmax=high)


# What stands where a figure would be, by what became of it.
_SAID = {
    State.QUEUED: "{title}: waits until the model is free.",
    State.RUNNING: "{title}: being computed.",
    State.CANCELLING: "Stopping ...",
    State.CANCELLED: "Stopped before its first result.",
    State.DONE: "It came to its end, but its result is no longer kept: newer ones took its room.",
    State.RESTARTED: "The server was restarted before this came to its end.",
}


def waiting(view: View, found: Failure | None, fate: Fate | None) -> str:
    """What stands where a figure would be. fate: what became of the analysis, or how far it is, where it was asked."""
    if isinstance(found, Failure):
        return found.sentence
    if fate is not None:
        if fate.state == State.QUEUED and fate.before > 1:
            return f"{view.title}: waits for its turn; {fate.before} are before it."
        return fate.error if fate.state == State.FAILED else _SAID[fate.state].format(title=view.title)
    if kind_of(view.analysis) == "study":
        about = "for this prompt" if view.analysis.prompted else "on its own texts: the same for every prompt"
        return f"{view.title}: computed only when asked for. Press Start to compute it {about}."
    return "Not computed yet. Press Start to compute it."


def planned(view: View, request: Request, seconds: float) -> str:
    """What Start will do, on what, and for how long."""
    analysis = request.analyses[view.name]
    on = (
        f"On this prompt, {counted(len(request.tokens), 'token')}" if analysis.reads_prompt() else "On texts of its own"
    )
    return f"{view.plan(analysis)} {on}: {_duration(seconds)}.".strip()


def _duration(seconds: float) -> str:
    """A predicted time for people: it is good to a factor of two or so."""
    if seconds < 1.5:
        return "about a second"
    if seconds < 90:
        return f"about {seconds:.0f}\u00a0s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.0f} h"


def detail_figures(
    view: View,
    result: xr.Dataset,
    selection: Mapping[str, Any],
    dark: bool,
    display: Mapping[str, Any] | None = None,
) -> "tuple[list[go.Figure], list[str]]":
    """What an analysis draws for a selection, and what it says where it cannot."""
    figures, said = [], []
    for draw in view.details:
        try:
            figure = view.drawn(draw, result, dict(selection), display=view.shown(display))
        except Exception as error:  # as above
            said.append(sentence(view.title, error))
            continue
        if figure is not None:
            figures.append(narrow(_themed(figure, dark)))
            said += [figure.layout.meta["said"]] if "said" in (figure.layout.meta or {}) else []
    return figures, said


def narrow(figure: "go.Figure") -> "go.Figure":
    """Fit for the panel beside a view: axis titles wrapped, few ticks, positions without their tokens below."""
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        if axis.title.text and "<" not in axis.title.text:
            axis.title.text = "<br>".join(wrap(axis.title.text, _NARROW))
            axis.title.font.size = 11
    if figure.layout.title.text:
        lines = wrapped(figure.layout.title.text.replace("<br>", " "), _NARROW_TITLE)
        room = _TITLE_LINE * (len(lines) - 1)  # the title grows downwards from its first line
        figure.update_layout(title_text="<br>".join(lines), title_font_size=12.5, title_pad_b=8 + room)
        figure.update_layout(margin_t=max(figure.layout.margin.t or 0, 31 + room))
    meta = figure.layout.meta or {}
    if meta.get("axes", {}).get("x") in ("pos", "query", "key"):
        values = meta["x_values"]
        shown = thin(len(values), _NARROW_TICKS)
        drawn = meta.get("x_at") or list(range(len(values)))
        texts = [str(values[i]) for i in shown]
        figure.update_xaxes(tickvals=[drawn[i] for i in shown], ticktext=texts, tickangle=0)
    figure.update_coloraxes(colorbar={"thickness": 6, "title": {"text": ""}})
    return figure


def _themed(figure: "go.Figure", dark: bool) -> "go.Figure":
    from workbench.figures import apply

    return apply(figure, dark)
