"""Finding 1: in Bigram-Backcopy one head learns to work behind triggers and to rest on BOS elsewhere."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import xarray as xr

from probes.formation.findings.backcopy_heads import backcopy_measures
from probes.formation.findings.conditions import conditions_figure, curves_figure, listed, mean_and_range
from probes.formation.findings.finding import Finding, named
from workbench.analysis.view import Ask, View
from workbench.loading.toys.recipe import Recipe
from workbench.models.model import Model, Sizes
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "BackcopyFormation"]

CONDITIONS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "relu": {"attention": "relu"},
    "layers3": {"n_layers": 3, "steps": 800},
    "layers3-sgd": {"n_layers": 3, "steps": 800, "optimiser": "sgd", "lr": 0.03, "weight_decay": 0.0},
}
_SHARE, _NATS, _RATIO = ("share of attention", (0, None)), ("nats", (0, None)), ("ratio", (0, None))
ABOUT = {
    "sink": (*_SHARE, "attention to BOS of queries that are no triggers, largest over heads"),
    "rest": (*_SHARE, "attention of the same queries to BOS and to triggers, which are never copied"),
    "sink_at_triggers": (*_SHARE, "attention to BOS of triggers, in the same head"),
    "previous_at_triggers": (*_SHARE, "share of the attention of triggers that goes to the token before"),
    "value_drain": (*_RATIO, "norm of BOS's value behind W_O over that of other tokens"),
    "trigger_drain": (*_RATIO, "norm of the values of triggers behind W_O over that of other tokens"),
    "output_ratio": (*_RATIO, "norm of what the head writes elsewhere over that at triggers"),
    "sink_logit": ("score", None, "score of BOS minus the mean of other keys"),
    "peak": (*_RATIO, "norm of BOS over the median of other tokens behind block 0"),
    "sink_layer": ("layer", (0, None), "layer of that head"),
    "bigram_kl": (*_NATS, "KL to the table, elsewhere"),
    "backcopy_loss": (*_NATS, "loss behind triggers"),
    "backcopy_silent_at_triggers": (*_NATS, "loss behind triggers, attention silent there"),
    "kl_silent_elsewhere": (*_NATS, "KL to the table, attention silent elsewhere"),
    "sink_with_block_0": (*_SHARE, "the sink above block 0"),
    "sink_without_block_0": (*_SHARE, "the sink above block 0 when that adds nothing"),
    "drain_with_block_0": (*_RATIO, "drain above block 0"),
    "drain_without_block_0": (*_RATIO, "drain above block 0 when that adds nothing"),
    "peak_with_block_0": (*_RATIO, "peak behind block 1"),
    "peak_without_block_0": (*_RATIO, "peak behind block 1 when block 0 adds nothing"),
}


class BackcopyFormation(Finding, name="backcopy-formation", title="Finding 1: sink, drain and dormant heads form"):
    """A head that copies behind triggers and rests elsewhere: does it make a sink, drain BOS's value, and still matter?

    Definition: Bigram-Backcopy models are trained under conditions with several seeds and measured at their last step,
    on queries from position 8 on of one fixed evaluation batch. In the head with the largest sink: attention to BOS
    where no copy is asked for and where one is, and to BOS and triggers together (no token before a trigger is one, so
    neither is ever copied, and both may be drained), attention to the token before, the norm of v W_O of BOS, and of
    triggers, over that of other tokens (drain), the norm of what it writes (dormant over active), the score of BOS over
    that of others. Losses
    with all attention silent at triggers, and elsewhere. Conditions: softmax; relu attention; layers3, three layers,
    where block 0 is also taken away; layers3-sgd, the same by SGD.

    Limits: Toys of width 64 and 1000 steps, not the paper's 256 and 10,000 or more. SGD and Adam differ in rate and in
    how far they come in equal steps: at equal sinks their peaks were equal in runs made before, so flatness under SGD
    says little. How a resting head shares its attention between BOS and triggers differs from seed to seed, and so does
    which layer holds the sink. A peak here is one to three times the median, not a hundred. The sink's score still
    grows or levels off by seed and rate: no law is read off it. In ReLU attention the score of BOS is no criterion, its
    weight is; there the numbers are weights, not shares.

    Source: Guo et al. 2024, arXiv 2410.13835; the text of the bigrams and the sizes are ours.

    Returns: each number (condition, seed); `loss` (condition, seed, step); those of block 0 only of three layers.
    """

    tasks = ("bigram-backcopy",)
    about = ABOUT

    conditions: Annotated[str, f"of {', '.join(CONDITIONS)}, with spaces between"] = "softmax relu"

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """About a thousand steps of 32 sequences each."""
        return self.run_cost(1000, 60) * self.seeds * len(self.conditions.split())

    def recipes(self, base: Recipe) -> dict[str, Recipe]:
        """One for each condition."""
        names = named(self.conditions, CONDITIONS, "condition")
        return {name: base.with_settings(self.settings(**CONDITIONS[name])) for name in names}

    def measured(self, recipe: Recipe, model: Model, along: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
        """Numbers of one model."""
        return backcopy_measures(recipe, model)

    def said(self, result: xr.Dataset) -> str:
        """The numbers of each condition."""
        said = []
        for name in result["condition"].values:
            one = result.sel(condition=name)
            n = int(np.isfinite(one["sink"]).sum())
            if not n:
                continue
            text = (
                f"{name} (n = {counted(n, 'seed')}): "
                f"BOS gets {mean_and_range(one['sink'])} where nothing is to be copied, with "
                f"triggers {mean_and_range(one['rest'])}, and {mean_and_range(one['sink_at_triggers'])} at triggers, "
                f"drain {mean_and_range(one['value_drain'])}, of triggers {mean_and_range(one['trigger_drain'])}, "
                f"loss behind triggers {mean_and_range(one['backcopy_loss'])}, and "
                f"{mean_and_range(one['backcopy_silent_at_triggers'])} with attention silent there"
            )
            if np.isfinite(one["sink_without_block_0"]).any():
                text += (
                    f"; above block 0 a sink of {mean_and_range(one['sink_with_block_0'])}, and of "
                    f"{mean_and_range(one['sink_without_block_0'])} without block 0"
                )
            said.append(text)
        return f"{listed(said)}."


def sink_figure(result: xr.Dataset) -> "go.Figure":
    """The sink of every seed under each condition."""
    return conditions_figure(result, "sink")


def value_drain_figure(result: xr.Dataset) -> "go.Figure":
    """The drain of every seed under each condition."""
    return conditions_figure(result, "value_drain")


def backcopy_silent_at_triggers_figure(result: xr.Dataset) -> "go.Figure":
    """One number of every seed under each condition: backcopy silent at triggers."""
    return conditions_figure(result, "backcopy_silent_at_triggers")


VIEW = View(
    BackcopyFormation,
    question="Does a head that has nothing to do make an attention sink, and does it matter only where it works?",
    asks=(
        Ask("conditions", "Train"),
        Ask("seeds", "with", unit="seeds each"),
        Ask("steps", "for", unit="steps (0: the recipe's)"),
    ),
    figures=(
        sink_figure, value_drain_figure, backcopy_silent_at_triggers_figure,
        curves_figure,
    ),
)  # fmt: skip
