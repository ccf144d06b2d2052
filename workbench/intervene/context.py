"""Carrying interventions out: one hook per activation, taken back in every case."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch

from workbench.errors import InputError, RefusedError
from workbench.intervene.contradictions import check_contradictions
from workbench.intervene.edit import Edit
from workbench.intervene.rounding import Rounding
from workbench.intervene.rows import Rows
from workbench.models.hooks import ATTN_OUT, PATTERN, ROUTER, SCORES, Hook
from workbench.models.model import Model
from workbench.models.norm import SQUARED
from workbench.models.passes import Attached
from workbench.pauses import pause

__all__ = ["hooks"]

_MASKED = (SCORES, ROUTER, PATTERN)  # minus infinity hides; a pattern sums to 1
_LARGEST = SQUARED / 100  # a norm may stand behind the weights that a written activation goes through


@contextmanager
def hooks(
    model: Model,
    interventions: Sequence[Any],
    *,
    tokens: Sequence[Any] | None = None,
    rows: slice | None = None,
    reached: Callable[[Edit], bool] = lambda edit: True,
) -> Iterator[None]:
    """Carry out interventions on this thread's forward passes inside the block; other threads wait until it ends.

    Inside a pass (`model.passes.run()`) they act in that pass alone.

    Those that the model carries (`Model.edited`) come first, as if they were part of it. tokens: the prompts of the
    batch, for their lengths (None: no padding). rows: which prompts of the call this batch holds; interventions on
    other rows are left out. reached: whether a pass that starts or stops inside the model carries out an edit, asked of
    the model's own interventions: what was written before is in the state that it starts with. Edits of one activation
    become one hook, in the order given.

    Raises InputError for units the model does not have and for contradictory interventions, and RefusedError if, at a
    normal end, an edit never fired (an ablation that did nothing is worse than none) or wrote what overflows.
    """
    batch = Rows(None if tokens is None else [len(t) for t in tokens], rows.start if rows is not None else 0)
    own = [(i, edit) for i in _apart(model.interventions) for edit in i.edits(model) if reached(edit)]
    given = [(i, edit) for i in _apart(interventions) if batch.holds(i.rows) for edit in i.edits(model)]
    if not model.is_held:  # a pass has paused before it began
        pause()
    with model.lock, _carried_out(model, own, batch), _carried_out(model, given, batch):
        yield


def _apart(interventions: Sequence[Any]) -> list[Any]:
    """Each as an object of its own: one that is given twice is two, which may contradict."""
    found: list[Any] = []
    seen: set[int] = set()
    for one in interventions:
        found.append(copy(one) if id(one) in seen else one)
        seen.add(id(one))
    return found


@contextmanager
def _carried_out(model: Model, found: list[tuple[Any, Edit]], batch: Rows) -> Iterator[None]:
    check_contradictions(found, batch, model.sizes.n_heads // max(1, model.sizes.n_key_value_heads))
    points: dict[tuple[Hook, int | None], list[tuple[Any, Edit]]] = {}
    for intervention, edit in found:
        points.setdefault(edit.where[:2], []).append((intervention, edit))
    fired: set[tuple[Hook, int | None]] = set()
    largest: list[tuple[Any, Edit, torch.Tensor]] = []
    with Attached(model) as attached:
        # attn_result lies before attn_out and is the same place where no post-norm stands between: it is written first
        for (hook, layer), edits in sorted(points.items(), key=lambda found: found[0][0] is ATTN_OUT):
            _need_proof(model, hook, edits)
            point = _point(model, hook, layer, edits[0][0])
            attached.add(point, _apply(batch, hook, layer, edits, fired, largest))
        rounding = Rounding()
        rounding.watch(model, found, attached)
        yield
        _need_moderate(largest)
        rounding.need_little()
        silent = [key for key in points if key not in fired]
        if silent:
            raise RefusedError(
                f"{points[silent[0]][0][0]}, whose edit of {silent[0][0].name} in layer {silent[0][1]} did not fire",
                "every intervention to take effect",
                "Check that the pass runs through that layer",
            )


def _need_moderate(largest: list[tuple[Any, Edit, torch.Tensor]]) -> None:
    """RefusedError where something written is no number any more, or so large that a norm makes zeros of it."""
    if not largest or bool(torch.stack([size.cpu() for _, _, size in largest]).max() <= _LARGEST):
        return
    intervention, edit, size = next(found for found in largest if not bool(found[2] <= _LARGEST))
    raise RefusedError(
        f"{intervention}, which leaves {float(size):.3g} in {edit.where.hook.name} of layer {edit.where.layer}",
        f"states of at most {_LARGEST:g}: norms square them", "Write something smaller",
    )  # fmt: skip


def _need_proof(model: Model, hook: Hook, edits: list[tuple[Any, Edit]]) -> None:
    """RefusedError where the self-check found that what is written there does nothing."""
    item = None if model.selfcheck is None else model.selfcheck.unproved(hook)
    if item is not None and any(edit.write is not None for _, edit in edits):
        raise RefusedError(
            f"{edits[0][0]}, which writes {hook.name}; on {model.name} {item.sentence}",
            "an edit that the model computes with",
            "Edit another activation, such as z or attn_out",
        )


def _point(model: Model, hook: Hook, layer: int | None, intervention: Any) -> Any:
    try:
        return model.adapter.point(hook, layer)
    except KeyError:
        raise InputError(
            f"{intervention}", f"a site that {model.name} has ({hook.name} it has not)", "Choose another site"
        ) from None


def _apply(
    batch: Rows,
    hook: Hook,
    layer: int | None,
    given: list[tuple[Any, Edit]],
    fired: set[tuple[Hook, int | None]],
    largest: list[tuple[Any, Edit, torch.Tensor]],
) -> Callable[..., torch.Tensor]:
    """One hook for all edits of an activation: a fresh copy, written in the order given, then read.

    largest: takes the largest magnitude that each left behind, which is looked at when the pass is over.
    """
    edits = [edit for _, edit in given]

    def apply(activation: torch.Tensor, hook: Any = None, _hook: Hook = hook) -> torch.Tensor:
        fired.add((_hook, layer))
        changed = activation.clone() if any(edit.write for edit in edits) else activation
        for intervention, edit in sorted(given, key=lambda pair: not pair[1].early):
            if edit.write is None:
                continue
            for mesh, length in batch.meshes(edit, changed):
                edit.write(changed, mesh, length, *((batch.first,) if edit.of_call else ()))
                if _hook not in _MASKED and (written := changed[mesh].detach()).numel():
                    size = written.abs() if _hook.expert is None else written.abs().nan_to_num(0.0, torch.inf)
                    largest.append((intervention, edit, size.amax().float()))
        for edit in edits:
            if edit.read is not None:
                edit.read(changed)
        return changed

    return apply
