"""One sequence at every step: the patterns of all heads, and what each depth says of the next token."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from workbench.loading.toys.recipe import Recipe
from workbench.models.hooks import PATTERN, RESID_POST, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import Need, keep, observe

__all__ = ["watched"]

_LONGEST = 24  # tokens of the sequence
_PATTERN = Need((PATTERN,), keep, dims="head query key")
_POST = Need((RESID_POST,), keep, dims="pos d_model")
_PRE = Need((RESID_PRE,), keep, dims="pos d_model", layers=(0,))


def watched(recipe: Recipe, models: Sequence[tuple[int, Model]], steps: Sequence[int]) -> dict[str, Any]:
    """Variables, coords and attributes for a result: `pattern` and `lens` of the first sequence of the evaluation
    batch, its first 24 tokens, at the steps of models; NaN at the other steps."""
    batch = recipe.task.evaluation(1, recipe.task.splits[-1] if recipe.task.name == "induction" else "train")
    ids, targets = batch.tokens[0, :_LONGEST].tolist(), batch.targets[0, :_LONGEST]
    patterns, lenses = [], []
    for _, model in models:
        seen = observe(model, tokenise(model, Prompt.ids(ids)), [_PATTERN, _POST, _PRE])
        patterns.append(seen[_PATTERN][:, 0].numpy())
        states = torch.cat([seen[_PRE][:, 0], seen[_POST][:, 0]])  # depth pos d_model
        choices = recipe.task.choices()
        logits = seen.readout.logits(states)[..., choices]
        right = (targets - (choices.start or 0)).clamp(min=0)
        chance = logits.softmax(-1).gather(-1, right.expand(len(states), -1)[..., None])[..., 0]
        lenses.append(torch.where(targets >= 0, chance, torch.nan).numpy())
    strings = [models[0][1].vocabulary.string(i) for i in ids]
    high = None if recipe.config.attention == "relu" else 1
    at = [list(steps).index(step) for step, _ in models]
    right_next = "probability of the right next token, read out at a depth"
    return {
        "variables": {
            "pattern": ("step layer head query key", _spread(patterns, at, len(steps)), "share of attention", (0, high),
                        "pattern of one sequence"),
            "lens": ("step depth pos", _spread(lenses, at, len(steps)), "probability", (0, 1), right_next),
        },
        "coords": {name: (dim, strings) for name, dim in
                   (("query_text", "query"), ("key_text", "key"), ("token_text", "pos"))},
        "attrs": {"watched": f"seed {recipe.seed}: {' '.join(strings)}"},
    }  # fmt: skip


def _spread(values: Sequence[np.ndarray], at: Sequence[int], n: int) -> np.ndarray:
    """Values at some of n steps, float32."""
    found = np.full((n, *values[0].shape), np.nan, np.float32)
    found[list(at)] = np.stack(values)
    return found
