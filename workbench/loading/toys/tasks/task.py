"""What a task is: random sequences of token ids with a known best answer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from workbench.errors import InputError

__all__ = ["Batch", "Task", "followers", "one_key", "words"]

TRAIN, EVALUATION = 0, 1  # streams of random numbers that share none


class Batch(NamedTuple):
    """Sequences of one length.

    tokens, targets: ids `[row, pos]`; a target of -1 has no loss. fields: what the generator knows beside, per row
    first.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    fields: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Task(ABC):
    """A generator of batches, its oracle, and what is measured of a model on them. Its fields are its parameters."""

    name: ClassVar[str] = ""
    about: ClassVar[str] = ""
    source: ClassVar[str] = ""
    last_only: ClassVar[bool] = False  # only the last position has a target

    @property
    @abstractmethod
    def d_vocab(self) -> int:
        """Size of the vocabulary."""

    @property
    @abstractmethod
    def n_ctx(self) -> int:
        """Tokens of a sequence."""

    @property
    def n_items(self) -> int:
        """How many tokens, the last ones, are embedded by a learned map of frozen features."""
        return 0

    def features(self) -> torch.Tensor | None:
        """The frozen features of those tokens, `[item, d_features]`; None for Gaussian ones of the run's seed."""
        return None

    @abstractmethod
    def draw(self, random: np.random.Generator, n: int, split: str = "train") -> Batch:
        """n fresh sequences. split: "train", or a kind that is held out of training (`splits`)."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Kinds of sequences that a model is evaluated on."""
        return ("train",)

    @abstractmethod
    def oracle(self, batch: Batch) -> torch.Tensor:
        """The best possible prediction, probabilities `[row, pos, d_vocab]`; zeros where there is no target."""

    def choices(self) -> slice:
        """The ids among which the loss chooses."""
        return slice(0, self.d_vocab)

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over positions with a target, nats. logits: `[row, pos or 1, d_vocab]`."""
        kept, choices = logits[..., self.choices()], self.choices()
        targets = batch.targets[:, -logits.shape[1] :]
        targets = torch.where(targets < 0, targets, targets - (choices.start or 0))
        return torch.nn.functional.cross_entropy(kept.flatten(0, 1), targets.flatten(), ignore_index=-1)

    @abstractmethod
    def measures(self, logits: torch.Tensor, batch: Batch) -> dict[str, float]:
        """What is measured of a model on an evaluation batch, by name; nats and shares."""

    def keys(self, kind: str, batch: Batch) -> torch.Tensor:
        """The key that a head of a kind looks at, `[row, query]`, -1 where it may do as it likes. InputError."""
        raise InputError(f"the attention {kind!r} of {self.name}", self._kinds(), "Choose one of these")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of attention that `keys` knows, beside those that every sequence has."""
        return ()

    def looks(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Places that a head may look at, by name: which keys count for each query, bool `[row, query, key]`. Queries
        without any are not asked."""
        before = torch.arange(batch.tokens.shape[1]) - 1
        found = {"previous_token": one_key(before.expand_as(batch.tokens))}
        first = torch.where(before < 0, -1, 0)
        found["first_token"] = one_key(first.expand_as(batch.tokens))
        return found | {kind.replace("-", "_"): one_key(self.keys(kind, batch)) for kind in self.kinds}

    def _kinds(self) -> str:
        return f"one of {', '.join(self.kinds)}" if self.kinds else "none, since it has none of its own"

    def tokenizer(self) -> Any:
        """For people: reads and writes the sequences; None where tokens are numbers."""
        return None

    def batch(self, seed: int, first: int, n: int, rows: int) -> list[Batch]:
        """n training batches of `rows` sequences, drawn together: those of steps first ... first + n - 1."""
        whole = self.draw(np.random.default_rng([seed, TRAIN, first]), n * rows)
        return [self.part(whole, slice(i * rows, (i + 1) * rows)) for i in range(n)]

    def evaluation(self, rows: int = 128, split: str = "train", seed: int = 0) -> Batch:
        """One fixed batch to evaluate on, the same for every model of the task."""
        number = self.splits.index(split)
        return self.draw(np.random.default_rng([seed, EVALUATION, number]), rows, split)

    @staticmethod
    def part(batch: Batch, rows: slice) -> Batch:
        """Some rows of a batch."""
        fields = {name: value[rows] for name, value in batch.fields.items()}
        return Batch(batch.tokens[rows], batch.targets[rows], fields)


def one_key(keys: torch.Tensor) -> torch.Tensor:
    """One key a query, `[row, query]` (-1 for none), as bool `[row, query, key]`."""
    there = torch.nn.functional.one_hot(keys.clamp(min=0), keys.shape[1]).bool()
    return there & (keys >= 0)[..., None]


def followers(tokens: torch.Tensor, n: int) -> torch.Tensor:
    """Which keys follow an earlier place whose last n tokens are the query's, bool `[row, query, key]`.

    As berlino/seq_icl defines an n-gram head.
    """
    length = tokens.shape[1]
    pos = torch.arange(length)
    same = torch.ones(tokens.shape[0], length, length, dtype=torch.bool)  # query i, earlier place j - 1
    for back in range(n):
        shifted = tokens.roll(back, 1)
        shifted[:, :back] = -1 - back
        same &= shifted[:, :, None] == shifted.roll(1, 1)[:, None, :]
    same &= (pos >= n)[None, None, :] & (pos >= n - 1)[None, :, None]
    return same & (pos[None, :] <= pos[:, None])


def words(names: list[str], *, bos: str | None = None, by_letter: bool = False) -> Any:
    """A tokenizer of these words, in the order of their ids, at spaces or by letter. bos: one that comes first."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {name: i for i, name in enumerate(names)}
    unknown = " " if " " in vocabulary else names[-1]
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    if by_letter:
        made.pre_tokenizer, made.decoder = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated"), decoders.Fuse()
    else:
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos is not None:
        made.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, vocabulary[bos])])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos)
