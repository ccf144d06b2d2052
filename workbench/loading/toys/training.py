"""Training a toy: n steps are n updates, and step 0 is untrained.

Every batch, and every weight at the start, follows from the seed by generators of their own, so that nothing else that
draws random numbers changes a run, and a run changes nothing else.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from workbench.draws import Draws, Float32
from workbench.errors import RefusedError
from workbench.intervene import hooks
from workbench.loading.toys.adapter import ToyAdapter
from workbench.loading.toys.clamps import fixed, held
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.tasks.task import Batch
from workbench.loading.toys.transformer import ToyTransformer
from workbench.models.model import Identity, Model
from workbench.pauses import pause

__all__ = ["DivergedError", "Evaluated", "Training", "alone_on_a_core", "evaluated"]

_AHEAD = 32  # batches that are drawn together


class DivergedError(RefusedError):
    """A run whose loss is no number any more. step: the first one without a loss."""

    def __init__(self, name: str, step: int):
        super().__init__(
            f"{name}, whose training diverged: the loss at step {step} is no number", "a run that stays finite",
            f"Use a checkpoint before step {step}, which are kept, or a smaller lr",
        )  # fmt: skip
        self.step = step


class Evaluated(NamedTuple):
    """What a model makes of the fixed evaluation batches: the loss of the first kind, and measures by name."""

    loss: float
    measures: dict[str, float]


class Training:
    """A run of a recipe, at a step. `advance` makes one update."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.step = recipe, 0
        with Draws(recipe.seed):
            self.module = ToyTransformer(recipe.config)
        if (features := recipe.task.features()) is not None:
            self.module.features.data.copy_(features)
        for name, matrix in self.module.named_parameters():
            if ".W_" in name:  # of blocks
                matrix.data.mul_(recipe.init)
        with Draws(recipe.seed + 1), Float32():
            sizes = recipe.config.d_model, recipe.config.d_vocab
            self.ahead = nn.ModuleList([nn.Linear(*sizes, bias=False) for _ in range(1, recipe.horizon)])
        self.model = Model(Identity("a toy in training", "", architecture="toy"), ToyAdapter(self.module))
        self.module.train()
        weights = [p for p in (*self.module.parameters(), *self.ahead.parameters()) if p.requires_grad]
        self.optimiser = _optimiser(recipe, weights)
        self.clamps = recipe.clamps()
        self._batches: list[Batch] = []

    def advance(self) -> float:
        """One update; the loss before it. RefusedError where that is no number: then nothing was changed."""
        pause()
        batch = self._next()
        with self._held(batch):
            loss = self._loss(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(f"toy:{self.recipe.task.name}, seed {self.recipe.seed}", self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        with self._kept():
            self.optimiser.step()
        self.step += 1
        return value

    def _next(self) -> Batch:
        recipe, place = self.recipe, self.step % _AHEAD
        if place == 0 or not self._batches:
            self._batches = recipe.task.batch(recipe.seed, self.step - place, _AHEAD, recipe.batch)
        return self._batches[place]

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Of the next token; with a horizon beside it, equally, of those behind it by unembeddings of their own."""
        task, last = self.recipe.task, self.recipe.task.last_only
        states = self.module.states(batch.tokens, last)
        loss = task.loss(self.module.logits(self.module.unembed(states)), batch)
        for ahead, unembed in enumerate(self.ahead, 1):
            targets = torch.full_like(batch.targets, -1)
            targets[:, :-ahead] = batch.targets[:, ahead:]
            loss = loss + task.loss(unembed(states), batch._replace(targets=targets))
        return loss

    @contextlib.contextmanager
    def _held(self, batch: Batch) -> Iterator[None]:
        if not self.clamps:
            yield
            return
        with hooks(self.model, held(self.clamps, self.recipe.task, batch)):
            yield

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Queries and keys of a head whose pattern is told stay as they are: weight decay must not move them."""
        told, blocks = fixed(self.clamps), self.module.blocks
        names = ("W_Q", "W_K", "b_Q", "b_K")
        slices = [getattr(blocks[h.layer], n).data[h.head] for h in told for n in names if hasattr(blocks[h.layer], n)]
        before = [kept.clone() for kept in slices]
        yield
        for kept, value in zip(slices, before, strict=True):
            kept.copy_(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that going on from here needs: weights and the optimiser's moments."""
        found = {f"weight/{name}": value for name, value in self.module.state_dict().items()}
        found |= {f"ahead/{name}": value for name, value in self.ahead.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            found |= {f"moment/{number}/{n}": v for n, v in state.items() if isinstance(v, torch.Tensor)}
        return found

    def restore(self, tensors: dict[str, torch.Tensor], step: int) -> None:
        """Go back to where `tensors` was called."""
        weights = {n.removeprefix("weight/"): v for n, v in tensors.items() if n.startswith("weight/")}
        self.module.load_state_dict(weights)
        self.ahead.load_state_dict({n.removeprefix("ahead/"): v for n, v in tensors.items() if n.startswith("ahead/")})
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("moment/"):
                _, number, moment = name.split("/")
                state.setdefault(int(number), {})[moment] = value.clone()
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.step, self._batches = step, []


def _optimiser(recipe: Recipe, weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(
        weights, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )  # fmt: skip


def evaluated(model: Model, recipe: Recipe, *, clamped: bool = True) -> Evaluated:
    """Loss and measures of a model on the fixed evaluation batches of a recipe's task, each kind of sequences.

    Of each kind 128 sequences with one target, or 64 with one at each position. clamped: under the clamps it was
    trained with. Measures of the first kind have their own names, of others the kind's behind it.
    """
    task, clamps = recipe.task, recipe.clamps() if clamped else ()
    found: dict[str, float] = {}
    losses, rows = [], 128 if task.last_only else 64
    for split in task.splits:
        batch = task.evaluation(rows, split)
        with hooks(model, held(clamps, task, batch)), torch.no_grad():
            logits = model.adapter.forward(batch.tokens)
        losses.append(float(task.loss(logits[:, -1:] if task.last_only else logits, batch)))
        ending = "" if split == task.splits[0] else f"_{split}"
        found |= {f"{name}{ending}": value for name, value in task.measures(logits, batch).items()}
        found |= {f"loss{ending}": losses[-1]} if ending else {}
    return Evaluated(losses[0], found)


@contextlib.contextmanager
def alone_on_a_core() -> Iterator[None]:
    """One thread, and numbers too small to be normal are zero: both as they were at the end.

    On tiny models threads wait for each other; saturated attention makes such numbers, on which a processor is slow.
    """
    threads, flushing = torch.get_num_threads(), _is_flushing()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushing)


def _is_flushing() -> bool:
    return not bool((torch.tensor([1e-38]) * 0.01).item())
