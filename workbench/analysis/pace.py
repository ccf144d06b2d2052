"""Pace: how long passes of a model take here, and with it what an analysis will take before it runs."""

import time
from dataclasses import dataclass
from typing import Any

from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens
from workbench.observation import observe

__all__ = ["FIXED", "SHORT", "Pace", "length_for", "measured_pace"]

SHORT = 16  # tokens of the prompts in which an analysis counts texts of its own, and of what is timed
FIXED = 32  # tokens that take as long as what is fixed in a pass, on the default model; less on larger ones
_ROWS = 4  # of the larger pass that is timed
_SLOW = 1.0  # seconds of a short pass from which on its fixed part is nothing beside its matrices


@dataclass(frozen=True)
class Pace:
    """Seconds of a forward pass: a fixed part, and one for each token of all its rows."""

    fixed: float = 0.0
    token: float = 0.0

    def seconds(self, n_tokens: int, cost: float = 1.0) -> float:
        """Of work that costs so many bare passes of a prompt of n tokens. They run in batches where they can, so that
        the fixed part is paid about once; costs of what runs pass after pass count it in."""
        return self.fixed + self.token * n_tokens * cost

    def of(self, analysis: Any, model: Model, tokens: Tokens | None) -> float:
        """Of an analysis alone, with the pass that it looks into; tokens: None without a prompt. Good to a factor of
        two or so on a machine that has little else to do."""
        n = length_for(analysis, tokens)
        return self.seconds(n, bool(analysis.shares_pass) + analysis.cost(model.sizes, n))


def length_for(analysis: Any, tokens: Tokens | None) -> int:
    """The length of prompt that an analysis is asked about its cost for: `SHORT` where it reads texts of its own."""
    return SHORT if tokens is None or not analysis.reads_prompt() else len(tokens)


def measured_pace(model: Model) -> Pace:
    """Timed on a pass of `SHORT` tokens and a larger one, the better of two each: other work makes one slow for a
    moment. Of a model whose short pass takes long the larger one is spared."""
    n = min(SHORT, model.sizes.n_ctx)
    short = _seconds(model, 1, n)
    if short > _SLOW:
        return Pace(0.0, short / n)
    token = max((_seconds(model, _ROWS, n) - short) / ((_ROWS - 1) * n), short / n / 10)
    return Pace(max(0.0, short - token * n), token)


def _seconds(model: Model, rows: int, n: int) -> float:
    prompts = [Prompt.ids([i % model.sizes.d_vocab for i in range(3, 3 + n)])] * rows
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        observe(model, prompts, positions="last")
        taken.append(time.perf_counter() - began)
    return min(taken)
