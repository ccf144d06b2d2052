"""Rows of a batch that begin alike: what linear layers make of their common beginning is multiplied once.

Edited runs of one prompt are the same up to the first position that an edit reaches. A linear layer acts on each vector
by itself, so what it makes of equal vectors is equal, whatever the axes mean and whoever wrote them: only what is equal
to the bit is shared. Sums may come in another order, as in a batch of another size; nothing else changes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from workbench.models.passes import replaced

__all__ = ["linear_layers", "sharing"]

_LINEAR = ("torch.nn.modules.linear.Linear", "transformers.pytorch_utils.Conv1D")
_WORTH = 0.2  # of the products, to be spared: finding and joining what is shared costs a few per cent


def linear_layers(blocks: Iterable[nn.Module]) -> list[nn.Module]:
    """The layers in blocks that are linear maps of vectors and nothing else; what is quantised or adapted is more."""
    of = lambda module: f"{type(module).__module__}.{type(module).__qualname__}"
    return [one for block in blocks for one in block.modules() if of(one) in _LINEAR]


@contextmanager
def sharing(layers: Sequence[nn.Module], here: Callable[[], bool]) -> Iterator[None]:
    """While open, linear layers take the positions at which all rows of `[row, pos, ...]` are equal, from the first one
    on, once for all rows, where `here` says yes; and run as before where it says no, or little would be spared."""
    alike: dict[str, int] = {}  # of the layer before: later ones share no more, but for what an edit makes equal again
    with replaced(layers, lambda forward: _once(forward, here, alike)):
        yield


def _once(forward: Callable[..., Any], here: Callable[[], bool], alike: dict[str, int]) -> Callable[..., Any]:
    def once(given: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if given.ndim != 3 or len(given) < 2 or not here():
            return forward(given, *args, **kwargs)
        rows, n, _ = given.shape
        alike["n"] = shared = _alike(given[:, : alike.get("n", n)])
        if shared * (rows - 1) < _WORTH * rows * n:
            return forward(given, *args, **kwargs)
        first = forward(given[:1, :shared].contiguous(), *args, **kwargs).expand(rows, -1, -1)
        if shared == n:
            return first.contiguous()
        return torch.cat([first, forward(given[:, shared:].contiguous(), *args, **kwargs)], 1)

    return once


def _alike(states: torch.Tensor) -> int:
    """Positions from the first one on at which all rows are equal."""
    differs = states[1:] != states[:1]
    if not bool(differs.any()):  # the common case, in one sweep over memory
        return states.shape[1]
    return int(differs.any(-1).any(0).int().argmax())
