"""P(p <= 0.05) of the causal check, with every unit of a kind claimed in turn.

A unit that is claimed whatever it does is no more extreme than its like, so a test that keeps what it promises says
p <= 0.05 of at most one unit in twenty, also among the loud ones alone. Effects are those of zero ablation on the
log-probability of the top token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from apps.calibration.counts import Counts
from probes.checks.matched_controls import N_CONTROLS, draw_controls
from probes.checks.norms import SILENT, output_norms
from probes.checks.relation import HOLDS, relation
from workbench.intervene import MLP, Ablate, Attention, AttentionEdge, AttentionKey, Head, Neurons, Residual
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.observation.metrics import make_metric
from workbench.observation.sweeps import base_run, values_of
from workbench.statistics import monte_carlo_p

__all__ = ["KINDS", "PROMPTS", "count_checks", "random_prompt"]

KINDS: dict[str, Any] = {
    "heads": Head, "neurons": Neurons, "edges": AttentionEdge, "keys": AttentionKey, "states": Residual,
    "MLPs": MLP, "attention blocks": Attention,
}  # fmt: skip
PROMPTS = (
    "The capital of France is", "When Mary and John went to the store, John gave a drink to",
    "The quick brown fox jumps over the lazy", "She opened the door, looked at the rain, and decided to",
    "In 1969 the first people landed on the", "def add(a, b):\n    return a +",
)  # fmt: skip
_MOST = 400  # units of a kind that are removed on one prompt
_CLASSES = (("0.8 or less", 0.0, 0.8), ("0.8 to 1.25", 0.8, 1.25), ("above 1.25", 1.25, np.inf))


@dataclass(frozen=True)
class _Effects:
    """Of the units that were removed; NaN elsewhere. Both `[layer, index]`, rows: the query of an index."""

    effects: np.ndarray
    norms: np.ndarray


def random_prompt(model: Model, seed: int, n_tokens: int = 10) -> Any:
    """Random ids."""
    ids = torch.randperm(model.sizes.d_vocab - 2, generator=torch.Generator().manual_seed(seed))[:n_tokens] + 1
    return Prompt.ids(ids.tolist())


def count_checks(counts: Counts, weights: str, model: Model, prompt: Any, kind: str, seed: int) -> None:
    """Claim each of up to 400 units of a kind and count. weights: what the model is called in the table."""
    tokens = tokenise(model, prompt)
    if kind in ("MLPs", "neurons") and not model.sizes.d_mlp:
        return
    found = _effects(model, tokens, KINDS[kind], seed)
    known = np.argwhere(np.isfinite(found.effects))
    thirds = np.quantile(found.norms[tuple(known.T)], [1 / 3, 2 / 3, 0.9])
    row = f"{weights}: {kind}"
    for layer, index in known.tolist():
        own, norm = found.effects[layer, index], found.norms[layer, index]
        controls = draw_controls(found.norms, [(layer, index)], N_CONTROLS)
        tested = controls.kind == "matched units"
        counts.add("refused", row, "all", not tested, 1)
        if tested:
            others = np.array([found.effects[one[0]] for one in controls.sets])
            p = float(monte_carlo_p(abs(own), np.abs(others)))
            for column in _columns(controls.louder, norm, thirds):
                counts.add("caliper", row, column, p <= 0.05, 1)
        for column, small in _second(kind, found, known, layer, index, norm, thirds):
            counts.add("relation", row, column, small, 1)


def _columns(louder: float, norm: float, thirds: np.ndarray) -> Iterator[str]:
    yield "all"
    yield next(f"{name} times its controls" for name, low, high in _CLASSES if low < louder <= high)
    yield from _by_norm(norm, thirds)


def _by_norm(norm: float, thirds: np.ndarray) -> Iterator[str]:
    yield ("quietest third", "middle third", "loudest third")[int((norm > thirds[:2]).sum())]
    if norm > thirds[2]:
        yield "loudest tenth"


def _second(
    kind: str, found: _Effects, known: np.ndarray, layer: int, index: int, norm: float, thirds: np.ndarray
) -> Iterator[tuple[str, bool]]:
    """The answer without a caliper, where its model is not rejected."""
    others = known[(known != [layer, index]).any(1)]
    places, own = tuple(others.T), float(found.effects[layer, index])
    pos = (others[:, 1], index) if kind == "states" else ()
    beside = relation(own, found.effects[places], found.norms[places] - norm, others[:, 0], layer, "changes", *pos)
    if np.isfinite(beside.p) and beside.test_p >= HOLDS:
        for column in ("all", *_by_norm(norm, thirds)):
            yield column, beside.p <= 0.05


def _effects(model: Model, tokens: Any, kind: Any, seed: int) -> _Effects:
    last = len(tokens) - 1
    queries = (last,) if kind is AttentionEdge else ()
    norms = output_norms(model, [tokens], kind, queries)
    shape = norms.shape
    places = np.argwhere(np.isfinite(norms) & (norms > SILENT))
    random = np.random.default_rng(seed)
    places = places[np.sort(random.permutation(len(places))[:_MOST])]
    cells = [[Ablate(_unit(kind, place, last))] for place in places.tolist()]
    base = base_run(model, tokens)
    metric = make_metric(model, base.tokens, base.logits(model), kind="log-probability")
    effects, kept = np.full(shape, np.nan), np.full(shape, np.nan)
    effects[tuple(places.T)] = values_of(model, base, cells, metric).double().numpy() - base.value(model, metric)
    kept[tuple(places.T)] = norms[tuple(places.T)]
    return _Effects(effects.reshape(shape[0], -1), kept.reshape(shape[0], -1))


def _unit(kind: Any, place: list[int], last: int) -> Any:
    if kind is AttentionEdge:
        return AttentionEdge(place[0], place[1], last, place[3])
    return Neurons(place[0], (place[1],)) if kind is Neurons else kind(*place)
