"""Bigram-Backcopy: characters follow each other by a table, but behind a trigger comes what stood before it."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch

from workbench.errors import InputError
from workbench.loading.toys.tasks.task import Batch, Task, one_key, words

__all__ = ["BOS", "BigramBackcopy"]

BOS = 0
FIRST = 8  # positions from which is measured: before, attention has little to choose from


@dataclass(frozen=True)
class BigramBackcopy(Task):
    """Token 0 is BOS, then come characters. The first one is no trigger. Behind a trigger t at position n comes the
    token of position n - 1; behind any other token one by the table of bigrams. So no two triggers are adjacent.

    n_triggers: the most frequent characters are triggers. characters: the most frequent ones of the text. The text is
    the documentation that the interpreter brings along (`pydoc_data.topics`).
    """

    name: ClassVar[str] = "bigram-backcopy"
    about: ClassVar[str] = "characters by a table of bigrams; behind a trigger comes what stood before it"
    source: ClassVar[str] = "Guo et al. 2024, arXiv 2410.13835, on another text"

    n_triggers: int = 3
    characters: int = 64
    length: int = 64

    def __post_init__(self) -> None:
        if not (1 <= self.n_triggers < self.characters <= 96 and self.length > FIRST):
            raise InputError(
                f"{self.n_triggers} triggers, {self.characters} characters, length {self.length}",
                f"1 <= n_triggers < characters <= 96 and a length above {FIRST}", "Correct them",
            )  # fmt: skip

    @property
    def d_vocab(self) -> int:
        """BOS and the characters."""
        return self.characters + 1

    @property
    def n_ctx(self) -> int:
        """BOS and what follows, without the last target."""
        return self.length

    @property
    def alphabet(self) -> str:
        """The characters, most frequent first; the first `n_triggers` are the triggers. Their ids count from 1."""
        return _table(self.characters)[0]

    @property
    def marginal(self) -> np.ndarray:
        """How often each token occurs, `[d_vocab]`; BOS never."""
        return _table(self.characters)[1]

    @property
    def transitions(self) -> np.ndarray:
        """P(next | token), `[d_vocab, d_vocab]`; the row of BOS is that of the first token."""
        table = _table(self.characters)[2].copy()
        table[BOS] = np.where(self.is_trigger(np.arange(self.d_vocab)), 0, self.marginal)
        table[BOS] /= table[BOS].sum()
        return table

    def is_trigger(self, tokens: Any) -> Any:
        """Which tokens are triggers."""
        return (tokens >= 1) & (tokens <= self.n_triggers)

    def draw(self, random: np.random.Generator, n: int, split: str = "train") -> Batch:
        """Sequences `[n, length]` and what comes next."""
        cumulative = self.transitions.cumsum(-1)
        cumulative[:, -1] = 1.0  # whatever rounding left
        found = np.zeros((n, self.length + 1), np.int64)
        for pos in range(1, self.length + 1):
            chance = (cumulative[found[:, pos - 1]] <= random.random((n, 1))).sum(-1)
            before = found[:, pos - 2] if pos > 1 else found[:, 0]
            found[:, pos] = np.where(self.is_trigger(found[:, pos - 1]), before, chance)
        tokens = torch.from_numpy(found)
        return Batch(tokens[:, :-1], tokens[:, 1:], {})

    def oracle(self, batch: Batch) -> torch.Tensor:
        """The table's row, or what stood before the trigger."""
        rows = torch.from_numpy(self.transitions).float()[batch.tokens]
        before = torch.nn.functional.one_hot(batch.tokens.roll(1, 1), self.d_vocab).float()
        return torch.where(self.is_trigger(batch.tokens)[..., None], before, rows)

    def measures(self, logits: torch.Tensor, batch: Batch) -> dict[str, float]:
        """`bigram_kl`: KL of the oracle to the model behind other tokens; `backcopy_loss`: of what comes behind a
        trigger (the oracle's is 0); nats, from position 8 on."""
        logprobs = logits.log_softmax(-1)
        oracle, trigger = self.oracle(batch), self.is_trigger(batch.tokens).clone()
        kl = (torch.special.xlogy(oracle, oracle) - oracle * logprobs).sum(-1)
        loss = -logprobs.gather(-1, batch.targets[..., None])[..., 0]
        other = ~trigger
        trigger[:, :FIRST] = other[:, :FIRST] = False
        return {"bigram_kl": float(kl[other].mean()), "backcopy_loss": float(loss[trigger].mean())}

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the paper's head does."""
        return ("active-dormant",)

    def keys(self, kind: str, batch: Batch) -> torch.Tensor:
        """active-dormant: from triggers to the token before, from all others to BOS."""
        if kind != "active-dormant":
            return super().keys(kind, batch)
        before = (torch.arange(batch.tokens.shape[1]) - 1).clamp(min=0).expand_as(batch.tokens)
        return torch.where(self.is_trigger(batch.tokens), before, 0)

    def looks(self, batch: Batch) -> dict[str, torch.Tensor]:
        """From triggers and from all others, from position 8 on: to BOS, and to the token before."""
        pos = torch.arange(batch.tokens.shape[1]).expand_as(batch.tokens)
        trigger = self.is_trigger(batch.tokens)
        found = {}
        for group, asked in (("trigger", trigger), ("other", ~trigger)):
            asked = asked & (pos >= FIRST)
            found[f"{group}_to_previous"] = one_key(torch.where(asked, pos - 1, -1))
            found[f"{group}_to_first"] = one_key(torch.where(asked, 0, -1))
        return found

    def tokenizer(self) -> Any:
        """One token a character, behind BOS."""
        return words(["<s>", *self.alphabet], bos="<s>", by_letter=True)


@cache
def _table(characters: int) -> tuple[str, np.ndarray, np.ndarray]:
    """The alphabet, the marginal and the table, of the documentation with white space made one space."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics.values()).split())
    codes, counts = np.unique(np.array(list(text)), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:characters]
    ids = {character: i + 1 for i, character in enumerate(codes[order])}
    known = np.array([ids.get(character, 0) for character in text])
    pairs = np.zeros((characters + 1, characters + 1))
    both = (known[:-1] > 0) & (known[1:] > 0)
    np.add.at(pairs, (known[:-1][both], known[1:][both]), 1)
    marginal = np.bincount(known, minlength=characters + 1).astype(float)
    marginal[0] = 0
    rows = pairs.sum(-1, keepdims=True)
    table = np.where(rows > 0, pairs / np.maximum(rows, 1), marginal / marginal.sum())
    return "".join(codes[order]), marginal / marginal.sum(), table
