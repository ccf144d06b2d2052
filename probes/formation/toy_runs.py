"""Runs of a toy with observation: every kept step of several seeds, looked at as it comes."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import xarray as xr

from workbench.analysis.run import Failure, Progress, run
from workbench.loading.pretrained import wrap
from workbench.loading.toys.adapter import ToyAdapter
from workbench.loading.toys.checkpoints import Checkpoint, Kept
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.recipes import name_of
from workbench.loading.toys.training import Evaluated, evaluated
from workbench.loading.weights import weights_hash
from workbench.models.model import Model

__all__ = ["Part", "checkpoint", "kept_steps", "measured", "seen", "trained"]

_PARTS = 8  # of a seed, after which what there is is shown


@dataclass
class Part:
    """What there is of a series of runs. losses: measures by seed and step; scores: results by seed, step, analysis."""

    losses: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)
    scores: dict[int, dict[int, dict[str, xr.Dataset]]] = field(default_factory=dict)
    complete: bool = False


def checkpoint(recipe: Recipe, step: int, interventions: Sequence[Any] = (), like: Model | None = None) -> Model:
    """A kept step as a model with a name of its own; it must be trained up to there.

    like: a model of the same recipe, whose self-check is taken over: what it measures is of the module, which is the
    same at every step.
    """
    module, tokenizer, name = Kept(recipe).module(step), recipe.task.tokenizer(), name_of(recipe, step)
    if like is None:
        return wrap(module, tokenizer, name=name).edited(interventions)
    adapter = ToyAdapter(module)
    identity = replace(like.made, name=name, weights_hash=weights_hash(adapter.parameters()))
    return Model(identity, adapter, tokenizer, selfcheck=like.selfcheck).edited(interventions)


def kept_steps(recipe: Recipe, last: int | None = None, progress: Progress | None = None) -> dict[int, Evaluated]:
    """Train a recipe as far as needed; what was measured at every kept step. progress: the share done."""
    tell = None if progress is None else (lambda stage, share, text: progress(share))
    return {kept.step: kept.found for kept in Kept(recipe).along(last, tell)}


def measured(found: Evaluated) -> dict[str, float]:
    """The loss and the measures by name."""
    return {"loss": found.loss, **found.measures}


def seen(recipe: Recipe, kept: Checkpoint, model: Model) -> dict[str, float]:
    """The loss and the measures of a kept step as a model, with its interventions; what is kept is of none."""
    return measured(evaluated(model, recipe) if model.interventions else kept.found)


def _results(model: Model, analyses: Sequence[Any]) -> dict[str, xr.Dataset]:
    """What the analyses find in a model; raises the first error."""
    found: dict[str, xr.Dataset] = {}
    for name, result in (run(model, None, analyses) if analyses else {}).items():
        if isinstance(result, Failure):
            raise result.error
        found[name] = result
    return found


def trained(
    recipe: Recipe,
    seeds: Iterable[int],
    analyses: Sequence[Any],
    interventions: Sequence[Any] = (),
    progress: Progress | None = None,
) -> Generator[Part, None, None]:
    """Train a recipe with each seed and look at every kept step; what there is, a few times a seed.

    The weights are the same whoever looks: analyses see copies, and their random numbers are their own. The first error
    of an analysis is raised.
    """
    found, numbers = Part(), list(seeds)
    first: Model | None = None
    for index, seed in enumerate(numbers):
        one = replace(recipe, seed=seed)
        grid = one.grid
        show = {grid[len(grid) * part // _PARTS] for part in range(1, _PARTS)}
        for kept in Kept(one).along():
            model = checkpoint(one, kept.step, interventions, first)
            first = first or model
            found.losses.setdefault(seed, {})[kept.step] = seen(one, kept, model)
            found.scores.setdefault(seed, {})[kept.step] = _results(model, analyses)
            if progress is not None:
                progress((index + (grid.index(kept.step) + 1) / len(grid)) / len(numbers))
            if kept.step in show:
                yield found
    found.complete = True
    yield found
