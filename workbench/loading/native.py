"""Hooks inside attention that a bridge leaves to the Hugging Face module.

For some architectures (OPT, GPT-J, GPT-Neo, XGLM, Llama 4 and others) the bridge calls the module's own attention and
shows the pattern afterwards: what a hook writes there is discarded, and `scores` are patterns. Each of these modules
passes its masked scores through one softmax, so that is where they are met: while the module runs, PyTorch hands us its
calls, and the one softmax over (batch, head, query, key) goes through our own hook points. No arithmetic changes: the
logits are the same to the bit.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["Inside", "discarding", "instrument"]

_SOFTMAX = (torch.softmax, torch.Tensor.softmax, nn.functional.softmax)


class Inside(TorchFunctionMode):
    """While open, the softmax of one attention module passes through two hook points.

    scores, pattern: hook points that see `[batch, head, query, key]`. shape: batch, heads and positions. dtype: of the
    states, in which masks are made. A learned sink that joins the softmax as a last column is not shown.
    """

    def __init__(self, scores: nn.Module, pattern: nn.Module, shape: tuple[int, int, int], dtype: torch.dtype):
        super().__init__()
        self.scores, self.pattern, self.shape, self.dtype = scores, pattern, shape, dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The softmax under hooks; all else as it is."""
        if func not in _SOFTMAX or not (args and self._is_attention(args[0])):
            return func(*args, **(kwargs or {}))
        (given, *rest), shown = args, (*self.shape, self.shape[2])
        scores = _masked(given, self.dtype).reshape(*shown[:3], given.shape[-1])
        column = scores[..., shown[3] :]
        scores = (
            torch.cat([self.scores(scores[..., : shown[3]]), column], -1) if column.shape[-1] else self.scores(scores)
        )
        weights = func(scores.reshape(given.shape), *rest, **(kwargs or {}))
        seen = weights.reshape(*shown[:3], given.shape[-1])
        left = seen[..., shown[3] :]
        seen = torch.cat([self.pattern(seen[..., : shown[3]]), left], -1) if left.shape[-1] else self.pattern(seen)
        return seen.reshape(given.shape)

    def _is_attention(self, scores: torch.Tensor) -> bool:
        batch, heads, n_pos = self.shape
        if scores.ndim not in (3, 4) or scores.shape[-1] not in (n_pos, n_pos + 1):
            return False
        return tuple(scores.shape[:-1]) in ((batch, heads, n_pos), (batch * heads, n_pos))


def _masked(scores: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Scores with the lowest number of their own format where a mask hides: GPT-J adds a mask of float16 to scores of
    float32, in which -65504 is a number like others. The softmax gives 0 for both."""
    if scores.dtype == dtype or dtype != torch.float16:
        return scores
    return scores.masked_fill(scores < torch.finfo(dtype).min / 2, torch.finfo(scores.dtype).min)


def instrument(attn: Any, n_heads: int, scores: Any, pattern: Any) -> None:
    """Put two hook points inside the module of an attention component.

    The component belongs to the bridge; the Hugging Face module itself is left alone.
    """
    forward = type(attn).forward

    def under_hooks(*args: Any, **kwargs: Any) -> Any:
        state = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        with ExitStack() as stack:
            if scores.fwd_hooks or pattern.fwd_hooks or scores.bwd_hooks or pattern.bwd_hooks:
                shape = state.shape[0], n_heads, state.shape[1]
                stack.enter_context(Inside(scores, pattern, shape, state.dtype))
            return forward(attn, *args, **kwargs)

    attn.__dict__["forward"] = under_hooks  # plain assignment would reach the wrapped module and stay


def discarding(bridge: Any, run: Callable[[], Any], layers: Sequence[int]) -> list[int]:
    """Layers where nothing that is written to the pattern arrives in z: measured in one pass of zeroed patterns.

    run: makes the pass. A layer that shows no pattern at all counts.
    """
    reached: set[int] = set()
    handles = []

    def nothing(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.zeros_like(pattern)

    def look(layer: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def see(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if not inputs[0].any():
                reached.add(layer)

        return see

    try:
        for layer in layers:
            attn = bridge.blocks[layer].attn
            handles.append(attn.hook_pattern.add_hook(nothing).hook)
            handles.append(attn.o.original_component.register_forward_pre_hook(look(layer)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of edits that are discarded: that is what is measured
            run()
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            bridge.blocks[layer].attn.hook_pattern.fwd_hooks.clear()
    return [layer for layer in layers if layer not in reached]
