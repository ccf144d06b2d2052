"""Need: what an analysis must see of a layer, and how to shrink it; Site: what its reducer may know besides."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

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
        put(self, "hooks", hooks)
        put(self, "reduce", reduce)
        put(self, "dims", tuple(dims.split()) if isinstance(dims, str) else dims)
        put(self, "params", tuple(sorted(params.items())) if isinstance(params, Mapping) else params)
        put(self, "layers", None if layers is None else tuple(layers))
        if self.layers == ():
            raise InputError("a need of no layers", "at least one, or None for all", "Name a layer")
        if "<lambda>" in self.reduce.__qualname__ or "<locals>" in self.reduce.__qualname__:
            raise InputError(
                f"the reducer {self.reduce.__qualname__}",
                "a function at the top of a module",
                "Move it there: needs are compared",
            )
        if not self.hooks or not all(isinstance(hook, Hook) for hook in self.hooks):
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
