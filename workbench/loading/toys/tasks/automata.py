"""Random languages: strings of one random automaton, which has to be learnt from them as they are read."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from workbench.errors import InputError
from workbench.loading.toys.tasks.task import Batch, Task, followers, words

__all__ = ["SEPARATOR", "Automata"]

SEPARATOR = 0


@dataclass(frozen=True)
class Automata(Task):
    """Strings of one random probabilistic automaton after another, a separator (token 0) in front of each.

    Every sequence draws its own automaton: 2 to `states` states, each with 1 to `edges` different symbols, all equally
    likely, that lead to states drawn at random. A string starts in state 0 and ends with probability 1 / `mean` after
    each symbol. The test is on automata that were never seen, as all are. The automaton that is meant: its states are
    known to the oracle, not to the reader.
    """

    name: ClassVar[str] = "automata"
    about: ClassVar[str] = "strings of a random automaton that is another one in each sequence"
    source: ClassVar[str] = "Akyurek et al. 2024, arXiv 2401.12973; strings end at random"

    symbols: int = 8
    states: int = 4
    edges: int = 2
    mean: int = 12
    length: int = 96

    def __post_init__(self) -> None:
        if not (1 <= self.edges <= self.symbols <= 96 and self.states >= 2 and self.mean >= 2 and self.length >= 16):
            raise InputError(
                f"{self}",
                "edges from 1 to symbols, up to 96 symbols, states and mean from 2, a length from 16",
                "Mend it",
            )

    @property
    def d_vocab(self) -> int:
        """The separator and the symbols."""
        return self.symbols + 1

    @property
    def n_ctx(self) -> int:
        """Tokens of a sequence, without the last target."""
        return self.length

    def draw(self, random: np.random.Generator, n: int, split: str = "train") -> Batch:
        """Sequences `[n, length]`, what comes next, and with what probability (field `truth`)."""
        target, chance = self._automata(random, n)
        rows = np.arange(n)
        state, found = np.zeros(n, np.int64), np.zeros((n, self.length + 1), np.int64)
        truth = np.zeros((n, self.length, self.d_vocab))
        for pos in range(self.length):
            first = found[:, pos] == SEPARATOR
            state = np.where(first, 0, state)
            next_ = chance[rows, state] * np.where(first, 1.0, 1 - 1 / self.mean)[:, None]
            truth[:, pos, 1:], truth[:, pos, SEPARATOR] = next_, np.where(first, 0.0, 1 / self.mean)
            cumulative = truth[:, pos].cumsum(-1)
            cumulative[:, -1] = 1.0
            found[:, pos + 1] = (cumulative <= random.random((n, 1))).sum(-1)
            moved = target[rows, state, np.maximum(found[:, pos + 1] - 1, 0)]
            state = np.where(found[:, pos + 1] == SEPARATOR, 0, moved)
        tokens = torch.from_numpy(found)
        return Batch(tokens[:, :-1], tokens[:, 1:], {"truth": torch.from_numpy(truth).float()})

    def _automata(self, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each symbol leads `[n, state, symbol]`, and how likely it is."""
        shape = (n, self.states, self.symbols)
        sizes = random.integers(2, self.states, n, endpoint=True)
        target = (random.random(shape) * sizes[:, None, None]).astype(np.int64)
        rank = np.argsort(np.argsort(random.random(shape), -1), -1)
        edges = random.integers(1, self.edges, shape[:2], endpoint=True)[..., None]
        return target, (rank < edges) / edges

    def oracle(self, batch: Batch) -> torch.Tensor:
        """What the automaton itself says, its state known."""
        return batch.fields["truth"]

    def measures(self, logits: torch.Tensor, batch: Batch) -> dict[str, float]:
        """`distance`: total variation to the true distribution of the next symbol; `validity`: how often the first
        choice is a symbol that may come; both over the second half of each sequence."""
        found, truth = (x[:, self.length // 2 :] for x in (logits.softmax(-1), batch.fields["truth"]))
        valid = truth.gather(-1, found.argmax(-1, keepdim=True)) > 0
        return {"distance": float((found - truth).abs().sum(-1).mean() / 2), "validity": float(valid.float().mean())}

    def looks(self, batch: Batch) -> dict[str, torch.Tensor]:
        """To the token before, and to what followed the same one, two or three tokens earlier."""
        found = {"previous_token": super().looks(batch)["previous_token"]}
        return found | {f"after_{n}_gram": followers(batch.tokens, n) for n in (1, 2, 3)}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Heads of n-grams."""
        return ("after-one-gram", "after-two-gram")

    def keys(self, kind: str, batch: Batch) -> torch.Tensor:
        """To what followed the last place whose one or two tokens are the query's; as it likes where there is none."""
        if kind not in self.kinds:
            return super().keys(kind, batch)
        found = followers(batch.tokens, 1 + self.kinds.index(kind))
        last = found.shape[-1] - 1 - found.flip(-1).int().argmax(-1)
        return torch.where(found.any(-1), last, -1)

    def tokenizer(self) -> Any:
        """Letters, and | between strings."""
        letters = [chr(97 + i) if i < 26 else chr(0x100 + i) for i in range(self.symbols)]
        return words(["|", *letters], bos="|", by_letter=True)
