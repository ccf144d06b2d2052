"""Finding 4: by heart or from the context? It depends on the data."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import xarray as xr

from probes.formation.change_points import change_point
from probes.formation.findings.conditions import LOSS, conditions_figure, curves_figure, mean_and_range
from probes.formation.findings.finding import Finding
from probes.formation.findings.two_parameters import TwoParameters
from probes.formation.task_attention import TaskAttention
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, View, reads
from workbench.errors import InputError
from workbench.loading.toys.recipe import Recipe
from workbench.models.model import Model, Sizes
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "AbruptLearning"]

_SHARE = ("share", (0, 1))
ABOUT = {
    "accuracy": (*_SHARE, "accuracy on new sequences as in training, of the items that it was trained on"),
    "accuracy_in_context": (*_SHARE, "accuracy on new classes, whose labels stand in the context"),
    "accuracy_swapped": (*_SHARE, "accuracy by the context's labels where those are others than in training"),
    "accuracy_in_weights": (*_SHARE, "accuracy where the query's class is not in the context"),
    "best_in_context": (*_SHARE, "the highest accuracy on new classes at any kept step"),
    "change_step": ("step", (0, None), "step at which accuracy on new classes changes at once"),
    "label_to_item": (*_SHARE, "attention of labels to their item, largest over heads of layer 0"),
    "to_right_label": ("share", (-1, 1), "attention of the query to right labels minus to others, largest over heads"),
    "context_mass": (*_SHARE, "probability of labels that stand in the context"),
}
CURVES = LOSS | {
    "accuracy_in_context": (*_SHARE, "accuracy on new classes"),
    "accuracy_in_weights": (*_SHARE, "accuracy where only memory helps"),
}


class AbruptLearning(Finding, name="abrupt-learning", title="Finding 4: in context or by heart"):
    """Items with labels: does a model learn the labels by heart, or to read them from the context, and at once?

    Definition: [item, label] pairs and a query. Models are trained under each number of classes and each burstiness
    (copies of the query's class in the context), and measured at the last step on items that were held out: new
    classes, whose labels only the context says (in context); classes of training with other labels in the context
    (swapped: right is what the context says); the query's class not in the context (in weights). On new sequences of
    the items that were trained on: accuracy, and progress measures: attention of labels to their item, of the query to
    right labels minus others, probability of labels of the context.
    change_step: the change point of the accuracy on new classes (see `training-timeline`). best_in_context beside the
    last value says whether it is lost again. Beside the toys, for as many pairs, classes in the context and labels, an
    induction head of two parameters and its readout, along the flow that gradient descent at rate 1 follows closely
    (it changes some updates later: at 43 where the flow does at 40): its probability of the right label after about as
    many updates, and about at which its loss is half of that of a guess among the labels of the context (see
    `two_parameters`).

    Limits: items are from a finite pool of 8 a class, 6 of them trained on. Adam, layer norms and an MLP in each block
    in place of the paper's SGD and three-layer classifier. Accuracy by chance is one in the number of labels. Steps of
    the two-parameter model are of a rate of its own: compare which conditions it learns and in what order, not when.
    It knows no classes of training: their number changes nothing there.

    Source: Reddy 2023, arXiv 2312.03002; Chan et al. 2022, arXiv 2205.05055; Singh et al. 2023, arXiv 2311.08360
    (transience).

    Returns: each number (condition, seed); `loss`, `accuracy_in_context_along` and `accuracy_in_weights_along`
    (condition, seed, step); of the two-parameter model `model_probability` (condition, step) and `model_change`
    (condition), NaN where there is none.
    """

    tasks = ("gaussian-classes",)
    about = ABOUT
    curves = CURVES

    classes: Annotated[str, "numbers of classes, with spaces between"] = "128 1024"
    burstiness: Annotated[str, "copies of the query's class in the context, with spaces between"] = "1 4"

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """About fifteen hundred steps of 64 sequences each; not measured, taken from its brothers."""
        return self.run_cost(1500, 100) * self.seeds * len(self.classes.split()) * len(self.burstiness.split())

    def recipes(self, base: Recipe) -> dict[str, Recipe]:
        """One for each pair of numbers."""
        found = {
            _named(classes, copies): base.with_settings(self.settings(classes=classes, burstiness=copies))
            for classes in self.classes.split() for copies in self.burstiness.split()
        }  # fmt: skip
        if not found:
            raise InputError("no classes or no burstiness", "at least one number of each", "Name them")
        return found

    def measured(self, recipe: Recipe, model: Model, along: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
        """Numbers of one model."""
        steps = sorted(along)
        curve = np.array([along[step]["accuracy_in_context"] for step in steps])
        change = change_point(np.array(steps, float), curve)
        looks, last = TaskAttention().run(model), along[steps[-1]]
        right = looks["to_query_to_label"] - looks["to_query_to_other"]
        return {
            **{name: last[name] for name in ABOUT if name in last},
            "best_in_context": float(curve.max()),
            "change_step": np.nan if change is None else change.step,
            "label_to_item": float(looks["to_label_to_item"].sel(layer=0).max()),
            "to_right_label": float(right.max()),
        }

    def beside(self, result: xr.Dataset, recipes: Mapping[str, Recipe]) -> xr.Dataset:
        """With the two-parameter model of each condition."""
        steps = [float(step) for step in result["step"].values]
        models = [_two_parameters(recipe) for recipe in recipes.values()]
        right = [np.full(len(steps), np.nan) if model is None else np.exp(-model.along(steps)) for model in models]
        changes = [np.nan if model is None else model.change_step() for model in models]
        title = "probability of the right label, two-parameter model"
        more = dataset(
            None, {"condition": list(recipes), "step": result["step"].values},
            model_probability=("condition step", np.array(right), "probability", (0, 1), title),
            model_change=("condition", np.array(changes), "update", (0, None), "when the two-parameter model changes"),
        )  # fmt: skip
        return result.assign(more.data_vars)

    def said(self, result: xr.Dataset) -> str:
        """The accuracies of each condition."""
        said = []
        for name in result["condition"].values:
            one = result.sel(condition=name)
            n, k = (int(np.isfinite(one[variable]).sum()) for variable in ("accuracy", "change_step"))
            if n:
                said.append(
                    f"{name} (n = {counted(n, 'seed')}): "
                    f"{mean_and_range(one['accuracy_in_context'])} on new classes, "
                    f"at once in {k}, and {mean_and_range(one['accuracy_in_weights'])} where only memory helps"
                )
        changes = zip(result["condition"].values, result["model_change"].values, strict=True)
        beside = ", ".join(f"{when:.0f} with {name}" for name, when in changes if np.isfinite(when))
        more = f" The two-parameter model changes at about update {beside}." if beside else ""
        return f"Accuracy with {'; with '.join(said)}.{more}"


def _named(classes: str, copies: str) -> str:
    return f"{classes} classes, {copies} {'copy' if copies == '1' else 'copies'}"


def _two_parameters(recipe: Recipe) -> TwoParameters | None:
    """The model for contexts of a recipe; None where the query's class is not there, or alone, and nothing is matched.

    Of classes in the context at most as many are told apart as there are labels.
    """
    task: Any = recipe.task
    classes = min(task.pairs // task.burstiness, task.labels) if task.burstiness else 0
    return TwoParameters(task.pairs, classes, task.labels) if classes > 1 else None


@reads("abrupt-learning")
def beside_figure(result: xr.Dataset) -> "go.Figure":
    """Accuracy on new classes along training, mean over seeds, and beside it the two-parameter model's probability."""
    from plotly.subplots import make_subplots

    from workbench.figures.heatmap import finish, over_panels
    from workbench.figures.theme import LINES

    n = result.sizes["seed"]
    titles = (f"toys: accuracy on new classes (n = {counted(n, 'seed')})", "two-parameter model, rate 1: probability")
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=titles)
    for index, name in enumerate(result["condition"].values):
        one = result.sel(condition=name)
        shown = (one["accuracy_in_context_along"].mean("seed"), one["model_probability"])
        for column, values in enumerate(shown, start=1):
            figure.add_scatter(
                x=result["step"].values, y=values.values, mode="lines", name=str(name), legendgroup=str(name),
                showlegend=column == 1, line={"color": LINES[index % len(LINES)], "width": 2}, row=1, col=column,
                hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
            )  # fmt: skip
    finish(figure, "How often, or how surely, the right label is said along training", None, None)
    figure.update_xaxes(type="log", title_text="step").update_yaxes(range=(0, 1))
    figure.update_yaxes(title_text="share, probability", col=1)
    return over_panels(figure).update_layout(showlegend=True)


@reads("abrupt-learning")
def accuracy_in_context_figure(result: xr.Dataset) -> "go.Figure":
    """Accuracy on new classes of every seed under each condition."""
    return conditions_figure(result, "accuracy_in_context")


def accuracy_in_weights_figure(result: xr.Dataset) -> "go.Figure":
    """Accuracy by memory alone of every seed under each condition."""
    return conditions_figure(result, "accuracy_in_weights")


VIEW = View(
    AbruptLearning,
    question="Does a model learn labels by heart or from the context, and what of the data decides it?",
    asks=(
        Ask("classes", "Train on", unit="classes"),
        Ask("burstiness", "with", unit="copies in the context"),
        Ask("seeds", "and", unit="seeds each"),
    ),
    figures=(accuracy_in_context_figure, accuracy_in_weights_figure, curves_figure, beside_figure),
)
