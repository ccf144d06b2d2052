"""The card of a unit: all that is known of a head, an MLP or a neuron on this prompt, on one sheet; computes nothing.

What is known is what the views have found: every number that a result holds for the unit, with its interval, its null
and its place among the others of its kind; where the head looks; what it adds to the prediction; the checks of it.
"""

from collections.abc import Callable, Iterator, Mapping
from html import unescape
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from dash import html

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.request import Request
from apps.explorer.page.attributes import attributes
from apps.explorer.page.selection import neuron_at
from workbench.figures import head_name, show_token
from workbench.figures.quantity import label
from workbench.figures.text import number
from workbench.storage.record import record_of

__all__ = ["Unit", "card", "checks_of", "facts", "looks_at", "neighbours", "shares_of", "unit_of"]

_BESIDE = ("_low", "_high", "_null", "_q", "_p", "_d", "_null_95")  # what belongs to a number, and is told with it
_FLAGS = ("flag", "true or false", "0 or 1")
_NEAR = 5  # neighbours that are named
_KEYS = 4  # tokens that are named where a head looks


class Unit(NamedTuple):
    """A head, a layer's MLP, or one of its neurons. place: its dims and where it is on them."""

    name: str
    kind: str
    place: dict[str, int]


class Fact(NamedTuple):
    """A number of a unit. beside: interval, null and q in words; rank: 1 is the largest of `of` units, 0 where
    it is no number."""

    view: str
    what: str
    value: str
    beside: str
    rank: int
    of: int


def unit_of(selection: Mapping[str, Any], neuron_of: Callable[[int, int], object] = neuron_at) -> Unit | None:
    """The unit that is selected: a neuron before a head, a head before its layer's MLP; None without a layer.

    neuron_of: the neuron by its layer and number.
    """
    layer, head, neuron = (selection.get(name) for name in ("layer", "head", "neuron"))
    if layer is None:
        return None
    if neuron is not None:
        return Unit(str(neuron_of(layer, neuron)), "neuron", {"layer": int(layer), "neuron": int(neuron)})
    if head is not None:
        return Unit(head_name(layer, head), "head", {"layer": int(layer), "head": int(head)})
    return Unit(f"L{layer} MLP", "MLP", {"layer": int(layer)})


def facts(title: str, result: xr.Dataset, unit: Unit) -> Iterator[Fact]:
    """Every number that a result holds for a unit, by the variables over exactly the dims of its kind."""
    if any(unit.place[dim] not in result.indexes.get(dim, ()) for dim in unit.place):
        return
    for name, variable in result.data_vars.items():
        own = str(name)
        belongs = any(own.endswith(end) and own.removesuffix(end) in result for end in _BESIDE)
        if set(variable.dims) != set(unit.place) or variable.dtype.kind not in "fiu" or belongs:
            continue
        value = float(variable.sel(unit.place))
        if own.startswith("is_") or np.isnan(value):
            continue
        known = variable.values[~np.isnan(variable.values.astype(float))]
        rank = int((known > value).sum()) + 1 if (known != value).any() else 0  # where all are alike none has a place
        if str(variable.attrs.get("units", "")) in _FLAGS:
            yield Fact(title, str(variable.attrs.get("long_name", own)), "yes" if value else "no", "", 0, known.size)
            continue
        yield Fact(title, unescape(label(variable)), number(value), _beside(result, own, unit), rank, known.size)


def _beside(result: xr.Dataset, name: str, unit: Unit) -> str:
    def of(end: str) -> float:
        there = f"{name}{end}"
        fits = there in result and set(result[there].dims) == set(unit.place)
        return float(result[there].sel(unit.place)) if fits else np.nan

    said = []
    if not np.isnan(of("_low")):
        said.append(f"95 % {number(of('_low'))} to {number(of('_high'))}")
    if not np.isnan(of("_null")):
        said.append(f"null {number(of('_null'))}")
    if not np.isnan(of("_q")):
        said.append(f"q {number(of('_q'))}")
    return ", ".join(said)


def shares_of(result: xr.Dataset, unit: Unit) -> str:
    """The unit's own part of the prediction, of a direct attribution that has parts; "" where it has none of it."""
    if "component" not in result.dims or "component_layer" not in result.coords or unit.kind == "neuron":
        return ""
    kind, layer, head = (result[name].values for name in ("kind", "component_layer", "component_head"))
    mine = (kind == ("head" if unit.kind == "head" else "mlp")) & (layer == unit.place["layer"])
    mine &= head == unit.place["head"] if unit.kind == "head" else True
    if mine.sum() != 1:
        return ""
    shares = result["attribution"].values
    at = int(np.flatnonzero(mine)[0])
    rank = int((np.abs(shares) > abs(shares[at])).sum()) + 1
    of = f" of {result.attrs['target']!r}" if result.attrs.get("target") else ""
    of += f" less that of {result.attrs['against']!r}" if result.attrs.get("against") else ""
    units = str(result["attribution"].attrs.get("units", ""))
    return f"{shares[at]:+.3g} {units} to the logit{of}: in size, place {rank} of {shares.size} parts."


def looks_at(pattern: xr.Dataset, query: int) -> str:
    """Where a head looks from a token, the most first."""
    if query not in pattern.indexes["query"]:
        return ""
    row = pattern["pattern"].sel(query=query)[: query + 1]
    order = np.argsort(-row.values)[:_KEYS]
    token = lambda pos: show_token(str(pattern["key_text"].values[pos]), html=False)
    named = [f"{pos} {token(pos)} ({row.values[pos]:.0%})" for pos in map(int, order) if row.values[pos] >= 0.01]
    return f"From token {query} {token(query)} it looks at {', '.join(named)}." if named else ""


def checks_of(engine: Engine, request: Request, unit: Unit) -> list[str]:
    """What the checks of this prompt that removed the unit have found; those that are no longer kept are left out."""
    found = []
    for key in sorted(engine.tally.of(request.states)):
        result = engine.cache.get(key)
        if isinstance(result, xr.Dataset):
            asked = record_of(result).get("params", {})
            if unit.name in str(asked.get("units", "")).split() or str(asked.get("units", "")).startswith(
                f"{unit.name} "
            ):
                found.append(str(result.attrs.get("summary", "")))
    return found


def neighbours(table: xr.Dataset, unit: Unit) -> list[str]:
    """The heads that are most like one in the table of all heads: nearest in its scores, each in its own spread."""
    names = [str(n) for n, v in table.data_vars.items() if v.dims == ("layer", "head") and v.dtype.kind == "f"]
    names = [n for n in names if not any(n.endswith(end) and n.removesuffix(end) in table for end in _BESIDE)]
    scores = np.stack([table[name].values for name in names], -1)
    spread = np.nanstd(scores, axis=(0, 1))
    scaled = (scores - np.nanmean(scores, axis=(0, 1)))[..., spread > 0] / spread[spread > 0]
    away = np.sqrt(np.nanmean((scaled - scaled[unit.place["layer"], unit.place["head"]]) ** 2, axis=-1))
    away[unit.place["layer"], unit.place["head"]] = np.inf
    nearest = np.argsort(np.where(np.isnan(away), np.inf, away), axis=None)[:_NEAR]
    return [head_name(*divmod(int(flat), away.shape[1])) for flat in nearest]


def card(
    engine: Engine, request: Request, unit: Unit, selection: Mapping[str, Any], pattern: xr.Dataset | None
) -> list[Any]:
    """The sheet. pattern: the head's attention on this prompt, where there is one."""
    found = {name: engine.found(request, name) for name in engine.standing}
    known = {name: result for name, result in found.items() if isinstance(result, xr.Dataset)}
    rows = [
        (name, fact)
        for name, result in known.items()
        if "units" not in result.attrs
        for fact in facts(engine.standing[name].title, result, unit)
    ]
    parts: list[Any] = []
    if pattern is not None and "query" in selection:
        parts += _section("Where it looks here", [looks_at(pattern, int(selection["query"])), pattern.attrs["summary"]])
    shares = [shares_of(known[name], unit) for name in known if "component" in known[name].dims]
    parts += _section("Its share of this prediction", shares)
    parts += _section("Checks made of it on this prompt", checks_of(engine, request, unit) or [_unchecked(unit)])
    if unit.kind == "head" and "head-table" in known:
        near = ", ".join(neighbours(known["head-table"], unit))
        parts += _section("Most like it, by the table of all heads", [near])
    parts.append(html.H3("What the views found" if rows else "The views have found no number of it yet."))
    return [*parts, _table(rows), _missing(engine, found, unit)]


def _unchecked(unit: Unit) -> str:
    return f"None yet: whether {unit.name} matters is open. Its button at the right checks it."


def _section(title: str, said: list[str]) -> list[Any]:
    lines = [html.P(line) for line in said if line]
    return [html.H3(title), *lines] if lines else []


def _table(rows: list[tuple[str, Fact]]) -> Any:
    if not rows:
        return ""
    head = html.Tr([html.Th(text, scope="col") for text in ("view", "what", "value", "beside it", "place")])
    body = [
        html.Tr(
            [
                html.Td(html.Button(fact.view, className="plain", **attributes({"data-turn": name}))),
                html.Th(fact.what, scope="row"),
                html.Td(fact.value, className="number"),
                html.Td(fact.beside),
                html.Td(f"{fact.rank} of {fact.of}" if fact.rank else "", className="number"),
            ]
        )
        for name, fact in rows
    ]
    return html.Table([html.Thead(head), html.Tbody(body)], className="card-table")


def _missing(engine: Engine, found: Mapping[str, Any], unit: Unit) -> Any:
    """The views of heads that were not computed: what is not on the card is not known, rather than nothing."""
    names = ("head-table", "induction-heads", "attention-sinks", "direct-logit-attribution", "head-survey")
    left = [name for name in names if name in engine.standing and found.get(name) is None and unit.kind == "head"]
    if not left:
        return ""
    buttons = [html.Button(engine.standing[n].title, className="plain", **attributes({"data-turn": n})) for n in left]
    return html.Div([html.Span("Not computed yet: "), *buttons], className="chips quiet")
