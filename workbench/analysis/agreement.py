"""How far the results of one analysis on several prompts agree, in a sentence: which unit is the largest in how many of
them, how many of the largest are the same in all beside what chance gives, and which two are least alike.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import xarray as xr

from workbench.analysis.changes import place_of
from workbench.analysis.compare import units_along
from workbench.arguments import fitted
from workbench.errors import InputError
from workbench.figures.quantity import numbers, units
from workbench.figures.text import number
from workbench.models.target import behind
from workbench.storage.record import record_of

__all__ = ["agreement"]

# The first that a result has numbers over
_UNIT_DIMS = ({"layer", "head"}, {"layer", "key_value_head"}, {"component"}, {"layer"}, {"depth"})
_NO_SIZE = ("flag", "position", "id", "index")  # units of numbers whose size says nothing
_BESIDE = ("_null", "_low", "_high", "_q", "_p")  # what belongs to another variable
_ALIKE = 0.99  # rank correlation above which nobody is the least alike
_TOP = 10  # largest units that are held against each other, at most a quarter of all


@fitted()
def agreement(results: Sequence[xr.Dataset], counted: Sequence[int] | None = None) -> str:
    """What results of one analysis on several prompts share.

    results: at least two. counted: the numbers by which the sentence names the prompts, from 1 on where none are given.
    Of each is taken one number a unit: the first variable over heads, components, layers or depths, at the last token
    where it has tokens; of an analysis of tokens alone one number a prompt. Units count by their absolute value. "By
    chance" is the mean number in common of as many random choices of the same size: k (k / n) ** (m - 1) of n units for
    m prompts. A result all of whose numbers are missing (a prompt in which nothing repeats has no induction score) is
    left out, and named.

    Raises InputError for fewer than two, for results of different analyses, and where they have no number in common.
    """
    if len(results) < 2:
        raise InputError(f"{len(results)} result{'s' * (len(results) != 1)}", "at least two", "Pin another prompt")
    names = sorted({str(record_of(result).get("analysis")) for result in results})
    if len(names) > 1:
        raise InputError(f"results of {', '.join(names)}", "those of one analysis", "Compare like with like")
    counted = range(1, len(results) + 1) if counted is None else counted
    if len(counted) != len(results):
        raise InputError(f"{len(counted)} numbers of {len(results)} results", "one each", "Give as many")
    there = _with_numbers(results, counted)
    left_out = [number for at, number in enumerate(counted) if at not in there]
    taken, counted = _taken([results[at] for at in there]), [counted[at] for at in there]
    none = f" Left out for having no such number: {', '.join(f'prompt {one}' for one in left_out)}." if left_out else ""
    if not taken[0].dims:
        return _of_prompts(taken, counted) + none
    values = np.stack([np.abs(numbers(one)).ravel() for one in taken])
    return _of_units(taken, values, np.flatnonzero(np.isfinite(values).all(axis=0)), counted) + none


def _with_numbers(results: Sequence[xr.Dataset], counted: Sequence[int]) -> list[int]:
    """The places of the results that are held against each other: all, or those that have a number at all."""
    try:
        _taken(results)
        return list(range(len(results)))
    except InputError:
        there = [at for at, result in enumerate(results) if _has_numbers(result)]
        if len(there) == 1:
            raise InputError(
                f"a number of prompt {counted[there[0]]} alone", "those of at least two prompts", "Pin another prompt"
            ) from None
        if len(there) in (0, len(results)):
            raise
        return there


def _has_numbers(result: xr.Dataset) -> bool:
    try:
        return bool(_taken([result]))
    except InputError:
        return False


def _taken(results: Sequence[xr.Dataset]) -> list[xr.DataArray]:
    """Of each result the numbers that are looked at, on the units that all have. InputError where there are none."""
    for over in (*_UNIT_DIMS, set[str]()):
        for places in (set[str](), {"pos"}, {"query"}):  # a number of the whole prompt says more than its last token's
            for name in _usable(results):
                if set(map(str, results[0][name].dims)) != over | places:
                    continue
                last = [dict.fromkeys(places, -1 - behind(result.attrs)) for result in results]
                ends = (_named(one[name].isel(at)) for one, at in zip(results, last, strict=True))
                taken = list(xr.align(*ends, join="inner"))
                if (
                    all(one.size for one in taken)
                    and np.isfinite(np.stack([one.values for one in taken])).all(axis=0).any()
                ):
                    return taken
    raise InputError(
        "results without a number over heads, layers or tokens", "one that all prompts have", "Look at another view"
    )


def _named(variable: xr.DataArray) -> xr.DataArray:
    """With parts under their names, where they have some: by these they are aligned."""
    return variable.assign_coords({dim: units_along(variable, str(dim)) for dim in variable.dims if dim == "component"})


def _usable(results: Sequence[xr.Dataset]) -> list[str]:
    """Numbers of all results whose size says something, and that belong to no other."""
    return [
        str(name)
        for name, variable in results[0].data_vars.items()
        if variable.dtype.kind == "f"
        and all(name in other and other[name].dims == variable.dims for other in results)
        and not set(str(variable.attrs.get("units", "")).split()) & set(_NO_SIZE)
        and not any(str(name).endswith(end) for end in _BESIDE)
    ]


def _called(variable: xr.DataArray) -> str:
    return str(variable.attrs.get("long_name", variable.name))


def _title(variable: xr.DataArray) -> str:
    said = _called(variable)
    return said[:1].upper() + said[1:]


def _of_prompts(taken: Sequence[xr.DataArray], counted: Sequence[int]) -> str:
    """`Surprisal at the last token of 3 prompts: 0.12 nats (prompt 2) to 3.4 nats (prompt 1).`"""
    values, unit = np.array([float(one) for one in taken]), units(taken[0])
    where = " at the last token" if {"pos", "query"} & set(taken[0].coords) else ""
    low, high = int(values.argmin()), int(values.argmax())
    said = [f"{number(values[at])}{f' {unit}' if unit else ''} (prompt {counted[at]})" for at in (low, high)]
    span = " to ".join(said) if values[low] != values[high] else f"{number(values[low])} in all"
    return f"{_title(taken[0])}{where} of {len(taken)} prompts: {span}."


def _of_units(aligned: Sequence[xr.DataArray], sizes: np.ndarray, kept: np.ndarray, counted: Sequence[int]) -> str:
    """sizes: (prompt, unit), absolute values. kept: the flattened units of which every prompt has one."""
    first, n_prompts, sizes = aligned[0], len(aligned), sizes[:, kept]
    said = f"{_title(first)} of {n_prompts} prompts"
    if not sizes.any(axis=1).all():
        return f"{said}: it is 0 everywhere in prompt {counted[int(np.flatnonzero(~sizes.any(axis=1))[0])]}."
    best = Counter(sizes.argmax(axis=1).tolist())
    unit, count = best.most_common(1)[0]
    at = dict(zip(map(str, first.dims), map(int, np.unravel_index(kept[unit], first.shape)), strict=True))
    signed = [
        float(numbers(one).ravel()[kept[unit]]) for one, row in zip(aligned, sizes, strict=True) if row.argmax() == unit
    ]
    span = " to ".join(dict.fromkeys(number(value) for value in (min(signed), max(signed))))
    often = "all" if count == n_prompts else f"{count} of them"
    name = ", ".join(place_of(first, at))
    if count == 1:
        parts = [f"{said}: the largest is another one in each"]
    else:
        parts = [f"{said}: {name} is the largest in {often} ({span})"]
    return ". ".join([*parts, *_of_the_largest(sizes), *_least_alike(sizes, counted)]) + "."


def _of_the_largest(sizes: np.ndarray) -> list[str]:
    n_prompts, n = sizes.shape
    top = min(_TOP, n // 4)
    if top < 2:
        return []
    largest = [set(np.argsort(-row, kind="stable")[:top].tolist()) for row in sizes]
    same = len(set.intersection(*largest))
    chance = top * (top / n) ** (n_prompts - 1)
    return [
        f"Of the {top} largest of {n}, {same} {'is' if same == 1 else 'are'} the same in all (by chance {chance:.1f})"
    ]


def _least_alike(sizes: np.ndarray, counted: Sequence[int]) -> list[str]:
    """The two prompts that order the units in the most different way, where there are enough units for an order."""
    from scipy.stats import rankdata

    if sizes.shape[1] < 4:
        return []
    ranks = rankdata(sizes, axis=1)
    if not ranks.std(axis=1).all():
        return []  # all alike: no order
    orders = np.corrcoef(ranks)
    one, other = min(combinations(range(len(sizes)), 2), key=lambda pair: orders[pair])
    words = f"rank correlation {orders[one, other]:.2f}"
    if orders[one, other] > _ALIKE:
        return [f"All order them alike ({words} at least)"]
    return [
        f"The two have {words}"
        if len(sizes) == 2
        else f"Least alike are prompts {counted[one]} and {counted[other]} ({words})"
    ]
