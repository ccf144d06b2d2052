"""Units taken away, set or made louder: `Ablate`, `Clamp`, `Add`, `Scale`; experts chosen: `Force`."""

from dataclasses import dataclass
from typing import Any

import torch

from workbench.arguments import argument
from workbench.errors import InputError
from workbench.intervene.checks import finite, printed
from workbench.intervene.edit import Edit, Positions, Printed, Reference, Source, Where, copied, filled
from workbench.intervene.knockout import hide
from workbench.intervene.units import AttentionEdge, AttentionKey, Expert, ExpertNeurons, Neurons, Residual, Unit
from workbench.models.hooks import PATTERN, ROUTER, SCORES
from workbench.models.model import Model

__all__ = ["Ablate", "Add", "Clamp", "Force", "Scale"]


@dataclass(frozen=True, eq=False, repr=False)
class Ablate(Printed):
    """Replace a unit's output.

    how: "zero"; "mean", its mean over positions >= 1 of a reference text (`reference`: `Means`), where position 0 keeps
    its own; "resample", its output at the same positions on another prompt (`reference`: `Recording`).
    """

    unit: Unit
    how: str = "zero"
    reference: Any = None
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        by = f"{self.how}" + ("" if self.reference is None else f" of {self.reference}")
        return f"Ablate({self.unit} by {by}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the unit's activation."""
        self.unit.check(model)
        if self.how not in ("zero", "mean", "resample"):
            raise InputError(f"how={self.how!r}", "'zero', 'mean' or 'resample'", "Choose a way that exists")
        if (self.how != "zero") != (self.reference is not None):
            raise InputError(
                f"how={self.how!r} {'with' if self.reference is not None else 'without'} a reference",
                "a reference for 'mean' (measure_means) and 'resample' (record), none for 'zero'",
                "Give what the method needs",
            )
        self._need_reference()
        if isinstance(self.unit, AttentionEdge | AttentionKey):
            return [self._attention(self.unit)]
        if isinstance(self.unit, Expert):
            return [self._switched_off(self.unit)]
        if isinstance(self.unit, ExpertNeurons) and self.how != "zero":
            raise InputError(
                f"{self}", "neurons of an expert ablated by zero: at most tokens they have no value", "Leave how out"
            )
        where = Where(self.unit.hook, self.unit.layer, self.unit.units, self._positions(), self.rows)
        if self.how == "resample":
            return [copied(where, self.reference, model)]
        value: Any = 0.0
        if self.how == "mean":
            if where.positions is not None and set(where.positions) <= {0}:
                raise InputError(
                    f"{self}", "positions >= 1", "Ablate position 0 by zero or resample: no mean is its own"
                )
            value = self.reference.mean(where.hook, where.layer, model)
            value = value if where.units is None else value[list(where.units)]
        return [filled(where, value, skip_first=self.how == "mean")]

    def _need_reference(self) -> None:
        """InputError for a reference that was not made for it."""
        if self.reference is not None:
            argument("reference", self.reference, Reference if self.how == "mean" else Source, "Ablate")

    def _positions(self) -> Positions:
        pos = getattr(self.unit, "pos", None)
        if pos is not None and self.positions is not None:
            raise InputError(f"{self}", "positions of a unit that names none", "Leave positions out")
        return self.positions if pos is None else (pos,)

    def _switched_off(self, unit: Expert) -> Edit:
        """The router's score to minus infinity: it chooses among the others, by its own rule."""
        if self.how != "zero":
            raise InputError(f"{self}", "an expert switched off (how='zero')", "Leave how out")

        def write(scores: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
            scores[mesh] = -torch.inf
            if bool((scores == -torch.inf).all(-1).any()):
                raise InputError(f"{self}", "an expert left to every token", "Spare one of the layer")

        return Edit(Where(ROUTER, unit.layer, unit.units, self.positions, self.rows, additive=True), write)

    def _attention(self, unit: AttentionEdge | AttentionKey) -> Edit:
        """An edge loses its weight; a key is hidden from every query that sees another one: all but position 0."""
        if self.how != "zero" or self.positions is not None:
            raise InputError(f"{self}", "attention ablated by zero, without positions", "Use how='zero'")
        if isinstance(unit, AttentionKey):
            where = Where(SCORES, unit.layer, unit.units, None, self.rows, additive=True)
            return Edit(where, lambda x, mesh, length: hide(x, mesh, length, (unit.key,), self), skip_first=True)
        where = Where(PATTERN, unit.layer, unit.units, (unit.query,), self.rows, additive=True)

        def write(pattern: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
            pattern[(*mesh, torch.tensor(unit.key))] = 0.0

        return Edit(where, write)  # several edges of one row may go at once


@dataclass(frozen=True, eq=False, repr=False)
class Force(Printed):
    """Make the router choose an expert: its score is raised to 1 above the token's highest; the rule stays its own."""

    unit: Expert
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"Force({self.unit}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the router's scores."""
        if not isinstance(self.unit, Expert):
            raise InputError(f"{self}", "an expert, such as Expert(0, 1)", "Name one")
        self.unit.check(model)

        def write(scores: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
            highest = scores.clone().amax(-1, keepdim=True).expand_as(scores)  # gradients want what it was taken of
            scores[mesh] = highest[mesh] + 1.0

        return [Edit(Where(ROUTER, self.unit.layer, self.unit.units, self.positions, self.rows, additive=True), write)]


def _need_neurons(unit: Any) -> None:
    """InputError for a unit of something else, whose numbers would be taken for neurons."""
    if not isinstance(unit, Neurons | ExpertNeurons):
        raise InputError(f"{unit} as neurons", "Neurons(layer, (1, 2))", "Name neurons, or scale the unit")


@dataclass(frozen=True, eq=False, repr=False)
class Clamp(Printed):
    """Set neurons to a value."""

    unit: Neurons | ExpertNeurons
    value: float
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _need_neurons(self.unit)
        object.__setattr__(self, "value", finite(self.value, "value of a clamp"))

    def __str__(self) -> str:
        return f"Clamp({self.unit} to {printed(self.value)}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the neurons."""
        self.unit.check(model)
        where = Where(self.unit.hook, self.unit.layer, self.unit.units, self.positions, self.rows)
        return [filled(where, self.value)]


@dataclass(frozen=True, eq=False, repr=False)
class Add(Printed):
    """Add a value to neurons."""

    unit: Neurons | ExpertNeurons
    value: float
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _need_neurons(self.unit)
        object.__setattr__(self, "value", finite(self.value, "value to add"))

    def __str__(self) -> str:
        return f"Add({printed(self.value)} to {self.unit}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One additive edit of the neurons."""
        self.unit.check(model)
        where = Where(self.unit.hook, self.unit.layer, self.unit.units, self.positions, self.rows, additive=True)
        return [filled(where, self.value, add=True)]


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Printed):
    """Multiply a unit's output: 0 takes it away, 1 leaves it to the bit.

    unit: heads, MLPs, attention layers, neurons or states; not edges and keys, whose rows would no longer sum to one.
    """

    unit: Unit
    factor: float
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factor", finite(self.factor, "factor"))

    def __str__(self) -> str:
        return f"Scale({self.unit} by {printed(self.factor)}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the unit's activation."""
        self.unit.check(model)
        if isinstance(self.unit, AttentionEdge | AttentionKey | Expert):
            raise InputError(f"{self}", "a head, an MLP, an attention layer, neurons or a state", "Ablate it instead")
        positions = self.positions
        if isinstance(self.unit, Residual) and self.unit.pos is not None:
            if positions is not None:
                raise InputError(f"{self}", "positions of a unit that names none", "Leave positions out")
            positions = (self.unit.pos,)
        where = Where(self.unit.hook, self.unit.layer, self.unit.units, positions, self.rows, factor=self.factor)

        def write(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
            x[mesh] = x[mesh] * self.factor

        return [Edit(where, write)]
