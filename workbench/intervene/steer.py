"""Steering: a direction added to a state or to what a block adds."""

from dataclasses import dataclass, field

import torch

from workbench.errors import InputError
from workbench.intervene.checks import finite, names, need_layer, need_numbers, need_serial, printed
from workbench.intervene.edit import Edit, Positions, Printed, Where, filled, tensor_digest
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, MLP_OUT, RESID_MID, RESID_POST, RESID_PRE, Hook
from workbench.models.model import Model

__all__ = ["Steer"]

_STEERABLE = (RESID_PRE, RESID_MID, RESID_POST, ATTN_OUT, MLP_OUT, ATTN_RESULT)


@dataclass(frozen=True, eq=False, repr=False)
class Steer(Printed):
    """Add `strength * direction` to a state or a sublayer's output.

    direction: `[d_model]`, or `[position, d_model]` with one row for each of `positions` (all: one per token).
    """

    layer: int
    direction: torch.Tensor = field(repr=False)
    strength: float = 1.0
    hook: Hook = RESID_POST
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            # a copy: who changes theirs later would change what is added, under the same name
            object.__setattr__(self, "direction", torch.as_tensor(self.direction).clone())
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"a direction of the type {type(self.direction).__name__}", "a tensor", "Give numbers"
            ) from error
        object.__setattr__(self, "strength", finite(self.strength, "strength"))

    def __str__(self) -> str:
        digest = tensor_digest(self.direction)  # not kept: `replace(steer, direction=...)` would take it along
        return f"Steer(L{self.layer} {self.hook.name} by {printed(self.strength)} x {digest}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One additive edit; resid_mid is reached through attn_out."""
        need_layer(model, self.layer, str(self))
        if self.hook not in _STEERABLE:
            raise InputError(f"steering {self.hook.name}", names(_STEERABLE), "Choose one of these")
        d_model, shape = model.sizes.d_model, tuple(self.direction.shape)
        rows = shape[0] if self.positions is None and len(shape) == 2 else len(self.positions or ())
        if shape not in ((d_model,), (rows, d_model)):
            expected = f"[{d_model}], or [position, {d_model}] with a row for each position"
            raise InputError(f"a direction of shape {shape}", expected, "Check the model")
        if self.hook is RESID_MID:
            need_serial(model, self)
        hook = ATTN_OUT if self.hook is RESID_MID else self.hook
        where = Where(hook, self.layer, None, self.positions, self.rows, additive=True)
        added = self.strength * self.direction
        need_numbers(added, self)
        return [filled(where, added, add=True)]
