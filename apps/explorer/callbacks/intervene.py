"""Interventions on the page: what the selection offers, and the chips that take them back."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update

from apps.explorer.callbacks.answer import Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page.attributes import attributes
from apps.explorer.page.layout import NOTHING_SELECTED
from apps.explorer.page.selection import neuron_at
from apps.explorer.page.state import Edited, Edits, Link, Sizes
from workbench.errors import InputError
from workbench.intervene import MLP, Attention, ExpertNeurons, Head
from workbench.intervene.attend import ATTENDED
from workbench.intervene.text import Phrase, phrase

__all__ = ["changed", "chips", "items", "linked", "nameable", "offers", "register", "said"]


def register(app: Dash, engine: Engine) -> None:
    """What is chosen in the menu of interventions, and their chips."""
    answer = Answers(app, engine)

    @answer(
        Output("edits", "data"),
        inputs={"edited": Input("edited", "data")},
        state={"edits": State("edits", "data")},
        prevent_initial_call=True,
    )
    def edit(edited: Edited | None, edits: Edits | None) -> Any:
        if not edited:
            return no_update
        return changed(edits or (), edited.edit or edited.restore or "", is_back=edited.restore is not None)

    @answer(Output("edit-list", "children"), inputs={"edits": Input("edits", "data")}, prevent_initial_call=True)
    def listed(edits: Edits | None) -> Any:
        return chips(edits or ())


def items(selection: Mapping[str, Any], sizes: Sizes | None) -> list[Any]:
    """The menu: what the selection can be changed into."""
    found = offers(selection, sizes)
    return [dmc.MenuItem(said(o), **attributes({"data-edit": str(o)})) for o in found] or NOTHING_SELECTED


def offers(selection: Mapping[str, Any], sizes: Sizes | None) -> list[Phrase]:
    """The interventions that a selection suggests, the narrowest first."""
    layer, query, key = (selection.get(name) for name in ("layer", "query", "key"))
    head = Head(layer, selection["head"]) if layer is not None and "head" in selection else None
    units: list[Any] = [head] if head is not None else []
    if layer is not None:
        units += [(sizes.neuron if sizes else neuron_at)(layer, selection["neuron"])] if "neuron" in selection else []
        units += [MLP(layer)] if sizes and sizes.d_mlp else []
        units += [Attention(layer)]
    found = [
        Phrase(unit, how) for unit in units for how in ("zero", "mean")
        if how == "zero" or not isinstance(unit, ExpertNeurons)
    ]  # fmt: skip
    if query and key is not None:  # token 0 sees nothing but itself
        found += [Phrase(unit, "blind", query, key) for unit in ([head] if head is not None else []) + [None]]
    return found


def nameable(selection: Mapping[str, Any], sizes: Sizes | None) -> list[str]:
    """What a check can be about at a selection, as its `units` are written, the narrowest whole unit first."""
    found = [str(offer.unit) for offer in offers(selection, sizes) if offer.how == "zero"]
    layer, head, query, key = (selection.get(name) for name in ("layer", "head", "query", "key"))
    if layer is not None and head is not None:
        found += [f"L{layer}H{head}:{query}<-{key}"] if query and key is not None else []
        found += [f"L{layer}H{head} key {key}"] if key is not None else []
    depth = selection.get("depth")
    if isinstance(depth, int) and query is not None and sizes and depth < sizes.n_layers:  # the last is read by none
        found.append(f"L{depth} pos {query}")
    return list(dict.fromkeys(found))


def said(given: Phrase) -> str:
    """An intervention for people."""
    if given.how == "blind":
        where = "" if given.unit is None else f"{given.unit}: "
        return f"{where}token {given.query} cannot see {given.key}"
    if given.how == "zero":
        return f"without {given.unit}"
    told = {"mean": "at its mean", "own-token": "looks at its own token alone"}  # an expert is said as it is written
    looks = f"looks at the {given.how.replace('-', ' ')} alone" if given.how in ATTENDED else given.how
    return f"{given.unit} {told.get(given.how, looks)}"


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
            className="chip edit",
            **attributes({"aria-label": f"Take back: {said(phrase(text))}", "data-restore": text}),
        )
        for text in edits
    ]


def linked(link: Link) -> tuple[list[str], str]:
    """The interventions that a link names, and a sentence about one that is none."""
    try:
        return [str(phrase(text)) for text in link.edits], ""
    except InputError as error:
        return [], f"The link's interventions were left out. {error}"
