"""`--intervene`: what is changed in the model while analyses run, in the words that links and the page use too."""

import argparse
from collections.abc import Sequence
from typing import Any

from apps.cli.progress import Progress
from workbench.intervene.text import MEAN_HOOKS, Phrase, phrase
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise
from workbench.observation.recording import Means, measure_means

__all__ = ["interventions_of", "means_of", "phrases_of"]


def phrases_of(arguments: argparse.Namespace) -> tuple[Phrase, ...]:
    """What was given with --intervene, each once and in one order, so that equal runs have equal keys."""
    return tuple(sorted({phrase(" ".join(text.split())) for text in arguments.intervene}, key=str))


def means_of(phrases: Sequence[Phrase], model: Model, report: Progress) -> Means | None:
    """The means that they put in place; None where none does."""
    if not any(said.how == "mean" for said in phrases):
        return None
    for said in phrases:
        said.check(model, model.sizes.n_ctx)  # before they are measured for nothing
    report("means", 0.0, "measuring means over the reference text")
    return measure_means(model, hooks=MEAN_HOOKS)


def interventions_of(
    phrases: Sequence[Phrase], model: Model, prompt: Prompt | None, means: Means | None
) -> tuple[Any, ...]:
    """Their values for a run; InputError where the model has no such unit or the prompt no such tokens."""
    if not phrases:
        return ()
    n_tokens = model.sizes.n_ctx if prompt is None else len(tokenise(model, prompt))
    for said in phrases:
        said.check(model, n_tokens)
    return tuple(said.intervention(model, lambda: means) for said in phrases)
