"""Interventions as frozen values, and the one context manager that carries them out.

A value says what is changed; `edits(model)` says where: a list of `Edit(hook, layer, change)` with
`change(activation, tokens) -> new activation`. Values go into provenance as they print. `hooks()` is used by `observe()`,
by gradient studies and by training; it takes everything back in every case, and raises when an edit did not fire.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from workbench.errors import InputError, RefusedError
from workbench.hooks import Hook, Z
from workbench.models.model import Model

__all__ = ["Ablate", "Edit", "Head", "Intervention", "hooks"]


class Edit(NamedTuple):
    """One change of one activation. change: `(activation, row_indices) -> new activation`, never in place."""

    hook: Hook
    layer: int
    change: Callable[[torch.Tensor], torch.Tensor]


class Intervention(Protocol):
    """Anything frozen and printable that can say where it edits."""

    def edits(self, model: Model) -> list[Edit]:
        """The edits on this model; InputError where it does not have the unit."""


@dataclass(frozen=True, order=True)
class Head:
    """An attention head; prints as L18H6."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such head."""
        sizes = model.sizes
        if not (0 <= self.layer < sizes.n_layers and 0 <= self.head < sizes.n_heads):
            raise InputError(
                f"head {self}",
                f"L0H0 to L{sizes.n_layers - 1}H{sizes.n_heads - 1} on {model.name}",
                "Choose a head it has",
            )


@dataclass(frozen=True)
class Ablate:
    """Replace a head's output by zero at every position (its z, before W_O)."""

    unit: Head
    how: str = "zero"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of z."""
        self.unit.check(model)
        if self.how != "zero":
            raise InputError(f"how={self.how!r}", "'zero'", "Choose a way that exists")
        head = self.unit.head

        def zero(z: torch.Tensor) -> torch.Tensor:
            z = z.clone()
            z[:, :, head] = 0
            return z

        return [Edit(Z, self.unit.layer, zero)]


@contextmanager
def hooks(model: Model, interventions: Sequence[Any], *, tokens=None, rows: slice | None = None) -> Iterator[None]:
    """Carry out interventions on every forward pass inside the block. Hold the model's lock around it.

    Raises RefusedError if, at a normal end, an edit never fired: an ablation that did nothing is worse than none.
    """
    added, fired = [], {}
    try:
        for intervention in interventions:
            for edit in intervention.edits(model):
                point = model.adapter.point(edit.hook, edit.layer)
                key = (str(intervention), edit.hook.name, edit.layer)
                fired[key] = False
                added.append((point, point.add_hook(_apply(edit, key, fired))))
        yield
        silent = [key for key, done in fired.items() if not done]
        if silent:
            raise RefusedError(
                f"{silent[0][0]}, whose edit of {silent[0][1]} in layer {silent[0][2]} did not fire",
                "every intervention to take effect",
                "Check that the pass runs through that layer",
            )
    finally:
        for point, handle in added:
            model.adapter.remove(point, handle)


def _apply(edit: Edit, key: tuple, fired: dict):
    def apply(activation, hook):
        fired[key] = True
        return edit.change(activation)

    return apply
