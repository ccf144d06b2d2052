"""Interventions on the page: what the selection offers, and the chips that take them back."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, html, no_update

from apps.explorer.callbacks.answer import Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page.attributes import attributes
from apps.explorer.page.state import Clicks, EditId, Edits, Link, Selection, Shown, Sizes
from workbench.errors import InputError
from workbench.intervene import MLP, Attention, Head, Neurons
from workbench.intervene.text import Phrase, phrase

__all__ = ["changed", "chips", "linked", "offers", "register", "said"]


def register(app: Dash, engine: Engine) -> None:
    """The menu of interventions and their chips."""
    answer = Answers(app, engine)

    @answer(
        Output("intervene-items", "children"),
        inputs={"selection": Input("selection", "data"), "shown": Input("shown", "data")},
    )
    def items(selection: Selection, shown: Shown | None) -> Any:
        found = offers(selection, shown.sizes if shown else None)
        nothing = [dmc.MenuLabel("Select a head, a layer or two tokens first.")]
        return [dmc.MenuItem(said(o), id={"type": "edit", "text": str(o)}, n_clicks=0) for o in found] or nothing

    @answer(
        Output("edits", "data"),
        inputs={
            "add": Input({"type": "edit", "text": ALL}, "n_clicks"),
            "restore": Input({"type": "restore", "text": ALL}, "n_clicks"),
        },
        state={"edits": State("edits", "data")},
        prevent_initial_call=True,
    )
    def edit(add: list[Clicks], restore: list[Clicks], edits: Edits | None) -> Any:
        pressed: EditId | None = answer.pressed(EditId)
        if pressed is None or not any([*add, *restore]):
            return no_update
        return changed(edits or (), pressed.text, is_back=pressed.type == "restore")

    @answer(Output("edit-list", "children"), inputs={"edits": Input("edits", "data")})
    def listed(edits: Edits | None) -> Any:
        return chips(edits or ())


def offers(selection: Mapping[str, Any], sizes: Sizes | None) -> list[Phrase]:
    """The interventions that a selection suggests, the narrowest first."""
    layer, query, key = (selection.get(name) for name in ("layer", "query", "key"))
    head = Head(layer, selection["head"]) if layer is not None and "head" in selection else None
    units: list[Any] = [head] if head is not None else []
    if layer is not None:
        units += [Neurons(layer, (selection["neuron"],))] if "neuron" in selection else []
        units += [MLP(layer)] if sizes and sizes.d_mlp else []
        units += [Attention(layer)]
    found = [Phrase(unit, how) for unit in units for how in ("zero", "mean")]
    if query and key is not None:  # token 0 sees nothing but itself
        found += [Phrase(unit, "blind", query, key) for unit in ([head] if head is not None else []) + [None]]
    return found


def said(given: Phrase) -> str:
    """An intervention for people."""
    if given.how == "blind":
        where = "" if given.unit is None else f"{given.unit}: "
        return f"{where}token {given.query} cannot see {given.key}"
    return f"without {given.unit}" if given.how == "zero" else f"{given.unit} at its mean"


def changed(edits: Sequence[str], text: str, is_back: bool) -> list[str]:
    """The interventions after a click: without the one that was taken back, or with a new one.

    A new one takes the place of another way to treat the same unit.
    """
    if is_back:
        return [other for other in edits if other != text]
    new = phrase(text)
    same = lambda other: other == new or ("blind" not in (other.how, new.how) and other.unit == new.unit)
    return [*(other for other in edits if not same(phrase(other))), text]


def chips(edits: Sequence[str]) -> list[html.Button]:
    """What the run is changed by; a click takes one back."""
    return [
        html.Button(
            f"{said(phrase(text))} ×",
            id={"type": "restore", "text": text},
            className="chip edit",
            n_clicks=0,
            **attributes({"aria-label": f"Take back: {said(phrase(text))}"}),
        )
        for text in edits
    ]


def linked(link: Link) -> tuple[list[str], str]:
    """The interventions that a link names, and a sentence about one that is none."""
    try:
        return [str(phrase(text)) for text in link.edits], ""
    except InputError as error:
        return [], f"The link's interventions were left out. {error}"
