"""What a run asks for: a prompt on a model, its interventions, every analysis with its parameters, and their keys."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.analysis.kinds import Analysis
from workbench.corpora import names_file
from workbench.errors import InputError
from workbench.intervene.text import Phrase, phrase
from workbench.models.model import Model
from workbench.models.prompt import Tokens

__all__ = ["Request", "phrases_of", "refuse_files"]


@dataclass(frozen=True)
class Request:
    """One prompt on one model, every analysis with its parameters, and the keys under which its results are found.

    chat: the text is one message of a user, put through the model's chat template. edits: interventions, of every pass.
    given: parameters of the views that follow the selection, which says the rest. weights: `Identity.key` of the model
    that the keys are about. dtype: the number format that it computes in, by its name. carried: what every pass on it
    carries out besides, given as values, in words.
    """

    model: str
    text: str
    tokens: Tokens = field(repr=False)
    analyses: Mapping[str, Analysis] = field(repr=False)
    given: Mapping[str, Mapping[str, Any]] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    states: str = ""
    chat: bool = False
    edits: tuple[Phrase, ...] = ()
    weights: str = ""
    dtype: str = "float32"
    carried: tuple[str, ...] = ()


def phrases_of(model: Model, tokens: Tokens, given: Sequence[str]) -> tuple[Phrase, ...]:
    """Interventions from a page or a link, each once and in order; InputError where there is no such thing."""
    if not isinstance(given, list | tuple):
        raise InputError(f"the interventions {given!r}", "a list of texts", "Load the page again")
    phrases = tuple(phrase(text) for text in sorted(set(map(str, given))))
    for said in phrases:
        said.check(model, len(tokens))
    return phrases


def refuse_files(analyses: Iterable[Analysis]) -> None:
    """A browser names no file of this machine unless the explorer was started for it. InputError where one does."""
    for analysis in analyses:
        choices = {parameter.name: parameter.choices for parameter in analysis.parameters()}
        for name, value in analysis.places().items():
            if names_file(value):
                raise InputError(
                    f"{name}={value!r} for {analysis.title.lower()}",
                    f"one of {', '.join(choices[name])}" if choices[name] else "no files of this machine",
                    "Files are read by an explorer that was started with --allow-files",
                )
