"""What an analysis is: a frozen value whose fields are its parameters, of one of three kinds.

    class AttentionEntropy(OnPrompt, name="attention-entropy", title="Attention entropy"):
        '''How many tokens a head looks at.

        Definition: ...
        Limits: what a reader must not conclude.
        Source: ...
        '''
        draws: Annotated[int, Range(100, 100_000), "bootstrap draws"] = 2000

        def needs(self, model, tokens): ...
        def analyse(self, observation): ...

`AttentionEntropy(draws=500).run(model, prompt)` runs it alone; `workbench.run` runs many from one pass. How a result is
drawn is another object (`workbench.analysis.view`).
"""

import inspect
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import xarray as xr

from workbench.analysis.code import code_digest
from workbench.analysis.keys import digest, spec_key
from workbench.analysis.parameters import Values
from workbench.analysis.run import Partial, Progress, alone
from workbench.errors import InputError, UnavailableError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import LOGITS_EQUAL
from workbench.observation import Need, Observation, observe

__all__ = ["Analysis", "OnModel", "OnPrompt", "Stimulus", "Study", "kind_of"]

_SECTIONS = ("Definition", "Limits", "Source", "Returns")


class Analysis(Values):
    """What all kinds share. Subclass one of the kinds, not this.

    name: as in the catalog and in the shell. title: for people. requires: self-check items it relies on; on a model
    where one failed it refuses. editable: whether interventions given to a run can reach every pass of it.
    prompted: whether its result depends on the prompt (a study that only may: `reads_prompt`). learns: whether it makes
    what `artifact` names: its result belongs to what is there when it is done, and not before. definition, limits,
    source, returns: its docstring's sections.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ()
    editable: ClassVar[bool] = True
    prompted: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    shares_pass: ClassVar[bool] = False
    definition: ClassVar[str] = ""
    limits: ClassVar[str] = ""
    source: ClassVar[str] = ""
    returns: ClassVar[str] = ""

    def __init_subclass__(
        cls, *, name: str = "", title: str = "", requires: tuple[str, ...] | None = None, **more: Any
    ) -> None:
        super().__init_subclass__(**more)
        if not name:
            return  # a kind
        cls.name, cls.title, cls.owner = name, title or name, name
        if requires is not None:
            cls.requires = requires
        if cls.__doc__ is None and sys.flags.optimize > 1:
            raise UnavailableError(
                "Python started without docstrings (-OO, PYTHONOPTIMIZE=2)",
                "docstrings, of which descriptions are made", "Start it without that, or with -O",
            )  # fmt: skip
        sections = _sections(cls.__doc__ or "")
        cls.definition, cls.limits, cls.source, cls.returns = (sections.get(section, "") for section in _SECTIONS)
        for section in ("Definition", "Limits", "Source"):
            if not sections.get(section):
                raise InputError(
                    f"the analysis {name} without '{section}:' in its docstring",
                    "a definition, its limits and its source",
                    "Write them there: the page, `describe` and the docs show them",
                )

    def read_positions(self, n_tokens: int) -> Sequence[int]:
        """Positions whose final logits the pass must keep, beside the last one; only of what shares the pass."""
        return ()

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Its work beside one bare forward pass of a prompt of n tokens, which is 1, as predicted before it runs.

        What shares the pass counts what it adds to it. What reads texts of its own counts their tokens in prompts of
        `workbench.analysis.pace.SHORT`, whatever n is.
        """
        return 0.5

    def reads_prompt(self) -> bool:
        """Whether its result depends on the prompt with these parameters: a study may have texts of its own beside."""
        return self.prompted

    def artifact(self, model: Model) -> str | None:
        """Hash of what was learned from data, or of a user's files, that enters the result; None: nothing."""
        return None

    def sentence(self, result: xr.Dataset) -> str:
        """The finding of a result in one sentence, every word of which follows from its numbers."""
        return str(result.attrs.get("summary") or "")

    def idle(self) -> Mapping[str, str]:
        """Parameters that mean nothing beside the others, each with what it belongs to (`"how='swap'"`)."""
        return {}

    def passed_over(self) -> str:
        """What to say of parameters that were given and mean nothing: a result would be read as if of them; else ""."""
        given, defaults = self.values(), {one.name: one.default for one in self.parameters()}
        return " ".join(
            f"{name}={given[name]!r} was not used: it belongs to {of}."
            for name, of in self.idle().items()
            if given[name] != defaults[name]
        )

    def averaged(self, result: xr.Dataset) -> xr.Dataset:
        """What of a result is averaged over prompts, where that is not in it as it is: a batch asks this of each."""
        return result

    @classmethod
    def inapplicable(cls, model: Model) -> str | None:
        """What the model has not that this analysis is of ("has no experts"), or None."""
        return None

    @classmethod
    def refusal(cls, model: Model) -> str | None:
        """Why this analysis does not apply to this model, or cannot be trusted on it, or None."""
        if (lacks := cls.inapplicable(model)) is not None:
            return f"{model.name} {lacks}"
        failed = model.selfcheck.failed((*cls.requires, LOGITS_EQUAL)) if model.selfcheck is not None else []
        return failed[0].sentence if failed else None

    def places(self) -> Mapping[str, str]:
        """Values that may name files of this machine, by parameter: beside the choices of one that allows it."""
        may = {one.name: one.choices for one in self.parameters() if one.files}
        return {name: value for name, value in self.values().items() if name in may and value not in may[name]}

    def fits(self, model: Model, tokens: Tokens) -> None:
        """Raises InputError where these parameters do not fit the model or the prompt, as far as that is known before
        any pass: a page says it before a study is started."""

    def ready(self, model: Model) -> bool:
        """Whether what it learned from data is there; true where it learns nothing."""
        return type(self).artifact is Analysis.artifact or self.artifact(model) is not None

    def spec_key(self, model: Model, tokens: Tokens | None, interventions: Sequence[Any] = ()) -> str:
        """The key of this analysis with these parameters on these tokens (None: its own stimulus)."""
        ids = None if tokens is None or not self.reads_prompt() else list(tokens.ids)
        made_of = (*model.interventions, *interventions)
        asked_of, learned = digest([model.identity.key, model.vocabulary.digest]), self.artifact(model)
        code = digest([code_digest(type(self)), code_digest(type(model.adapter))])
        return spec_key(asked_of, ids, self.name, code, self.values(), interventions=made_of, artifact_hash=learned)

    def run(
        self,
        model: Model,
        prompt: Any = None,
        *,
        interventions: Sequence[Any] = (),
        progress: Progress | None = None,
        partial: Partial | None = None,
        allow_network: bool = False,
    ) -> xr.Dataset:
        """Run this analysis alone and return its Dataset, with key and provenance; see `workbench.run`."""
        return alone(
            self,
            model,
            prompt,
            interventions=interventions,
            progress=progress,
            partial=partial,
            allow_network=allow_network,
        )


class OnPrompt(Analysis):
    """An analysis of the prompt; all of them share one forward pass."""

    shares_pass: ClassVar[bool] = True

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """What it must see of the pass."""
        raise NotImplementedError

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Its result, from a pass over one prompt that met its needs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Stimulus:
    """Prompts that an analysis makes for itself, and per-row data for its reducers (tensors `[prompt, ...]`).

    took: the share of the whole work that making them was, 0 where it took no time.
    """

    tokens: tuple[Any, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    took: float = 0.0


class OnModel(Analysis):
    """An analysis of the model, on a stimulus of its own: one pass, computed once whatever the prompt."""

    prompted: ClassVar[bool] = False

    def stimulus(self, model: Model, progress: Progress | None = None) -> Stimulus:
        """The prompts it looks at. progress: for one that takes long, of which `Stimulus.took` is the share."""
        raise NotImplementedError

    def needs(self, model: Model, tokens: Sequence[Tokens]) -> tuple[Need, ...]:
        """What it must see of the pass."""
        raise NotImplementedError

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Its result, from a pass over the stimulus that met its needs."""
        raise NotImplementedError

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Its one result."""
        made, tell = self.stimulus(model, progress), progress
        if progress is not None and made.took:
            tell = lambda share: progress(made.took + (1 - made.took) * share)
        needs = self.needs(model, made.tokens)
        yield self.analyse(observe(model, made.tokens, needs, positions="none", fields=made.fields, progress=tell))


class Study(Analysis):
    """An analysis of several passes. It yields partial results, the last one complete, and is closed when cancelled."""

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Results so far, each time there is more.

        model: carries the interventions of the run, so that every pass on it is edited. progress: called with the share
        done; it raises to cancel. allow_network: whether texts may be fetched from the hub.
        """
        raise NotImplementedError


def kind_of(analysis: type[Analysis] | Analysis) -> Literal["prompt", "model", "study"]:
    """What an analysis is computed on: the prompt's pass, a stimulus of its own, or passes of its own."""
    cls = analysis if isinstance(analysis, type) else type(analysis)
    return "prompt" if issubclass(cls, OnPrompt) else "model" if issubclass(cls, OnModel) else "study"


def _sections(doc: str) -> dict[str, str]:
    """The sections of a docstring by name; lines of a paragraph are joined."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in inspect.cleandoc(doc).splitlines():
        head, colon, rest = line.partition(":")
        if colon and head in _SECTIONS:
            name, line = head, rest
        if name:
            found.setdefault(name, []).append(line.strip())
    paragraphs = {name: "\n".join(lines).split("\n\n") for name, lines in found.items()}
    return {name: "\n\n".join(" ".join(part.split()) for part in parts).strip() for name, parts in paragraphs.items()}
