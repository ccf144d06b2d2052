"""Clamps: what of a circuit is held at its ideal while a toy is trained, or afterwards; gradients go through the rest.

L0H0 previous-token     any word of `Attend`, and any kind of attention that the task knows ("L1H0 match")
L1 previous-input       layer 1 computes queries and keys from embeddings in which each label holds the item before
                        it, and values from the plain ones (Singh et al. 2024: steps 1 and 2, a perfect layer 0)
L1H0 copy               the logits are the head's scores of the two labels (steps 3v and 5)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import InputError
from workbench.intervene import Attend, Head
from workbench.intervene.attend import ATTENDED
from workbench.intervene.edit import Edit, Printed, Where
from workbench.loading.toys.adapter import ToyAdapter
from workbench.loading.toys.tasks.exemplars import Exemplars
from workbench.loading.toys.tasks.task import Batch, Task
from workbench.models.hooks import LOGITS, RESID_PRE, SCORES, K, Q, V
from workbench.models.model import Model

__all__ = ["COPY", "PREVIOUS_INPUT", "fixed", "held", "read_clamp"]

COPY, PREVIOUS_INPUT = "copy", "previous-input"
_WRITTEN = re.compile(r"L(\d{1,4})(?:H(\d{1,4}))? ([a-z-]+)")


@dataclass(frozen=True)
class Clamped:
    """A clamp as it was written: a layer, a head or none, and what it does."""

    layer: int
    head: int | None
    kind: str


def read_clamp(text: str, task: Task, n_layers: int, n_heads: int) -> Clamped:
    """The clamp that a text stands for; InputError where it names no unit, or nothing that the task knows."""
    of_labels = (COPY, PREVIOUS_INPUT) if isinstance(task, Exemplars) else ()
    known = (*ATTENDED, *task.kinds, *of_labels)
    found = _WRITTEN.fullmatch(text)
    if found is None or found[3] not in known or (found[2] is None) != (found[3] == PREVIOUS_INPUT):
        raise InputError(
            f"the clamp {text!r} of toy:{task.name}",
            f"a head and one of {', '.join(word for word in known if word != PREVIOUS_INPUT)}, such as "
            f"'L0H0 previous-token'" + (f", or 'L1 {PREVIOUS_INPUT}'" if of_labels else ""),
            "Correct it",
        )  # fmt: skip
    clamp = Clamped(int(found[1]), None if found[2] is None else int(found[2]), found[3])
    first = 1 if clamp.kind == PREVIOUS_INPUT else 0
    if not first <= clamp.layer < n_layers or (clamp.head or 0) >= n_heads:
        raise InputError(
            f"the clamp {text!r}", f"a unit of {n_layers} layers and {n_heads} heads"
            + (", behind layer 0" if first else ""), "Name one that it has",
        )  # fmt: skip
    return clamp


def held(clamps: Sequence[Clamped], task: Task, batch: Batch) -> list[Any]:
    """The interventions that hold clamps on a batch."""
    made: list[Any] = []
    for clamp in clamps:
        if clamp.kind == PREVIOUS_INPUT:
            made.append(PreviousInput(clamp.layer))
        elif clamp.kind == COPY:
            made.append(Copy(Head(clamp.layer, clamp.head or 0), batch.tokens[:, [1, 3]], task.choices().stop))
        else:
            to = clamp.kind if clamp.kind in ATTENDED else task.keys(clamp.kind, batch)
            made.append(Attend(Head(clamp.layer, clamp.head or 0), to))
    return made


def fixed(clamps: Sequence[Clamped]) -> list[Head]:
    """Heads whose pattern is told at every query: nothing of their queries and keys enters the loss."""
    whole = (*ATTENDED, "active-dormant")
    return [Head(clamp.layer, clamp.head or 0) for clamp in clamps if clamp.kind in whole]


@dataclass(frozen=True, eq=False, repr=False)
class PreviousInput(Printed):
    """Queries and keys of a layer from embeddings in which each label holds the item before it; values from plain ones.

    For [item, label, item, label, query]; of our own module only.
    """

    layer: int
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"PreviousInput(L{self.layer})"

    def edits(self, model: Model) -> list[Edit]:
        """One that reads embeddings, three that write."""
        if not isinstance(model.adapter, ToyAdapter):
            raise InputError(
                f"{self} on {model.name}", "a toy of the workbench", "The clamp runs part of a toy's module"
            )
        block: Any = model.adapter.module.blocks[self.layer]
        seen: dict[str, torch.Tensor] = {}

        def read(embedded: torch.Tensor) -> None:
            shifted = embedded.clone()
            shifted[:, [1, 3]] = embedded[:, [0, 2]]
            seen["v"], seen["qk"] = block.ln1(embedded), block.ln1(shifted)

        def write(name: str) -> Any:
            def put(x: torch.Tensor, mesh: Any, length: int) -> None:
                weight = getattr(block, f"W_{name.upper()}")
                found = torch.einsum("btd,hde->bthe", seen["v" if name == "v" else "qk"], weight)
                x.copy_(found + getattr(block, f"b_{name.upper()}") if block.config.biases else found)

            return put

        hooks = ((Q, "q"), (K, "k"), (V, "v"))
        return [Edit(Where(RESID_PRE, 0), read=read), *(Edit(Where(h, self.layer), write(name)) for h, name in hooks)]


@dataclass(frozen=True, eq=False, repr=False)
class Copy(Printed):
    """Logits of the last position: the head's scores of the two labels at their keys, -1e9 for all others.

    labels: the two of each row, `[row, 2]`, which stand at positions 1 and 3.
    """

    head: Head
    labels: torch.Tensor
    n_labels: int
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"Copy({self.head})"

    def edits(self, model: Model) -> list[Edit]:
        """One that reads scores, one that writes logits."""
        self.head.check(model)
        seen: dict[str, torch.Tensor] = {}

        def read(scores: torch.Tensor) -> None:
            seen["scores"] = scores[:, self.head.head, -1][:, [1, 3]]

        def write(logits: torch.Tensor, mesh: Any, length: int) -> None:
            logits[:, -1] = torch.full_like(logits[:, -1], -1e9).scatter(1, self.labels, seen["scores"])

        return [Edit(Where(SCORES, self.head.layer), read=read), Edit(Where(LOGITS, None), write)]
