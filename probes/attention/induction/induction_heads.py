"""Induction heads on a stimulus of their own, with intervals over sequences and a test.

On repeated random tokens nothing but the repeat says what comes next.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import xarray as xr

from probes.attention.induction.figures import (
    duplicate_token_figure,
    head_detail,
    induction_figure,
    loss_figure,
    previous_token_figure,
)
from probes.attention.induction.repeat_attention import AT_LAG, KINDS
from probes.attention.induction.sentences import on_stimulus
from probes.checks import claims
from probes.stimuli import LENGTH, SHORTEST, repeated_tokens
from workbench.analysis.kinds import OnModel, Stimulus
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.models.hooks import LOGITS
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import ROWS, VISIBLE
from workbench.observation import Need, Observation
from workbench.observation.reducers import token_loss
from workbench.statistics import benjamini_hochberg, bootstrap_interval, draws_for, sign_flip_test

__all__ = ["VIEW", "InductionHeads"]

EFFECT_FLOOR = 0.1  # attention share above its null that a head must exceed to be called by a score
FALSE_DISCOVERY = 0.05
DRAWS = 2000
_LOSS = Need((LOGITS,), token_loss, dims="pos")


class InductionHeads(OnModel, name="induction-heads", title="Induction heads", requires=(ROWS, VISIBLE)):
    """Which heads look at what followed the current token last time.

    Definition: Mean attention, over queries q whose token occurred P positions before, to the key after that occurrence
    (induction, q - P + 1), to the previous token (q - 1), and to the occurrence itself (duplicate, q - P). Stimulus: a
    BOS token, then random ordinary tokens that repeat with a random period P; queries are those of the second copy.
    Interval: 95 % bootstrap-t over sequences. Null: the same score, at the same distances, on sequences without a
    repeat. Effect d: score minus the mean attention to other keys of the same rows (without key 0, the query and the
    three keys of the scores), minus the same on a partner sequence without a repeat. The previous-token score needs no
    repeat: there d has no partner, and the null is attention to other keys. q: one-sided sign flip of d - 0.1 over
    sequences, Benjamini-Hochberg per score over all heads; without that floor random weights pass, whose preferences
    for a distance are real and a thousand times smaller. A head is called by a score (induction, previous-token,
    duplicate-token head) where q is at most 0.05. In-context learning score: loss on the second copy minus loss on the
    first (nats), each without its first token; below zero means that the repeat helps.

    Limits: A score says where a head looks, not what it does with it: ablate the head to see whether it matters. Random
    tokens are no language: on text a head may behave otherwise. The prompt is not used: the stimulus is the analysis's
    own. With 16 sequences no single head of more than 3,276 can be called, which the sentence then says; 17 can. NaN is
    not applicable: a sliding-window layer that cannot see the key.

    Source: Olsson et al. 2022, arXiv 2209.11895 (prefix matching on repeated random tokens, in-context learning score);
    the random periods, the baseline of other keys, the test and the label are ours

    Returns: Scores with interval, null, effect and q per head; the label; losses on the first and second copy. For each
    of `induction_score`, `previous_token_score`, `duplicate_token_score` (layer, head), shares of attention: `_low`,
    `_high` (95 %, bootstrap-t over the repeated sequences), `_null`, `_d` (effect), `_q`, and the scalar
    `_null_95`. `is_induction_head`, `is_previous_token_head`, `is_duplicate_token_head` (layer,
    head). `loss_first_copy`, `loss_second_copy`, `in_context_learning_score`,
    `loss_by_position` (pos), `loss_by_offset` (offset), nats, with intervals; the curves also with `_null`.
    """

    n_sequences: Annotated[int, Range(16, 1024), "repeated sequences, and as many without a repeat"] = 16
    length: Annotated[
        int, Range(SHORTEST, 1024), "tokens after the first; fewer where the model's context is shorter"
    ] = LENGTH
    seed: Annotated[int, Range(0, 2**31 - 1), "seed of the stimulus, the bootstrap and the test"] = 0

    def stimulus(self, model: Model, progress: Progress | None = None) -> Stimulus:
        """Repeated random tokens, and as many sequences of the same length without a repeat."""
        return repeated_tokens(model, n_sequences=self.n_sequences, length=self.length, seed=self.seed)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Its sequences, and a third more for the intervals and tests."""
        return 1.3 * 2 * self.n_sequences * (1 + self.length) / SHORT

    def needs(self, model: Model, tokens: Sequence[Tokens]) -> tuple[Need, ...]:
        """Attention at the lags of the stimulus, and the loss of every token."""
        return AT_LAG, _LOSS

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Scores, label and losses."""
        repeated = (observation.fields["period"] > 0).cpu().numpy()
        attention = observation[AT_LAG].cpu().numpy()  # layer prompt head component
        cut = np.isnan(attention).any(1, keepdims=True)  # a window that hides the key of some sequences
        attention = np.where(cut, np.nan, attention)
        variables: dict[str, Any] = {}
        for slot, kind in enumerate(KINDS):
            variables |= _score(kind, attention[..., slot], attention[..., slot + 3], repeated, self.seed)
        for kind in KINDS:
            label = variables[f"{kind}_score_q"][1] <= FALSE_DISCOVERY  # NaN is no such head
            name = f"{kind.replace('_', '-')} head"
            variables[f"is_{kind}_head"] = ("layer head", label, "true or false", (0, 1), name)
        losses, coords = _losses(observation, repeated, self.seed)
        result = dataset(observation, coords, **variables, **losses)
        result = result.assign_attrs(n_sequences=int(repeated.sum()))
        summary = on_stimulus(result, FALSE_DISCOVERY, EFFECT_FLOOR)
        return result.assign_attrs(_notes(observation, int(repeated.sum())), summary=summary)


def _score(kind: str, at_key: np.ndarray, at_others: np.ndarray, repeated: np.ndarray, seed: int) -> dict[str, Any]:
    """All variables of one score. at_key, at_others: (layer, prompt, head); repeated: (prompt,).

    A head may prefer a distance whatever the tokens: against other keys alone, a third of the heads in layer 1 of
    random GPT-2s pass at p < 0.05. So each repeated sequence is held against its partner at the same lag; if the repeat
    plays no part, their difference is symmetric about zero, as the test asks. The previous token needs no repeat and is
    itself a distance: it is held against other keys only.
    """
    contrast = at_key - at_others
    difference = contrast[:, repeated]
    if kind == "previous_token":
        null, null_text = at_others[:, ~repeated].mean(1), "attention to other keys without a repeat"
    else:
        difference = difference - contrast[:, ~repeated]
        null, null_text = at_key[:, ~repeated].mean(1), "the same score without a repeat"
    low, high = bootstrap_interval(at_key[:, repeated], axis=1, draws=DRAWS, seed=seed, bounds=(0, 1))
    draws = draws_for(difference[:, 0].size)
    q = benjamini_hochberg(sign_flip_test(difference - EFFECT_FLOOR, axis=1, draws=draws, seed=seed))
    tail = np.percentile(null[~np.isnan(null)], 95) if not np.isnan(null).all() else np.nan
    name, title, share = f"{kind}_score", f"{kind.replace('_', '-')} score", ("share of attention", (0, 1))
    return {
        name: ("layer head", at_key[:, repeated].mean(1), *share, title),
        f"{name}_low": ("layer head", low, *share, f"{title}, lower end of the 95 % interval"),
        f"{name}_high": ("layer head", high, *share, f"{title}, upper end of the 95 % interval"),
        f"{name}_null": ("layer head", null, *share, null_text),
        f"{name}_null_95": ("", tail, *share, f"95th percentile over heads of {null_text}"),
        f"{name}_d": ("layer head", difference.mean(1), "share of attention", (-2, 2), f"effect on the {title}"),
        f"{name}_q": ("layer head", q, "false discovery rate", (0, 1), f"q that d exceeds {EFFECT_FLOOR}, {title}"),
    }


def _losses(observation: Observation, repeated: np.ndarray, seed: int) -> tuple[dict[str, Any], dict[str, object]]:
    """Losses of the two copies without their first token, which no repeat announces, and the loss curves."""
    loss = observation[_LOSS].cpu().numpy()  # prompt pos
    lags = observation.fields["lag"].cpu().numpy()
    pairs = list(zip(loss[repeated], lags[repeated], strict=True))
    first = np.array([row[2 : 1 + lag].mean() for row, lag in pairs])
    second = np.array([row[2 + lag : 1 + 2 * lag].mean() for row, lag in pairs])
    reach = (loss.shape[1] - 1) // 3  # the shortest period: offsets that every sequence has
    offsets = np.arange(1 - reach, reach)
    aligned = np.stack([row[1 + lag + offsets] for row, lag in zip(loss, lags, strict=True)])
    found = {
        **_mean("loss_first_copy", "", first, (0, None), "loss on the first copy", seed),
        **_mean("loss_second_copy", "", second, (0, None), "loss on the second copy", seed),
        **_mean("in_context_learning_score", "", second - first, None, "loss on the second copy minus the first", seed),
        **_mean("loss_by_position", "pos", loss[repeated], (0, None), "loss of the token at a position", seed),
        **_mean("loss_by_offset", "offset", aligned[repeated], (0, None), "loss around the second copy's start", seed),
        "loss_by_position_null": ("pos", loss[~repeated].mean(0), "nats", (0, None), "the same without a repeat"),
        "loss_by_offset_null": ("offset", aligned[~repeated].mean(0), "nats", (0, None), "the same without a repeat"),
    }  # fmt: skip
    return found, {"offset": offsets}


def _mean(
    name: str, dims: str, values: np.ndarray, bounds: tuple[float | None, float | None] | None, title: str, seed: int
) -> dict[str, Any]:
    """Mean over sequences (the first axis) with its interval, in nats."""
    low, high = bootstrap_interval(values, axis=0, draws=DRAWS, seed=seed, bounds=bounds or (None, None))
    return {
        name: (dims, values.mean(0), "nats", bounds, title),
        f"{name}_low": (dims, low, "nats", bounds, f"{title}, lower end of the 95 % interval"),
        f"{name}_high": (dims, high, "nats", bounds, f"{title}, upper end of the 95 % interval"),
    }


def _notes(observation: Observation, n: int) -> dict[str, str]:
    """What a reader must know beside the numbers."""
    first = observation.tokens[0]
    bos = "a BOS token" if first.bos else f"{first.strings[0]!r} in place of a BOS token, which the tokenizer lacks"
    return {
        "stimulus": f"{n} repeated and {n} other sequences of {len(first)} tokens; position 0 holds {bos}",
        "interval": f"95 % bootstrap-t over n = {n} sequences, {DRAWS} draws",
        "test": f"one-sided sign flip of d - {EFFECT_FLOOR}, n = {n} sequences, Benjamini-Hochberg over all heads",
        "label": f"effect d above {EFFECT_FLOOR} at q of at most {FALSE_DISCOVERY}",
        "missing": "NaN: a sliding-window layer that cannot see the key (not applicable)",
    }


VIEW = View(
    InductionHeads,
    question="Which heads look at what followed the current token the last time it occurred?",
    asks=(
        Ask("n_sequences", "Repeat", unit="sequences of random tokens"),
        Ask("length", "each of", unit="tokens"),
    ),
    figures=(induction_figure, previous_token_figure, duplicate_token_figure, loss_figure),
    details=(head_detail,),
    claims=(claims.repetition,),
)
