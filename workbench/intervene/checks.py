"""What several interventions check of a model before they say where they write."""

import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch

from workbench.arguments import shown
from workbench.errors import InputError
from workbench.models.hooks import Hook
from workbench.models.model import Model

__all__ = [
    "finite",
    "names",
    "need_layer",
    "need_numbers",
    "need_serial",
    "printed",
    "unit_axis",
]


def need_numbers(value: Any, what: Any) -> None:
    """InputError where what is written or added is not made of finite real numbers."""
    found = torch.as_tensor(value)
    if found.is_complex() or not bool(found.isfinite().all()):
        raise InputError(
            f"{what} with numbers that are not finite and real", "finite numbers", "Look at what it writes"
        )


def finite(value: Any, what: str) -> float:
    """One finite real number; InputError for anything else. what: the value is, in words."""
    try:
        found, is_number = float(value), not isinstance(value, str | bytes)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found, is_number = math.nan, False
    if not (is_number and math.isfinite(found)):
        odd = "not finite" if is_number else f"of the type {type(value).__name__}"
        raise InputError(f"the {what} {shown(value)}, which is {odd}", "one finite number", "Give a number")
    return found


def printed(number: float) -> str:
    """A number as an intervention prints it: short, and exact, since what prints alike is taken for the same."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def need_layer(model: Model, layer: int, what: str) -> None:
    """InputError where the model has no such layer."""
    n = model.sizes.n_layers
    if not isinstance(layer, SupportsIndex) or not 0 <= layer.__index__() < n:
        raise InputError(what, f"layers 0 to {n - 1} on {model.name}", "Choose a layer it has")


def need_serial(model: Model, what: Any) -> None:
    """InputError where the model has no state between attention and MLP."""
    if model.sizes.parallel or not model.sizes.d_mlp:
        why = "runs attention and MLP side by side" if model.sizes.parallel else "has no MLP"
        raise InputError(
            f"{what}",
            f"a block with a state between attention and MLP: {model.name} {why}",
            "Use resid_pre or attn_out",
        )


def names(hooks: Sequence[Hook]) -> str:
    """What may be chosen, for an error."""
    return "one of " + ", ".join(hook.name for hook in hooks)


def unit_axis(hook: Hook) -> int | None:
    """The axis of heads, neurons or experts of an activation; None where it has none."""
    return next((i for i, dim in enumerate(hook.dims) if dim in ("head", "key_value_head", "neuron", "expert")), None)
