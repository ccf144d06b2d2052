"""What the targets of a pass read, where each keeps some edges and something else comes along the others."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from probes.circuits.graph.graph import Graph
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, RESID_MID, RESID_POST, RESID_PRE
from workbench.models.model import Model, Sizes

__all__ = ["Readings", "readings_of"]

_BEHIND = (ATTN_RESULT, ATTN_OUT, RESID_PRE, RESID_MID, RESID_POST)  # where an edit changes what is no source
_STEPS = 64  # of the format: what a stream may be off by, in a model of few layers


def readings_of(model: Model, graph: Graph, mask: np.ndarray, other: torch.Tensor, shape: Sequence[int]) -> "Readings":
    """For a pass over rows and positions of this shape. mask: `[source, target]`. other: as for `with_edges`."""
    values = torch.zeros(graph.shape[0], *shape, model.sizes.d_model, dtype=torch.float32)
    if other.shape[1:3] == (1, 1) and tuple(shape) != (1, 1):
        return _Sums(model, graph, mask, values, other)
    return _Changes(graph, mask, values, other)


class Readings(ABC):
    """What every source of a pass brings, `values` `[source, row, pos, d_model]`, by edge its own or the other."""

    def __init__(self, graph: Graph, mask: np.ndarray, values: torch.Tensor, other: torch.Tensor) -> None:
        self.graph, self.mask, self.values, self.other = graph, mask, values, other

    @abstractmethod
    def take(self, place: Any, own: torch.Tensor) -> None:
        """Sources that have come by."""

    @abstractmethod
    def of(self, stream: torch.Tensor, n: int, targets: slice) -> tuple[torch.Tensor, np.ndarray]:
        """What targets read where the stream is this one and its sources are the first n, all of them come by:
        `[different, row, pos, d_model]`, once for all that keep the same edges, and which of these each target reads.
        """

    def apart(self, sizes: Sizes) -> list[int]:
        """Layers where heads that share keys and values read different ones."""
        shared = (-1, sizes.n_key_value_heads, sizes.n_heads // sizes.n_key_value_heads)
        found = []
        for layer in range(self.graph.n_layers):
            keys_and_values = self.mask[:, self.graph.inputs(layer)][:, sizes.n_heads :].reshape(
                len(self.mask), *shared
            )
            if (keys_and_values != keys_and_values[..., :1]).any():
                found.append(layer)
        return found

    def _columns(self, n: int, targets: slice) -> tuple[np.ndarray, np.ndarray]:
        """Which of the first n edges are kept, `[source, different]`, and which of these are each target's."""
        columns, which = np.unique(self.mask[:n, targets], axis=1, return_inverse=True)
        return columns, which.ravel()

    def _sum(self, chosen: np.ndarray) -> torch.Tensor:
        """Of the chosen values, `[source, different]`: `[different, row, pos, d_model]`."""
        rows = np.flatnonzero(chosen.any(1))
        shape = (chosen.shape[1], *self.values.shape[1:])
        if not len(rows):
            return self.values.new_zeros(shape)
        some = self.values[: len(chosen)] if len(rows) == len(chosen) else self.values[torch.from_numpy(rows)]
        weights = torch.from_numpy(chosen[rows].T.astype(np.float32))
        return (weights @ some.flatten(1)).view(shape)


class _Changes(Readings):
    """The stream, and other minus own of each source whose edge is out: of runs that are like this one, position by
    position, so that what is taken away and what is put in its place are of one size."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._total = torch.zeros_like(self.values[0])  # of all sources that have come by

    def take(self, place: Any, own: torch.Tensor) -> None:
        torch.sub(self.other[place].to(own), own, out=self.values[place])
        self._total += self.values[place] if isinstance(place, int) else self.values[place].sum(0)

    def of(self, stream: torch.Tensor, n: int, targets: slice) -> tuple[torch.Tensor, np.ndarray]:
        """Of few kept edges, all changes minus theirs; of many, those of the others."""
        columns, which = self._columns(n, targets)
        few = columns.sum() <= columns.size / 2
        found = self._sum(columns if few else ~columns)
        return stream + (self._total - found if few else found).to(stream), which


class _Sums(Readings):
    """What is kept and what comes in place of the rest, summed; for zeros and means, which are the same at all
    positions.

    Never the stream minus what is left out: at the first token of many models it is thousands of times what such a
    circuit leaves of it, and its rounding would be read in place of that by norms that divide by what they read.
    """

    def __init__(self, model: Model, *given: Any) -> None:
        super().__init__(*given)
        self._model, self._layer = model, 0
        self._own = torch.zeros(self.values.shape[1:], dtype=torch.float64)  # of all sources that have come by
        self._biases = torch.zeros(self.values.shape[-1], dtype=torch.float64)
        self._peak = torch.zeros(self.values.shape[1:3], dtype=torch.float64)  # of the stream so far
        behind = (edit.where for one in model.interventions for edit in one.edits(model))
        self._is_edited = any(where.hook in _BEHIND for where in behind)

    def take(self, place: Any, own: torch.Tensor) -> None:
        self.values[place] = own
        self._own += self.values[place].double() if isinstance(place, int) else self.values[place].double().sum(0)
        if not isinstance(place, int):  # the heads of a layer, whose bias belongs to none of them
            weights = self._model.weights(self._layer)
            if weights.post_attn_gain is None:
                self._biases += weights.b_O.double().cpu()
            self._layer += 1

    def of(self, stream: torch.Tensor, n: int, targets: slice) -> tuple[torch.Tensor, np.ndarray]:
        columns, which = self._columns(n, targets)
        left_out = torch.from_numpy((~columns).T.astype(np.float32)) @ self.other[:n].flatten(1).float()
        found = self._sum(columns) + left_out[:, None, None] + self._constant(stream).float()
        return found.to(stream), which

    def _constant(self, stream: torch.Tensor) -> torch.Tensor:
        """What of the stream is of no source, float64 `[row, pos, d_model]`: the biases of attention; where there is
        more than rounding, as an edit or another architecture adds, whatever is left."""
        states = stream.double().cpu()
        self._peak = torch.maximum(self._peak, states.abs().amax(-1))
        left = states - self._own
        steps = max(_STEPS, 4 * self.graph.n_layers) * torch.finfo(stream.dtype).eps
        is_rounding = (left - self._biases).abs().amax(-1) <= steps * self._peak
        known = not self._is_edited and bool(is_rounding.all())
        return self._biases.expand_as(left) if known else left
