"""What the heads of a Bigram-Backcopy model do: sink, drain, peak, active and dormant queries, ablations."""

from dataclasses import dataclass
from typing import Any

import torch

from workbench.intervene import MLP, Ablate, Attention, hooks
from workbench.intervene.edit import Edit, Printed, Where
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.tasks.bigram_backcopy import FIRST
from workbench.loading.toys.tasks.task import Batch
from workbench.models.hooks import PATTERN, RESID_POST, SCORES, V, Z, masked_below
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import Need, keep, observe

__all__ = ["SilentAt", "backcopy_measures"]

_PATTERN = Need((PATTERN,), keep, dims="head query key")
_SCORES = Need((SCORES,), keep, dims="head query key")
_V = Need((V,), keep, dims="pos head d_head")
_Z = Need((Z,), keep, dims="pos head d_head")
_POST = Need((RESID_POST,), keep, dims="pos d_model")


@dataclass(frozen=True, eq=False, repr=False)
class SilentAt(Printed):
    """Heads of a layer write nothing at some places, bool `[row, pos]`."""

    layer: int
    places: torch.Tensor
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"SilentAt(L{self.layer}, {int(self.places.sum())} places)"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of z."""

        def write(z: torch.Tensor, mesh: Any, length: int) -> None:
            z[self.places] = 0.0

        return [Edit(Where(Z, self.layer), write)]


def backcopy_measures(recipe: Recipe, model: Model) -> dict[str, float]:
    """Numbers of one model. The sink layer is the one where queries that are no triggers look most at BOS, of its
    heads the largest; queries from position 8 on."""
    task: Any = recipe.task
    batch = task.evaluation(128)
    tokens = [tokenise(model, Prompt.ids(row)) for row in batch.tokens.tolist()]
    seen = observe(model, tokens, [_PATTERN, _SCORES, _V, _Z, _POST], positions="none")
    late, is_trigger = torch.arange(batch.tokens.shape[1]) >= FIRST, task.is_trigger(batch.tokens)
    trigger, other = is_trigger & late, ~is_trigger & late
    pattern = seen[_PATTERN]  # layer row head query key
    sink = _mean(pattern[..., 0].transpose(-1, -2), other)  # layer head
    layer, head = divmod(int(sink.argmax()), sink.shape[1])
    rows = pattern[layer, :, head]  # row query key
    before = rows.diagonal(-1, -2, -1) / rows.sum(-1)[:, 1:].clamp(min=1e-9)  # row, query 1 ...: of the row's weight
    written = (seen[_Z][layer, :, :, head] @ model.weights(layer).W_O[head]).norm(dim=-1)
    value = (seen[_V][layer, :, :, head] @ model.weights(layer).W_O[head]).norm(dim=-1)
    never_copied = is_trigger.float()
    never_copied[:, 0] = 1.0
    found = {
        "sink": float(sink.max()),
        "rest": float(torch.einsum("rqk,rk->rq", rows, never_copied)[other].mean()),
        "trigger_drain": float(value[trigger].mean() / value[other].mean()),
        "sink_at_triggers": float(pattern[layer, :, head, :, 0][trigger].mean()),
        "previous_at_triggers": float(before[trigger[:, 1:]].mean()),
        "value_drain": float(value[:, 0].mean() / value[other].mean()),
        "output_ratio": float(written[other].mean() / written[trigger].mean()),
        "sink_logit": _sink_logit(seen[_SCORES][layer, :, head], other),
        "peak": _peak(seen[_POST]),
        "sink_layer": float(layer),
    }
    return found | _ablated(model, recipe, batch, trigger, other)


def _mean(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Mean of (layer, row, query, head) over places (row, query): (layer, head)."""
    return values[:, places].mean(1)


def _sink_logit(scores: torch.Tensor, places: torch.Tensor) -> float:
    """Score of BOS minus the mean of the other keys that a query sees, mean over places. scores: row query key."""
    seen = (scores > masked_below(scores.dtype)).tril()  # an intervention may hide some
    visible = seen.clone()
    visible[..., 0] = False
    others = scores.masked_fill(~visible, 0).sum(-1) / visible.sum(-1).clamp(min=1)
    return float((scores[..., 0] - others)[places & seen[..., 0]].mean())


def _peak(states: torch.Tensor) -> float:
    """The norm of BOS over the median norm of other tokens behind block 0. states: (layer, row, pos, d_model)."""
    norms = states[0].norm(dim=-1)
    return float(norms[:, 0].mean() / norms[:, 1:].median())


def _ablated(
    model: Model, recipe: Recipe, batch: Batch, trigger: torch.Tensor, other: torch.Tensor
) -> dict[str, float]:
    """Losses with all attention silent at triggers, at other queries; and the sink with block 0 taken away."""
    task: Any = recipe.task

    def losses(edits: list[Any]) -> dict[str, float]:
        with hooks(model, edits), torch.no_grad():
            return task.measures(model.adapter.forward(batch.tokens), batch)

    layers = range(model.sizes.n_layers)
    free = losses([])
    found = {
        **free,
        "backcopy_silent_at_triggers": losses([SilentAt(i, trigger) for i in layers])["backcopy_loss"],
        "kl_silent_elsewhere": losses([SilentAt(i, other) for i in layers])["bigram_kl"],
    }
    if model.sizes.n_layers > 1:
        found |= without_block_0(model, batch, other)
    return found


def without_block_0(model: Model, batch: Batch, other: torch.Tensor) -> dict[str, float]:
    """Sink, drain and peak when block 0 adds nothing: attention and MLP. The sink is the largest over layers above."""

    edits: list[Any] = [Ablate(Attention(0)), Ablate(MLP(0))] if model.sizes.d_mlp else [Ablate(Attention(0))]
    tokens = [tokenise(model, Prompt.ids(row)) for row in batch.tokens.tolist()]
    found: dict[str, float] = {}
    for ending, given in (("with_block_0", []), ("without_block_0", edits)):
        seen = observe(model, tokens, [_PATTERN, _V, _POST], positions="none", interventions=given)
        above = seen[_PATTERN][1:, ..., 0].transpose(-1, -2)
        sink = _mean(above, other)
        layer, head = divmod(int(sink.argmax()), sink.shape[1])
        value = (seen[_V][layer + 1, :, :, head] @ model.weights(layer + 1).W_O[head]).norm(dim=-1)
        norms = seen[_POST][1].norm(dim=-1)
        found[f"sink_{ending}"] = float(sink.max())
        found[f"drain_{ending}"] = float(value[:, 0].mean() / value[other].mean())
        found[f"peak_{ending}"] = float(norms[:, 0].mean() / norms[:, 1:].median())
    return found
