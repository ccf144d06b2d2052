"""Need: what an analysis must see of a layer, and how to shrink it; Site: what its reducer may know besides."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from workbench.arguments import argument, fitted
from workbench.errors import InputError
from workbench.models.hooks import ALL_HOOKS, Hook
from workbench.models.model import LayerWeights, Model

__all__ = ["POSITIONAL", "RAGGED", "Need", "Site", "keep", "placed"]

POSITIONAL = ("pos", "query", "key")
Kept = torch.Tensor | tuple[torch.Tensor, ...]  # what is kept of a need: one tensor, or one per layer if it is ragged
RAGGED = "edge"  # an axis whose length no declaration knows: it differs from layer to layer


@dataclass(frozen=True, eq=False)
class Site:
    """What a reducer may know besides the activations.

    layer: None for hooks outside the blocks. tokens, mask `[batch, pos]` (mask is False on padding), lengths `[batch]`.
    fields: per-row data of the stimulus, tensors `[batch, ...]`. model: carries the interventions of the pass, but
    those on single rows; a reducer that makes an activation anew must mind them. weights: read-only, of this layer.
    """

    layer: int | None
    tokens: torch.Tensor
    mask: torch.Tensor
    lengths: torch.Tensor
    fields: Mapping[str, torch.Tensor]
    model: Model = field(repr=False)

    @property
    def weights(self) -> LayerWeights:
        """Weights of this layer; InputError outside the blocks, where there are none."""
        if self.layer is None:
            raise InputError("weights at a hook outside the blocks", "a layer", "Take site.model.readout")
        return self.model.weights(self.layer)


@dataclass(frozen=True, init=False)
class Need:
    """What an analysis must see of a layer, and how to shrink it.

    hooks: activations the reducer takes, in order. reduce: a pure module-level function
    `(*activations, site, **params) -> tensor [batch, *dims]`, float32 or integer, a fresh tensor; it writes to nothing
    and calls no module. dims: names of the output's axes after batch, by the glossary; axes named pos, query or key
    are as long as the batch, and their padding is overwritten with NaN; an axis named edge may have any length, its
    missing end NaN (integers: -1), and layers are then not stacked. params: scalars, or tuples of scalars; one called
    `positions` says which positions the axis `pos` holds (negative ones count from each prompt's end).
    layers: which ones, or None for all.
    """

    hooks: tuple[Hook, ...]
    reduce: Callable[..., torch.Tensor]
    dims: tuple[str, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()
    layers: tuple[int, ...] | None = None

    in_words: ClassVar[str] = "a need, such as Need((PATTERN,), keep, dims=PATTERN.dims[1:])"

    def __init__(
        self,
        hooks: tuple[Hook, ...],
        reduce: Callable[..., torch.Tensor],
        dims: str | tuple[str, ...] = (),
        params: Mapping[str, Any] | tuple[tuple[str, Any], ...] = (),
        layers: Iterable[int] | None = None,
    ) -> None:
        """dims: also one string, "pos d_model". params: also by name."""
        put = object.__setattr__
        put(self, "hooks", argument("hooks", hooks, Sequence[Hook], "Need"))
        put(self, "reduce", argument("reduce", reduce, Callable[..., torch.Tensor], "Need"))
        named = dims.split() if isinstance(dims, str) else dims
        put(self, "dims", argument("dims", named, Sequence[str], "Need"))
        put(self, "params", _compared(params))
        put(self, "layers", argument("layers", layers, Iterable[int] | None, "Need"))
        argument("positions", self.positions, Sequence[int] | None, "Need")
        if self.layers == ():
            raise InputError("a need of no layers", "at least one, or None for all", "Name a layer")
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise InputError(f"layers {self.layers} of a need", "each layer once", "Take the second one away")
        name = getattr(self.reduce, "__qualname__", "<lambda>")  # a partial one has none
        if "<lambda>" in name or "<locals>" in name:
            raise InputError(
                f"the reducer {name}",
                "a function at the top of a module",
                "Move it there: needs are compared",
            )
        if not self.hooks:
            raise InputError(f"hooks {self.hooks!r}", "hooks such as PATTERN or RESID_POST", f"Choose from {ALL_HOOKS}")
        if len({hook.layered for hook in self.hooks}) > 1:
            raise InputError(f"hooks {self.hooks!r} in one need", "all inside blocks or all outside", "Split the need")

    @property
    def layered(self) -> bool:
        """Whether the need is met once per layer."""
        return self.hooks[0].layered

    @property
    def positions(self) -> tuple[int, ...] | None:
        """The positions that its axis `pos` holds; None for all of the batch."""
        return dict(self.params).get("positions")

    @property
    def ragged(self) -> bool:
        """Whether what is kept has another length in every layer."""
        return RAGGED in self.dims


def _compared(given: Any) -> tuple[tuple[str, Any], ...]:
    """Parameters of a reducer in the order of their names; InputError for what cannot be told equal to another."""
    try:
        found = dict(given)
        pairs = tuple(sorted((argument("params", name, str, "Need"), _scalars(found[name])) for name in found))
        hash(pairs)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"params={given!r} of Need", "names with scalars, or tuples of scalars", "Needs are compared by them"
        ) from error
    return pairs


def _scalars(value: Any) -> Any:
    if isinstance(value, torch.Tensor | Iterator):
        raise TypeError("equal to itself alone")
    return tuple(map(_scalars, value)) if isinstance(value, list | tuple | range) else value


@fitted()
def keep(activation: torch.Tensor, site: Site, positions: tuple[int, ...] | None = None) -> torch.Tensor:
    """A reducer that keeps an activation `[batch, pos, ...]` as float32, at all or some positions.

    positions: negative ones count from each prompt's end; NaN where a prompt is too short to have one.
    """
    if positions is not None:
        at, _ = placed(positions, site.lengths)
        activation = activation[torch.arange(len(at), device=at.device)[:, None], at]
    return activation.detach().to(torch.float32, copy=True)


def placed(positions: tuple[int, ...], lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of positions in each prompt of a batch, and whether it has them, both `[batch, position]`.

    Negative positions count from each prompt's end. The index is 0 where a prompt has no such position.
    """
    asked = torch.tensor(positions, dtype=torch.long, device=lengths.device)[None].expand(len(lengths), -1)
    at = torch.where(asked < 0, asked + lengths[:, None], asked)
    inside = (at >= 0) & (at < lengths[:, None])
    return at.masked_fill(~inside, 0), inside
