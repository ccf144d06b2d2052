"""The loss of texts with all heads, and without one: the pass starts again at the head's layer."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from workbench.intervene import Ablate, Head
from workbench.models.hooks import LOGITS, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation import Need, Site, keep, observe
from workbench.observation.recording import Means

__all__ = ["BATCH_TOKENS", "ablated_loss", "base_pass", "text_loss"]

BATCH_TOKENS = 2048


def text_loss(logits: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean surprisal of a text's tokens behind the first, (batch,), nats per token. logits: (batch, pos, d_vocab)."""
    losses = []
    for row, tokens, length in zip(logits, site.tokens, site.lengths.tolist(), strict=True):  # a row at a time: memory
        losses.append(cross_entropy(row[: length - 1].float(), tokens[1:length]))
    return torch.stack(losses)


_LOSS = Need((LOGITS,), text_loss)


def base_pass(
    model: Model, tokens: Sequence[Tokens], layers: Sequence[int], progress: Callable[[float], None] | None = None
) -> tuple[np.ndarray, dict[int, torch.Tensor]]:
    """Loss of every text, (prompt,), and resid_pre of the layers that ablations will start from."""
    asked = sorted(set(layers))
    state = Need((RESID_PRE,), keep, dims="pos d_model", layers=asked)
    seen = observe(model, tokens, [_LOSS, state], positions="none", progress=progress, batch_tokens=BATCH_TOKENS)
    states = seen[state]
    for row, text in enumerate(tokens):
        states[:, row, len(text) :] = 0.0  # padding is NaN there, and would enter the attention of others
    return seen[_LOSS].cpu().numpy().astype(np.float64), dict(zip(asked, states, strict=True))


def ablated_loss(
    model: Model,
    tokens: Sequence[Tokens],
    head: Head,
    state: torch.Tensor | None,
    means: Means | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Loss of every text with a head ablated, (prompt,), nats per token: by zero, or by `means` where given.

    state: resid_pre of the head's layer from `base_pass`; the pass starts there. None runs all of it.
    """
    ablation = Ablate(head, "zero") if means is None else Ablate(head, "mean", means)
    start = None if state is None else (head.layer, state)
    seen = observe(
        model,
        tokens,
        [_LOSS],
        positions="none",
        interventions=[ablation],
        start=start,
        batch_tokens=BATCH_TOKENS,
        progress=progress,
    )
    return seen[_LOSS].cpu().numpy().astype(np.float64)
