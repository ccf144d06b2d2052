"""Interventions as frozen values, and the one context manager that carries them out.

A value says what is changed: `Ablate(Head(18, 6))`, `Patch(RESID_MID, 5, source)`, `Knockout((-1,), (3,), (4, 5))`.
It prints itself with the hashes of what it refers to, and that is what goes into provenance; two values that print
alike are equal. `edits(model)` says where it writes. `hooks()` carries out any number of them, and is used by
`observe()`, by gradient studies and by training; it takes everything back in every case, and raises when an edit did
not fire.

rows: prompts of the call that a value applies to (None: all), so that a sweep is one batch of the same prompt with
another edit in each row. positions: token positions, negative ones counted from each prompt's end (None: all).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import torch

from workbench.errors import InputError, RefusedError
from workbench.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    LN_FINAL_SCALE,
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

__all__ = [
    "MLP",
    "Ablate",
    "Add",
    "Attention",
    "AttentionEdge",
    "Clamp",
    "Edit",
    "FreezeNormScale",
    "FreezePatterns",
    "Head",
    "Intervention",
    "Knockout",
    "Neurons",
    "Patch",
    "Residual",
    "Steer",
    "Where",
    "first_layer",
    "hooks",
    "tensor_digest",
    "with_rows",
]

Positions = tuple[int, ...] | None

# What may be patched. resid_mid is written through attn_out, since a bridge's own resid_mid feeds the MLP only.
_PATCHABLE = (RESID_PRE, RESID_MID, RESID_POST, ATTN_OUT, MLP_OUT, ATTN_RESULT, MLP_POST, Z, Q, K, V, PATTERN)
_STEERABLE = (RESID_PRE, RESID_MID, RESID_POST, ATTN_OUT, MLP_OUT, ATTN_RESULT)
# Writing the first makes what was written into the others of its layer, at the same positions, void.
_COVERS = {
    PATTERN: (SCORES,),
    Z: (PATTERN, SCORES),
    ATTN_RESULT: (Z, PATTERN, SCORES),
    ATTN_OUT: (ATTN_RESULT, Z, PATTERN, SCORES),
    MLP_OUT: (MLP_POST,),
    RESID_POST: (MLP_OUT, MLP_POST, ATTN_OUT, ATTN_RESULT, Z, PATTERN, SCORES),
}


class Where(NamedTuple):
    """Where an edit writes. units: heads, key/value heads or neurons, None for all; rows, positions: None for all.

    additive: adds to what is there, so that several may share a place.
    """

    hook: Hook
    layer: int | None
    units: tuple[int, ...] | None = None
    positions: Positions = None
    rows: tuple[int, ...] | None = None
    additive: bool = False


class Edit(NamedTuple):
    """One change of one activation.

    write: `(copy, mesh, rows)` writes into a copy of the activation at `mesh`, index tensors over its leading axes that
    follow `where`; rows are the batch rows of the mesh. None for an edit that only reads (`read(activation)`). An edit
    with skip_first leaves position 0 alone; length: tokens a prompt must have; early: before others of its activation.
    """

    where: Where
    write: Callable[[torch.Tensor, tuple[torch.Tensor, ...], list[int]], None] | None = None
    read: Callable[[torch.Tensor], None] | None = None
    skip_first: bool = False
    length: int | None = None
    early: bool = False


class Intervention(Protocol):
    """Anything frozen and printable that can say where it edits."""

    rows: tuple[int, ...] | None

    def edits(self, model: Model) -> list[Edit]:
        """The edits on this model; InputError where it does not have the unit."""


def tensor_digest(*tensors: torch.Tensor) -> str:
    """12 hex digits of the shapes and bytes of tensors, for printing."""
    digest = sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


class _Printed:
    """Equality and hash by what a value prints: its references print their hashes."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash((type(self), str(self)))

    def __repr__(self) -> str:
        return str(self)

    def _scope(self) -> str:
        positions, rows = getattr(self, "positions", None), getattr(self, "rows", None)
        at = "" if positions is None else f" at positions {_spans(positions)}"
        return at + ("" if rows is None else f" in rows {_spans(rows)}")


def _spans(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _need_layer(model: Model, layer: int, what: str) -> None:
    n = model.sizes.n_layers
    if not 0 <= layer < n:
        raise InputError(what, f"layers 0 to {n - 1} on {model.name}", "Choose a layer it has")


# --- units ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Head:
    """An attention head; prints as L18H6. Its output is its z, before W_O."""

    layer: int
    head: int

    hook = Z

    @property
    def units(self) -> tuple[int, ...]:
        """The head alone."""
        return (self.head,)

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


@dataclass(frozen=True, order=True)
class Attention:
    """An attention block: what it adds to the residual stream, with its bias."""

    layer: int

    hook = ATTN_OUT
    units = None

    def __str__(self) -> str:
        return f"L{self.layer} attention"

    def check(self, model: Model) -> None:
        """InputError where the model has no such layer."""
        _need_layer(model, self.layer, str(self))


@dataclass(frozen=True, order=True)
class MLP:
    """An MLP block: what it adds to the residual stream, with its bias."""

    layer: int

    hook = MLP_OUT
    units = None

    def __str__(self) -> str:
        return f"L{self.layer} MLP"

    def check(self, model: Model) -> None:
        """InputError where the model has no such layer or no MLP."""
        _need_layer(model, self.layer, str(self))
        if not model.sizes.d_mlp:
            raise InputError(str(self), f"attention only, since {model.name} has no MLP", "Choose a head")


@dataclass(frozen=True, order=True)
class Neurons:
    """A set of MLP neurons of one layer, as activations that W_out reads; one prints as L11N2378."""

    layer: int
    neurons: tuple[int, ...]

    hook = MLP_POST

    @property
    def units(self) -> tuple[int, ...]:
        """The neurons."""
        return self.neurons

    def __str__(self) -> str:
        return f"L{self.layer}N{_spans(self.neurons)}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such neuron."""
        _need_layer(model, self.layer, str(self))
        bad = [n for n in self.neurons if not 0 <= n < model.sizes.d_mlp]
        if bad or not self.neurons:
            raise InputError(
                f"neurons {self.neurons}", f"neurons 0 to {model.sizes.d_mlp - 1} on {model.name}", "Choose some it has"
            )


@dataclass(frozen=True, order=True)
class Residual:
    """The residual stream in front of a block; name positions in the intervention."""

    layer: int

    hook = RESID_PRE
    units = None

    def __str__(self) -> str:
        return f"L{self.layer} resid_pre"

    def check(self, model: Model) -> None:
        """InputError where the model has no such layer."""
        _need_layer(model, self.layer, str(self))


@dataclass(frozen=True, order=True)
class AttentionEdge:
    """What one head moves from one key to one query; prints as L18H6 3->9. Ablated by zero only: its weight is 0."""

    layer: int
    head: int
    query: int
    key: int

    hook = PATTERN

    @property
    def units(self) -> tuple[int, ...]:
        """The head alone."""
        return (self.head,)

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head} {self.key}->{self.query}"

    def check(self, model: Model) -> None:
        """InputError where the model has no such head, or where the key comes after the query."""
        Head(self.layer, self.head).check(model)
        if not 0 <= self.key <= self.query:
            raise InputError(f"the edge {self}", "0 <= key <= query", "Choose a key the query can see")


Unit = Head | Attention | MLP | Neurons | Residual | AttentionEdge


# --- interventions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Ablate(_Printed):
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
        if isinstance(self.unit, AttentionEdge):
            return [self._edge()]
        where = Where(self.unit.hook, self.unit.layer, self.unit.units, self.positions, self.rows)
        if self.how == "resample":
            return [_copy(where, self.reference, model)]
        value: Any = 0.0
        if self.how == "mean":
            if self.positions is not None and set(self.positions) <= {0}:
                raise InputError(
                    f"{self}", "positions >= 1", "Ablate position 0 by zero or resample: no mean is its own"
                )
            value = self.reference.mean(where.hook, where.layer, model)
            value = value if where.units is None else value[list(where.units)]
        return [_fill(where, value, skip_first=self.how == "mean")]

    def _edge(self) -> Edit:
        edge = self.unit
        if self.how != "zero" or self.positions is not None:
            raise InputError(f"{self}", "an edge ablated by zero, without positions", "Use how='zero'")
        where = Where(PATTERN, edge.layer, (edge.head,), (edge.query,), self.rows)

        def write(pattern, mesh, rows):
            pattern[(*mesh, torch.tensor(edge.key))] = 0.0

        return Edit(where._replace(additive=True), write)  # several edges of one row may go at once


def _fill(where: Where, value: Any, *, skip_first: bool = False, add: bool = False) -> Edit:
    """An edit that writes one value (a number, or a tensor over the axes after positions), or adds it."""

    def write(x, mesh, rows):
        filling = value.to(x) if isinstance(value, torch.Tensor) else value
        x[mesh] = x[mesh] + filling if add else torch.as_tensor(filling, dtype=x.dtype, device=x.device)

    return Edit(where, write, skip_first=skip_first)


def _copy(where: Where, source: Any, model: Model) -> Edit:
    """An edit that writes another run's activation at the same positions and units."""
    values = source.take(where.hook, where.layer, model)

    def write(x, mesh, rows):
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


@dataclass(frozen=True, eq=False, repr=False)
class Clamp(_Printed):
    """Set neurons to a value."""

    unit: Neurons
    value: float
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"Clamp({self.unit} to {self.value:g}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of mlp_post."""
        self.unit.check(model)
        return [_fill(Where(MLP_POST, self.unit.layer, self.unit.units, self.positions, self.rows), float(self.value))]


@dataclass(frozen=True, eq=False, repr=False)
class Add(_Printed):
    """Add a value to neurons."""

    unit: Neurons
    value: float
    positions: Positions = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"Add({self.value:g} to {self.unit}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One additive edit of mlp_post."""
        self.unit.check(model)
        where = Where(MLP_POST, self.unit.layer, self.unit.units, self.positions, self.rows, additive=True)
        return [_fill(where, float(self.value), add=True)]


@dataclass(frozen=True, eq=False, repr=False)
class Steer(_Printed):
    """Add `strength * direction` to a state or a sublayer's output.

    direction: `[d_model]`, or `[position, d_model]` with one row for each of `positions` (all: one per token).
    """

    layer: int
    direction: torch.Tensor = field(repr=False)
    strength: float = 1.0
    hook: Hook = RESID_POST
    positions: Positions = None
    rows: tuple[int, ...] | None = None
    digest: str = ""

    def __post_init__(self):
        object.__setattr__(self, "digest", self.digest or tensor_digest(self.direction))

    def __str__(self) -> str:
        return f"Steer(L{self.layer} {self.hook.name} by {self.strength:g} x {self.digest}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One additive edit; resid_mid is reached through attn_out."""
        _need_layer(model, self.layer, str(self))
        if self.hook not in _STEERABLE:
            raise InputError(f"steering {self.hook.name}", _names(_STEERABLE), "Choose one of these")
        if self.direction.shape[-1] != model.sizes.d_model or self.direction.ndim > 2:
            raise InputError(
                f"a direction of shape {tuple(self.direction.shape)}", f"[{model.sizes.d_model}]", "Check the model"
            )
        if self.hook is RESID_MID:
            _need_serial(model, self)
        hook = ATTN_OUT if self.hook is RESID_MID else self.hook
        where = Where(hook, self.layer, None, self.positions, self.rows, additive=True)
        return [_fill(where, self.strength * self.direction, add=True)]


@dataclass(frozen=True, eq=False, repr=False)
class Patch(_Printed):
    """Write what another run (`source`: `Recording`) had at a site.

    hook: resid_pre, resid_mid, resid_post, attn_out, mlp_out, attn_result, mlp_post, z, q, k, v (of key/value heads) or
    pattern (positions are queries). units: heads or neurons, None for all.
    """

    hook: Hook
    layer: int
    source: Any
    positions: Positions = None
    units: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        units = "" if self.units is None else f" of {self.hook.dims[_unit_axis(self.hook)]} {_spans(self.units)}"
        return f"Patch(L{self.layer} {self.hook.name}{units} from {self.source}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the site; for resid_mid one that reads resid_pre and one that writes attn_out."""
        _need_layer(model, self.layer, str(self))
        if self.hook not in _PATCHABLE:
            raise InputError(f"patching {self.hook.name}", _names(_PATCHABLE), "Choose one of these")
        if self.units is not None:
            self._check_units(model)
        if self.hook is RESID_MID:
            return self._resid_mid(model)
        return [_copy(Where(self.hook, self.layer, self.units, self.positions, self.rows), self.source, model)]

    def _check_units(self, model: Model) -> None:
        axis = _unit_axis(self.hook)
        if axis is None:
            raise InputError(
                f"units of {self.hook.name}", "units of z, q, k, v, pattern or mlp_post", "Leave units out"
            )
        sizes = model.sizes
        kind = self.hook.dims[axis]
        n = {"head": sizes.n_heads, "key_value_head": sizes.n_key_value_heads, "neuron": sizes.d_mlp}[kind]
        if any(not 0 <= unit < n for unit in self.units):
            raise InputError(f"{kind} {_spans(self.units)}", f"0 to {n - 1} on {model.name}", "Choose some it has")

    def _resid_mid(self, model: Model) -> list[Edit]:
        """attn_out = wanted - resid_pre brings the state there up to rounding; both branches behind it get the rest.

        A bridge's own resid_mid feeds the MLP alone, and the residual branch is seen again in resid_post only.
        """
        _need_serial(model, self)
        wanted, held = self.source.take(RESID_MID, self.layer, model), {}
        where = Where(ATTN_OUT, self.layer, None, self.positions, self.rows)
        silent = where._replace(additive=True)  # what attn_out already claims

        def out(x, mesh, rows):
            x[mesh] = wanted.to(x)[mesh[1]] - held[RESID_PRE][mesh]

        def mid(x, mesh, rows):
            x[mesh] = wanted.to(x)[mesh[1]].expand_as(x[mesh])

        def post(x, mesh, rows):
            x[mesh] = wanted.to(x)[mesh[1]] + held[MLP_OUT][mesh]

        def keeping(hook):
            return Edit(where._replace(hook=hook), read=lambda x: held.__setitem__(hook, x))

        return [
            keeping(RESID_PRE),
            Edit(where, out, length=self.source.length),
            Edit(silent._replace(hook=RESID_MID), mid, early=True),
            keeping(MLP_OUT),
            Edit(silent._replace(hook=RESID_POST), post, early=True),
        ]


def _need_serial(model: Model, what: Any) -> None:
    if model.sizes.parallel or not model.sizes.d_mlp:
        why = "runs attention and MLP side by side" if model.sizes.parallel else "has no MLP"
        raise InputError(
            f"{what}",
            f"a block with a state between attention and MLP: {model.name} {why}",
            "Use resid_pre or attn_out",
        )


@dataclass(frozen=True, eq=False, repr=False)
class Knockout(_Printed):
    """Take keys out of queries' sight before the softmax, in a window of layers; the rest of each row is renormalised.

    heads: None for all. Keys behind a query are not seen anyway. A query never loses its only key.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        heads = "" if self.heads is None else f" heads {_spans(self.heads)}"
        places = f"keys {_spans(self.keys)} from queries {_spans(self.queries)}"
        return f"Knockout({places} in layers {_spans(self.layers)}{heads}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the scores per layer."""
        if not (self.queries and self.keys and self.layers):
            raise InputError(f"{self}", "at least one query, key and layer", "Name them")
        for layer in self.layers:
            _need_layer(model, layer, str(self))
            for head in self.heads or ():
                Head(layer, head).check(model)
        return [
            Edit(Where(SCORES, layer, self.heads, self.queries, self.rows, additive=True), self._write)
            for layer in self.layers
        ]

    def _write(self, scores: torch.Tensor, mesh: tuple[torch.Tensor, ...], rows: list[int]) -> None:
        """Scores of hidden keys are the dtype's lowest number (what causal masks hold), so that no row becomes NaN."""
        lowest = torch.finfo(scores.dtype).min
        n_pos = scores.shape[-1]
        keys = [key + n_pos if key < 0 else key for key in self.keys]
        if any(not 0 <= key < n_pos for key in keys):
            raise InputError(f"key {_spans(self.keys)}", f"positions 0 to {n_pos - 1}", "Choose keys in the prompt")
        chosen = scores[mesh]
        chosen[..., keys] = lowest
        blind = (chosen <= lowest / 2).all(-1)
        if blind.any():
            query = int(mesh[2].expand(blind.shape)[blind][0])
            raise InputError(
                f"{self}, which takes the only key(s) of query {query}", "one key left to every query", "Spare a key"
            )
        scores[mesh] = chosen


@dataclass(frozen=True, eq=False, repr=False)
class FreezePatterns(_Printed):
    """Attention looks where it looked in another run, in all or some layers: only values still change."""

    source: Any
    layers: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        layers = "" if self.layers is None else f" in layers {_spans(self.layers)}"
        return f"FreezePatterns({self.source}{layers}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the pattern per layer."""
        layers = range(model.sizes.n_layers) if self.layers is None else self.layers
        return [edit for n in layers for edit in Patch(PATTERN, n, self.source, rows=self.rows).edits(model)]


@dataclass(frozen=True, eq=False, repr=False)
class FreezeNormScale(_Printed):
    """The final norm divides by what it divided by in another run: the logits become linear in the last state."""

    source: Any
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"FreezeNormScale({self.source}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the final norm's scale."""
        if model.readout.kind == "none":
            raise InputError(f"{self}", f"a model with a final norm, unlike {model.name}", "Leave it out")
        return [_copy(Where(LN_FINAL_SCALE, None, None, None, self.rows), self.source, model)]


def with_rows(intervention: Any, *rows: int) -> Any:
    """The same intervention on these rows of the batch only."""
    return replace(intervention, rows=tuple(rows))


def first_layer(model: Model, interventions: Sequence[Any]) -> int:
    """The first layer that any of them touches; n_layers where none touches a block."""
    layers = [e.where.layer for i in interventions for e in i.edits(model) if e.where.layer is not None]
    return min(layers, default=model.sizes.n_layers)


def _names(hooks: Sequence[Hook]) -> str:
    return "one of " + ", ".join(hook.name for hook in hooks)


def _unit_axis(hook: Hook) -> int | None:
    return next((i for i, dim in enumerate(hook.dims) if dim in ("head", "key_value_head", "neuron")), None)


# --- carrying them out ---------------------------------------------------------------------------------------------


@contextmanager
def hooks(
    model: Model, interventions: Sequence[Any], *, tokens: Sequence[Any] | None = None, rows: slice | None = None
) -> Iterator[None]:
    """Carry out interventions on every forward pass inside the block. Hold the model's lock around it.

    tokens: the prompts of the batch, for their lengths (None: no padding). rows: which prompts of the call this batch
    holds; interventions on other rows are left out. Edits of one activation become one hook, in the order given.

    Raises InputError for units the model does not have and for contradictory interventions, and RefusedError if, at a
    normal end, an edit never fired: an ablation that did nothing is worse than none.
    """
    batch = _Batch(None if tokens is None else [len(t) for t in tokens], rows.start if rows is not None else 0)
    points: dict[tuple[Hook, int | None], list[tuple[Any, Edit]]] = {}
    found = [(i, edit) for i in interventions if batch.holds(i.rows) for edit in i.edits(model)]
    _check_contradictions(found, batch)
    for intervention, edit in found:
        points.setdefault(edit.where[:2], []).append((intervention, edit))
    added, fired = [], set()
    try:
        for (hook, layer), edits in points.items():
            point = _point(model, hook, layer, edits[0][0])
            added.append((point, point.add_hook(_apply(batch, hook, layer, [edit for _, edit in edits], fired))))
        yield
        silent = [key for key in points if key not in fired]
        if silent:
            raise RefusedError(
                f"{points[silent[0]][0][0]}, whose edit of {silent[0][0].name} in layer {silent[0][1]} did not fire",
                "every intervention to take effect",
                "Check that the pass runs through that layer",
            )
    finally:
        for point, handle in added:
            model.adapter.remove(point, handle)


def _point(model: Model, hook: Hook, layer: int | None, intervention: Any):
    try:
        return model.adapter.point(hook, layer)
    except KeyError:
        raise InputError(
            f"{intervention}", f"a site that {model.name} has ({hook.name} it has not)", "Choose another site"
        ) from None


def _apply(batch: "_Batch", hook: Hook, layer: int | None, edits: list[Edit], fired: set):
    """One hook for all edits of an activation: a fresh copy, written in the order given, then read."""

    def apply(activation, hook=None, _hook=hook):
        fired.add((_hook, layer))
        changed = activation.clone() if any(edit.write for edit in edits) else activation
        for edit in sorted(edits, key=lambda edit: not edit.early):
            if edit.write is not None:
                for mesh, rows in batch.meshes(edit, changed):
                    edit.write(changed, mesh, rows)
        for edit in edits:
            if edit.read is not None:
                edit.read(changed)
        return changed

    return apply


@dataclass(frozen=True)
class _Batch:
    """Which prompts are in a batch and how long they are."""

    lengths: list[int] | None
    first: int

    def holds(self, rows: tuple[int, ...] | None) -> bool:
        """Whether any of these rows of the call is in this batch."""
        return rows is None or self.lengths is None or bool(self.local(rows))

    def local(self, rows: tuple[int, ...]) -> list[int]:
        """Rows of the call as rows of this batch."""
        n = len(self.lengths) if self.lengths is not None else None
        return [row - self.first for row in rows if row >= self.first and (n is None or row < self.first + n)]

    def counted(self, where: Where, row: int | None) -> Where:
        """The same place with positions counted from the start, where the length is known."""
        lengths = set(self.lengths or ()) if row is None else set((self.lengths or [])[row - self.first :][:1])
        if where.positions is None or len(lengths) != 1:
            return where
        return where._replace(positions=tuple(p + n if p < 0 else p for n in lengths for p in where.positions))

    def meshes(self, edit: Edit, x: torch.Tensor) -> Iterator[tuple[tuple[torch.Tensor, ...], list[int]]]:
        """Index tensors over the leading axes of an activation that an edit writes to, per set of positions."""
        where, dims = edit.where, edit.where.hook.dims
        axis = next((i for i, dim in enumerate(dims) if dim in ("pos", "query")), None)
        lengths = self.lengths or [x.shape[axis]] * x.shape[0]
        groups: dict[tuple[int, ...], list[int]] = {}
        for row in range(x.shape[0]) if where.rows is None else self.local(where.rows):
            if row >= x.shape[0]:
                raise InputError(f"row {row}", f"rows 0 to {x.shape[0] - 1} of the batch", "Choose one of these")
            if edit.length is not None and edit.length != lengths[row]:
                raise InputError(
                    f"a recorded run of {edit.length} tokens for a prompt of {lengths[row]}",
                    "prompts of equal length",
                    "Choose another prompt, or pad the text with words",
                )
            groups.setdefault(_resolved(where.positions, lengths[row], edit.skip_first), []).append(row)
        for positions, rows in groups.items():
            axes = []
            for i, dim in enumerate(dims):
                if dim == "batch":
                    axes.append(rows)
                elif dim in ("pos", "query"):
                    axes.append(positions)
                elif dim in ("head", "key_value_head", "neuron"):
                    axes.append(range(x.shape[i]) if where.units is None else where.units)
                else:
                    break
            yield _mesh(axes, x.device), rows


def _resolved(positions: Positions, length: int, skip_first: bool) -> tuple[int, ...]:
    if positions is None:
        return tuple(range(1 if skip_first else 0, length))
    found = tuple(p + length if p < 0 else p for p in positions)
    outside = [p for p in found if not 0 <= p < length]
    if outside:
        raise InputError(f"position {outside[0]}", f"positions from 0 to {length - 1}", "Choose one inside the prompt")
    return tuple(p for p in found if p or not skip_first)


def _mesh(axes: list[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, ...]:
    n = len(axes)
    return tuple(
        torch.tensor(list(axis), dtype=torch.long, device=device).view([-1 if i == j else 1 for j in range(n)])
        for i, axis in enumerate(axes)
    )


def _check_contradictions(found: list[tuple[Any, Edit]], batch: _Batch) -> None:
    """InputError where two interventions write the same place, or one makes another's edit void."""
    buckets: dict[tuple[int | None, int | None], list[tuple[Any, Where]]] = {}
    for intervention, edit in found:
        if edit.write is None:
            continue
        where = edit.where
        for row in where.rows if where.rows is not None else (None,):
            buckets.setdefault((where.layer, row), []).append((intervention, batch.counted(where, row)))
    for (layer, row), entries in buckets.items():
        everywhere = buckets.get((layer, None), []) if row is not None else []
        for i, (first, a) in enumerate(entries):
            for second, b in (*entries[i + 1 :], *everywhere):
                if first is not second and (_clash(a, b) or _void(a, b) or _void(b, a)):
                    raise InputError(f"{first} together with {second}", "edits that do not contradict", "Drop one")


def _clash(a: Where, b: Where) -> bool:
    if a.hook is not b.hook or (a.additive and b.additive):
        return False
    return _overlap(a.units, b.units) and _overlap(a.positions, b.positions)


def _void(outer: Where, inner: Where) -> bool:
    """Whether writing `outer` makes what `inner` wrote before it void."""
    if outer.additive or inner.hook not in _COVERS.get(outer.hook, ()):
        return False
    return _within(inner.units, outer.units) and _within(inner.positions, outer.positions)


def _within(inner: tuple[int, ...] | None, outer: tuple[int, ...] | None) -> bool:
    return outer is None or (inner is not None and set(inner) <= set(outer))


def _overlap(a: tuple[int, ...] | None, b: tuple[int, ...] | None) -> bool:
    if a is None or b is None:
        return True
    return bool(set(a) & set(b))
