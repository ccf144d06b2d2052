"""One sequence at every step: patterns of all heads, what each depth says of the next token, and the routes behind the
last one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.routes.extraction import extract
from probes.routes.flow_routes import FlowRoutes
from workbench.loading.toys.recipe import Recipe
from workbench.models.hooks import PATTERN, RESID_POST, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import Need, keep, observe

__all__ = ["watched"]

_LONGEST = 32  # tokens of the sequence
_AMONG = 64  # sequences that it is chosen from
_PATTERN = Need((PATTERN,), keep, dims="head query key")
_POST = Need((RESID_POST,), keep, dims="pos d_model")
_PRE = Need((RESID_PRE,), keep, dims="pos d_model", layers=(0,))
_ROUTES = FlowRoutes()
_ALWAYS = ("previous_token", "first_token")  # looks of every task
_PAST = ("route_mlp", "route_resid_attn", "route_resid_mlp")


def watched(recipe: Recipe, models: Sequence[tuple[int, Model]], steps: Sequence[int]) -> dict[str, Any]:
    """Variables, coords and attributes for a result: `pattern`, `lens` and routes of one sequence of the evaluation
    batch, its first 32 tokens, at the steps of models; NaN at the other steps. Routes only where `flow-routes` applies.
    """
    ids, targets = _sequence(recipe)
    found: dict[str, list[np.ndarray]] = {}
    for _, model in models:
        tokens = tokenise(model, Prompt.ids(ids))
        parts = () if FlowRoutes.refusal(model) else _ROUTES.needs(model, tokens)
        seen = observe(model, tokens, [_PATTERN, _POST, _PRE, *parts])
        at = {"pattern": seen[_PATTERN][:, 0].numpy(), "lens": _right(recipe, seen, targets)}
        for name, values in (at | (_routes(_ROUTES.analyse(seen)) if parts else {})).items():
            found.setdefault(name, []).append(values)
    strings = [models[0][1].vocabulary.string(i) for i in ids]
    places = [list(steps).index(step) for step, _ in models]
    return {
        "variables": {
            name: (dims, _spread(found[name], places, len(steps)), *rest)
            for name, (dims, *rest) in _about(recipe).items() if name in found
        },
        "coords": {name: (dim, strings) for name, dim in
                   (("query_text", "query"), ("key_text", "key"), ("token_text", "pos"))},
        "attrs": {"watched": f"seed {recipe.seed}: {' '.join(strings)}"},
    }  # fmt: skip


def _about(recipe: Recipe) -> dict[str, tuple[Any, ...]]:
    """Dims, units, bounds and long name of what is watched."""
    high, share = (None if recipe.config.attention == "relu" else 1), "share of what it leads into"
    return {
        "pattern": ("step layer head query key", "share of attention", (0, high), "pattern of one sequence"),
        "lens": ("step depth pos", "probability", (0, 1), "probability of the right next token, read out at a depth"),
        "route": ("step layer head query key", share, (0, 1), "attention on the graph behind the last token"),
        **{
            name: ("step layer pos", share, (0, 1), f"{name.removeprefix('route_')} on the graph behind the last token")
            for name in _PAST
        },
    }


def _sequence(recipe: Recipe) -> tuple[list[int], torch.Tensor]:
    """Ids and targets of the sequence in which most different tokens have a key that the task knows of, the first of
    those. (Not most tokens: that is a sequence of one token.)"""
    task = recipe.task
    batch = task.evaluation(_AMONG)
    tokens, looks = batch.tokens[:, :_LONGEST], task.looks(batch)
    own = [mask for name, mask in looks.items() if name not in _ALWAYS] or list(looks.values())
    asked = torch.stack([mask[:, :_LONGEST, :_LONGEST].any(-1) for mask in own]).any(0)
    row = max(range(_AMONG), key=lambda row: len(set(tokens[row][asked[row]].tolist())))
    return tokens[row].tolist(), batch.targets[row, :_LONGEST]


def _right(recipe: Recipe, seen: Any, targets: torch.Tensor) -> np.ndarray:
    """The probability of the right next token (depth, pos), NaN where there is none."""
    states = torch.cat([seen[_PRE][:, 0], seen[_POST][:, 0]])  # depth pos d_model
    choices = recipe.task.choices()
    logits = seen.readout.logits(states)[..., choices]
    right = (targets - (choices.start or 0)).clamp(min=0)
    chance = logits.softmax(-1).gather(-1, right.expand(len(states), -1)[..., None])[..., 0]
    return torch.where(targets >= 0, chance, torch.nan).numpy()


def _routes(result: xr.Dataset) -> dict[str, np.ndarray]:
    """The graph behind the last token's prediction as arrays: shares, 0 off the graph."""
    graph = extract(result)
    n_layers, n_pos = graph.sizes["depth"] - 1, graph.sizes["pos"]
    found = {name: np.zeros((n_layers, n_pos), np.float32) for name in _PAST}
    found["route"] = np.zeros((n_layers, result.attrs["n_heads"], n_pos, n_pos), np.float32)
    names = ("kind", "edge_layer", "edge_head", "edge_query", "edge_key", "weight")
    for kind, layer, head, query, key, weight in zip(*(graph[name].values for name in names), strict=True):
        if kind == "attention":
            found["route"][layer, head, query, key] = weight
        else:
            found[f"route_{kind}"][layer, query] = weight
    return found


def _spread(values: Sequence[np.ndarray], at: Sequence[int], n: int) -> np.ndarray:
    """Values at some of n steps, float32."""
    found = np.full((n, *values[0].shape), np.nan, np.float32)
    found[list(at)] = np.stack(values)
    return found
