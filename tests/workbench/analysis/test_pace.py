"""Predicted times: what is paid once and what for each token, and whose tokens count."""

from typing import ClassVar

import pytest

from probes import CATALOG
from tests.tiny_models import tiny_model
from workbench.analysis import pace
from workbench.analysis.kinds import Study
from workbench.analysis.pace import SHORT, Pace, measured_pace
from workbench.models.prompt import Prompt, tokenise

LONG = Prompt.ids([5] * 40)


class _Own(Study, name="own-texts", title="Own texts"):
    """A study.

    Definition: ten passes.
    Limits: none.
    Source: made up.
    """

    prompted: ClassVar[bool] = False

    def cost(self, sizes, n_tokens):
        return 10.0


class _OfPrompt(_Own, name="of-prompt", title="Of the prompt"):
    """A study.

    Definition: ten passes.
    Limits: none.
    Source: made up.
    """

    prompted: ClassVar[bool] = True


def test_what_reads_its_own_texts_takes_as_long_whatever_the_prompt():
    model = tiny_model("llama")
    known, tokens = Pace(fixed=1.0, token=0.5), tokenise(model, LONG)
    assert known.of(_Own(), model, tokens) == known.of(_Own(), model, None) == 1 + 0.5 * SHORT * 10
    assert known.of(_OfPrompt(), model, tokens) == 1 + 0.5 * 40 * 10


def test_what_shares_a_pass_is_predicted_with_it():
    model = tiny_model("llama")
    known, tokens = Pace(fixed=1.0, token=0.5), tokenise(model, LONG)
    analysis = CATALOG.get("surprisal")()
    assert known.of(analysis, model, tokens) == 1 + 0.5 * 40 * (1 + analysis.cost(model.sizes, 40))


def test_two_timed_passes_are_told_apart(monkeypatch):
    """A clock of its own: 3 s a pass and 0.25 s a token, told in one row and in four; a slow model is timed once."""
    model, timed = tiny_model("llama"), []

    def seconds(model, rows, n):
        timed.append(rows)
        return scale * (3 + 0.25 * rows * n)

    monkeypatch.setattr(pace, "_seconds", seconds)
    scale = 0.1
    found = measured_pace(model)
    assert (found.fixed, found.token) == pytest.approx((0.3, 0.025)) and timed == [1, 4]
    scale = 1.0
    assert measured_pace(model) == Pace(0.0, 7 / SHORT) and timed == [1, 4, 1]


def test_a_pace_is_measured_on_a_model_of_few_positions():
    model = tiny_model("gpt2")
    found = measured_pace(model)
    assert found.fixed >= 0 and found.token > 0
