"""Which keys each layer's queries see, read off the model's own masks and scores, whatever its config calls them.

A config may name a window in any way, or name one that the model ignores. So a number that might be a window only says
how long an input must be: what is seen there is measured. Short inputs are run as they are, and a key counts as seen
whose score is not the mask's. For long ones the blocks are left out and the masks that they are handed are read: that
costs the embedding alone. Where those hide nothing (GPT-Neo's attention has a mask of its own), it is run after all.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from workbench.models.hooks import masked_below
from workbench.models.model import Sizes

__all__ = ["LONGEST_RUN", "masks", "measured", "reference_length", "shape_of", "visible"]

LONGEST_RUN = 512  # tokens that are run in full; beyond, masks are read
_LONGEST_TRIED = 2050  # and that are run where the masks say nothing of a window
_LONGEST_MASK = 8194  # tokens of the longest mask that is made; a longer window is the config's word
_REFERENCE = 24  # tokens that are compared with the library's own logits where no window asks for more
_SHORTEST = 48  # tokens that are looked at whatever the config says

Seen = tuple[int | None, bool]  # keys that a query sees at most (None: all), and whether in chunks that start anew

_SPEAKING = ("window", "chunk", "local", "span")
_OTHERWISE = ("rope", "theta", "freq", "expert", "layers")  # what else has "local" in its name


def measured(
    sizes: Sizes, config: Any, seen: Callable[[int], list[torch.Tensor]], handed: Callable[[int], list[torch.Tensor]]
) -> Sizes:
    """The sizes with the windows of every layer.

    seen, handed: for a length, the visible keys of each layer by a pass and by its masks, `[query, key]` (bool).
    """
    length = min(max(_length(config, sizes.n_ctx), _SHORTEST), sizes.n_ctx, _LONGEST_MASK)
    shapes = [shape_of(one) for one in (seen if length <= LONGEST_RUN else handed)(length)]
    if LONGEST_RUN < length <= _LONGEST_TRIED and all(window is None for window, _ in shapes):
        shapes = [shape_of(one) for one in seen(length)]
    return _with_windows(sizes, shapes)


def reference_length(config: Any) -> int:
    """Tokens of an input that reaches beyond a sliding window, where such a one is short enough to be run in full."""
    n_ctx = getattr(config, "max_position_embeddings", None) or _SHORTEST
    wanted = _length(config, n_ctx)
    return min(n_ctx, wanted if _REFERENCE < wanted <= LONGEST_RUN else _REFERENCE)


def _length(config: Any, n_ctx: int) -> int:
    """Two tokens more than the largest number of the config that may be a window shorter than the context; or 0."""
    numbers = [
        value
        for name, value in config.to_dict().items()
        if isinstance(value, int)
        and not isinstance(value, bool)
        and any(word in name for word in _SPEAKING)
        and not any(word in name for word in _OTHERWISE)
    ]
    return max((value + 2 for value in numbers if 1 < value < n_ctx - 1), default=0)


def shape_of(seen: torch.Tensor) -> Seen:
    """What visible keys `[query, key]` (bool) amount to: all, a sliding window, or chunks.

    Anything else counts as all: the self-check holds what the sizes say against the scores.
    """
    n = seen.shape[0]
    query, key = torch.arange(n, device=seen.device)[:, None], torch.arange(n, device=seen.device)[None]
    causal = key <= query
    if bool((seen == causal).all()):
        return None, False
    most = int(seen.sum(-1).max())
    if bool((seen == (causal & (query - key < most))).all()):
        return most, False
    if bool((seen == (causal & (query // most == key // most))).all()):
        return most, True
    return None, False


def _with_windows(sizes: Sizes, shapes: list[Seen]) -> Sizes:
    """The sizes with what was measured of each layer."""
    found = [(layer, window, chunks) for layer, (window, chunks) in enumerate(shapes) if window is not None]
    return replace(
        sizes,
        sliding=tuple(layer for layer, _, _ in found),
        windows=tuple(window for _, window, _ in found),
        chunked=tuple(layer for layer, _, chunks in found if chunks),
    )


class _Read(Exception):
    """Leaves the pass once the last block has been handed its mask."""


def masks(blocks: list[Any], run: Callable[[], Any], n_pos: int, tuples: Collection[int] = ()) -> list[torch.Tensor]:
    """The attention mask that each block is handed, as visible keys `[query, key]`; all of them where it gets none.

    tuples: blocks that hand on a tuple whose first entry is the state.
    """
    found = [torch.ones(n_pos, n_pos, dtype=torch.bool).tril()] * len(blocks)
    with _reading(blocks, found, n_pos, tuples), suppress(_Read):
        run()
    return found


@contextmanager
def _reading(blocks: list[Any], found: list[torch.Tensor], n_pos: int, tuples: Collection[int]) -> Iterator[None]:
    def reader(layer: int) -> Callable[..., Any]:
        def hand_on(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            given = [kwargs.get("attention_mask"), *args]
            mask = next((m for m in given if isinstance(m, torch.Tensor) and m.shape[-2:] == (n_pos, n_pos)), None)
            if mask is not None:
                found[layer] = visible(mask[(0,) * (mask.ndim - 2)])
            if layer == len(blocks) - 1:
                raise _Read
            return (hidden_states,) if layer in tuples else hidden_states

        return hand_on

    try:
        for layer, block in enumerate(blocks):
            block.__dict__["forward"] = reader(layer)  # plain assignment would reach the wrapped module and stay
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def visible(scores: torch.Tensor) -> torch.Tensor:
    """Which entries of masked scores, or of a mask, are not hidden."""
    return scores if scores.dtype == torch.bool else scores > masked_below(scores.dtype)
