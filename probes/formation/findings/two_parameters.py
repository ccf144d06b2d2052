"""An induction head of two numbers, and its readout: three logits inside each other, learnt one after another.

A context holds `pairs` items, each with its label, of `classes` classes, equally many of each; one of them is the
query's. Items of different classes are orthogonal, labels of different classes differ, and there are `labels` of them.
Then

    layer 0    a label looks at its item with q = e^beta / (e^beta + pairs), at all other items and itself alike
    layer 1    the query looks at labels of its class with p = e^a / (e^a + classes - 1),
               a = alpha (q - (1 - q) / pairs)
    readout    a label's logit is xi times the attention that it gets: the loss is -log of the softmax over labels

With beta = alpha = 0 the readout alone can learn which labels stand in the context, down to a loss of log(classes):
slow, then the other two fall over a cliff. With as many labels as classes in the context there is nothing to learn
first, and the start is flat. Nothing is learnt by heart, nothing is noisy.

Source: Reddy 2023, arXiv 2312.03002 (the head of two parameters, three nested logits, the flat start where labels are
as many as classes); the equations are ours, written from its description.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import InputError

__all__ = ["TwoParameters"]

_START = 0.01  # of all three; at 0 alpha and beta would hold each other there
_LATEST = 1e6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TwoParameters:
    """The model for contexts of some shape. InputError where there are not two classes, or fewer labels than those.

    Points are (beta, alpha, xi). Losses are in nats.
    """

    pairs: int
    classes: int
    labels: int

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= min(self.pairs, self.labels):
            raise InputError(f"{self}", "from 2 classes to as many as there are pairs, and labels", "Correct it")

    def head(self, point: Sequence[float]) -> tuple[float, float]:
        """Attention of a label to its item, and of the query to the labels of its class."""
        beta, alpha, _ = point
        q = 1 / (1 + self.pairs * np.exp(-beta))
        p = 1 / (1 + (self.classes - 1) * np.exp(-alpha * (q - (1 - q) / self.pairs)))
        return float(q), float(p)

    def loss(self, point: Sequence[float]) -> float:
        """Of the query's label."""
        return float(-np.log(self._read(point)[0]))

    def gradient(self, point: Sequence[float]) -> Array:
        """Of the loss."""
        alpha, xi = point[1:]
        q, p = self.head(point)
        right, others, _ = self._read(point)
        by_p = xi * (right - 1 - others / (self.classes - 1))
        by_logit = by_p * p * (1 - p)
        reads = q - (1 - q) / self.pairs
        by_q = by_logit * alpha * (1 + 1 / self.pairs)
        by_xi = (right - 1) * p + others * (1 - p) / (self.classes - 1)
        return np.array([by_q * q * (1 - q), by_logit * reads, by_xi])

    def along(self, steps: Sequence[float]) -> Array:
        """Losses after so many updates of gradient descent at rate 1, as a flow, in the order of `steps`."""
        wanted = np.unique(np.asarray(steps, float))
        points = self._flow(float(wanted[-1]), wanted).y.T
        return np.array([self.loss(points[np.searchsorted(wanted, step)]) for step in steps])

    def change_step(self) -> float:
        """When the loss is half of that of a guess among the labels of the context; NaN if not within a million."""
        found = self._flow(_LATEST, None).t_events[0]
        return float(found[0]) if len(found) else np.nan

    def _read(self, point: Sequence[float]) -> tuple[float, float, float]:
        """Probabilities of the right label, of the others in the context, and of those that are not there."""
        p, xi = self.head(point)[1], point[2]
        logits = np.array([xi * p, xi * (1 - p) / (self.classes - 1), 0.0])
        weights = np.array([1, self.classes - 1, self.labels - self.classes]) * np.exp(logits - logits.max())
        right, others, absent = weights / weights.sum()
        return float(right), float(others), float(absent)

    def _flow(self, last: float, steps: Array | None) -> Any:
        from scipy.integrate import solve_ivp

        half = lambda time, point: self.loss(point) - np.log(self.classes) / 2
        half.terminal = steps is None  # type: ignore[attr-defined]
        return solve_ivp(
            lambda time, point: -self.gradient(point), (0.0, max(last, 1e-9)), [_START] * 3, method="LSODA",
            t_eval=steps, events=half, rtol=1e-8, atol=1e-10,
        )  # fmt: skip
