"""Running analyses for the command line: what is there is saved and printed at once, what fails costs itself alone.

Analyses of the prompt come from one pass. A study that is stopped keeps what is done.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from apps.cli.mistakes import said_of
from apps.cli.parameters import Asked
from apps.cli.progress import Progress, progress, say, warnings_as_notes
from apps.cli.report.delivery import deliver
from apps.cli.report.places import Places
from apps.cli.signals import STOPS, stop_code, terminable
from workbench.analysis.run import Failure, outcomes
from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, tokenise

__all__ = ["Work", "execute", "execute_all", "need_prompt"]


def need_prompt(asked: Sequence[Asked], prompt: Prompt | None) -> None:
    """Say what a prompt is for before a model is loaded for nothing."""
    prompted = [one.view.name for one in asked if one.analysis.reads_prompt()]
    if prompt is None and prompted:
        raise InputError(
            f"{prompted[0]} without a prompt", "one", 'Give one, such as --prompt "The capital of France is"'
        )
    if prompt is not None and not prompted:
        names = ", ".join(one.view.name for one in asked)
        verb = "makes its" if len(asked) == 1 else "make their"
        say(f"Note: {names} {verb} own stimulus; the prompt is not used.")


@dataclass(frozen=True)
class Work:
    """Analyses with their parameters, the prompt they run on, and where results go."""

    asked: Sequence[Asked]
    prompt: Prompt | None
    places: Places


def execute_all(
    works: Sequence[Work],
    model: Model,
    changes: Callable[[Prompt | None], Any],
    *,
    as_json: bool = False,
    **options: Any,
) -> int:
    """Run the works one after the other; returns the exit code. changes: the interventions for a prompt.

    Of several prompts, one that fails costs itself alone: it is said, and the code is 1.
    """
    code = 0
    for number, work in enumerate(works, 1):
        if len(works) > 1:
            said = f"Prompt {number} of {len(works)}"
            say(said) if as_json else print(("\n" if number > 1 else "") + said, flush=True)
        try:
            if work.prompt is not None:
                for note in tokenise(model, work.prompt).notes:
                    say(f"Note: {note}")
            more = {"as_json": as_json, "interventions": changes(work.prompt), **options}
            code = max(code, execute(work.asked, model, work.prompt, work.places, **more))
        except BrokenPipeError:
            raise
        except Exception as error:  # memory and other libraries, too: the night's other prompts go on
            if len(works) == 1:
                raise
            say(f"workbench: prompt {number}: {' '.join(str(said_of(error)).split())}")
            code = 1
        if code > 1:  # stopped
            break
    return code


def execute(
    asked: Sequence[Asked],
    model: Model,
    prompt: Prompt | None,
    places: Places,
    *,
    as_json: bool = False,
    **options: Any,
) -> int:
    """Run analyses and deliver each result when it is there; returns the exit code.

    as_json: print results as JSON. options: `interventions` and `allow_network` of the runner. The error of a single
    analysis is raised; of several, each that fails is said, and the code is 1.
    """
    work = _Left(asked, places, as_json)
    try:
        with progress() as report, warnings_as_notes(report), terminable():
            analyses: list[Any] = [one.analysis for one in asked]
            found: Any = outcomes(model, prompt, analyses, progress=work.progress_on(report), **options)
            with contextlib.closing(found):  # what stops us ends a study at once
                for outcome in found:
                    report.clear()
                    work.take(outcome.analysis.name, outcome.result, outcome.complete)
    except STOPS as stop:
        if not work.deliver_partial():
            raise
        say("workbench: stopped before the end; this is what was done until then")
        return stop_code(stop)
    return 1 if work.failed else 0


class _Left:
    """What is still to be done, and what was said of the rest."""

    def __init__(self, asked: Sequence[Asked], places: Places, as_json: bool):
        self.asked, self.places, self.as_json = {one.view.name: one for one in asked}, places, as_json
        self.left = [one.view.name for one in sorted(asked, key=lambda one: not one.analysis.shares_pass)]
        self.partial: tuple[str, xr.Dataset] | None = None
        self.delivered = self.failed = 0

    def progress_on(self, report: Progress) -> Callable[[float], None]:
        """Tells the share that is done, and what is under way: the shared pass first, then one after the other."""

        def tell(share: float) -> None:
            shared = [name for name in self.left if self.asked[name].analysis.shares_pass]
            under_way = ", ".join(shared or self.left[:1])
            report(under_way, share, under_way)

        return tell

    def take(self, name: str, result: xr.Dataset | Failure, complete: bool) -> None:
        """Keep a partial result, deliver a complete one, say a failure."""
        self.partial = None
        if isinstance(result, Failure):
            self._fail(result)
        elif not complete:
            self.partial = name, result
            return
        else:
            try:
                self._deliver(name, result)
            except BrokenPipeError:
                raise
            except Exception as error:  # a figure that breaks must not take the other analyses with it
                self._fail(Failure(name, self.asked[name].view.title, error))
        self.left.remove(name)

    def deliver_partial(self) -> bool:
        """What a study had when it was stopped; False where there is nothing."""
        if self.partial is None:
            return False
        name, result = self.partial
        self._deliver(name, result.assign_attrs(partial=1))
        return True

    def _deliver(self, name: str, result: xr.Dataset) -> None:
        if self.delivered and not self.as_json:
            print()
        one = self.asked[name]
        self.delivered += 1
        deliver(one.view, result, one.display, self.places, self.as_json)

    def _fail(self, failure: Failure) -> None:
        if len(self.asked) == 1:
            raise failure.error
        self.failed += 1
        say(f"workbench: {failure.name}: {' '.join(failure.sentence.split())}")
