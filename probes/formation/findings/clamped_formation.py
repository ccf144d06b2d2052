"""Finding 3: holding a part of the circuit at its ideal moves the phase change."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import xarray as xr

from probes.formation.findings.conditions import (
    conditions_figure,
    curves_figure,
    first_below,
    mean_and_range,
)
from probes.formation.findings.finding import Finding, named
from workbench.analysis.view import Ask, View
from workbench.errors import InputError
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.training import evaluated
from workbench.models.model import Model, Sizes
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "ClampedFormation"]

OF_EXEMPLARS = {
    "free": "",
    "previous-token": "L0H0 previous-token",
    "layer-0": "L1 previous-input",
    "match": "L1H0 match",
    "copy": "L1H0 copy",
    "layer-0-and-copy": "L1 previous-input + L1H0 copy",
}
OF_INDUCTION = {"free": "", "previous-token": "L0H0 previous-token", "match": "L1H0 induction"}
ABOUT = {
    "learned_step": ("step", (0, None), "first kept step with a loss below the mark"),
    "final_loss": ("nats", (0, None), "loss at the end, under the clamp"),
    "unclamped_loss": ("nats", (0, None), "loss at the end with the clamp taken off"),
}
MARKS = {"exemplars": 0.4 * float(np.log(2)), "induction": 0.5}  # of the loss; of induction that of repeats


class ClampedFormation(Finding, name="clamped-formation", title="Finding 3: clamps move the phase change"):
    """If a part of the induction circuit is there from the start, how much earlier is the rest learnt?

    Definition: models are trained with parts of the circuit held at their ideal at every update (gradients go through
    the rest) and measured under the same clamp: learned_step is the first kept step at which the loss is below 0.4 ln 2
    (exemplars) or the loss of repeats below 0.5 nats (induction). Clamps of exemplars: previous-token, the pattern of
    L0H0; layer-0, layer 1 computes queries and keys from embeddings in which each label holds the item before it
    (subcircuit A of the paper: its steps 1 and 2); match, the query's row of L1H0 on its label (A and B: what is left
    is C); copy, the logits are that head's scores of the two labels (C); layer-0-and-copy (what is left is B). Of
    induction: previous-token, and match, the pattern of L1H0. classes: other numbers of them beside the recipe's.

    Limits: a loss under a clamp is not that of the model as it stands, which is `unclamped_loss`: parts that were given
    were not learnt. Steps are kept ones, 10 or 25 apart. Our transition on exemplars is softer than the paper's, whose
    rate was 30 times lower; toys have one head a layer, so nothing is said of redundant heads.

    Source: Singh et al. 2024, arXiv 2404.07129, section 5; Gaussian numbers for images are ours.

    Returns: each number (condition, seed); `loss` (condition, seed, step), under the clamp.
    """

    tasks = ("exemplars", "induction")
    about = ABOUT

    clamps: Annotated[str, "with spaces between; empty: all that the task knows"] = ""
    classes: Annotated[str, "other numbers of classes, with spaces between (exemplars)"] = ""

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """About six hundred steps of 32 sequences each."""
        return self.run_cost(600, 20) * self.seeds * (len(self.clamps.split()) or len(OF_EXEMPLARS))

    def recipes(self, base: Recipe) -> dict[str, Recipe]:
        """One for each clamp, and for each with each other number of classes."""
        known = OF_EXEMPLARS if base.task.name == "exemplars" else OF_INDUCTION
        names = named(self.clamps, known, "clamp") or list(known)
        counts = self.classes.replace(",", " ").split()
        if counts and base.task.name != "exemplars":
            raise InputError(f"classes={self.classes!r} of toy:{base.task.name}", "toy:exemplars", "Leave them out")
        found = {name: base.with_settings(self.settings(clamp=known[name])) for name in names}
        for count in counts:
            found |= {
                f"{name}, {count} classes": base.with_settings(self.settings(clamp=known[name], classes=count))
                for name in names
            }
        return found

    def measured(self, recipe: Recipe, model: Model, along: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
        """Numbers of one run."""
        task = recipe.task.name
        name: Any = "repeat_loss" if task == "induction" else "loss"
        unclamped = evaluated(model, recipe, clamped=False)
        free = {"loss": unclamped.loss, **unclamped.measures}
        return {
            "learned_step": first_below(along, name, MARKS[task]),
            "final_loss": along[max(along)][name],
            "unclamped_loss": free[name],
        }

    def said(self, result: xr.Dataset) -> str:
        """When each condition has learnt."""
        said = []
        for name in result["condition"].values:
            one = result.sel(condition=name)
            n, k = (int(np.isfinite(one[variable]).sum()) for variable in ("final_loss", "learned_step"))
            if n:
                when = f"at step {mean_and_range(one['learned_step'])}" if k else "never"
                said.append(f"{name} {when}" + (f" ({k} of {counted(n, 'seed')})" if k < n else ""))
        return f"The loss falls below the mark: {'; '.join(said)}. Steps are means over seeds, with their range."


def learned_step_figure(result: xr.Dataset) -> "go.Figure":
    """One number of every seed under each condition: learned step."""
    return conditions_figure(result, "learned_step")


VIEW = View(
    ClampedFormation,
    question="Which part of the circuit is the slow one: what if another part were there from the start?",
    asks=(
        Ask("clamps", "Train with", empty="each clamp of the task"),
        Ask("seeds", "and", unit="seeds each"),
        Ask("steps", "for", unit="steps (0: the recipe's)"),
    ),
    figures=(curves_figure, learned_step_figure),
)
