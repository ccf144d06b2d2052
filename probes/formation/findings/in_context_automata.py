"""Finding 5: a language is learnt from one text as it is read, at first like n-grams."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.formation.findings.conditions import conditions_figure, curves_figure, listed, mean_and_range
from probes.formation.findings.finding import Finding, named
from probes.formation.findings.in_context_learners import baum_welch, n_gram
from workbench.analysis.view import Ask, View
from workbench.loading.toys.clamps import held
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.tasks.task import followers
from workbench.models.hooks import PATTERN
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import Need, keep, observe
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "InContextAutomata"]

CONDITIONS: dict[str, dict[str, Any]] = {
    "free": {},
    "n-gram-heads": {"clamp": "L1H0 after-one-gram + L1H1 after-two-gram"},
    "layers1": {"n_layers": 1},
}
_TV, _R = ("total variation", (0, 1)), ("correlation", (-1, 1))
ABOUT = {
    "distance": (*_TV, "distance of the model to the true distribution"),
    **{f"distance_{n}_gram": (*_TV, f"distance of an in-context {n}-gram learner") for n in (1, 2, 3)},
    "distance_baum_welch": (*_TV, "distance of a hidden Markov model fitted to each text"),
    "distance_at_end": (*_TV, "distance of the model at the place where Baum-Welch is measured"),
    "to_2_gram": (*_TV, "distance of the model to the 2-gram learner"),
    "validity": ("share", (0, 1), "first choices that may come"),
    **{
        f"pattern_{n}_gram": (*_R, f"correlation of a pattern with {n}-gram attention, largest over heads")
        for n in (1, 2)
    },
}
_PATTERN = Need((PATTERN,), keep, dims="head query key")


class InContextAutomata(Finding, name="in-context-automata", title="Finding 5: languages learnt in context"):
    """Each sequence is of a language of its own: how near does a model come to it, beside learners of n-grams?

    Definition: models are trained on strings of random automata, another one in each sequence, and measured on
    automata that were not seen. distance: total variation between the predicted and the true distribution of the next
    symbol (the automaton's state known), mean over the second half of each sequence. Beside it, on the same places,
    in-context n-gram learners (shares of what followed the last n tokens so far, backing off), and, at the last place
    of 32 sequences, a hidden Markov model with as many states as automata have at most, fitted to that sequence alone.
    pattern_n_gram: the correlation, over keys of queries that have one, of a head's pattern with attention that is
    uniform over what followed the same n tokens (Akyurek et al.). Conditions: free; n-gram-heads, where the patterns of
    L1H0 and L1H1 are held on what last followed the same one and two tokens, all through training and when measured;
    layers1.

    Limits: automata of 2 to 4 states and 8 symbols, far smaller than the paper's, and texts of 96 symbols: 1-grams come
    nearer to the truth than longer ones, which are met too seldom.
    The hidden Markov model is from one random start and is not an automaton whose symbol decides the state. That a
    model is near an n-gram learner does not say that it computes one.

    Source: Akyurek et al. 2024, arXiv 2401.12973; sizes are ours.

    Returns: each number (condition, seed); `loss` (condition, seed, step).
    """

    tasks = ("automata",)
    about = ABOUT

    conditions: Annotated[str, f"of {', '.join(CONDITIONS)}, with spaces between"] = "free n-gram-heads"

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """About eight hundred steps of 32 sequences each."""
        return self.run_cost(800, 80) * self.seeds * len(self.conditions.split())

    def recipes(self, base: Recipe) -> dict[str, Recipe]:
        """One for each condition."""
        names = named(self.conditions, CONDITIONS, "condition")
        return {name: base.with_settings(self.settings(**CONDITIONS[name])) for name in names}

    def measured(self, recipe: Recipe, model: Model, along: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
        """Numbers of one model."""
        task: Any = recipe.task
        batch = task.evaluation(64)
        edits = held(recipe.clamps(), task, batch)
        prompts = [tokenise(model, Prompt.ids(row)) for row in batch.tokens.tolist()]
        seen = observe(model, prompts, [_PATTERN], positions="all", interventions=edits)
        predicted = torch.stack(list(seen.logits)).softmax(-1)
        truth, late = batch.fields["truth"], slice(task.length // 2, None)
        grams = {n: n_gram(batch.tokens, task.d_vocab, n) for n in (1, 2, 3)}
        distance = lambda one, other: float((one - other)[:, late].abs().sum(-1).mean() / 2)
        few = baum_welch(batch.tokens[:32].numpy(), task.d_vocab, task.states)
        at_end = lambda one: float(np.abs(one - truth[:32, -1].numpy()).sum(-1).mean() / 2)
        valid = truth.gather(-1, predicted.argmax(-1, keepdim=True))[:, late] > 0
        return {
            "distance": distance(predicted, truth),
            **{f"distance_{n}_gram": distance(found, truth) for n, found in grams.items()},
            "distance_baum_welch": at_end(few), "distance_at_end": at_end(predicted[:32, -1].numpy()),
            "to_2_gram": distance(predicted, grams[2]), "validity": float(valid.float().mean()),
            **{f"pattern_{n}_gram": _correlation(seen[_PATTERN], followers(batch.tokens, n)) for n in (1, 2)},
        }  # fmt: skip

    def said(self, result: xr.Dataset) -> str:
        """How near each condition comes, beside the learners."""
        said = []
        for name in result["condition"].values:
            one = result.sel(condition=name)
            n = int(np.isfinite(one["distance"]).sum())
            if n:
                said.append(
                    f"{name} (n = {counted(n, 'seed')}) "
                    f"is {mean_and_range(one['distance'])} from the truth, with a pattern "
                    f"that correlates {mean_and_range(one['pattern_1_gram'])} with 1-gram attention"
                )
        best = result.isel(condition=0)
        learners = ", ".join(f"{n}-grams {mean_and_range(best[f'distance_{n}_gram'])}" for n in (1, 2, 3))
        return f"{listed(said)}. Learners on the same places: {learners}."


def _correlation(patterns: torch.Tensor, after: torch.Tensor) -> float:
    """The largest over heads of the correlation with uniform attention over `after`, over visible keys of queries that
    have such a key. patterns: (layer, row, head, query, key)."""
    asked = after.any(-1)
    uniform = after.float() / after.sum(-1, keepdim=True).clamp(min=1)
    visible = torch.ones(after.shape[-2:], dtype=torch.bool).tril() & asked[..., None]
    ideal = uniform[visible].numpy()
    found = [np.corrcoef(head[visible].numpy(), ideal)[0, 1] for layer in patterns for head in layer.transpose(0, 1)]
    return float(np.nanmax(found))


def distance_figure(result: xr.Dataset) -> "go.Figure":
    """One number of every seed under each condition: distance."""
    return conditions_figure(result, "distance")


def pattern_1_gram_figure(result: xr.Dataset) -> "go.Figure":
    """One number of every seed under each condition: pattern 1 gram."""
    return conditions_figure(result, "pattern_1_gram")


VIEW = View(
    InContextAutomata,
    question="How does a model learn the language of a text while it reads it, and is it by n-grams?",
    asks=(
        Ask("conditions", "Train"),
        Ask("seeds", "with", unit="seeds each"),
        Ask("steps", "for", unit="steps (0: the recipe's)"),
    ),
    figures=(curves_figure, distance_figure, pattern_1_gram_figure),
)
