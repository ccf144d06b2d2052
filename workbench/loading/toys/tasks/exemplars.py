"""Exemplars and labels: which label has the query's class? Labels are dealt anew in each sequence."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch

from workbench.errors import InputError
from workbench.loading.toys.tasks.task import Batch, Task, one_key, words

__all__ = ["Exemplars"]


@dataclass(frozen=True)
class Exemplars(Task):
    """[item, label, item, label, query]: two classes with a label each, and one of the two items again. The labels of a
    sequence are an unordered pair of them, dealt at random, so that only the sequence says which is whose.

    classes: of training; as many more are held out ("new classes"). labels: their pairs are split into those of
    training and `held_out_pairs` that occur there in neither order ("new pairs"). A token is a class, whose embedding
    is a learned map of frozen Gaussian numbers. Ids: labels first, then the classes of training, then the held-out.
    """

    name: ClassVar[str] = "exemplars"
    about: ClassVar[str] = "two classes with labels dealt anew, and the query's label is asked for"
    source: ClassVar[str] = "Singh et al. 2024, arXiv 2404.07129, with Gaussian numbers for images"
    last_only: ClassVar[bool] = True

    classes: int = 50
    labels: int = 5
    held_out_pairs: int = 2

    def __post_init__(self) -> None:
        pairs = self.labels * (self.labels - 1) // 2
        if not (self.classes >= 2 and self.labels >= 3 and 1 <= self.held_out_pairs < pairs):
            raise InputError(
                f"{self.classes} classes, {self.labels} labels, {self.held_out_pairs} pairs held out",
                f"at least 2 classes and 3 labels, and 1 to {pairs - 1} pairs held out", "Correct them",
            )  # fmt: skip

    @property
    def d_vocab(self) -> int:
        """Labels, classes of training and as many held out."""
        return self.labels + 2 * self.classes

    @property
    def n_ctx(self) -> int:
        """Two pairs and the query."""
        return 5

    @property
    def n_items(self) -> int:
        """The classes."""
        return 2 * self.classes

    @property
    def splits(self) -> tuple[str, ...]:
        """As in training, with new classes, with new pairs of labels."""
        return ("train", "new_classes", "new_pairs")

    def pairs(self, split: str) -> np.ndarray:
        """The unordered pairs of labels of a split, `[pair, 2]`; which are held out is fixed."""
        all_pairs = np.array(list(combinations(range(self.labels), 2)))
        order = np.random.default_rng(20).permutation(len(all_pairs))
        held = order[: self.held_out_pairs] if split == "new_pairs" else order[self.held_out_pairs :]
        return all_pairs[held]

    def draw(self, random: np.random.Generator, n: int, split: str = "train") -> Batch:
        """Sequences `[n, 5]` with one target."""
        chosen = np.argsort(random.random((n, self.classes)), axis=-1)[:, :2]
        chosen += self.labels + (self.classes if split == "new_classes" else 0)
        pairs = self.pairs(split)
        dealt = random.permuted(pairs[random.integers(len(pairs), size=n)], axis=1)
        which = random.integers(2, size=n)
        query, label = (x[np.arange(n), which] for x in (chosen, dealt))
        found = np.stack([chosen[:, 0], dealt[:, 0], chosen[:, 1], dealt[:, 1], query], 1)
        targets = torch.full((n, 5), -1)
        targets[:, -1] = torch.from_numpy(label)
        return Batch(torch.from_numpy(found), targets, {"which": torch.from_numpy(which)})

    def choices(self) -> slice:
        """Labels."""
        return slice(0, self.labels)

    def oracle(self, batch: Batch) -> torch.Tensor:
        """The query's label, for sure."""
        found = torch.nn.functional.one_hot(batch.targets.clamp(min=0), self.d_vocab).float()
        return found * (batch.targets >= 0)[..., None]

    def measures(self, logits: torch.Tensor, batch: Batch) -> dict[str, float]:
        """`accuracy` among all labels, and `pair_mass`: the probability of the two labels that occur."""
        found = logits[:, -1, self.choices()].softmax(-1)
        right = found.argmax(-1) == batch.targets[:, -1]
        mass = found.gather(-1, batch.tokens[:, [1, 3]]).sum(-1)
        return {"accuracy": float(right.float().mean()), "pair_mass": float(mass.mean())}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The second head's pattern."""
        return ("match",)

    def keys(self, kind: str, batch: Batch) -> torch.Tensor:
        """match: from the query to its label; other queries as they like."""
        if kind != "match":
            return super().keys(kind, batch)
        found = torch.full_like(batch.tokens, -1)
        found[:, -1] = 2 * batch.fields["which"] + 1
        return found

    def looks(self, batch: Batch) -> dict[str, torch.Tensor]:
        """From labels to their item, from the query to its label and to the other one."""
        none = torch.full_like(batch.tokens, -1)
        item, other = none.clone(), none.clone()
        item[:, 1], item[:, 3] = 0, 2
        other[:, -1] = 3 - 2 * batch.fields["which"]
        label = self.keys("match", batch)
        keys = {"label_to_item": item, "query_to_label": label, "query_to_other": other}
        return {name: one_key(value) for name, value in keys.items()}

    def tokenizer(self) -> Any:
        """Labels A, B, ... and classes x0, x1, ...; held-out ones are new0, new1, ..."""
        labels = [chr(65 + i) if i < 26 else f"label{i}" for i in range(self.labels)]
        return words([*labels, *(f"x{i}" for i in range(self.classes)), *(f"new{i}" for i in range(self.classes))])
