"""Finding 2: two heads make an induction circuit at once, and which architectures do not."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.formation.change_points import change_point
from probes.formation.findings.conditions import conditions_figure, curves_figure, listed, mean_and_range
from probes.formation.findings.finding import Finding, named
from probes.formation.task_attention import TaskAttention
from workbench.analysis.view import Ask, View
from workbench.intervene import Ablate, Attention, Head, hooks
from workbench.loading.toys.recipe import Recipe
from workbench.models.model import Model, Sizes
from workbench.statistics import spearman
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "InductionFormation"]

CONDITIONS: dict[str, dict[str, Any]] = {
    "heads1": {"n_heads": 1},
    "heads4": {"n_heads": 4},
    "heads8": {"n_heads": 8, "steps": 1000},
    "layers1": {"n_layers": 1},
    "learned-positions": {"positions": "learned", "n_heads": 4, "lr": 3e-3, "steps": 1000},
    "two-ahead": {"horizon": 2},
}
_SHARE = ("share", (0, 1))
ABOUT = {
    "change_step": ("step", (0, None), "step at which the loss of repeats changes at once"),
    "repeat_accuracy": (*_SHARE, "accuracy where a segment of half the length repeats"),
    "repeat_loss": ("nats", (0, None), "loss where a segment of half the length repeats"),
    "first_loss": ("nats", (0, None), "loss where nothing repeats"),
    "previous_token": (*_SHARE, "attention to the previous token, largest over heads of layer 0"),
    "induction": (*_SHARE, "attention to what followed the last time, largest over heads of the last layer"),
    "worst_single": (*_SHARE, "lowest accuracy with one head taken away"),
    "without_layer_0": (*_SHARE, "accuracy with attention of layer 0 taken away"),
    "without_last_layer": (*_SHARE, "accuracy with attention of the last layer taken away"),
    "strength_rank_correlation": ("Spearman", (-1, 1), "attention of a head, and accuracy with it alone in its layer"),
}


class InductionFormation(Finding, name="induction-formation", title="Finding 2: induction forms at once"):
    """Repeated sequences: when does induction form, which heads make it, and which models solve the task otherwise?

    Definition: models are trained on repeated segments under conditions with several seeds, and measured at the last
    step on sequences whose segment repeats once. change_step: the change point of the loss of repeats (see
    `training-timeline`). Heads are taken away one by one, and all of a layer at once. With more than two heads in the
    last layer, each is left alone there: the rank correlation over heads of its induction attention with the accuracy
    that it leaves. Conditions: heads1, heads4, heads8; layers1, the control, which cannot do it; learned-positions, in
    place of rotations; two-ahead, the token after the next is predicted as well, by an unembedding of its own.

    Limits: a low loss is no induction head: with learned positions and segments of different tokens the task is solved
    in another way. With several heads, which one may be lost without harm differs from seed to seed, so the ablation of
    a single head says nothing of the circuit: see whole layers. A rank correlation over four or eight heads of one
    model is coarse. Toys of width 64.

    Source: Olsson et al. 2022, arXiv 2209.11895; Singh et al. 2024, arXiv 2404.07129 (strength and accuracy of single
    heads); Gloeckle et al. 2024, arXiv 2404.19737 (several tokens ahead).

    Returns: each number (condition, seed); `loss` (condition, seed, step).
    """

    tasks = ("induction",)
    about = ABOUT

    conditions: Annotated[str, f"of {', '.join(CONDITIONS)}, with spaces between"] = "heads1 heads4 layers1"

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """About five hundred steps of 32 sequences each."""
        return self.run_cost(500, 80) * self.seeds * len(self.conditions.split())

    def recipes(self, base: Recipe) -> dict[str, Recipe]:
        """One for each condition."""
        names = named(self.conditions, CONDITIONS, "condition")
        return {name: base.with_settings(self.settings(**CONDITIONS[name])) for name in names}

    def measured(self, recipe: Recipe, model: Model, along: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
        """Numbers of one model."""
        steps = sorted(along)
        change = change_point(np.array(steps, float), np.array([along[step]["repeat_loss"] for step in steps]))
        looks = TaskAttention().run(model)
        last = model.sizes.n_layers - 1
        batch = recipe.task.evaluation(64, "probe")

        def accuracy(edits: list[Any]) -> float:
            with hooks(model, edits), torch.no_grad():
                return recipe.task.measures(model.adapter.forward(batch.tokens), batch)["repeat_accuracy"]

        heads = [Head(layer, head) for layer in range(last + 1) for head in range(model.sizes.n_heads)]
        final = along[steps[-1]]
        return {
            "change_step": np.nan if change is None else change.step,
            "repeat_accuracy": final["repeat_accuracy_probe"], "repeat_loss": final["repeat_loss_probe"],
            "first_loss": final["first_loss_probe"],
            "previous_token": float(looks["to_previous_token"].sel(layer=0).max()),
            "induction": float(looks["to_induction"].sel(layer=last).max()),
            "worst_single": min(accuracy([Ablate(head)]) for head in heads),
            "without_layer_0": accuracy([Ablate(Attention(0))]),
            "without_last_layer": accuracy([Ablate(Attention(last))]),
            "strength_rank_correlation": _correlation(looks, heads, last, accuracy),
        }  # fmt: skip

    def said(self, result: xr.Dataset) -> str:
        """The numbers of each condition."""
        said = []
        for name in result["condition"].values:
            one = result.sel(condition=name)
            n = int(np.isfinite(one["repeat_accuracy"]).sum())
            if not n:
                continue
            k = int(np.isfinite(one["change_step"]).sum())
            seeds = f"{k or 'none'} of {counted(n, 'seed')}"
            when = f"at step {mean_and_range(one['change_step'])} in {seeds}" if k else f"in {seeds}"
            said.append(
                f"{name}: a change at once {when}, accuracy {mean_and_range(one['repeat_accuracy'])}, attention to the "
                f"previous token {mean_and_range(one['previous_token'])} and to what followed the last time "
                f"{mean_and_range(one['induction'])}"
            )
        return f"{listed(said)}."


def _correlation(looks: xr.Dataset, heads: list[Head], last: int, accuracy: Any) -> float:
    """Over heads of the last layer: induction attention, and accuracy with that head alone there."""
    of_last = [head for head in heads if head.layer == last]
    if len(of_last) < 4:
        return np.nan
    strength = [float(looks["to_induction"].sel(layer=last, head=head.head)) for head in of_last]
    alone = [accuracy([Ablate(other) for other in of_last if other != head]) for head in of_last]
    return float(spearman(strength, alone)[0])


def change_step_figure(result: xr.Dataset) -> "go.Figure":
    """One number of every seed under each condition: change step."""
    return conditions_figure(result, "change_step")


def induction_figure(result: xr.Dataset) -> "go.Figure":
    """One number of every seed under each condition: induction."""
    return conditions_figure(result, "induction")


VIEW = View(
    InductionFormation,
    question="When does an induction circuit form, and which models solve the task without one?",
    asks=(
        Ask("conditions", "Train"),
        Ask("seeds", "with", unit="seeds each"),
        Ask("steps", "for", unit="steps (0: the recipe's)"),
    ),
    figures=(curves_figure, change_step_figure, induction_figure),
)
