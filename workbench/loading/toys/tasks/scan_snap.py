"""Scan and Snap: which tokens does attention pick when some are in every context and others in one class alone?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from workbench.errors import InputError
from workbench.loading.toys.tasks.task import Batch, Task, words

__all__ = ["ScanSnap"]


@dataclass(frozen=True)
class ScanSnap(Task):
    """Contextual tokens in random order, then a query token; a class is asked for, which is one of two that the query
    stands for. Distinct tokens occur in contexts of their class alone, common ones in all.

    classes: two for each query token. distinct: tokens of a class; common: those of all. common_share: of a context. A
    distinct token's share of the rest falls as rank^-1: the theory says that the more frequent one wins. Ids: classes,
    queries, common tokens, then the distinct ones by class.
    """

    name: ClassVar[str] = "scan-snap"
    about: ClassVar[str] = "common and distinct tokens of a context, of which distinct ones say the class"
    source: ClassVar[str] = "Tian et al. 2023, arXiv 2305.16380; sizes are ours"
    last_only: ClassVar[bool] = True

    classes: int = 4
    distinct: int = 4
    common: int = 8
    common_share: float = 0.6
    context: int = 31

    def __post_init__(self) -> None:
        if not (self.classes >= 2 and self.classes % 2 == 0 and self.distinct >= 1 and self.common >= 1
                and 0 < self.common_share < 1 and self.context >= 4):  # fmt: skip
            raise InputError(
                f"{self}", "an even number of classes, tokens of both groups, 0 < common_share < 1", "Mend it"
            )

    @property
    def d_vocab(self) -> int:
        """Classes, queries, common and distinct tokens."""
        return self.first_distinct + self.classes * self.distinct

    @property
    def first_common(self) -> int:
        """The id of the first common token."""
        return self.classes + self.classes // 2

    @property
    def first_distinct(self) -> int:
        """The id of the first distinct token."""
        return self.first_common + self.common

    @property
    def n_ctx(self) -> int:
        """The context and the query."""
        return self.context + 1

    @property
    def shares(self) -> np.ndarray:
        """How likely each distinct token of a class is among the distinct ones, `[distinct]`."""
        weights = 1.0 / np.arange(1, self.distinct + 1)
        return weights / weights.sum()

    def draw(self, random: np.random.Generator, n: int, split: str = "train") -> Batch:
        """Sequences `[n, context + 1]` with one target. At least one token of each is distinct."""
        kind = random.integers(self.classes, size=n)
        is_common = random.random((n, self.context)) < self.common_share
        is_common[:, 0] = False
        common = self.first_common + random.integers(self.common, size=(n, self.context))
        distinct = random.choice(self.distinct, (n, self.context), p=self.shares)
        distinct = self.first_distinct + kind[:, None] * self.distinct + distinct
        context = random.permuted(np.where(is_common, common, distinct), axis=1)
        found = np.concatenate([context, self.classes + kind[:, None] // 2], 1)
        targets = torch.full((n, self.n_ctx), -1)
        targets[:, -1] = torch.from_numpy(kind)
        return Batch(torch.from_numpy(found), targets, {})

    def choices(self) -> slice:
        """Classes."""
        return slice(0, self.classes)

    def oracle(self, batch: Batch) -> torch.Tensor:
        """The class of any distinct token, for sure."""
        found = torch.nn.functional.one_hot(batch.targets.clamp(min=0), self.d_vocab).float()
        return found * (batch.targets >= 0)[..., None]

    def measures(self, logits: torch.Tensor, batch: Batch) -> dict[str, float]:
        """`accuracy` among the classes."""
        right = logits[:, -1, self.choices()].argmax(-1) == batch.targets[:, -1]
        return {"accuracy": float(right.float().mean())}

    def looks(self, batch: Batch) -> dict[str, torch.Tensor]:
        """From the query to distinct and to common tokens, and to the most frequent of the distinct ones."""
        tokens = batch.tokens
        is_distinct = tokens >= self.first_distinct
        most = is_distinct & ((tokens - self.first_distinct) % self.distinct == 0)
        is_common = (tokens >= self.first_common) & ~is_distinct
        found = {}
        for name, which in (("distinct", is_distinct), ("common", is_common), ("most_frequent", most)):
            mask = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool)
            mask[:, -1] = which
            found[name] = mask
        return found

    def tokenizer(self) -> Any:
        """Classes K0, ..., queries q0, ..., common c0, ..., distinct d0.0 (class, number)."""
        names = [f"K{i}" for i in range(self.classes)] + [f"q{i}" for i in range(self.classes // 2)]
        names += [f"c{i}" for i in range(self.common)]
        return words([*names, *(f"d{k}.{i}" for k in range(self.classes) for i in range(self.distinct))])
