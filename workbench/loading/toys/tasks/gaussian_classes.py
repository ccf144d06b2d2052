"""Classes of Gaussian items: the label of the last item is in the weights, in the context, or in both."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch

from workbench.errors import InputError
from workbench.loading.toys.tasks.task import Batch, Task, one_key, words

__all__ = ["GaussianClasses"]


@dataclass(frozen=True)
class GaussianClasses(Task):
    """[item, label] times `pairs`, then a query item whose label is asked for. Each class has a label for good.

    classes: their frequencies fall as rank^-zipf. labels: classes share them. burstiness: copies of the query's class
    among the pairs; bursty: the share of sequences with any, the others are drawn by frequency. noise: of an item
    around its class, (mean + noise * gauss) / sqrt(1 + noise^2). exemplars: items of a class are drawn from as many,
    so that an item is a token with frozen features; the last quarter of them is held out. Kinds of sequences: "train";
    "in_context": new classes, whose labels stand in the context; "swapped": classes of training with other labels in
    the context; "in_weights": bursts of nothing, the query's class is not in the context. Ids: labels, then items.
    """

    name: ClassVar[str] = "gaussian-classes"
    about: ClassVar[str] = "items of classes with labels; the last label is known from the context or by heart"
    source: ClassVar[str] = "Reddy 2023, arXiv 2312.03002; Chan et al. 2022, arXiv 2205.05055; items are a finite pool"
    last_only: ClassVar[bool] = True

    classes: int = 128
    labels: int = 8
    pairs: int = 8
    burstiness: int = 2
    bursty: float = 1.0
    zipf: float = 0.0
    noise: float = 0.3
    exemplars: int = 8
    d_features: int = 64

    def __post_init__(self) -> None:
        sound = self.classes >= 2 and self.labels >= 2 and self.exemplars >= 4 and self.d_features >= 2
        if not (sound and 0 <= self.burstiness <= self.pairs and 0 <= self.bursty <= 1 and self.noise >= 0):
            raise InputError(
                f"{self}",
                "at least 2 classes and labels, 4 exemplars, burstiness up to pairs, bursty 0 to 1",
                "Mend it",
            )

    @property
    def n_classes(self) -> int:
        """Those of training, and as many new ones as there are labels."""
        return self.classes + self.labels

    @property
    def d_vocab(self) -> int:
        """Labels and items."""
        return self.labels + self.n_items

    @property
    def n_ctx(self) -> int:
        """Pairs and the query."""
        return 2 * self.pairs + 1

    @property
    def n_items(self) -> int:
        """Exemplars of all classes."""
        return self.n_classes * self.exemplars

    @property
    def splits(self) -> tuple[str, ...]:
        """See the class."""
        return ("train", "in_context", "swapped", "in_weights")

    def features(self) -> torch.Tensor:
        """The frozen numbers of every item, `[item, d_features]`."""
        return _features(self.n_classes, self.exemplars, self.d_features, self.noise)

    def label_of(self, classes: np.ndarray) -> np.ndarray:
        """The label of each class, for good; equally many classes a label."""
        order = np.random.default_rng(11).permutation(self.classes)
        return np.where(classes < self.classes, order[classes % self.classes] % self.labels, classes - self.classes)

    def draw(self, random: np.random.Generator, n: int, split: str = "train") -> Batch:
        """Sequences `[n, 2 pairs + 1]` with one target."""
        context, query = self._classes(random, n, split)
        shift = random.integers(1, self.labels, (n, 1)) if split == "swapped" else np.zeros((n, 1), int)
        shift = random.integers(self.labels, size=(n, 1)) if split == "in_context" else shift
        labels, target = (self.label_of(context) + shift) % self.labels, self.label_of(query)
        target = (target + shift[:, 0]) % self.labels
        held = split != "train"
        low, high = (3 * self.exemplars // 4, self.exemplars) if held else (0, 3 * self.exemplars // 4)
        found = np.empty((n, self.n_ctx), np.int64)
        for places, classes in ((slice(0, -1, 2), context), (slice(-1, None), query[:, None])):
            which = random.integers(low, high, classes.shape)
            found[:, places] = self.labels + classes * self.exemplars + which
        found[:, 1::2] = labels
        targets = torch.full((n, self.n_ctx), -1)
        targets[:, -1] = torch.from_numpy(target)
        match = torch.from_numpy(context == query[:, None])
        return Batch(torch.from_numpy(found), targets, {"match": match})

    def _classes(self, random: np.random.Generator, n: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Classes of the context `[n, pairs]` and of the query `[n]`."""
        weights = np.arange(1, self.classes + 1.0) ** -self.zipf
        weights /= weights.sum()
        if split == "in_context":
            drawn = self.classes + np.argsort(random.random((n, self.labels)), -1)[:, : self.pairs]
            context = drawn[:, np.arange(self.pairs) % drawn.shape[1]]
            return random.permuted(context, axis=1), context[:, 0]
        query = random.choice(self.classes, n, p=weights)
        context = random.choice(self.classes, (n, self.pairs), p=weights)
        if split == "in_weights":  # the query's class is not there
            return np.where(context == query[:, None], (context + 1) % self.classes, context), query
        copies = max(1, self.burstiness) if split == "swapped" else self.burstiness
        burst = random.random(n) < (1.0 if split == "swapped" else self.bursty)
        others = (
            context if split == "train" else np.where(context == query[:, None], (context + 1) % self.classes, context)
        )
        repeats = -(-self.pairs // copies) if copies else self.pairs
        bursts = np.repeat(others[:, :repeats], copies, axis=1)[:, : self.pairs] if copies else others
        if copies:
            bursts[:, :copies] = query[:, None]
        chosen = np.where(burst[:, None], bursts, others)
        return random.permuted(chosen, axis=1), query

    def choices(self) -> slice:
        """Labels."""
        return slice(0, self.labels)

    def oracle(self, batch: Batch) -> torch.Tensor:
        """The query's label, for sure: it is known by heart, or stands in the context."""
        found = torch.nn.functional.one_hot(batch.targets.clamp(min=0), self.d_vocab).float()
        return found * (batch.targets >= 0)[..., None]

    def measures(self, logits: torch.Tensor, batch: Batch) -> dict[str, float]:
        """`accuracy`, and `context_mass`: the probability of labels that stand in the context."""
        found = logits[:, -1, self.choices()].softmax(-1)
        there = torch.zeros_like(found).scatter(1, batch.tokens[:, 1::2], 1.0)
        right = found.argmax(-1) == batch.targets[:, -1]
        return {"accuracy": float(right.float().mean()), "context_mass": float((found * there).sum(-1).mean())}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The second head's pattern."""
        return ("match",)

    def keys(self, kind: str, batch: Batch) -> torch.Tensor:
        """match: from the query to the label of its class's last item in the context, where there is one."""
        if kind != "match":
            return super().keys(kind, batch)
        match = batch.fields["match"]
        last = self.pairs - 1 - match.flip(1).int().argmax(1)
        found = torch.full_like(batch.tokens, -1)
        found[:, -1] = torch.where(match.any(1), 2 * last + 1, -1)
        return found

    def looks(self, batch: Batch) -> dict[str, torch.Tensor]:
        """From labels to their item; from the query to labels of its class, and to labels of others, where there are
        both."""
        item = torch.full_like(batch.tokens, -1)
        item[:, 1::2] = torch.arange(0, self.n_ctx - 1, 2)
        match, found = batch.fields["match"], {"label_to_item": one_key(item)}
        both = match.any(1) & ~match.all(1)
        for name, which in (("query_to_label", match), ("query_to_other", ~match)):
            mask = torch.zeros_like(found["label_to_item"])
            mask[:, -1, 1::2] = which & both[:, None]
            found[name] = mask
        return found

    def tokenizer(self) -> Any:
        """Labels A, B, ...; items c0.0 (class, exemplar)."""
        labels = [chr(65 + i) if i < 26 else f"label{i}" for i in range(self.labels)]
        return words([*labels, *(f"c{c}.{e}" for c in range(self.n_classes) for e in range(self.exemplars))])


@cache
def _features(n_classes: int, exemplars: int, width: int, noise: float) -> torch.Tensor:
    random = np.random.default_rng(12)
    means = random.normal(size=(n_classes, 1, width))
    around = random.normal(size=(n_classes, exemplars, width))
    return torch.from_numpy((means + noise * around) / np.sqrt(1 + noise**2)).float().flatten(0, 1)
