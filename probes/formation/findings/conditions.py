"""Runs under several conditions with several seeds, and what is measured of each: what all findings share."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.formation.toy_runs import checkpoint, measured, seen
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import reads
from workbench.loading.toys.checkpoints import Kept
from workbench.loading.toys.recipe import Recipe
from workbench.models.model import Model
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Runs", "conditions_figure", "curves_figure", "first_below", "listed", "mean_and_range", "runs", "table"]

Look = Callable[[Recipe, Model, Mapping[int, Mapping[str, float]]], Mapping[str, Any]]
Runs = dict[tuple[str, int], Mapping[str, Any]]
LOSS = {"loss": ("nats", (0, None), "loss on the evaluation batch")}


def runs(
    conditions: Mapping[str, Recipe],
    seeds: Sequence[int],
    look: Look,
    interventions: Sequence[Any] = (),
    progress: Progress | None = None,
) -> Generator[Runs, None, None]:
    """Train each recipe with each seed and measure it; what there is after each, by (condition, seed).

    look: `(recipe, last model, measures by step)` to numbers by name. `curve` is there beside them: measures by step.
    interventions: of the last model and of what is measured at every step; training knows none.
    """
    found: Runs = {}
    jobs = [(name, recipe, seed) for name, recipe in conditions.items() for seed in seeds]
    for number, (name, recipe, seed) in enumerate(jobs):
        one, along = replace(recipe, seed=seed), {}
        last: Model | None = None
        for kept in Kept(one).along():
            last = checkpoint(one, kept.step, interventions, last) if interventions else None
            along[kept.step] = measured(kept.found) if last is None else seen(one, kept, last)
            if progress is not None:
                progress((number + kept.step / one.steps * 0.95) / len(jobs))
        last = last or checkpoint(one, one.steps)
        found[name, seed] = {**look(one, last, along), "curve": along}
        if progress is not None:
            progress((number + 1) / len(jobs))
        yield found


def first_below(along: Mapping[int, Mapping[str, float]], name: str, value: float) -> float:
    """The first kept step at which a measure is below a value; NaN if it never is."""
    return next((float(step) for step, found in sorted(along.items()) if found[name] < value), np.nan)


def table(
    found: Runs,
    conditions: Sequence[str],
    seeds: Sequence[int],
    about: Mapping[str, tuple[str, Any, str]],
    curves: Mapping[str, tuple[str, Any, str]] = LOSS,
) -> xr.Dataset:
    """A result (condition, seed) of what was measured, NaN where there is none yet; curves (condition, seed, step).

    about: units, range and long name of each number. curves: of measures along the steps; one that is a number as well
    is called `NAME_along`.
    """
    variables: dict[str, Any] = {}
    for name, (units, bounds, title) in about.items():
        values = [[float(found.get((c, s), {}).get(name, np.nan)) for s in seeds] for c in conditions]
        variables[name] = ("condition seed", np.array(values), units, bounds, title)
    steps = sorted({step for one in found.values() for step in one["curve"]})
    for name, (units, bounds, title) in curves.items():
        along = np.full((len(conditions), len(seeds), len(steps)), np.nan)
        for i, condition in enumerate(conditions):
            for j, seed in enumerate(seeds):
                for step, measures in found.get((condition, seed), {}).get("curve", {}).items():
                    along[i, j, steps.index(step)] = measures[name]
        variables[f"{name}_along" if name in about else name] = ("condition seed step", along, units, bounds, title)
    return dataset(None, {"condition": list(conditions), "seed": list(seeds), "step": steps}, **variables)


def listed(said: Sequence[str]) -> str:
    """What was said of each condition, in one sentence without its stop."""
    whole = "; ".join(said)
    return whole[:1].upper() + whole[1:]


def mean_and_range(values: xr.DataArray) -> str:
    """Such as `0.93 (0.91 to 0.95)`; "none" where nothing is known."""
    known = values.values[np.isfinite(values.values)]
    if not len(known):
        return "none"
    spread = f" ({known.min():.3g} to {known.max():.3g})" if len(known) > 1 else ""
    return f"{known.mean():.3g}{spread}"


@reads("backcopy-formation", "induction-formation", "clamped-formation", "abrupt-learning", "in-context-automata")
def curves_figure(result: xr.Dataset) -> "go.Figure":
    """The loss against step, one line a condition, mean over seeds."""
    from workbench.figures import series

    mean = result[["loss"]].mean("seed", keep_attrs=True)
    n = result.sizes["seed"]
    return series(mean, "loss", "step", by="condition", title=f"Loss along training, mean over {counted(n, 'seed')}")


def conditions_figure(result: xr.Dataset, name: str) -> "go.Figure":
    """A figure of one number: a point for each seed under each condition."""
    from workbench.figures import series

    title = f"{result[name].attrs['long_name']}, by condition"
    return series(result, name, "condition", by="seed", title=title[0].upper() + title[1:])
