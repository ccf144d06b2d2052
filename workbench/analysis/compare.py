"""Two results of one analysis held against each other: what changed, cell by cell.

`difference(a, b)` is b minus a on the coordinates of b: a prompt and another one, a run with and without an
intervention, two models with one tokenizer. Tokens are aligned first; what has no counterpart is blank, and the
summary says how much that is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.analysis.changes import TOKEN_DIMS, about, unlike_measures, unlike_tokens
from workbench.analysis.refusals import comparing
from workbench.analysis.results import check
from workbench.analysis.view import View
from workbench.arguments import fitted
from workbench.errors import InputError
from workbench.figures.quantity import numbers
from workbench.figures.text import show_token
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
    "units_along",
]

_LISTS = ("edge", "row", "segment", "draw")  # the n-th of one run is not the n-th of another, unless they have names
_OF_ANOTHER = ("_low", "_high", "_null")  # of intervals and nulls, which are about one run, not the change
_TESTS = ("p", "q", "p_floor")  # as are tests
_NAMES = {"id", "index", "dimension", "expert", "layer", "head"}  # units of whole numbers that only name something
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
    unlike = " ".join(filter(None, (unlike_tokens(a, b, tokens, counterparts), followed)))
    said = about(result, b, records, counterparts, (unlike, unlike_measures(a, b)))
    return check(result.assign_attrs(**said))


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
    if dim in TOKEN_DIMS and tokens:
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
