"""What a norm that subtracts the mean loses of an edited state to rounding."""

from collections.abc import Iterable
from typing import Any

import torch

from workbench.errors import RefusedError
from workbench.intervene.edit import Edit
from workbench.models.hooks import RESID_MID, RESID_POST, RESID_PRE, Hook
from workbench.models.model import Model
from workbench.models.norm import Norm
from workbench.models.passes import Attached

__all__ = ["Rounding"]

_STATES = (RESID_PRE, RESID_MID, RESID_POST)
_MOST = 1e-3  # of what the norm gives, in float32; a state is never told finer than some steps of its own dtype
_STEPS = 8


class Rounding:
    """Looks, in layers that are edited, at how much of a state is left when a norm has subtracted its mean.

    A state far along the direction of ones holds the rest in fewer digits. The norm takes the mean away, and what it
    scales up are errors of rounding: numbers that look like an effect and are none. A norm without a mean (RMS) reads
    no such difference.
    """

    def __init__(self) -> None:
        self.largest: list[tuple[Any, Hook, int, torch.Tensor]] = []  # what came of it, on the device until the end

    def watch(self, model: Model, edited: Iterable[tuple[Any, Edit]], attached: Attached) -> None:
        """Look behind each edit: at the state it writes, and at the one that its block leaves."""
        points: dict[tuple[Hook, int], Any] = {}
        for intervention, edit in edited:
            layer = edit.where.layer
            if layer is not None and edit.write is not None:
                hooks = {RESID_POST, *({edit.where.hook} & {*_STATES})}
                points |= {(hook, layer): intervention for hook in hooks}
        for (hook, layer), intervention in points.items():
            norm = model.adapter.norm(layer, "attention")
            if norm.kind == "layer":
                attached.add(model.adapter.point(hook, layer), self._look(intervention, hook, layer, norm))

    def _look(self, intervention: Any, hook: Hook, layer: int, norm: Norm) -> Any:
        def look(state: torch.Tensor, hook: Any = None, _hook: Hook = hook) -> None:
            x = state.detach()
            share = torch.finfo(x.dtype).eps * x.float().mean(-1, keepdim=True).abs() / norm.scale(x)
            if share.numel():
                most = max(_MOST, _STEPS * torch.finfo(x.dtype).eps)
                self.largest.append((intervention, _hook, layer, share.amax() / most))

        return look

    def need_little(self) -> None:
        """RefusedError where an edit left too little."""
        for intervention, hook, layer, share in self.largest:
            if float(share) > 1:
                raise RefusedError(
                    f"{intervention}, which moves {hook.name} of layer {layer} so far along the direction of ones that "
                    "the norm, which subtracts the mean, reads errors of rounding",
                    "a state that is more than its mean", "Take the mean out of what is written, or write less",
                )  # fmt: skip
