"""The run that is shown held against another one: side by side on one colour scale, or as their difference."""

from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr
from dash import html, no_update

from apps.explorer import views
from apps.explorer.engine import Engine
from workbench.compare import difference
from workbench.errors import InputError, WorkbenchError

__all__ = ["change", "difference_view", "is_comparable", "second_view"]

Shown = Mapping[str, Any]


def is_comparable(engine: Engine, name: str, shown: Shown | None, other: Shown | None) -> bool:
    """Whether a view can differ between two runs: what is of the model only does where there are two models."""
    return bool(shown and other) and (engine.views[name].scope != "model" or shown["model"] != other["model"])


def second_view(
    engine: Engine, view: Mapping[str, Any], drawn: tuple, shown: Shown, other: Shown | None, draw: Callable, word: str
) -> tuple[Any, str]:
    """The same view of the other run, both on one colour scale; and the class of its place.

    drawn: figure, message and sentence of the shown run. draw: makes the same of another run.
    """
    if not is_comparable(engine, view["name"], shown, other):
        return no_update, "hidden"
    figure, _, _ = draw(other)
    if figure is no_update:
        return no_update, "hidden"
    if drawn[0] is not no_update:
        views.side_by_side(drawn[0], figure, word)
    return figure, "other"


def word_for(shown: Shown, other: Shown) -> str:
    """What the other run is, in a word behind its title."""
    if shown["model"] != other["model"]:
        return str(other["model"]).rsplit("/", 1)[-1]
    return "compared" if (shown["text"], shown.get("chat")) != (other["text"], other.get("chat")) else "intact"


def change(find: Callable[[Shown], tuple[xr.Dataset | None, str]], shown: Shown, other: Shown) -> xr.Dataset:
    """The shown run minus the other one. Raises InputError where one of them has no result yet."""
    found = [find(run) for run in (other, shown)]
    missing = [why for result, why in found if result is None]
    if missing:
        raise InputError("no difference yet", "results of both runs", missing[0] or "Wait until both are there")
    return difference(found[0][0], found[1][0])


def difference_view(
    engine: Engine, view: Mapping[str, Any], find: Callable, shown: Shown, other: Shown, dark: bool
) -> tuple[Any, Any, str]:
    """Figure of the difference, message over it, and the line under it."""
    entry = engine.views[view["name"]]
    try:
        found = change(find, shown, other)
        figure = views.changed(entry, found, view["figure"], dark)
    except WorkbenchError as error:
        return no_update, html.Div(str(error)), ""
    figure.update_layout(title_text=f"{figure.layout.title.text}: this run minus {_other_name(shown, other)}")
    return figure, [], str(found.attrs["summary"])


def _other_name(shown: Shown, other: Shown) -> str:
    word = word_for(shown, other)
    return {"compared": "the one compared with", "intact": "the intact one"}.get(word, word)
