"""Many edited runs of one prompt, sharing what they can.

The prompt runs once and keeps its residual stream. Each cell of a sweep is a handful of interventions; cells are
ordered by the first layer they touch, and a batch of them, one row each, restarts from that layer with the kept state.
Only the last states that the metric reads leave the pass, so logits are computed for those alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.errors import InputError
from workbench.intervene import first_layer, with_rows
from workbench.models.hooks import RESID_POST, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Tokens, tokenise
from workbench.observation import Need, Observation, keep, observe
from workbench.observation.metrics import Metric

__all__ = ["Base", "base_run", "sweep", "values_of"]

_TOKENS = 512  # per batch: larger ones are no faster on a CPU, and each starts at its earliest cell's layer


@dataclass(frozen=True, eq=False)
class Base:
    """The run that a sweep edits: tokens, resid_pre `[layer, pos, d_model]`, the last resid_post, its interventions."""

    tokens: Tokens
    states: torch.Tensor = field(repr=False)
    last: torch.Tensor = field(repr=False)
    interventions: tuple[Any, ...]
    observation: Observation = field(repr=False)

    def logits(self, model: Model, position: int = -1) -> torch.Tensor:
        """Logits at one position, `[d_vocab]`, read out as those of the sweep are."""
        return model.readout.logits(self.last[position][None])[0].float()

    def value(self, model: Model, metric: Metric) -> float:
        """The metric of this run."""
        return float(metric.of_states(self.last[metric.needed(len(self.tokens))][None], model.readout)[0])


def base_run(model: Model, prompt: Any, interventions: Sequence[Any] = (), needs: Sequence[Need] = ()) -> Base:
    """Run a prompt once and keep what sweeps restart from. needs: more to observe in the same pass."""
    tokens = tokenise(model, prompt)
    last = model.sizes.n_layers - 1
    before = Need((RESID_PRE,), keep, dims="pos d_model")
    after = Need((RESID_POST,), keep, dims="pos d_model", layers=(last,))
    seen = observe(
        model, [tokens], [before, after, *needs], interventions=interventions, positions="none", stop=last + 1
    )
    return Base(tokens, seen[before][:, 0], seen[after][0, 0], tuple(interventions), seen)


def sweep(
    model: Model,
    base: Base,
    cells: Sequence[Sequence[Any]],
    metric: Metric,
    *,
    batch_tokens: int = _TOKENS,
    progress: Callable[[float], None] | None = None,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The metric of every edited run, batch by batch.

    cells: interventions of each run, without rows. Yields (indices of cells, values float32 `[cell]`) after each batch,
    so that a caller may show what is done and stop. progress: called with the share done; it may raise to cancel.
    InputError where the base was run on a model with other interventions than this one, RefusedError where the weights
    have been changed since.
    """
    if (*model.interventions, *base.interventions) != base.observation.interventions:
        raise InputError(
            "a base that was run on a model with other interventions", "a base of this model", "Run the base on it"
        )
    positions = metric.needed(len(base.tokens))
    starts = [first_layer(model, cell) for cell in cells]
    order = sorted(range(len(cells)), key=lambda i: starts[i])
    step, done = max(1, batch_tokens // len(base.tokens)), 0
    while done < len(order):
        batch = order[done : done + step]
        base.observation.model.need_steady()
        values = _batch(model, base, [cells[i] for i in batch], starts[batch[0]], positions, metric)
        done += len(batch)
        if progress is not None:
            progress(done / len(order))
        yield batch, values


def _batch(
    model: Model, base: Base, cells: Sequence[Sequence[Any]], start: int, positions: list[int], metric: Metric
) -> torch.Tensor:
    n_layers = model.sizes.n_layers
    if start >= n_layers:  # nothing inside the blocks is edited
        start = n_layers - 1
    need = Need((RESID_POST,), keep, dims="pos d_model", layers=(n_layers - 1,), params={"positions": tuple(positions)})
    edits = [with_rows(edit, row) for row, cell in enumerate(cells) for edit in cell]
    seen = observe(
        model.edited(base.interventions),
        [base.tokens] * len(cells),
        [need],
        positions="none",
        interventions=edits,
        start=(start, base.states[start].expand(len(cells), -1, -1)),
        stop=n_layers,
        batch_tokens=len(cells) * len(base.tokens),
    )
    return metric.of_states(seen[need][0], model.readout)


def values_of(model: Model, base: Base, cells: Sequence[Sequence[Any]], metric: Metric, **options: Any) -> torch.Tensor:
    """The whole sweep, `[cell]`."""
    values = torch.full((len(cells),), torch.nan, dtype=torch.float32)
    for indices, found in sweep(model, base, cells, metric, **options):
        values[indices] = found.cpu()
    return values
