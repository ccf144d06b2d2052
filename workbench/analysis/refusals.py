"""Why an analysis does not run on a model, known before anything is computed; and what the runner knows of one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import xarray as xr

from workbench.errors import InputError, RefusedError, WorkbenchError, in_words
from workbench.models.model import Model
from workbench.models.prompt import Tokens

__all__ = ["Runnable", "comparing", "reason_of", "refused"]


class Runnable(Protocol):
    """What the runner knows of an analysis (see `kinds`).

    One that `shares_pass` has needs() and analyse(); any other has partials().
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    editable: ClassVar[bool]
    shares_pass: ClassVar[bool]

    def read_positions(self, n_tokens: int) -> Sequence[int]: ...

    def reads_prompt(self) -> bool: ...

    def inapplicable(self, model: Model) -> str | None: ...

    def refusal(self, model: Model) -> str | None: ...

    def sentence(self, result: xr.Dataset) -> str: ...

    def passed_over(self) -> str: ...

    def spec_key(self, model: Model, tokens: Tokens | None) -> str: ...

    def values(self) -> dict[str, Any]: ...


def refused(analysis: Runnable, model: Model) -> WorkbenchError | None:
    """Why an analysis does not run on a model, whatever the prompt and its parameters; None where it does."""
    lacks = analysis.inapplicable(model)
    if lacks:
        return InputError(
            f"{analysis.name} on {model.name}, which {lacks}", "a model that it applies to", "Leave it out"
        )
    failed = analysis.refusal(model)
    if failed:
        return RefusedError(
            f"{analysis.name} on {model.name}",
            f"a passed self-check ({failed})",
            "Leave it out for this model: what does not rely on that item still runs",
        )
    return None


def reason_of(analysis: Runnable, model: Model, tokens: Tokens | None) -> WorkbenchError | None:
    """Why an analysis cannot run, known before anything is computed."""
    if (reason := refused(analysis, model)) is not None:
        return reason
    if tokens is None and analysis.reads_prompt():
        return InputError(
            f"{analysis.name} without a prompt", "a prompt", "Give one, for example 'The capital of France is'"
        )
    if model.interventions and not analysis.editable:
        return RefusedError(
            f"{analysis.name} with interventions ({', '.join(map(str, model.interventions))})",
            "the model as it is: what this analysis stands on was made on it",
            "Leave the interventions out",
        )
    return None


@contextmanager
def comparing() -> Iterator[None]:
    """What a library says of two results that do not go together, as one of our sentences: whoever has a result may
    cut and relabel it, and what passes the schema of a file may be no result of that analysis."""
    try:
        yield
    except (WorkbenchError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"two results that cannot be compared ({in_words(error)})",
            "two as they were computed",
            "Compute them again",
        ) from error
