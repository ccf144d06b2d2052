"""Random numbers of one's own, where what draws them takes everybody's."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Draws", "Float32"]

# What initialisations draw with: torch's own, and those that transformers puts in their place under the same names.
_RANDOM = (
    "normal_", "uniform_", "trunc_normal_", "xavier_normal_", "xavier_uniform_", "kaiming_normal_", "kaiming_uniform_",
    "orthogonal_", "normal", "randn", "rand",
)  # fmt: skip


# What makes tensors of the default dtype, which a notebook may have set to float64.
_MADE = ("empty", "zeros", "ones", "randn", "rand", "normal")


class Draws(TorchFunctionMode):
    """While open, weights that this thread initialises are drawn with a generator of its own.

    Torch's global one is neither read nor set: what others draw meanwhile, and afterwards, is as it would be.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch asks this for every function that it calls."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _RANDOM and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


class Float32(TorchFunctionMode):
    """While open, weights that this thread makes are float32, whatever the default dtype, which stays everybody's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch asks this for every function that it calls."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _MADE and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        return func(*args, **kwargs)
