"""Where a text repeats itself: the previous occurrence of every token."""

import torch

__all__ = ["previous_occurrence"]


def previous_occurrence(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Where the token of each position occurred last before it, -1 where there is no usable occurrence.

    tokens, mask: (batch, pos). Not usable is position 0, which draws attention whatever it holds, and an occurrence one
    or two positions back, where an induction head, a previous-token head and a duplicate-token head would look at the
    same key. Returns (batch, pos) integers.
    """
    order = tokens.masked_fill(~mask, -1).argsort(dim=1, stable=True)
    ranked = tokens.gather(1, order)
    last = torch.where(ranked[:, 1:] == ranked[:, :-1], order[:, :-1], -1)
    previous = torch.full_like(order, -1).scatter(1, order[:, 1:], last)
    position = torch.arange(tokens.shape[1], device=tokens.device)
    return previous.masked_fill((previous < 1) | (position - previous < 3) | ~mask, -1)
