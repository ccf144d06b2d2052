"""Learners of a language from one text as it is read: n-grams, and a hidden Markov model by Baum and Welch.

Each predicts the next symbol after every prefix of a row, from that prefix alone.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.loading.toys.tasks.task import followers

__all__ = ["baum_welch", "n_gram"]

Array = NDArray[np.float64]


def n_gram(tokens: torch.Tensor, n_vocab: int, n: int) -> torch.Tensor:
    """Probabilities `[row, pos, n_vocab]` of what comes next: shares of what followed the last n tokens so far; where
    they never came before, of the last n - 1, and so on down to all tokens so far with one more of each."""
    one_hot = torch.nn.functional.one_hot(tokens, n_vocab).float()
    counts = one_hot.cumsum(1) + 1
    found = counts / counts.sum(-1, keepdim=True)
    for k in range(1, n + 1):
        after = followers(tokens, k).float() @ one_hot
        total = after.sum(-1, keepdim=True)
        found = torch.where(total > 0, after / total.clamp(min=1), found)
    return found


def baum_welch(tokens: NDArray[np.int64], n_vocab: int, n_states: int, iterations: int = 30, seed: int = 0) -> Array:
    """Probabilities `[row, n_vocab]` of the symbol behind each row of `tokens` `[row, pos]`, by a hidden Markov model
    of `n_states` that was fitted to the row alone: `iterations` of expectation and maximisation from one random start.

    Emissions and transitions get a thousandth of a count more, so that nothing is impossible.
    """
    random = np.random.default_rng(seed)
    rows, length = tokens.shape
    move = random.dirichlet(np.ones(n_states), (rows, n_states))
    emit = random.dirichlet(np.ones(n_vocab), (rows, n_states))
    start = np.full((rows, n_states), 1 / n_states)
    one_hot = np.eye(n_vocab)[tokens]
    for _ in range(iterations):
        alpha, beta, seen = _passes(start, move, emit, tokens)
        state = alpha * beta
        state /= state.sum(-1, keepdims=True)
        ahead = beta[:, 1:] * seen[:, 1:]
        pairs = alpha[:, :-1, :, None] * move[:, None] * ahead[:, :, None, :]
        pairs /= pairs.sum((-1, -2), keepdims=True)
        move = pairs.sum(1) + 1e-3
        move /= move.sum(-1, keepdims=True)
        emit = np.einsum("rts,rtv->rsv", state, one_hot) + 1e-3
        emit /= emit.sum(-1, keepdims=True)
        start = state[:, 0]
    alpha, _, _ = _passes(start, move, emit, tokens)
    following = np.einsum("rs,rsz->rz", alpha[:, length - 1], move)
    return np.einsum("rz,rzv->rv", following, emit)


def _passes(start: Array, move: Array, emit: Array, tokens: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Forward and backward probabilities `[row, pos, state]`, each position scaled to sum to 1, and emissions."""
    rows, length = tokens.shape
    seen = emit[np.arange(rows)[:, None, None], np.arange(emit.shape[1])[None, None, :], tokens[:, :, None]]
    alpha, beta = np.empty_like(seen), np.ones_like(seen)
    for pos in range(length):
        before = start if pos == 0 else np.einsum("rs,rsz->rz", alpha[:, pos - 1], move)
        alpha[:, pos] = before * seen[:, pos]
        alpha[:, pos] /= alpha[:, pos].sum(-1, keepdims=True)
    for pos in range(length - 2, -1, -1):
        beta[:, pos] = np.einsum("rsz,rz->rs", move, beta[:, pos + 1] * seen[:, pos + 1])
        beta[:, pos] /= beta[:, pos].sum(-1, keepdims=True)
    return alpha, beta, seen
