"""The run that is shown held against another one: side by side on one colour scale, or as their difference."""

from collections.abc import Callable, Mapping, Sequence
from html import unescape
from typing import Any

import xarray as xr
from dash import html, no_update

from apps.explorer.engine.engine import Engine
from apps.explorer.page import swaps, tables, views
from apps.explorer.page.attributes import attributes
from apps.explorer.page.news import request_of
from apps.explorer.page.results import result_of
from apps.explorer.page.state import Asked, Seen, Shown
from workbench.analysis.compare import CHANGED, difference
from workbench.analysis.kinds import kind_of
from workbench.errors import InputError, WorkbenchError
from workbench.figures.quantity import label
from workbench.figures.text import number, show_token

__all__ = [
    "both_values",
    "change",
    "difference_view",
    "entitled",
    "is_comparable",
    "minus",
    "not_beside",
    "second_view",
    "values_at",
    "values_table",
    "word_for",
]
_NONE = "–"
_LACKS = f"{_NONE}: the other run has no such token or value, or follows another target; name one to follow both."
_NOT_HERE = f"{_NONE} in this run: there is no such value at the selection."
Find = Callable[[Any], tuple[xr.Dataset | None, str]]  # the result of a run, or why there is none
Drawn = tuple[Any, Any, Any]  # figure, message over it, and the line under it


def is_comparable(engine: Engine, view: Seen, shown: Shown | None, other: Shown | None) -> bool:
    """Whether what is seen can differ between two runs: what is of the model does where there are two models,
    or one of them edited.

    A table is always that of the shown run.
    """
    seen = engine.views[view.name]
    if not shown or not other or tables.is_table(seen, view.figure) or swaps.is_of_both(seen.name, shown, other):
        return False
    of_model = not seen.analysis.prompted
    return not of_model or (shown.model, shown.edits) != (other.model, other.edits)


def second_view(
    engine: Engine,
    view: Seen,
    drawn: Drawn,
    shown: Shown | None,
    other: Shown | None,
    draw: Callable[[Shown], Drawn],
    word: str,
) -> tuple[Any, str]:
    """The same view of the other run, both on one colour scale; and the class of its place.

    drawn: figure, message and sentence of the shown run. draw: makes the same of another run.
    """
    if other is None or not is_comparable(engine, view, shown, other):
        return no_update, "hidden"
    figure, _, _ = draw(other)
    if figure is no_update:
        return no_update, "hidden"
    if drawn[0] is not no_update:
        views.side_by_side(drawn[0], figure, word)
    if swaps.can_give(engine, shown, other) and (figure.layout.meta or {}).get("axes") == {"x": "pos", "y": "depth"}:
        figure.update_layout(dragmode=False, meta={**figure.layout.meta, "gives": True})  # see `assets/swaps.js`
    return figure, "other"


def word_for(shown: Asked, other: Asked) -> str:
    """What the other run is, in a word behind its title."""
    if shown.model != other.model:
        return other.model.rsplit("/", 1)[-1]
    return "compared" if (shown.text, shown.chat) != (other.text, other.chat) else "intact"


def change(find: Find, shown: Asked, other: Asked) -> xr.Dataset:
    """The shown run minus the other one. Raises InputError where one of them has no result yet."""
    (before, no_before), (after, no_after) = find(other), find(shown)
    if before is None or after is None:
        why = (no_before if before is None else no_after).rstrip(".")
        raise InputError("no difference yet", "results of both runs", why or "Wait until both are there")
    return difference(before, after)


def not_beside(
    engine: Engine, view: Seen, shown: Shown | None, other: Shown | None, selection: Mapping[str, Any], session: str
) -> list[Any]:
    """Why nothing of the other run stands beside the shown one, with what starts it; nothing where something does."""
    if not shown or not other or not is_comparable(engine, view, shown, other):
        return []
    found, why = result_of(engine, other, view.name, selection, session)
    if found is not None:
        return []
    fate = None if view.name in engine.slices else engine.fate(request_of(engine, other), view.name)
    is_study = view.name in engine.standing and kind_of(engine.standing[view.name].analysis) == "study"
    idle = is_study and not (fate and fate.state.alive)
    words = "not computed yet." if idle and fate is None else f"{why[:1].lower()}{why[1:]}"
    start = html.Button("Start", className="plain", **attributes({"data-start": view.name}))
    return [html.Span(f"Of {_other_name(shown, other)}: {words} ", className="quiet"), *([start] if idle else [])]


def difference_view(
    engine: Engine, view: Seen, find: Find, shown: Shown, other: Shown, dark: bool
) -> tuple[Any, Any, str]:
    """Figure of the difference, message over it, and the line under it."""
    seen = engine.views[view.name]
    try:
        found = change(find, shown, other)
        figure = views.changed(seen, found, view.figure, dark, shown.display.get(seen.name))
    except WorkbenchError as error:
        return no_update, html.Div(str(error)), ""
    entitled(figure, shown, other)
    said = str(found.attrs["summary"])
    return views.with_caption(figure, found, said), [], said


def entitled(figure: Any, shown: Asked, other: Asked) -> Any:
    """The figure of a difference with a title that says so: a view draws it under the name of its own figure."""
    return figure.update_layout(title_text=f"{figure.layout.title.text}: {minus(shown, other)}")


def minus(shown: Asked, other: Asked) -> str:
    """What a difference is of."""
    return f"this run minus {_other_name(shown, other)}"


def both_values(find: Find, shown: Shown, other: Shown, selection: Mapping[str, Any]) -> list[Any]:
    """What both runs hold at the selection, and whose figures stand below it."""
    (before, why), (after, _) = find(other), find(shown)
    if after is None:
        return []  # the view says why
    if before is None:
        said = f"What {_other_name(shown, other)} holds here is not there yet. {why}"
        return [html.Div(said, className="quiet")]
    try:
        found = difference(before, after)
    except WorkbenchError as error:
        return [html.Div(str(error), className="quiet")]
    return values_table(values_at(after, found, selection), word_for(shown, other))


def values_at(after: xr.Dataset, change: xr.Dataset, selection: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """What two runs hold at a selection: (name with unit, in the other run, in this run, change) as text.

    change: the difference of the two, on the coordinates of `after`. Only variables all of whose dims are selected.
    """
    rows = []
    for name, variable in change.data_vars.items():
        dims = [str(dim) for dim in variable.dims]
        if not dims or any(selection.get(dim) not in variable.indexes[dim] for dim in dims):
            continue
        at = {dim: variable.indexes[dim].get_loc(selection[dim]) for dim in dims}
        now, step = after[name].isel(at).item(), variable.isel(at).item()
        if variable.dtype.kind == "f":
            rows.append((unescape(label(after[name])), _number(now - step), _number(now), _number(step)))
        elif step != now:
            was, is_now = (show_token(word, html=False) for word in (step.removesuffix(f"{CHANGED}{now}"), now))
            rows.append((str(after[name].attrs.get("long_name", name)), was, is_now, ""))
    return rows


def _number(value: float) -> str:
    return _NONE if value != value else number(value)


def values_table(rows: Sequence[tuple[str, str, str, str]], word: str) -> list[Any]:
    """`values_at` as a table, and whose figures stand below it. word: what the other run is."""
    below = html.Div("The figures below are of this run alone.", className="quiet")
    if not rows:
        return [below]
    head = html.Tr([html.Th(text, scope="col") for text in ("at the selection", word, "this run", "change")])
    body = [html.Tr([html.Th(row[0], scope="row"), *map(html.Td, row[1:])]) for row in rows]
    held = [row[2] != _NONE for row in rows if row[3] == _NONE]  # whether this run has what has no change
    lacks = [html.Div(_LACKS, className="quiet")] if any(held) else []
    lacks += [html.Div(_NOT_HERE, className="quiet")] if not all(held) else []
    return [html.Table([html.Thead(head), html.Tbody(body)], className="values"), *lacks, below]


def _other_name(shown: Asked, other: Asked) -> str:
    word = word_for(shown, other)
    return {"compared": "the one compared with", "intact": "the intact one"}.get(word, word)
