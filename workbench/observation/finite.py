"""Numbers that are no longer finite, or too large for a norm: noticed in every pass, and traced to their place.

What overflows inside a block stays in the residual stream: no later layer makes a number of it. So one look at the last
state of a pass is enough, and costs nothing beside it. Only where that fails is the pass made once more, to find where.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from workbench.errors import RefusedError
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    RESID_MID,
    RESID_POST,
    RESID_PRE,
    SCORES,
    Hook,
    K,
    Q,
    V,
    Z,
)
from workbench.models.model import Model
from workbench.models.norm import SQUARED
from workbench.models.passes import Attached

__all__ = ["all_finite", "not_finite"]

_READ_BY_NORMS = (RESID_PRE, RESID_MID, RESID_POST)
_IN_ORDER = (RESID_PRE, Q, K, V, SCORES, PATTERN, Z, ATTN_RESULT, ATTN_OUT, RESID_MID, MLP_POST, MLP_OUT, RESID_POST)


class _Found(Exception):
    """Leaves the second pass where the first number is lost."""


def all_finite(activation: torch.Tensor, mask: torch.Tensor | None, hook: Hook = RESID_POST) -> bool:
    """Whether all numbers of an activation are finite where `mask` `[batch, pos]` is true (None: everywhere), and those
    of a state such that a norm can square them.

    Masked scores may be minus infinity.
    """
    lost = ~activation.isfinite()
    if hook in _READ_BY_NORMS and torch.finfo(activation.dtype).max > SQUARED:
        lost |= activation.abs() > SQUARED
    if hook is SCORES:
        lost &= activation != -torch.inf
    lost = lost.flatten(2).any(-1) if hook not in (SCORES, PATTERN) else lost.any(-1).any(1)
    return not bool((lost if mask is None else lost & mask.to(lost.device)).any())


def not_finite(model: Model, run: Callable[[], Any], mask: torch.Tensor | None) -> RefusedError:
    """The error of a pass that lost its numbers, naming where. run: makes that pass again, with its edits."""
    place = _first(model, run, mask)
    dtype = model.identity.dtype
    what, where = "numbers that are not finite", "behind the last block"
    if place is not None:
        hook, layer, are_numbers = place
        what = f"states beyond {SQUARED:g}, whose square no norm can hold," if are_numbers else what
        where = f"in {hook.name} of layer {layer}"
    if dtype == "float16":
        remedy = (
            "Load the model in bfloat16, which holds such states (dtype=torch.bfloat16, in the shell --dtype bfloat16)"
        )
    else:
        remedy = "Take interventions back, or check the weights"
    return RefusedError(f"{what} {where} of {model.name}", f"states that {dtype} can hold", remedy)


def _first(model: Model, run: Callable[[], Any], mask: torch.Tensor | None) -> tuple[Hook, int, bool] | None:
    """Where, and whether all of it is finite."""
    found: list[tuple[Hook, int, bool]] = []

    def look(hook: Hook, layer: int) -> Callable[..., None]:
        def see(activation: torch.Tensor, hook: Any = None, _hook: Hook = hook) -> None:
            if not all_finite(activation, mask, _hook):
                found.append((_hook, layer, bool(activation.isfinite().all())))
                raise _Found

        return see

    with Attached(model) as attached, suppress(_Found):
        for layer in range(model.sizes.n_layers):
            for hook in _IN_ORDER:
                with suppress(KeyError):
                    attached.add(model.adapter.point(hook, layer), look(hook, layer))
        run()
    return found[0] if found else None
