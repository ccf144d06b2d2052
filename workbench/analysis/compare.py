"""Two results of one analysis held against each other: what changed, cell by cell.

`difference(a, b)` is b minus a on the coordinates of b: a prompt and another one, a run with and without an
intervention, two models with one tokenizer. Tokens are aligned first; what has no counterpart is blank, and the
summary says how much that is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.analysis.refusals import comparing
from workbench.analysis.results import check
from workbench.analysis.view import View
from workbench.arguments import fitted
from workbench.errors import InputError
from workbench.figures.quantity import numbers, units
from workbench.figures.text import head_name, number, shorten, show_token
from workbench.models.model import Model
from workbench.storage.record import record_of
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go


__all__ = [
    "CHANGED",
    "align",
    "difference",
    "difference_figure",
    "need_same_tokenizer",
    "of_differences",
    "pieces",
    "place_of",
    "units_along",
]

_TOKEN_DIMS = ("pos", "query", "key")
_NAMED = 3  # unlike tokens that a sentence names
_EDIT, _EDITS = 60, 3  # characters of an intervention that a sentence names, and how many it names
_LISTS = ("edge", "row", "segment", "draw")  # the n-th of one run is not the n-th of another, unless they have names
_OF_ANOTHER = ("_low", "_high", "_null")  # of intervals and nulls, which are about one run, not the change
_TESTS = ("p", "q", "p_floor")  # as are tests
_NAMES = {"id", "index", "dimension", "expert", "layer", "head"}  # units of whole numbers that only name something
_STEPS = 4  # of the model's dtype, within which a change is rounding
CHANGED = "⇒"


def align(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """For every token of `after`, the position of its counterpart in `before`, or -1.

    Prompts of equal length are aligned position by position. Otherwise equal runs of ids are matched (difflib), and a
    run that was replaced by one as long is matched token by token; the rest has no counterpart.
    """
    counterpart = [-1] * len(after)
    for a_start, a_end, b_start, b_end in pieces(before, after):
        if a_end - a_start == b_end - b_start:
            counterpart[b_start:b_end] = range(a_start, a_end)
    return counterpart


def pieces(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Both prompts cut into pieces that belong together, in their order: start and end in `before`, in `after`.

    One piece where they are of equal length; else equal runs of ids and what stands between them, empty in one of them
    where nothing does.
    """
    if len(before) == len(after):
        return [(0, len(before), 0, len(after))]
    matcher = SequenceMatcher(a=list(before), b=list(after), autojunk=False)
    return [places for _, *places in matcher.get_opcodes()]  # type: ignore[misc]


@fitted()
@comparing()
def difference(a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
    """b minus a, for every number that both results have.

    a, b: results of one analysis. Returns the variables of b with the dims, coords and units of b; NaN where a has no
    counterpart. Text that changed reads "before⇒after". Over `pos`, `query` and `key` tokens are aligned (see `align`),
    elsewhere equal coordinates are. Left out: intervals, nulls and p-values, which belong to one run, flags, ids, and
    lists without names, whose order means nothing. Blank, too: what is of the followed token where the two follow
    another one, as each does with the token that it itself predicts. `attrs["summary"]` names the largest change, what
    is blank, and where not the same is measured; `attrs["provenance"]` holds both origins.

    Raises InputError for results of different analyses, with nothing to subtract, or that were cut beyond that.
    """
    records = [record_of(result) for result in (a, b)]
    names = [record.get("analysis") for record in records]
    if names[0] != names[1]:
        raise InputError(f"results of {names[0]} and {names[1]}", "two of the same analysis", "Compare like with like")
    tokens = [_tokens(result, record) for result, record in zip((a, b), records, strict=True)]
    counterparts = align(*tokens)
    index = {str(dim): _counterparts(a, b, str(dim), counterparts) for dim in b.dims if dim in a.dims}
    found = {dim: at for dim, at in index.items() if at is not None}  # every dim of what is shared is among them
    changes = {str(name): _change(a[name], b[name], found) for name in _shared(a, b, index)}
    followed = _blank_other_targets(changes, a, b, found)
    if not any(variable.dtype.kind == "f" for variable in changes.values()):
        raise InputError(
            f"two results of {names[0]} without a number in common", "the same dims in both", "Compare another view"
        )
    coords = {dim: b.indexes[dim] if dim in b.indexes else range(b.sizes[dim]) for dim in index}
    texts = {name: coord for name, coord in b.coords.items() if name not in b.dims and set(coord.dims) <= set(index)}
    result = xr.Dataset(changes, coords={**coords, **texts}, attrs=b.attrs)
    unlike = " ".join(filter(None, (_unlike(a, b, tokens, counterparts), followed)))
    about = _about(result, b, records, counterparts, (unlike, _unlike_measures(a, b)))
    return check(result.assign_attrs(**about))


def difference_figure(
    view: View, change: xr.Dataset, index: int = 0, display: Mapping[str, Any] | None = None
) -> "go.Figure":
    """A figure of a difference, on the diverging scale: the view's own where it can be drawn of one, else a plain one.

    display: display parameters of the view. Raises InputError where there is no figure for any of its variables.
    """
    try:
        figure = view.drawn(view.figures[index], change, display=view.shown(display))
    except Exception:  # it wants something that a difference does not have, such as edges or whole numbers
        return _plain_figure(view, change)
    scale = (figure.layout.meta or {}).get("scale", "signed")
    return figure if scale == "signed" else _plain_figure(view, change)


def of_differences(view: View) -> View:
    """The view as one of differences: its title says so, and its figures are drawn by `difference_figure`."""
    figures = tuple(partial(difference_figure, view, index=index) for index in range(len(view.figures)))
    return replace(
        view,
        heading=f"Difference: {view.title}",
        figures=figures,
        details=(),
        tables=(),
        claims=(),
        sentence=_largest_change,
    )


def _largest_change(change: xr.Dataset) -> str:
    return str(change.attrs["summary"])


def need_same_tokenizer(one: Model, other: Model) -> None:
    """InputError unless equal ids are equal tokens on both models."""
    vocabularies = [None if m.tokenizer is None else m.tokenizer.get_vocab() for m in (one, other)]
    if vocabularies[0] != vocabularies[1] or (vocabularies[0] is None and one.sizes.d_vocab != other.sizes.d_vocab):
        raise InputError(
            f"{one.name} and {other.name}, whose tokenizers differ",
            "two models with one tokenizer",
            "Compare models of one family",
        )


# --- numbers -------------------------------------------------------------------------------------------------------


def _tokens(result: xr.Dataset, record: Mapping[str, Any]) -> list[Any]:
    """What tells the tokens of a result apart: their ids, or their texts where no ids were recorded."""
    ids = record.get("token_ids")
    if ids is None and "token_text" in result.coords:
        ids = [str(text) for text in result["token_text"].values]
    return list(ids or ())


def _counterparts(a: xr.Dataset, b: xr.Dataset, dim: str, tokens: Sequence[int]) -> np.ndarray | None:
    """For every index of b along a dim the index of a, -1 for none; None where the dim only counts a list."""
    values = [units_along(result, dim) for result in (a, b)]
    if (dim in _LISTS and not all(map(_is_of_names, values))) or not values[0].is_unique:
        return None
    wanted = values[1]
    if dim in _TOKEN_DIMS and tokens:
        wanted = pd.Index([tokens[pos] if 0 <= pos < len(tokens) else -1 for pos in wanted])
    return values[0].get_indexer(wanted)


def _is_of_names(index: pd.Index) -> bool:
    return index.inferred_type == "string"


def units_along(result: "xr.Dataset | xr.DataArray", dim: str) -> pd.Index:
    """What stands at every index of a dim: names of parts where there are some (the fifth of one model is another one
    of a second), else numbers."""
    if "label" in result.coords and result["label"].dims == (dim,):
        names = pd.Index([str(label) for label in result["label"].values])
        if names.is_unique:
            return names
    return result.indexes[dim] if dim in result.indexes else pd.RangeIndex(result.sizes[dim])


def _shared(a: xr.Dataset, b: xr.Dataset, index: Mapping[str, np.ndarray | None]) -> list[str]:
    """Variables of both results over the same dims that can be subtracted, and the texts beside them."""

    def is_own(name: str) -> bool:
        of_a_test = name in _TESTS or name.endswith(("_q", "_p"))
        return not of_a_test and not any(name.endswith(end) and name.removesuffix(end) in b for end in _OF_ANOTHER)

    def is_kind(variable: xr.DataArray) -> bool:
        unit = str(variable.attrs.get("units", ""))
        if variable.dtype.kind == "f":
            return unit not in _NAMES  # the share of a layer is a number; a head that some rows lack only a name
        return variable.dtype.kind in "UO" or (variable.dtype.kind in "iu" and not _NAMES & set(unit.split()))

    return [
        str(name)
        for name, variable in b.data_vars.items()
        if name in a
        and set(a[name].dims) == set(variable.dims)
        and all(index.get(str(dim)) is not None for dim in variable.dims)
        and is_kind(variable)
        and is_own(str(name))
    ]


def _change(before: xr.DataArray, after: xr.DataArray, index: Mapping[str, np.ndarray]) -> xr.DataArray:
    is_text = after.dtype.kind in "UO"
    before = before.transpose(*after.dims)
    old = before.values.astype(object) if is_text else numbers(before)
    for axis, dim in enumerate(after.dims):
        at = index[str(dim)]
        old = np.take(old, at, axis=axis)
        old[(slice(None),) * axis + (at < 0,)] = None if is_text else np.nan
    if is_text:
        return after.copy(data=_texts(old, after.values))
    low, high = (float(after.attrs.get(name, np.nan)) for name in ("valid_min", "valid_max"))
    span = high - low if np.isfinite(high - low) else np.inf
    attrs = {
        "units": after.attrs.get("units", ""),
        "long_name": f"change of {after.attrs.get('long_name', after.name)}",
        "valid_min": -span,
        "valid_max": span,
        "difference": 1,  # drawn on the diverging scale, whatever its figure asks for
    }
    return xr.DataArray(numbers(after) - old, dims=after.dims, attrs=attrs)


def _blank_other_targets(
    changes: dict[str, xr.DataArray], a: xr.Dataset, b: xr.Dataset, index: Mapping[str, np.ndarray]
) -> str:
    """Blank what is of a followed token where the other run follows another one; the sentence that says so, or none.

    The probability of one token less that of another is no change of either.
    """
    name = "target_token"
    if not all(name in one.coords and one[name].dims == ("pos",) for one in (a, b)) or "pos" not in index:
        return ""
    at = index["pos"]
    others = (at >= 0) & (np.take(a[name].values, at) != b[name].values)
    if not others.any():
        return ""
    for one in [one for one in changes if one.startswith("target_") or one == "logit_difference"]:
        variable = changes[one]
        if "pos" in variable.dims and variable.dtype.kind == "f":
            changes[one] = variable.where(xr.DataArray(~others, dims="pos"))
    last = int(np.flatnonzero(others)[-1])
    here, there = (
        show_token(str(one["target_text"].values[i]), html=False) for one, i in ((b, last), (a, int(at[last])))
    )
    where = counted(int(others.sum()), "token")
    return (
        f"At {where} the two follow different targets (at pos {b['pos'].values[last]} {here} and {there}): blank there."
    )


def _texts(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    pairs = zip(old.ravel(), new.ravel(), strict=True)
    texts = [str(n) if o is None or o == n else f"{o}{CHANGED}{n}" for o, n in pairs]
    return np.array(texts, dtype=object).reshape(new.shape)


def _unlike(a: xr.Dataset, b: xr.Dataset, tokens: Sequence[Sequence[Any]], counterparts: Sequence[int]) -> str:
    """`At 2 tokens others are subtracted: 5 ·Rome minus ·Paris, 9.`; nothing where all that are aligned are equal."""
    before, after = tokens
    pairs = [(pos, at) for pos, at in enumerate(counterparts) if at >= 0 and after[pos] != before[at]]
    if not pairs:
        return ""
    named = []
    for pos, at in pairs[:_NAMED]:
        words = [_text_of(result, place) for result, place in ((b, pos), (a, at))]
        named.append(f"{pos} {' minus '.join(words)}" if all(words) else str(pos))
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    where = "At 1 token another one is" if len(pairs) == 1 else f"At {len(pairs)} tokens others are"
    return f"{where} subtracted: {', '.join(named)}{more}."


def _unlike_measures(a: xr.Dataset, b: xr.Dataset) -> str:
    """`Not the same is measured: logit of 'q' minus logit of 'x'.`, as where each run is asked about the token that it
    itself predicts; nothing where one thing is."""
    after, before = _measure(b), _measure(a)
    if not after or not before or after == before:
        return ""
    words = [said + (f" ({ids})" if after[0] == before[0] else "") for said, ids in (after, before)]
    return f"Not the same is measured: {words[0]} here, {words[1]} subtracted."


def _measure(result: xr.Dataset) -> tuple[str, str] | None:
    """What a result is a number of, in words and in ids; None where it does not say."""
    told = {name: str(result.attrs.get(name) or "") for name in ("metric", "target", "against")}
    ids = [str(result.attrs.get(name) or "") for name in ("target_ids", "against_ids")]
    minus = f" minus {told['against']!r}" if told["against"] else ""
    words = told["metric"] or (f"the logit of {told['target']!r}{minus}" if told["target"] else "")
    return (words, " minus ".join(filter(None, ids))) if words else None


def _text_of(result: xr.Dataset, pos: int) -> str:
    """The token at a position as it is shown, "" where the result does not know it."""
    for dim in _TOKEN_DIMS:  # beside the prompt's own token may stand the one that is followed
        texts = result.coords.get("token_text" if dim == "pos" else f"{dim}_text")
        if texts is not None and texts.dims == (dim,) and dim in result.indexes and pos in result.indexes[dim]:
            return show_token(str(texts.sel({dim: pos}).item()), html=False)
    return ""


def _about(
    result: xr.Dataset, b: xr.Dataset, records: list[dict[str, Any]], counterparts: Sequence[int], also: tuple[str, str]
) -> dict[str, str]:
    """Summary, provenance and key of a difference. also: what to say of tokens, and of what is measured."""
    unlike, measured = also
    keys = [record.get("spec_key", "") for record in records]
    key = hashlib.sha256(json.dumps(["difference", *keys]).encode()).hexdigest()
    record = {"analysis": records[1].get("analysis"), "difference": {"from": records[0], "to": records[1]}}
    record |= {
        name: records[1].get(name) for name in ("model", "prompts", "token_ids", "interventions", "params", "stamp")
    } | {"spec_key": key}
    said = [_largest(result, b, str((records[1].get("model") or {}).get("dtype") or "float32"))]
    if (blank := sum(c < 0 for c in counterparts)) and set(_TOKEN_DIMS) & set(result.dims):
        have = "has no counterpart and is" if blank == 1 else "have no counterpart and are"
        said.append(f"{blank} of {len(counterparts)} tokens {have} blank.")
    if unlike and set(_TOKEN_DIMS) & set(result.dims):
        said.append(unlike)
    others = sorted(
        name
        for name, value in (records[1].get("params") or {}).items()
        if (records[0].get("params") or {}).get(name) != value
    )
    said += [f"The two were computed with different {', '.join(others)}."] * bool(others) + [measured] * bool(measured)
    said += _unlike_runs(records)
    return {"summary": " ".join(said), "provenance": json.dumps(record, sort_keys=True), "spec_key": key}


def _unlike_runs(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """`Of toy with Ablate(L1H0 by zero), minus that without an intervention.`, where models or what they were changed
    by are not the same: a difference that is taken away must say what it is one of."""
    names, edits = ([one[name] for one in records] for name in ("model", "interventions"))
    models = [str(one.get("name") or "a model") for one in names]
    if names[0].get("weights_hash") != names[1].get("weights_hash") and models[0] == models[1]:
        models = [f"{name} ({str(one.get('weights_hash'))[:8]})" for name, one in zip(models, names, strict=True)]
    if models[0] == models[1] and edits[0] == edits[1]:
        return []
    before, after = (f"with {_named(one)}" if one else "without an intervention" for one in edits)
    if edits[0] == edits[1]:
        return [f"Of {models[1]}, minus that of {models[0]}."]
    return [f"Of {models[1]} {after}, minus that {f'of {models[0]} ' if models[0] != models[1] else ''}{before}."]


def _named(edits: Sequence[str]) -> str:
    """`Ablate(L1H0 by zero), Ablate(L2 MLP by zero) and 3 more`."""
    more = f" and {len(edits) - _EDITS} more" if len(edits) > _EDITS else ""
    return ", ".join(shorten(one, _EDIT) for one in edits[:_EDITS]) + more


def _largest(result: xr.Dataset, b: xr.Dataset, dtype: str) -> str:
    """`Largest change of entropy: -2.3 nats at depth 12, pos 5 ·Peter.`: of the first number that changes by more than
    rounding, or else at all; where that is not the first one, which figures show, that it does not change. dtype: of
    the model."""
    changes = [variable for variable in result.data_vars.values() if variable.dtype.kind == "f"]
    moved = [one for one in changes if np.nan_to_num(one.values).any()]
    real = [one for one in moved if (np.abs(one.values) > _steps(b[one.name], dtype)).any()]
    variable = next(iter(real or moved or changes))
    values, what = variable.values, variable.attrs["long_name"]
    if not np.isfinite(values).any():
        return f"No {what}: nothing has a counterpart."
    is_first = variable is changes[0] or not np.isfinite(changes[0].values).any()
    beyond = " but for rounding" if any(one is changes[0] for one in moved) else ""
    before = "" if is_first else f"No {changes[0].attrs['long_name']}{beyond}. "
    flat = int(np.nanargmax(np.abs(values)))
    if values.flat[flat] == 0:
        return f"No {what}: the two are equal."
    indices = map(int, np.unravel_index(flat, values.shape))
    at = dict(zip(map(str, variable.dims), indices, strict=True))
    unit = units(variable)
    unit = "" if unit in what.split() else unit  # `probability of the target: 0.5 probability` says it twice
    place = f" at {', '.join(place_of(variable, at))}" if at else ""
    said = f"{before}Largest {what}: {number(float(values.flat[flat]))}{f' {unit}' if unit else ''}{place}."
    after = b[variable.name]
    if abs(values.flat[flat]) > _steps(after, dtype).flat[flat]:
        return said
    return f"{said} That is rounding of {dtype}, at {number(float(numbers(after).flat[flat]))}."


def _steps(after: xr.DataArray, dtype: str) -> np.ndarray:
    """How far each number may move by rounding: a few steps of its own, or of what is usual where it is small. A batch
    of other rows, another number of threads or another machine adds up in another order."""
    eps = {"float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
    values = np.abs(numbers(after))
    usual = np.median(values[np.isfinite(values)]) if np.isfinite(values).any() else 0.0
    return np.asarray(_STEPS * eps.get(dtype, 2.0**-23) * np.fmax(values, usual))


def place_of(variable: xr.DataArray, at: Mapping[str, int]) -> list[str]:
    """`["L18H6"]`, `["L20 MLP"]` where parts have labels, or `["depth 30", "pos 5 ·Peter"]`."""
    values = {dim: variable[dim].values[i] for dim, i in at.items()}
    words = [head_name(values.pop("layer"), values.pop("head"))] if {"layer", "head"} <= set(values) else []
    for dim, value in values.items():
        if dim == "component" and "label" in variable.coords:
            words.append(str(variable["label"].values[at[dim]]))
            continue
        texts = variable.coords.get({"pos": "token_text"}.get(dim, f"{dim}_text"))
        token = "" if texts is None else f" {show_token(str(texts.values[at[dim]]), html=False)}"
        shown = value if isinstance(value, str) else f"{value + (dim == 'rank'):g}"  # rank 1 is the top, to people
        words.append(f"{dim.replace('_', ' ')} {shown}{token}")
    return words


# --- figures -------------------------------------------------------------------------------------------------------


def _plain_figure(view: View, change: xr.Dataset) -> "go.Figure":
    """The first variable that one of the plain figures can show."""
    from workbench.figures import bars, depth_pos_grid, heads_grid, pattern_figure, series, token_strip

    for name, variable in change.data_vars.items():
        name, dims = str(name), set(map(str, variable.dims))
        title = f"{view.title}: {variable.attrs.get('long_name', name)}"
        if variable.dtype.kind != "f":
            continue
        if dims == {"layer", "head"}:
            return heads_grid(change, name, title=title)
        if dims in ({"depth", "pos"}, {"layer", "pos"}):
            return depth_pos_grid(change, name, title=title)
        if dims == {"query", "key"}:
            texts = [str(text) for text in change["query_text"].values]
            return pattern_figure(variable.transpose("query", "key").values, texts, title, scale="signed")
        if dims == {"pos"}:
            return token_strip(change, name, title=title)
        if dims in ({"depth"}, {"layer"}):
            return series(change, name, dims.pop(), title=title)
        if len(dims) == 1:
            return bars(change, name, dims.pop(), title=title, limit=24)
    raise InputError(
        f"a difference of {view.title} over other dims than the plain figures know",
        "one over heads, depths and tokens, or one dim",
        "Take the numbers instead (netCDF or CSV)",
    )
