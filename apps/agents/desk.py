"""What an agent works at: one model, results by name, and limits on time and size."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from workbench.analysis.catalog import Catalog
from workbench.analysis.kinds import Analysis
from workbench.analysis.pace import Pace, measured_pace
from workbench.errors import Cancelled, InputError, RefusedError
from workbench.intervene.text import phrase
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.storage.json_text import known_values, strict

__all__ = ["MOST_NUMBERS", "SECONDS", "Desk"]

MOST_NUMBERS = 4096  # of one answer: more would fill an agent's context
SECONDS = 120.0  # that a call may be predicted to take, unless it asks for more
_RESULTS = 64  # kept; the oldest go first
_BYTES = 1 << 29  # of all that are kept


@dataclass(eq=False)
class Desk:
    """A model that is loaded when it is first asked for, and what was found on it."""

    loader: Callable[[], Model]
    catalog: Catalog
    results: "OrderedDict[str, xr.Dataset]" = field(default_factory=OrderedDict)
    _model: Model | None = None
    _pace: Pace = field(default_factory=Pace)
    _n: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def model(self) -> Model:
        """The model; loading it measures how long its passes take."""
        with self._lock:
            if self._model is None:
                self._model = self.loader()
                self._pace = measured_pace(self._model)
            return self._model

    def prompt(self, given: Any) -> Tokens | None:
        """A text, as it is typed (also where it looks like JSON), or a list of token ids; None for none."""
        if given is None:
            return None
        if isinstance(given, str):
            return tokenise(self.model(), Prompt(given))
        return tokenise(self.model(), Prompt.ids(given))

    def seconds(self, analysis: Analysis, tokens: Tokens | None) -> float:
        """About how long an analysis will take."""
        model = self.model()
        return self._pace.of(analysis, model, tokens)

    def run(
        self,
        analysis: Analysis,
        given: Any,
        interventions: Sequence[str] = (),
        *,
        limit: float = SECONDS,
        cancelled: threading.Event | None = None,
    ) -> tuple[str, xr.Dataset]:
        """Run an analysis; its result and the name it is kept by. RefusedError where it would take longer than `limit`
        seconds, before anything runs; Cancelled within two passes of the event."""
        model, tokens = self.model(), self.prompt(given)
        predicted = self.seconds(analysis, tokens)
        if predicted > limit:
            raise RefusedError(
                f"{analysis.name}, which will take about {predicted:.0f} s",
                f"at most {limit:g} s",
                "Narrow its parameters, or ask with seconds=... for more",
            )
        phrases = [phrase(" ".join(text.split())) for text in interventions]
        for said in phrases:
            said.check(model, model.sizes.n_ctx if tokens is None else len(tokens))
        edits = [said.intervention(model, _no_means) for said in phrases]

        def tell(share: float) -> None:
            if cancelled is not None and cancelled.is_set():
                raise Cancelled

        result = analysis.run(
            model, tokens if analysis.reads_prompt() else None, interventions=edits, progress=tell,
            partial=lambda some: tell(0.0),
        )  # fmt: skip
        return self.keep(analysis.name, result), result

    def keep(self, name: str, result: xr.Dataset) -> str:
        """A name for a result; the oldest are forgotten."""
        with self._lock:
            self._n += 1
            key = f"{name}-{self._n}"
            self.results[key] = result
            while len(self.results) > _RESULTS or (
                len(self.results) > 1 and sum(one.nbytes for one in self.results.values()) > _BYTES
            ):
                self.results.popitem(last=False)
        return key

    def found(self, key: str) -> xr.Dataset:
        """A result by its name; InputError for one that is not kept."""
        found = self.results.get(key)
        if found is None:
            known = ", ".join(list(self.results)[-8:]) or "none yet"
            raise InputError(f"the result {key!r}", f"one that is kept ({known})", "Run the analysis again")
        return found


def _no_means() -> Any:
    raise InputError("an ablation by the mean", "one by zero, or an edge, a key or a direction", "Take another one")


def numbers(variable: xr.DataArray, where: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a variable at some coordinates, one or a list of a dim, with what they are and everything that is known
    of their places (the heads of an edge, the texts of tokens); InputError for more than `MOST_NUMBERS`."""
    at: dict[Any, Any] = {}
    for dim, value in where.items():
        if dim not in variable.dims:
            known = ", ".join(map(str, variable.dims)) or "none: it has no dims"
            raise InputError(f"the dim {dim!r} of {variable.name}", f"one of {known}", "Correct it")
        at[dim] = _places(variable, dim, value)
    chosen = variable.isel(at)
    if chosen.size > MOST_NUMBERS:
        sizes = ", ".join(f"{dim} {n}" for dim, n in chosen.sizes.items())
        raise InputError(
            f"{chosen.size} values of {variable.name} ({sizes})", f"at most {MOST_NUMBERS}", "Choose some with where"
        )
    kept = {name: strict(variable.attrs[name]) for name in ("units", "long_name") if name in variable.attrs}
    return {
        "dims": list(map(str, chosen.dims)),
        "coords": {str(dim): strict(chosen[dim].values) for dim in chosen.dims}
        | {str(name): strict(coord.values) for name, coord in chosen.coords.items() if coord.ndim < 2},
        "values": strict(known_values(chosen)),
        "missing": "null: not applicable, or not known",
        **kept,
    }


def _places(variable: xr.DataArray, dim: str, value: Any) -> Any:
    """Where on a dim a coordinate stands, or each of a list."""
    known = variable[dim].values.tolist()
    index = {one: i for i, one in reversed(list(enumerate(known)))}
    wanted = value if isinstance(value, list) else [value]
    found = [index.get(one) if isinstance(one, str) or _is_number(one) else None for one in wanted]
    if None in found:
        has = f"{known[0]} to {known[-1]}" if len(known) > 8 else ", ".join(map(repr, known))
        raise InputError(f"{dim}={value!r} of {variable.name}", f"one or a list of {has or 'none'}", "Correct it")
    return found if isinstance(value, list) else found[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
