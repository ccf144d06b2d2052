"""Edits: what is written where. Every intervention is a list of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import torch

from workbench.arguments import hold_fields, shown
from workbench.errors import InputError, RefusedError
from workbench.models.hooks import PATTERN, Hook
from workbench.models.model import Model

__all__ = [
    "Edit",
    "Intervention",
    "Positions",
    "Printed",
    "Reference",
    "Source",
    "Where",
    "copied",
    "filled",
    "first_layer",
    "spans",
    "tensor_digest",
    "with_rows",
]

Positions = tuple[int, ...] | None
_READ = {"unit", "value", "factor", "strength", "direction", "to", "reference"}  # each looked at by its own


class Where(NamedTuple):
    """Where an edit writes. units: heads, key/value heads or neurons, None for all; rows, positions: None for all.

    additive: adds to what is there, so that several may share a place. factor: what is there is multiplied by it; it is
    not set, and what led to it still counts.
    """

    hook: Hook
    layer: int | None
    units: tuple[int, ...] | None = None
    positions: Positions = None
    rows: tuple[int, ...] | None = None
    additive: bool = False
    factor: float | None = None

    @property
    def sets(self) -> bool:
        """Whether what was there is gone: neither added to nor scaled."""
        return not self.additive and not self.factor  # times 0 it is gone


class Edit(NamedTuple):
    """One change of one activation.

    write: `(copy, mesh, length)` writes into a copy of the activation at `mesh`, index tensors over its leading axes
    that follow `where`; length: tokens of each prompt of the mesh, padding left out. None for an edit that only reads
    (`read(activation)`). An edit with skip_first leaves position 0 alone; length: tokens a prompt must have; early:
    before others of its activation; of_call: `write` takes as a fourth argument which row of the call is the batch's
    first, for what differs by row.
    """

    where: Where
    write: Callable[..., None] | None = None
    read: Callable[[torch.Tensor], None] | None = None
    skip_first: bool = False
    length: int | None = None
    early: bool = False
    of_call: bool = False


class Intervention(Protocol):
    """Anything frozen and printable that can say where it edits."""

    rows: tuple[int, ...] | None

    def edits(self, model: Model) -> list[Edit]:
        """The edits on this model; InputError where it does not have the unit."""


@runtime_checkable
class Recorded(Protocol):
    """Another run, to write activations from."""

    @property
    def length(self) -> int | None:
        """Tokens that the prompt must have; None where any will do."""

    def take(self, hook: Hook, layer: int | None, model: Model, /) -> torch.Tensor:
        """The activation at a site."""


@runtime_checkable
class Averaged(Protocol):
    """Means over a text, to write."""

    n_tokens: int

    def mean(self, hook: Hook, layer: int, model: Model, /) -> torch.Tensor:
        """The mean at a site."""


Source = Annotated[Recorded, "what record() gives"]
Reference = Annotated[Averaged, "what measure_means() gives"]


def tensor_digest(*tensors: torch.Tensor) -> str:
    """12 hex digits of the shapes and bytes of tensors, for printing."""
    digest = sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


class Printed:
    """Equality and hash by what a value prints: its references print their hashes. Its numbers are whole ones: what is
    between two positions would be cut to one of them without a word."""

    def __post_init__(self) -> None:
        hold_fields(self, _READ)
        for name in ("positions", "rows"):
            if getattr(self, name, None) == ():
                got = f"{type(self).__name__} at no {name.removesuffix('s')} at all"
                raise InputError(got, f"{name} to edit, or None for all", "Name some, or leave it out")
        unit = getattr(self, "unit", None)
        if "unit" in self.__dict__ and (isinstance(unit, type) or not callable(getattr(unit, "check", None))):
            raise InputError(f"{shown(unit)} as a unit", "one unit, such as Head(1, 2) or MLP(0)", "Name it so")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash((type(self), str(self)))

    def __repr__(self) -> str:
        return str(self)

    def _scope(self) -> str:
        positions, rows = getattr(self, "positions", None), getattr(self, "rows", None)
        at = "" if positions is None else f" at positions {spans(positions)}"
        return at + ("" if rows is None else f" in rows {spans(rows)}")


def spans(numbers: Sequence[int]) -> str:
    """Numbers as they are printed: `3,9`."""
    return ",".join(map(str, numbers))


def filled(where: Where, value: Any, *, skip_first: bool = False, add: bool = False) -> Edit:
    """An edit that writes one value (a number, or a tensor over the axes after positions), or adds it.

    What is added must change a number: in half precision a small value is lost in a large state.
    """
    vanishes = not bool(torch.as_tensor(value).any())  # adding nothing is no mistake: the 0 of a series of strengths

    def write(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
        filling = value.to(x) if isinstance(value, torch.Tensor) else value
        if where.positions is None and getattr(filling, "ndim", 0) == 2 == x.ndim - 1 and len(filling) != length:
            raise InputError(
                f"values for {len(filling)} positions of a prompt of {length}", "a row for each token", "Name positions"
            )
        if getattr(filling, "ndim", 0) == 2 == x.ndim - 1 and len(at := mesh[1].flatten().tolist()) != len(set(at)):
            got = f"values for positions {spans(where.positions or ())}, one of which is twice in a prompt of {length}"
            raise InputError(got, "each position once", "Add up what is to be written there")
        if not add:
            x[mesh] = torch.as_tensor(filling, dtype=x.dtype, device=x.device)
            return
        before = x[mesh]
        x[mesh] = before + filling
        if not vanishes and torch.equal(x[mesh], before) and before.numel():
            kind = str(x.dtype).removeprefix("torch.")
            raise RefusedError(
                f"a value that is lost when it is added to {where.hook.name} of layer {where.layer} in {kind}",
                "an addition that changes a number", "Add a larger one, or load the model in a wider dtype",
            )  # fmt: skip

    return Edit(where, write, skip_first=skip_first)


def copied(where: Where, source: Any, model: Model) -> Edit:
    """An edit that writes another run's activation at the same positions and units."""
    values = source.take(where.hook, where.layer, model)

    def write(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
        row_index, rest = mesh[0], tuple(axis[0] for axis in mesh[1:])
        expected = x[mesh].shape[1:] if rest else x.shape[1:]
        kept = values.to(x)[rest] if rest else values.to(x)
        if where.hook is PATTERN and kept.shape[-1] < expected[-1]:  # keys of longer prompts in the same batch
            kept = torch.nn.functional.pad(kept, (0, expected[-1] - kept.shape[-1]))
        if kept.shape != expected:
            raise InputError(
                f"{source} with {where.hook.name} of shape {tuple(kept.shape)}",
                f"{tuple(expected)}",
                "Record it on a prompt of equal length",
            )
        x[mesh] = kept.expand(row_index.shape[0], *kept.shape)

    return Edit(where, write, length=source.length)


def with_rows(intervention: Any, *rows: int) -> Any:
    """The same intervention on these rows of the batch only."""
    return replace(intervention, rows=tuple(rows))


def first_layer(model: Model, interventions: Sequence[Any]) -> int:
    """The first layer that any of them touches; n_layers where none touches a block."""
    layers = [e.where.layer for i in interventions for e in i.edits(model) if e.where.layer is not None]
    return min(layers, default=model.sizes.n_layers)
