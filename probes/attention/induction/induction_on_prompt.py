"""Induction scores on the user's prompt."""

from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.attention.induction.figures import (
    duplicate_token_figure,
    head_detail,
    previous_token_figure,
    prompt_figure,
)
from probes.attention.induction.repeat_attention import AT_REPEATS, KINDS
from probes.attention.induction.sentences import NO_REPEATS, on_prompt
from probes.checks import claims
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.results import dataset
from workbench.analysis.view import View
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import ROWS, VISIBLE
from workbench.observation import Need, Observation
from workbench.observation.repeats import previous_occurrence

__all__ = ["VIEW", "InductionOnPrompt"]


class InductionOnPrompt(
    OnPrompt, name="induction-on-prompt", title="Induction on this prompt", requires=(ROWS, VISIBLE)
):
    """Which heads look, on the user's prompt, at what followed the current token last time.

    Definition: Mean attention, over queries q whose token occurred P positions before, to the key after that occurrence
    (induction, q - P + 1), to the previous token (q - 1), and to the occurrence itself (duplicate, q - P). Queries:
    tokens of the prompt whose nearest earlier occurrence lies three or more positions back and not at position 0. Null:
    mean attention to other keys of the same rows (without key 0, the query and the three keys of the scores).

    Limits: One text (n = 1): no interval, no test, no label. In language a repeated token is also near, frequent or
    grammatically bound, so a high score alone does not make an induction head. NaN: the prompt repeats no token.

    Source: Olsson et al. 2022, arXiv 2209.11895 (scores); the baseline is ours

    Returns: `induction_score`, `previous_token_score`, `duplicate_token_score` (layer, head), shares of attention, mean
    over the queries with a previous occurrence; no interval. `_null`: mean attention to other keys of the same rows.
    `previous_occurrence` (pos): NaN where there is none. `n_repeats`: how many such queries there are; `n_seen`
    (layer): at how many of these the layer sees what followed the last time, which an induction score is over: fewer
    where a window slides. All scores are NaN in a text without repeats.
    """

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """Attention where the tokens of the prompt repeat."""
        return (AT_REPEATS,)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The three scores on one text."""
        attention = observation[AT_REPEATS][:, 0].cpu().numpy()  # layer head component
        tokens = torch.tensor([observation.tokens[0].ids])
        previous = previous_occurrence(tokens, torch.ones_like(tokens, dtype=torch.bool))[0].numpy()
        again = np.flatnonzero(previous >= 0)
        count, sizes = len(again), observation.sizes
        first = [sizes.first_key(layer, torch.from_numpy(again)).numpy() for layer in range(len(attention))]
        seen = [int((previous[again] + 1 >= keys).sum()) for keys in first]
        share = ("share of attention", (0, 1))
        variables: dict[str, Any] = {}
        for slot, kind in enumerate(KINDS):
            at_key, at_others, title = attention[..., slot], attention[..., slot + 3], f"{kind.replace('_', '-')} score"
            variables[f"{kind}_score"] = ("layer head", at_key, *share, title)
            variables[f"{kind}_score_null"] = ("layer head", at_others, *share, "other keys of the same rows")
        result = dataset(
            observation,
            **variables,
            previous_occurrence=("pos", np.where(previous < 0, np.nan, previous), "position", (0, None)),
            n_repeats=("", count, "tokens", (0, None), "tokens that last occurred three or more places earlier"),
            n_seen=("layer", seen, "tokens", (0, None), "tokens at which the layer sees what followed"),
        )
        return result.assign_attrs(note=_note(count), summary=on_prompt(result))


def _note(count: int) -> str:
    if count == 0:
        return NO_REPEATS
    return f"One text (n = 1), mean over {count} repeated token{'s' * (count > 1)}: no interval and no test."


VIEW = View(
    InductionOnPrompt,
    question="Which heads look, on this prompt, at what followed the current token last time?",
    figures=(prompt_figure, previous_token_figure, duplicate_token_figure),
    details=(head_detail,),
    claims=(claims.repetition,),
)
