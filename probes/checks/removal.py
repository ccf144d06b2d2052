"""Removal: a claim's units taken away on every prompt, and the same done to each of its controls."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import xarray as xr

from probes.checks.hypothesis import EITHER, METHODS, checked_units, chosen_prompts, gone_on, metric_of, need_inside
from probes.checks.matched_controls import CALIPER, N_CONTROLS, N_PEERS, Controls, atoms, matched_controls
from probes.checks.verdict import verdict
from workbench.analysis.progress import part
from workbench.analysis.run import Progress
from workbench.arguments import fitted
from workbench.errors import InputError
from workbench.intervene import (
    MLP,
    Ablate,
    Attention,
    AttentionEdge,
    AttentionKey,
    ExpertNeurons,
    Head,
    Neurons,
    Residual,
    Steer,
)
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, MLP_OUT, RESID_PRE
from workbench.models.model import Model
from workbench.observation.recording import measure_means, record
from workbench.observation.sweeps import Base, base_run, sweep

__all__ = ["check", "checking"]

# Where a random direction of equal norm stands in for what a unit's removal changes.
_CHANGED = {
    Head: ATTN_RESULT,
    AttentionEdge: ATTN_RESULT,
    AttentionKey: ATTN_RESULT,
    Attention: ATTN_OUT,
    MLP: MLP_OUT,
    Neurons: MLP_OUT,
    ExpertNeurons: MLP_OUT,
    Residual: RESID_PRE,
}


@fitted()
def check(
    model: Model, prompts: Any, units: Any, metric: Any = None, method: str = METHODS[0], **options: Any
) -> xr.Dataset:
    """Check a claim; see `checking` for the arguments. Returns the complete result."""
    *_, result = checking(model, prompts, units, metric, method, **options)
    return result


@fitted()
def checking(
    model: Model,
    prompts: Any,
    units: Any,
    metric: Any = None,
    method: str = METHODS[0],
    *,
    corrupt: Any = None,
    side: str = EITHER,
    n_controls: int = N_CONTROLS,
    caliper: float = CALIPER,
    peers: int = N_PEERS,
    suggested_by: Sequence[Any] = (),
    reference: Any = None,
    matched: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """Check a claim prompt by prompt, yielding what is known so far; the last result is complete.

    prompts: one or several. units: values of one kind (Head, Attention, MLP, Neurons, ExpertNeurons, AttentionEdge,
    AttentionKey, Residual with a position), or a text as `units_of` reads it. metric: options of `make_metric` (kind,
    target, against, position), the same for all prompts or a list with one for each; by default the log-probability of
    the top token at the last position. method: "zero", "mean" (over a reference text: `reference`, or `measure_means`),
    "resample" (from `corrupt`, a prompt of equal length for each). side: what the claim says the removal does to the
    metric: "lowers", "raises", or "changes". caliper, peers: as in `matched_controls`. suggested_by: prompts that
    suggested the claim; they are left out where others remain.

    Returns what `CausalCheck` does.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"seed={seed}", "a seed from 0 on", "Choose one")
    units = checked_units(model, units, side, n_controls, method, corrupt)
    kept, corrupts, metrics = chosen_prompts(model, prompts, corrupt, metric, suggested_by)
    need_inside(units, kept)
    hook = units[0].hook
    reference = measure_means(model, hooks=(hook,)) if method == "mean" and reference is None else reference
    kept = [gone_on(model, tokens, options) for tokens, options in zip(kept, metrics, strict=True)]
    longer = zip(corrupts, metrics, strict=True)
    corrupts = [None if other is None else gone_on(model, other, options) for other, options in longer]
    bases = [base_run(model, tokens) for tokens in kept]
    measures = [metric_of(model, base, options) for base, options in zip(bases, metrics, strict=True)]
    last = max(max(measure.needed(len(tokens))) for measure, tokens in zip(measures, kept, strict=True))
    parts = atoms(units)
    drawn: dict[str, Any] = {"caliper": caliper, "peers": peers, "last": last, "matched": matched, "seed": seed}
    controls = matched_controls(model, kept, parts, n_controls, **drawn)
    end = 1 + len(controls.sets)
    again = {one[0]: 1 + row for row, one in enumerate(controls.sets) if len(one) == 1}  # a peer that is a control
    fresh = [unit for unit in controls.peers if unit not in again]
    rows = [again[unit] if unit in again else end + fresh.index(unit) for unit in controls.peers]
    effects, controlled, peered = [], [], []
    for index, (base, measure) in enumerate(zip(bases, measures, strict=True)):
        how = reference if method != "resample" else record(model, corrupts[index], [hook])
        cells = _cells(model, base, parts, controls, method, how, seed)
        cells += [[Ablate(unit, *_how(method, how))] for unit in fresh]
        own, values = base.value(model, measure), torch.full((len(cells),), torch.nan, dtype=torch.float64)
        share = part(progress, index / len(kept), (index + 1) / len(kept))
        claim = (bases[: index + 1], units, measures[: index + 1], controls, side, method, how)
        for indices, found in sweep(model, base, cells, measure, progress=share):
            values[indices] = found.double().cpu() - own
            some = values[0].isfinite() and values[1:end].isfinite().any()
            if index == 0 and some and values.isnan().any():
                yield verdict([float(values[0])], [values[1:end].numpy()], [values[rows].numpy()], *claim)
        effects.append(float(values[0]))
        controlled.append(values[1:end].numpy())
        peered.append(values[rows].numpy())
        yield verdict(effects, controlled, peered, *claim)


def _how(method: str, reference: Any) -> tuple[str, Any]:
    """What an ablation takes beside its unit."""
    return method, None if method == "zero" else reference


def _cells(
    model: Model, base: Base, units: Sequence[Any], controls: Controls, method: str, reference: Any, seed: int
) -> list[list[Any]]:
    """The claim's own edits, and those of every control."""
    how = _how(method, reference)
    own = [Ablate(unit, *how) for unit in units]
    if controls.directions:
        return [own, *_direction_cells(model, base, units, own, len(controls.sets), seed)]
    return [own, *([Ablate(unit, *how) for unit in one] for one in controls.sets)]


def _direction_cells(
    model: Model, base: Base, units: Sequence[Any], own: list[Any], n: int, seed: int
) -> list[list[Steer]]:
    """Random directions, as far at every position as the ablation moves what it changes there; not at position 0, whose
    state is unlike any other: a step there breaks the model, whatever the unit."""
    generator = torch.Generator().manual_seed(seed)
    cells: list[list[Steer]] = [[] for _ in range(n)]
    hook = _CHANGED[type(units[0])]
    for unit, edit in zip(units, own, strict=True):
        before, after = (
            record(model, base.tokens, [hook], [unit.layer], interventions=edits).values[hook, unit.layer]
            for edits in ((), (edit,))
        )
        size = (after - before).norm(dim=-1, keepdim=True)  # pos one
        size[0] = size[0] if len(size) == 1 else 0.0
        for cell in cells:
            direction = torch.randn(model.sizes.d_model, generator=generator, dtype=torch.float32)
            cell.append(Steer(unit.layer, size * direction / direction.norm(), 1.0, hook))
    return cells
