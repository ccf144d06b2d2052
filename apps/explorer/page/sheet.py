"""The model as a page: its card (`workbench.card`), on one sheet; computes nothing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dash import html

from apps.explorer.engine.engine import Engine
from apps.explorer.page.attributes import attributes
from workbench.card import ModelCard, Use
from workbench.models.selfcheck import SelfCheck

__all__ = ["OPENS", "QUESTION", "TITLE", "sheet_of"]

TITLE, QUESTION = "The model as a whole", "What is it, does it hold what is assumed of it, what does not apply to it?"
OPENS = attributes({"data-sheet": "model", "aria-haspopup": "dialog"})  # of a button that opens the sheet
_MANY = 12  # layers that are named one by one


def sheet_of(engine: Engine, card: ModelCard) -> html.Div:
    """The sheet: how it is built, sizes, self-check, analyses that do not apply, what is kept of it."""
    tell = lambda use: html.Tr([html.Th(_turn(engine, use), scope="row"), html.Td(use.refusal or use.waits)])
    applying = f"{len(card.analyses) - len(card.refused)} of {len(card.analyses)} analyses apply"
    return html.Div(
        [
            html.H3("How it is built"), _pairs(card.facts),
            html.H3("Sizes"), _pairs(_sizes(card)),
            html.H3("Self-check"), *_selfcheck(card.selfcheck),
            html.H3(f"{applying}{'; these do not:' if card.refused else '.'}"),
            *([_table(("analysis", "why not"), [tell(use) for use in card.refused])] if card.refused else []),
            *([html.H3("These wait for something first"),
               _table(("analysis", "for what"), [tell(use) for use in card.waiting])] if card.waiting else []),
            html.H3("Kept on disk of it"), *_kept(card),
            html.H3("In memory"), html.P(_memory(engine, card)),
        ],
        className="card",
    )  # fmt: skip


def _turn(engine: Engine, use: Use) -> Any:
    """The analysis's title, which opens its view where the page has it."""
    if use.name not in engine.views:
        return use.title
    return html.Button(use.title, className="plain", **attributes({"data-turn": use.name}))


def _sizes(card: ModelCard) -> dict[str, str]:
    """By the field's names; layers that are few, or how many they are."""
    shown = {}
    for name, value in asdict(card.sizes).items():
        if isinstance(value, tuple):
            if value:
                shown[name] = ", ".join(map(str, value)) if len(value) <= _MANY else f"{len(value)} of them"
        elif value and value is not True:
            shown[name] = f"{value:,}"
    return shown


def _pairs(pairs: dict[str, str]) -> html.Table:
    rows = [html.Tr([html.Th(name, scope="row"), html.Td(said)]) for name, said in pairs.items()]
    return html.Table(html.Tbody(rows), className="card-table pairs")


def _table(heads: Sequence[str], rows: list[html.Tr]) -> html.Table:
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in heads]))
    return html.Table([head, html.Tbody(rows)], className="card-table")


def _selfcheck(check: SelfCheck | None) -> list[Any]:
    """Each item with what was measured and its tolerance."""
    if check is None:
        return [html.P("It was not made.")]
    said = ", ".join(filter(None, (f"{check.summary} hold", check.about and f"on {check.about}", check.measured)))
    rows = []
    for item in check.items:
        verdict = "holds" if item.passed else "does not hold"
        cells = (f"{item.measured:.2g}", f"{item.tolerance:.2g}", f"{verdict}{f' ({item.note})' if item.note else ''}")
        rows.append(html.Tr([html.Th(item.name, scope="row"), *map(html.Td, cells)]))
    return [html.P(f"{said}."), _table(("assumption", "measured", "tolerance", "verdict"), rows)]


def _kept(card: ModelCard) -> list[Any]:
    """By kind, and how to empty it."""
    rows = [
        html.Tr([html.Th(one.kind, scope="row"), html.Td(f"{one.nbytes / 1e6:,.1f} MB in {one.files:,} files"),
                 html.Td(one.about), html.Td(one.where)])
        for one in card.kept
    ]  # fmt: skip
    shell: list[Any] = [
        html.Code("workbench cache"), " in a shell shows what is kept of all models, and ",
        html.Code("workbench cache empty KIND"), " deletes it.",
    ]  # fmt: skip
    return [_table(("kind", "size", "what", "where"), rows) if rows else html.P("Nothing."), html.P(shell)]


def _memory(engine: Engine, card: ModelCard) -> str:
    weights = f"{card.n_parameters:,} parameters in {card.nbytes / 1e6:,.1f} MB"
    room = engine.settings.memory / 1e6
    return f"{weights}; results of all models take {engine.cache.nbytes / 1e6:,.1f} MB, and at most {room:,.0f} MB."
