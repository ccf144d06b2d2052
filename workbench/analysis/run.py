"""The one runner: the only place that feeds analyses. The shell, the page and the batches call it.

Analyses of the prompt share one forward pass; the others bring their passes. One that fails costs itself alone: its
reason is its result. Interventions go onto the model (`Model.edited`), so that they reach every pass of every analysis,
studies too, and stand in each key and provenance; what cannot honour them refuses.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import xarray as xr

from workbench.analysis.refusals import Runnable, reason_of
from workbench.analysis.results import check, stamped
from workbench.arguments import fitted, shown
from workbench.errors import Cancelled, InputError, WorkbenchError, of_the_machine
from workbench.models.model import Interventions, Model
from workbench.models.passes import undisturbed
from workbench.models.prompt import Tokens, tokenise
from workbench.observation import Need, Observation, observe
from workbench.observation.watch import NotFired, NotShown

__all__ = [
    "Failure",
    "Outcome",
    "Partial",
    "Progress",
    "alone",
    "finished",
    "outcomes",
    "run",
    "together",
    "too_large",
]

_ALL = 2**62  # tokens of one batch: whoever runs prompts together has chosen them

Progress = Callable[[float], None]
Partial = Callable[[xr.Dataset], None]


class _SharesPass(Runnable, Protocol):
    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]: ...

    def analyse(self, observation: Observation) -> xr.Dataset: ...


class _OwnPasses(Runnable, Protocol):
    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None, allow_network: bool
    ) -> Generator[xr.Dataset, None, None]: ...


@dataclass(frozen=True)
class Failure:
    """Why an analysis gave no result; it stands in the result's place. Looking into it raises the reason."""

    name: str
    title: str
    error: Exception

    @property
    def nbytes(self) -> int:
        """About what keeping it takes."""
        return 512

    @property
    def first(self) -> str:
        """The analysis to run first, where that is the remedy; else ""."""
        return getattr(self.error, "first", "")

    @property
    def sentence(self) -> str:
        """What went wrong, for people; of a mistake of ours, its kind and first line."""
        if isinstance(known := of_the_machine(self.error) or self.error, WorkbenchError):
            return str(known)
        first = (str(self.error).strip().splitlines() or [""])[0][:200]
        kind = type(self.error).__name__
        return f"{self.title} broke, which is a mistake in it and not yours: {kind}: {first}. Please report this."

    def __str__(self) -> str:
        return self.sentence

    def __getitem__(self, name: Any) -> Any:
        raise self.error


@dataclass(frozen=True)
class Outcome:
    """What a run has to say: a result, a partial one (more will come), or why there is none."""

    analysis: Any
    result: "xr.Dataset | Failure"
    complete: bool = True


@fitted()
def run(
    model: Model,
    prompt: Any = None,
    analyses: Sequence[Any] = (),
    *,
    interventions: Interventions = (),
    progress: Progress | None = None,
    partial: Partial | None = None,
    allow_network: bool = False,
) -> "dict[str, xr.Dataset | Failure]":
    """Run analyses on a model; those of the prompt share one forward pass.

    analyses: values such as `LogitLens(top_k=5)`, or their classes for the defaults (all of `CATALOG`, say).
    interventions: of every pass. partial: is shown what a study has so far, each time there is more. allow_network:
    whether texts may be fetched from the hub.

    Returns by name a Dataset with key and provenance, or a `Failure` that says why there is none; with one analysis,
    its error is raised. Raises InputError for a bad prompt, for interventions that the model cannot carry and for two
    analyses of one name.
    """
    odd = [one for one in analyses if not _is_analysis(one)]
    if odd:
        raise InputError(
            f"{shown(odd[0])} as an analysis", "a value such as LogitLens()", "Take CATALOG.view(name).analysis"
        )
    asked = [analysis() if isinstance(analysis, type) else analysis for analysis in analyses]
    if not asked:
        raise InputError("no analyses", "at least one, such as LogitLens()", "Give a list of them")
    twice = next((a.name for i, a in enumerate(asked) if a.name in {b.name for b in asked[:i]}), None)
    if twice is not None:
        raise InputError(f"{twice} twice", "each analysis once", "Run them one after the other")
    found: dict[str, xr.Dataset | Failure] = {}
    told = outcomes(model, prompt, asked, interventions=interventions, progress=progress, allow_network=allow_network)
    # A partial() that raises ends the study at once. Gradients cannot be taken in the inference mode of a caller.
    with torch.inference_mode(False), undisturbed(), closing(told):
        for outcome in told:
            result = outcome.result
            if isinstance(result, Failure) and len(asked) == 1:
                raise result.error
            found[outcome.analysis.name] = result
            if partial is not None and not outcome.complete and not isinstance(result, Failure):
                partial(result.copy(deep=True))  # theirs to change: the last one so far is the result
    return {analysis.name: found[analysis.name] for analysis in asked}


def _is_analysis(given: Any) -> bool:
    """A value or a class with a name; a view, a hook and a path have one, too."""
    return bool(getattr(given, "name", None)) and callable(getattr(given, "spec_key", None))


def alone(analysis: Runnable, model: Model, prompt: Any = None, **options: Any) -> xr.Dataset:
    """`run` of one analysis: its Dataset; its error is raised."""
    return run(model, prompt, [analysis], **options)[analysis.name]  # type: ignore[return-value]  # never a Failure: run() of one raises it


def outcomes(
    model: Model,
    prompt: Any,
    analyses: Sequence[Runnable],
    *,
    interventions: Sequence[Any] = (),
    also: Sequence[Need] = (),
    seen: Callable[[Observation], None] | None = None,
    progress: Progress | None = None,
    allow_network: bool = False,
) -> Generator[Outcome, None, None]:
    """What analyses find, one by one as it is there; `run` collects them.

    also, seen: more to observe in the pass of the prompt, and who is shown the pass, before any result. progress:
    called with the share done, the shared pass and every other analysis counting alike; it may raise to cancel, and
    what it raises passes through if it is a `Cancelled`. Closing the iterator closes a study that is under way.
    """
    model = model.fixed()
    edited = model.edited(interventions)
    tokens = None if prompt is None else tokenise(model, prompt)
    able = []
    for analysis in analyses:
        reason = reason_of(analysis, edited, tokens)
        if reason is None:
            able.append(analysis)
        else:
            yield Outcome(analysis, Failure(analysis.name, analysis.title, reason))
    shared = [cast(_SharesPass, analysis) for analysis in able if analysis.shares_pass]
    others = [cast(_OwnPasses, analysis) for analysis in able if not analysis.shares_pass]
    first = int(bool(shared or also))
    part = _parts(progress, first + len(others))
    if first:
        yield from _shared(edited, tokens, shared, also, seen, part(0))
    for n, analysis in enumerate(others, start=first):
        yield from _own_passes(edited, tokens, analysis, part(n), allow_network)


def together(
    model: Model,
    prompts: Sequence[Tokens],
    analyses: Sequence[Sequence[Runnable]],
    *,
    progress: Progress | None = None,
    allow_network: bool = False,
) -> Generator[tuple[int, Outcome], None, None]:
    """What analyses find on many prompts: those that share a pass share one over all prompts.

    analyses: of each prompt its own; prompts of one length are not padded. model: carries the interventions. Yields the
    number of a prompt and an outcome, complete ones only, in no set order. Where the pass fails, each prompt has its
    own; only what was too large for memory is raised, so that the caller may ask for less at once.
    """
    able: list[list[Runnable]] = [[] for _ in prompts]
    for row, (tokens, asked) in enumerate(zip(prompts, analyses, strict=True)):
        for analysis in asked:
            reason = reason_of(analysis, model, tokens)
            if reason is None:
                able[row].append(analysis)
            else:
                yield row, Outcome(analysis, Failure(analysis.name, analysis.title, reason))
    shared = [[cast(_SharesPass, analysis) for analysis in asked if analysis.shares_pass] for asked in able]
    alone = [[analysis for analysis in asked if not analysis.shares_pass] for asked in able]
    first = int(any(shared))
    part = _parts(progress, first + sum(map(len, alone)))
    if first:
        yield from _many(model, prompts, shared, part(0))
    left = [(row, analysis) for row, asked in enumerate(alone) for analysis in asked]
    for n, (row, analysis) in enumerate(left, start=first):
        own = cast(_OwnPasses, analysis)
        for outcome in _own_passes(model, prompts[row], own, part(n), allow_network):
            if outcome.complete:
                yield row, outcome


def _many(
    model: Model, prompts: Sequence[Tokens], analyses: Sequence[Sequence[_SharesPass]], progress: Progress | None
) -> Iterator[tuple[int, Outcome]]:
    """One pass over all prompts; where it fails, one each, so that the prompt that it fails for is found."""
    try:
        needs, read = [], set()
        for tokens, asked in zip(prompts, analyses, strict=True):
            needs += [need for analysis in asked for need in analysis.needs(model, tokens)]
            read |= {p % len(tokens) for analysis in asked for p in analysis.read_positions(len(tokens))}
        seen = observe(model, prompts, needs, positions=sorted(read) or "last", batch_tokens=_ALL, progress=progress)
    except Cancelled:
        raise
    except Exception as error:  # of one prompt or one analysis: it must not take the others with it
        if too_large(error):
            raise
        for row, (tokens, asked) in enumerate(zip(prompts, analyses, strict=True)):
            for outcome in _shared(model, tokens, asked, (), None, progress):
                if isinstance(outcome.result, Failure) and too_large(outcome.result.error):
                    raise outcome.result.error from error
                yield row, outcome
        return
    for row, asked in enumerate(analyses):
        own = seen.prompt(row)
        for analysis in asked:
            yield row, Outcome(analysis, _finished_or_failed(analysis, own, model))


def too_large(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; torch says it of the CPU in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "not enough memory" in str(error))


def _parts(progress: Progress | None, n: int) -> Callable[[int], Progress | None]:
    """The progress of each of n parts, one after the other. It never goes back, also where a part is tried again."""
    if progress is None:
        return lambda part: None
    told = 0.0

    def tell(part: int, share: float) -> None:
        nonlocal told
        told = max(told, min(1.0, (part + share) / n))
        progress(told)

    return lambda part: lambda share: tell(part, share)


def _shared(
    model: Model,
    tokens: Tokens | None,
    analyses: Sequence[_SharesPass],
    also: Sequence[Need],
    seen: Callable[[Observation], None] | None,
    progress: Progress | None,
) -> Iterator[Outcome]:
    """One pass for all; where it fails, one each, so that the one that cannot run on this model is found."""
    try:
        if tokens is None:  # needs beside the analyses, or an analysis that reads no prompt but shares its pass
            raise InputError("a pass of the prompt without one", "a prompt", "Give one")
        needs = [need for analysis in analyses for need in analysis.needs(model, tokens)]
        read = {p % len(tokens) for analysis in analyses for p in analysis.read_positions(len(tokens))}
        observation = observe(model, tokens, [*needs, *also], positions=sorted(read) or "last", progress=progress)
    except Cancelled:
        raise
    except Exception as error:  # also a bug in one analysis must not take the others with it
        if len(analyses) + bool(also) == 1:
            if not analyses:
                raise
            yield Outcome(analyses[0], _failure(analyses[0], error))
            return
        if also:
            yield from _shared(model, tokens, [], also, seen, progress)
        for analysis in analyses:
            yield from _shared(model, tokens, [analysis], (), None, progress)
        return
    if seen is not None:
        seen(observation)
    for analysis in analyses:
        yield Outcome(analysis, _finished_or_failed(analysis, observation, model))


def _finished_or_failed(analysis: _SharesPass, observation: Observation, model: Model) -> "xr.Dataset | Failure":
    try:
        return finished(analysis, analysis.analyse(observation), model, observation.tokens[0])
    except Cancelled:
        raise
    except Exception as error:  # as above
        return _failure(analysis, error)


def _failure(analysis: Runnable, error: Exception) -> Failure:
    """A reason, said of the analysis rather than of one of its reducers."""
    said = error.said_of(analysis.name) if isinstance(error, NotFired | NotShown) else error
    return Failure(analysis.name, analysis.title, said)


def _own_passes(
    model: Model, tokens: Tokens | None, analysis: _OwnPasses, progress: Progress | None, allow_network: bool
) -> Iterator[Outcome]:
    """Results so far as they come, each with key and provenance; the last one again, as complete."""
    last = None
    try:
        with closing(analysis.partials(model, tokens, progress=progress, allow_network=allow_network)) as partials:
            for found in partials:
                last = finished(analysis, found, model, tokens if analysis.reads_prompt() else None)
                yield Outcome(analysis, last, complete=False)
    except Cancelled:
        raise
    except Exception as error:  # its reason is its result
        yield Outcome(analysis, _failure(analysis, error))
        return
    if last is None:
        nothing = InputError(
            f"no result of {analysis.name}", "a prompt and parameters that leave it something to do", "Change them"
        )
        yield Outcome(analysis, _failure(analysis, nothing))
        return
    yield Outcome(analysis, last)


def finished(analysis: Runnable, result: xr.Dataset, model: Model, tokens: Tokens | None) -> xr.Dataset:
    """A result held to the conventions, with key and provenance, whose sentence names the parameters that were given
    and not used. model: as it was edited, and fixed.

    RefusedError where its weights were changed since.
    """
    model.need_steady()
    if aside := analysis.passed_over():
        result = result.assign_attrs(summary=" ".join(filter(None, (result.attrs.get("summary"), aside))))
    return stamped(
        check(result),
        analysis=analysis.name,
        title=analysis.title,
        key=analysis.spec_key(model, tokens),
        params=analysis.values(),
        model=model,
        tokens=tokens,
        source=analysis.source,
    )
