"""Repeated sequences: random tokens, again and again, so that the past says what comes next."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from workbench.errors import InputError
from workbench.loading.toys.tasks.task import Batch, Task, followers

__all__ = ["Induction"]

BOS = 0


@dataclass(frozen=True)
class Induction(Task):
    """Token 0 is BOS; behind it a segment of different tokens repeats until the end. Each sequence draws the length of
    its segment from a quarter to a half of the whole.

    tokens: how many there are beside BOS. length: of a sequence. A field `period` says each segment's length. "probe"
    sequences repeat a segment of half the length once.
    """

    name: ClassVar[str] = "induction"
    about: ClassVar[str] = "a random segment of different tokens that repeats"
    source: ClassVar[str] = "Olsson et al. 2022, arXiv 2209.11895; the lengths are ours"

    tokens: int = 63
    length: int = 48

    def __post_init__(self) -> None:
        if not (self.length >= 16 and self.tokens >= self.length // 2):
            raise InputError(
                f"{self.tokens} tokens, length {self.length}", "a length from 16, and tokens for half of it", "Mend it"
            )

    @property
    def d_vocab(self) -> int:
        """BOS and the tokens."""
        return self.tokens + 1

    @property
    def n_ctx(self) -> int:
        """Tokens of a sequence, without the last target."""
        return self.length

    @property
    def splits(self) -> tuple[str, ...]:
        """As in training, and one repeat of a known length."""
        return ("train", "probe")

    def draw(self, random: np.random.Generator, n: int, split: str = "train") -> Batch:
        """Sequences `[n, length]` and what comes next."""
        half = self.length // 2
        if split == "probe":
            period = np.full(n, half - 1)
        else:
            period = random.integers(self.length // 4, half, n, endpoint=True)
        segments = np.argsort(random.random((n, self.tokens)), axis=-1)[:, :half] + 1
        place = np.arange(self.length)[None] % period[:, None]
        found = np.concatenate([np.zeros((n, 1), np.int64), np.take_along_axis(segments, place, 1)], 1)
        tokens = torch.from_numpy(found)
        return Batch(tokens[:, :-1], tokens[:, 1:], {"period": torch.from_numpy(period)})

    def is_repeat(self, batch: Batch) -> torch.Tensor:
        """Positions whose token occurred before, `[row, pos]`: what comes next is known."""
        return torch.arange(batch.tokens.shape[1]) > batch.fields["period"][:, None]

    def oracle(self, batch: Batch) -> torch.Tensor:
        """The token after the last occurrence; before there is one, any token that has not come yet (all, where the
        segment may have ended: its lengths are equally likely)."""
        rows, n_pos = batch.tokens.shape
        seen = torch.zeros(rows, self.d_vocab, dtype=torch.bool)
        seen[:, BOS] = True
        low, high = self.length // 4, self.length // 2
        found = torch.zeros(rows, n_pos, self.d_vocab, dtype=torch.float32)
        repeats = self.is_repeat(batch)
        for pos in range(n_pos):
            seen.scatter_(1, batch.tokens[:, pos : pos + 1], True)
            fresh = (~seen).float()
            fresh = fresh / fresh.sum(-1, keepdim=True)
            ended = 1 / (high - pos + 1) if low <= pos <= high else float(pos > high)
            found[:, pos] = fresh * (1 - ended)
            found[:, pos].scatter_add_(1, batch.tokens[:, 1:2], torch.full((rows, 1), ended, dtype=torch.float32))
        known = torch.nn.functional.one_hot(batch.targets, self.d_vocab).float()
        return torch.where(repeats[..., None], known, found)

    def measures(self, logits: torch.Tensor, batch: Batch) -> dict[str, float]:
        """`first_loss` and `repeat_loss`: of tokens whose predecessor is new, and of those whose predecessor came
        before, nats; `repeat_accuracy`: how often the latter are the first choice."""
        loss = -logits.log_softmax(-1).gather(-1, batch.targets[..., None])[..., 0]
        repeats = self.is_repeat(batch)
        right = logits.argmax(-1) == batch.targets
        return {
            "first_loss": float(loss[~repeats].mean()),
            "repeat_loss": float(loss[repeats].mean()),
            "repeat_accuracy": float(right[repeats].float().mean()),
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """The second head's pattern."""
        return ("induction",)

    def keys(self, kind: str, batch: Batch) -> torch.Tensor:
        """induction: to the token after the previous occurrence, where there is one."""
        if kind != "induction":
            return super().keys(kind, batch)
        pos = torch.arange(batch.tokens.shape[1])
        return torch.where(self.is_repeat(batch), pos - batch.fields["period"][:, None] + 1, -1)

    def looks(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The previous token, the first, and what followed any earlier occurrence of the query's token."""
        return super().looks(batch) | {"induction": followers(batch.tokens, 1)}
