"""Heads and MLPs at once, on pairs of prompts: which of them carry what the two prompts of a pair do differently."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.checks.head_survey import FEWEST_PROMPTS, SMALL
from probes.checks.matched_controls import CALIPER, HeadControls
from workbench.analysis.progress import part
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.errors import RefusedError
from workbench.intervene import MLP, Ablate, Head, Steer
from workbench.intervene.arriving import arriving
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, MLP_OUT, POST_ATTN_SCALE, Z
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation.metrics import Metric
from workbench.observation.recording import Recording, record_all
from workbench.observation.sweeps import base_run, sweep
from workbench.statistics import max_statistic

__all__ = ["DIRECTIONS", "PromptsOfPair", "pair_survey"]

DIRECTIONS = 3  # random directions that stand in for a unit without like ones


@dataclass(frozen=True, eq=False)
class PromptsOfPair:
    """A clean prompt, its counterfactual of equal length, and what is measured of the clean one's run."""

    clean: Tokens
    corrupt: Tokens
    metric: Metric = field(repr=False)

    @property
    def apart(self) -> tuple[int, ...]:
        """Positions from the first differing token on: in front of it, both runs are the same."""
        both = zip(self.clean.ids, self.corrupt.ids, strict=True)
        return tuple(range(next((pos for pos, (a, b) in enumerate(both) if a != b), 0), len(self.clean)))


def pair_survey(
    model: Model,
    pairs: Sequence[PromptsOfPair],
    *,
    caliper: float = CALIPER,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """Every head and MLP replaced by what it is on the counterfactual prompt, beside controls as large; all corrected
    together.

    effect = metric with the unit replaced - metric of the clean run. contrast = effect minus the mean effect of its
    controls on the same pair: up to 50 other heads whose replacement moves the stream as far (within `caliper`),
    nearest in depth; of an MLP, and of a head with fewer than 19, `DIRECTIONS` random directions, as long at every
    position. p: that the mean contrast over pairs is not zero, by flipping signs of pairs, against the largest |t| over
    all heads and MLPs. A unit matters where p is at most 0.05 and its effect is larger in size than its controls'.

    Yields what is known from the sixth pair on: `effect`, `control_effect`, `contrast` with `_low`, `_high`,
    `contrast_p`, `matters`, `n_controls` (layer, head), and the same with `mlp_` in front (layer). RefusedError for
    fewer than six different pairs.
    """
    pairs = list({pair.clean.ids: pair for pair in pairs}.values())
    if len(pairs) < FEWEST_PROMPTS:
        raise RefusedError(
            f"{len(pairs)} different pairs, whose smallest p is {min(1.0, 2 / 2 ** len(pairs)):.2g}",
            f"at least {FEWEST_PROMPTS}: fewer cannot tell a unit from its controls at 0.05",
            "Give more pairs",
        )
    sizes = model.sizes
    shape, n_mlps = (sizes.n_layers, sizes.n_heads), sizes.n_layers * bool(sizes.d_mlp)
    moves = [_Moves.of(model, pair) for pair in pairs]
    norms = np.log(np.sqrt(np.mean([one.heads**2 for one in moves], axis=0)) + 1e-15)
    controls = HeadControls.of(norms, caliper)
    alone = controls.weights.sum(1) == 0  # heads without like ones
    units: list[Any] = [Head(layer, head) for layer, head in np.ndindex(shape)]
    units += [MLP(layer) for layer in range(n_mlps)]
    lonely = [*np.flatnonzero(alone).tolist(), *range(len(alone), len(units))]
    effects, stood_in = np.zeros((len(pairs), len(units))), np.full((len(pairs), len(units)), np.nan)
    for index, (pair, moved) in enumerate(zip(pairs, moves, strict=True)):
        base = base_run(model, pair.clean)
        cells: list[list[Any]] = [[Ablate(unit, "resample", moved.corrupt, pair.apart)] for unit in units]
        cells += [[one] for place in lonely for one in moved.directions(model, units[place], seed + place)]
        values, own = np.full(len(cells), np.nan), base.value(model, pair.metric)
        share = part(progress, index / len(pairs), (index + 1) / len(pairs))
        for indices, found in sweep(model, base, cells, pair.metric, progress=share):
            values[indices] = found.double().cpu().numpy() - own
        effects[index] = values[: len(units)]
        stood_in[index, lonely] = values[len(units) :].reshape(-1, DIRECTIONS).mean(1)
        if index + 1 >= FEWEST_PROMPTS:
            beside = stood_in[: index + 1].copy()
            beside[:, : len(alone)] = np.where(
                alone, beside[:, : len(alone)], effects[: index + 1, : len(alone)] @ controls.weights.T
            )
            number = np.where(alone, 0, controls.number.ravel())
            yield _result(effects[: index + 1], beside, number, shape, pair.metric.units, seed)


@dataclass(frozen=True, eq=False)
class _Moves:
    """How far replacing each unit moves the residual stream on a pair: heads `[layer, head]` root mean square over
    positions >= 1, and by position, as far as interventions let it arrive; what it is replaced with."""

    heads: np.ndarray
    by_head: torch.Tensor  # layer head pos, in front of a post-norm
    by_mlp: torch.Tensor  # layer pos
    corrupt: Recording

    @classmethod
    def of(cls, model: Model, pair: PromptsOfPair) -> "_Moves":
        hooks = [Z, MLP_OUT] if model.sizes.d_mlp else [Z]
        hooks += [] if model.weights(0).post_attn_gain is None else [POST_ATTN_SCALE]
        clean, corrupt = record_all(model, [pair.clean, pair.corrupt], hooks)
        heads, added, mlps, n_pos = [], [], [], len(pair.clean)
        in_front = (ATTN_RESULT,) if POST_ATTN_SCALE in hooks else (ATTN_RESULT, ATTN_OUT)  # where directions are added
        for layer in range(model.sizes.n_layers):
            z = (corrupt.values[Z, layer] - clean.values[Z, layer]).float().transpose(0, 1)  # head pos d_head
            length = lambda gram, z=z: ((z @ gram.float()) * z).sum(-1).clamp(min=0).sqrt()
            reaches = lambda at, layer=layer: arriving(model, model.interventions, layer, n_pos, at)[0].abs()
            heads.append(length(model.weights(layer).W_O_gram) * reaches(in_front).to(z))
            scale = clean.values[POST_ATTN_SCALE, layer][:, 0].float() if POST_ATTN_SCALE in hooks else 1.0
            through = length(model.weights(layer).added_gram) / scale  # a post-norm, as its own scale is
            added.append(through * reaches((ATTN_RESULT, ATTN_OUT)).to(z))
            if model.sizes.d_mlp:
                mlps.append((corrupt.values[MLP_OUT, layer] - clean.values[MLP_OUT, layer]).float().norm(dim=-1))
        by_head, by_size = torch.stack(heads).cpu(), torch.stack(added).cpu()
        for by in (by_head, by_size):
            by[..., : pair.apart[0]] = 0.0  # there only rounding tells the runs apart
        loud = by_size[..., min(1, by_size.shape[-1] - 1) :].square().mean(-1).sqrt().double().numpy()
        by_mlp = torch.stack(mlps).cpu() if mlps else torch.zeros(0, 1, dtype=torch.float32)
        by_mlp[:, : pair.apart[0]] = 0.0
        return cls(loud, by_head, by_mlp, corrupt)

    def directions(self, model: Model, unit: Any, seed: int) -> list[Steer]:
        """Random directions, as far at every position as the unit's replacement; not at position 0, whose state is
        unlike any other."""
        is_head = isinstance(unit, Head)
        size = (self.by_head[unit.layer, unit.head] if is_head else self.by_mlp[unit.layer])[:, None].clone()
        size[0] = 0.0
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(DIRECTIONS, model.sizes.d_model, generator=generator, dtype=torch.float32)
        hook = ATTN_RESULT if is_head else MLP_OUT
        return [Steer(unit.layer, size * one / one.norm(), 1.0, hook) for one in drawn]


def _result(
    effects: np.ndarray, beside: np.ndarray, number: np.ndarray, shape: tuple[int, int], units: str, seed: int
) -> xr.Dataset:
    contrast = effects - beside
    p, widest = max_statistic(contrast, seed=seed)
    defined = np.isfinite(p)
    mean = np.where(defined, contrast.mean(0), np.nan)
    half = widest * contrast.std(0, ddof=1) / np.sqrt(len(contrast))
    low, high = np.where(defined, mean - half, np.nan), np.where(defined, mean + half, np.nan)
    larger = np.abs(effects.mean(0)) > np.abs(beside.mean(0))
    matters = np.where(defined, (p <= SMALL) & larger, np.nan)
    n = shape[0] * shape[1]
    found: dict[str, Any] = {}
    for start, cell, what, cut in (("", "layer head", "head", slice(0, n)), ("mlp_", "layer", "MLP", slice(n, None))):
        of = lambda values, cut=cut, start=start: values[cut].reshape(shape if not start else -1)
        if not of(p).size:
            continue
        found |= {
            f"{start}effect": (cell, of(effects.mean(0)), units, None, f"effect of replacing the {what}"),
            f"{start}control_effect": (cell, of(beside.mean(0)), units, None, f"mean effect of the {what}'s controls"),
            f"{start}contrast": (cell, of(mean), units, None, f"effect of the {what} minus that of its controls"),
            f"{start}contrast_low": (cell, of(low), units, None, f"contrast of the {what}, lower end, all at once"),
            f"{start}contrast_high": (cell, of(high), units, None, f"contrast of the {what}, upper end, all at once"),
            f"{start}contrast_p": (cell, of(p), "probability", (0, 1), "p corrected for all heads and MLPs"),
            f"{start}matters": (cell, of(matters), "flag", (0, 1), f"the {what} matters (1) or not (0); undefined NaN"),
        }
    counted = ("layer head", number.reshape(shape), "heads", (0, None), "heads as loud; 0: random directions instead")
    result = dataset(None, n_controls=counted, **found)
    return result.assign_attrs(n_surveyed=len(effects), n_units=int(defined.sum()))
