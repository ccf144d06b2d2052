"""Patching: what another run had, written into this one; also its attention patterns and its final norm's scale."""

from dataclasses import dataclass

import torch

from workbench.errors import InputError
from workbench.intervene.checks import names, need_layer, need_serial, unit_axis
from workbench.intervene.edit import Edit, Positions, Printed, Source, Where, copied, spans
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    LN_FINAL_SCALE,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    RESID_MID,
    RESID_POST,
    RESID_PRE,
    Hook,
    K,
    Q,
    V,
    Z,
)
from workbench.models.model import Model

__all__ = ["FreezeNormScale", "FreezePatterns", "Patch"]

# What may be patched. resid_mid is written through attn_out, since a bridge's own resid_mid feeds the MLP only.
_PATCHABLE = (RESID_PRE, RESID_MID, RESID_POST, ATTN_OUT, MLP_OUT, ATTN_RESULT, MLP_POST, Z, Q, K, V, PATTERN)


@dataclass(frozen=True, eq=False, repr=False)
class Patch(Printed):
    """Write what another run (`source`: `Recording`) had at a site.

    hook: resid_pre, resid_mid, resid_post, attn_out, mlp_out, attn_result, mlp_post, z, q, k, v (of key/value heads) or
    pattern (positions are queries). units: heads or neurons, None for all.
    """

    hook: Hook
    layer: int
    source: Source
    positions: Positions = None
    units: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        axis = unit_axis(self.hook)
        kind = "unit" if axis is None else self.hook.dims[axis]  # edits() refuses units where there are none
        units = "" if self.units is None else f" of {kind} {spans(self.units)}"
        return f"Patch(L{self.layer} {self.hook.name}{units} from {self.source}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the site; for resid_mid one that reads resid_pre and one that writes attn_out."""
        need_layer(model, self.layer, str(self))
        if self.hook not in _PATCHABLE:
            raise InputError(f"patching {self.hook.name}", names(_PATCHABLE), "Choose one of these")
        if self.units is not None:
            self._check_units(model, self.units)
        if self.hook is RESID_MID:
            return self._resid_mid(model)
        return [copied(Where(self.hook, self.layer, self.units, self.positions, self.rows), self.source, model)]

    def _check_units(self, model: Model, units: tuple[int, ...]) -> None:
        axis = unit_axis(self.hook)
        if axis is None:
            raise InputError(
                f"units of {self.hook.name}", "units of z, q, k, v, pattern or mlp_post", "Leave units out"
            )
        sizes = model.sizes
        kind = self.hook.dims[axis]
        heads = {"head": sizes.n_heads, "key_value_head": sizes.n_key_value_heads}
        n = heads[kind] if kind in heads else model.n_neurons(self.layer)
        if any(not 0 <= unit < n for unit in units):
            raise InputError(f"{kind} {spans(units)}", f"0 to {n - 1} on {model.name}", "Choose some it has")

    def _resid_mid(self, model: Model) -> list[Edit]:
        """attn_out = wanted - resid_pre brings the state there up to rounding; both branches behind it get the rest.

        A bridge's own resid_mid feeds the MLP alone, and the residual branch is seen again in resid_post only.
        """
        need_serial(model, self)
        wanted = self.source.take(RESID_MID, self.layer, model)
        held: dict[Hook, torch.Tensor] = {}
        where = Where(ATTN_OUT, self.layer, None, self.positions, self.rows)
        silent = where._replace(additive=True)  # what attn_out already claims

        def out(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
            x[mesh] = wanted.to(x)[mesh[1]] - held[RESID_PRE][mesh]

        def mid(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
            x[mesh] = wanted.to(x)[mesh[1]].expand_as(x[mesh])

        def post(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
            x[mesh] = wanted.to(x)[mesh[1]] + held[MLP_OUT][mesh]

        def keeping(hook: Hook) -> Edit:
            return Edit(where._replace(hook=hook), read=lambda x: held.__setitem__(hook, x))

        return [
            keeping(RESID_PRE),
            Edit(where, out, length=self.source.length),
            Edit(silent._replace(hook=RESID_MID), mid, early=True),
            keeping(MLP_OUT),
            Edit(silent._replace(hook=RESID_POST), post, early=True),
        ]


@dataclass(frozen=True, eq=False, repr=False)
class FreezePatterns(Printed):
    """Attention looks where it looked in another run, in all or some layers: only values still change."""

    source: Source
    layers: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        layers = "" if self.layers is None else f" in layers {spans(self.layers)}"
        return f"FreezePatterns({self.source}{layers}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the pattern per layer."""
        layers = range(model.sizes.n_layers) if self.layers is None else self.layers
        return [edit for n in layers for edit in Patch(PATTERN, n, self.source, rows=self.rows).edits(model)]


@dataclass(frozen=True, eq=False, repr=False)
class FreezeNormScale(Printed):
    """The final norm divides by what it divided by in another run: the logits become linear in the last state."""

    source: Source
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"FreezeNormScale({self.source}{self._scope()})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of the final norm's scale."""
        if model.readout.kind == "none":
            raise InputError(f"{self}", f"a model with a final norm, unlike {model.name}", "Leave it out")
        return [copied(Where(LN_FINAL_SCALE, None, None, None, self.rows), self.source, model)]
