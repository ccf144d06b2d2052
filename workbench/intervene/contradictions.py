"""Interventions that cannot hold together: two that write one place, or one that makes another void."""

from typing import Any

from workbench.errors import InputError
from workbench.intervene.edit import Edit, Where
from workbench.intervene.rows import Rows
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    RESID_POST,
    RESID_PRE,
    SCORES,
    K,
    Q,
    V,
    Z,
)
from workbench.models.model import Model

__all__ = ["check_contradictions", "is_void"]

# Writing the first makes what was written into the others of its layer, at the same positions, void.
# What keys and values carry is gone only where it is gone at every position: they are read from other ones.
_COVERS = {
    PATTERN: (SCORES, Q),
    Z: (PATTERN, SCORES, Q),
    ATTN_RESULT: (Z, PATTERN, SCORES, Q),
    ATTN_OUT: (ATTN_RESULT, Z, PATTERN, SCORES, Q),
    MLP_OUT: (MLP_POST,),
    RESID_POST: (MLP_OUT, MLP_POST, ATTN_OUT, ATTN_RESULT, Z, PATTERN, SCORES, Q),
}

_OF_KEYS = {V: (Z, ATTN_RESULT, ATTN_OUT, RESID_POST), K: (PATTERN, Z, ATTN_RESULT, ATTN_OUT, RESID_POST)}


def check_contradictions(found: list[tuple[Any, Edit]], batch: Rows, group: int = 1) -> None:
    """InputError where two interventions write the same place, or one makes another's edit void. group: heads that read
    each key/value head."""
    buckets: dict[tuple[int | None, int | None], list[tuple[Any, Where]]] = {}
    for intervention, edit in found:
        if edit.write is None:
            continue
        where = edit.where
        for row in where.rows if where.rows is not None else (None,):
            buckets.setdefault((where.layer, row), []).append((intervention, where))
    _need_seams(buckets)
    for (layer, row), entries in buckets.items():
        everywhere = buckets.get((layer, None), []) if row is not None else []
        for length in batch.lengths_of(row) or (None,):
            here, there = ([(i, _counted(w, length)) for i, w in found] for found in (entries, everywhere))
            for n, (first, a) in enumerate(here):
                for second, b in (*here[n + 1 :], *there):
                    if first is not second and (_clash(a, b) or _void(a, b, group) or _void(b, a, group)):
                        raise InputError(f"{first} together with {second}", "edits that do not contradict", "Drop one")


def _need_seams(buckets: dict[tuple[int | None, int | None], list[tuple[Any, Where]]]) -> None:
    """InputError where a state in front of a layer is set, and something that the layer before it adds is void by it:
    it is the state behind that one."""
    for (layer, row), entries in buckets.items():
        before = [] if layer is None else [*buckets.get((layer - 1, row), ()), *buckets.get((layer - 1, None), ())]
        for first, a in entries:
            if a.hook is not RESID_PRE or not a.sets:
                continue
            for second, b in before:
                covered = b.hook is RESID_POST and _within(b.positions, a.positions)
                if covered or _void(a._replace(hook=RESID_POST), b):
                    raise InputError(f"{first} together with {second}", "edits that do not contradict", "Drop one")


def _counted(where: Where, length: int | None) -> Where:
    """The same place with positions counted from the start of a prompt of this length."""
    if where.positions is None or length is None:
        return where
    return where._replace(positions=tuple(p + length if p < 0 else p for p in where.positions))


def is_void(model: Model, where: Where) -> bool:
    """Whether writing a place changes nothing: interventions that the model carries overwrite what it leads to."""
    own = (edit for intervention in model.interventions for edit in intervention.edits(model))
    group = model.sizes.n_heads // max(1, model.sizes.n_key_value_heads)
    here = (edit.where for edit in own if edit.write is not None and edit.where.layer == where.layer)
    return any(_void(outer, where, group) for outer in here)


def _clash(a: Where, b: Where) -> bool:
    if a.hook != b.hook or (a.additive and b.additive):
        return False
    return _overlap(a.units, b.units) and _overlap(a.positions, b.positions)


def _void(outer: Where, inner: Where, group: int = 1) -> bool:
    """Whether writing `outer` makes what `inner` wrote before it void. group: as for `check_contradictions`."""
    if inner.hook in _OF_KEYS:
        gone = outer.sets and outer.hook in _OF_KEYS[inner.hook] and outer.positions is None
        return gone and _within(_readers(inner.units, group), outer.units)
    read = inner.hook if inner.hook.expert is None else MLP_POST  # an expert's neurons lie before the same
    if not outer.sets or read not in _COVERS.get(outer.hook, ()):
        return False
    return _within(inner.units, outer.units) and _within(inner.positions, outer.positions)


def _readers(units: tuple[int, ...] | None, group: int) -> tuple[int, ...] | None:
    """The heads that read key/value heads."""
    return None if units is None else tuple(unit * group + n for unit in units for n in range(group))


def _within(inner: tuple[int, ...] | None, outer: tuple[int, ...] | None) -> bool:
    return outer is None or (inner is not None and set(inner) <= set(outer))


def _overlap(a: tuple[int, ...] | None, b: tuple[int, ...] | None) -> bool:
    if a is None or b is None:
        return True
    return bool(set(a) & set(b))
