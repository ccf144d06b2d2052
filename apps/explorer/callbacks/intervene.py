"""Interventions on the page: what the selection offers, and the chips that take them back."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, html, no_update

from apps.explorer.engine.engine import Engine
from apps.explorer.page.selection import clean
from workbench.errors import InputError
from workbench.intervene import MLP, Attention, Head, Neurons
from workbench.intervene.text import Phrase, phrase

__all__ = ["changed", "chips", "linked", "offers", "register", "said"]


def register(app: Dash, engine: Engine) -> None:
    """The menu of interventions and their chips."""

    @app.callback(Output("intervene-items", "children"), Input("selection", "data"), Input("shown", "data"))
    def items(selection, shown):
        found = offers(clean(selection), shown["sizes"] if shown else {})
        nothing = [dmc.MenuLabel("Select a head, a layer or two tokens first.")]
        return [dmc.MenuItem(said(o), id={"type": "edit", "text": str(o)}, n_clicks=0) for o in found] or nothing

    @app.callback(
        Output("edits", "data"),
        Input({"type": "edit", "text": ALL}, "n_clicks"),
        Input({"type": "restore", "text": ALL}, "n_clicks"),
        State("edits", "data"),
        prevent_initial_call=True,
    )
    def edit(add, restore, edits):
        if not any([*add, *restore]):
            return no_update
        return changed(edits or [], ctx.triggered_id["text"], is_back=ctx.triggered_id["type"] == "restore")

    @app.callback(Output("edit-list", "children"), Input("edits", "data"))
    def listed(edits):
        return chips(edits or [])


def offers(selection: Mapping[str, Any], sizes: Mapping[str, int]) -> list[Phrase]:
    """The interventions that a selection suggests, the narrowest first."""
    layer, query, key = (selection.get(name) for name in ("layer", "query", "key"))
    head = Head(layer, selection["head"]) if {"layer", "head"} <= set(selection) else None
    units: list[Any] = [head] if head is not None else []
    if layer is not None:
        units += [Neurons(layer, (selection["neuron"],))] if "neuron" in selection else []
        units += [MLP(layer)] if sizes.get("d_mlp") else []
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
            **{"aria-label": f"Take back: {said(phrase(text))}"},
        )
        for text in edits
    ]


def linked(link: Mapping[str, Any]) -> tuple[list[str], str]:
    """The interventions that a link names, and a sentence about one that is none."""
    given = link.get("edits")
    try:
        return [str(phrase(str(text))) for text in given] if isinstance(given, list) else [], ""
    except InputError as error:
        return [], f"The link's interventions were left out. {error}"
