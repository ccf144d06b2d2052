"""A view: how the results of one analysis are asked for, drawn, listed, claimed and followed. It computes nothing.

    VIEW = View(AttentionEntropy, question="How many tokens does a head look at?", figures=(heads_figure,))

Who only computes (a batch, another library) needs no view. Plotly is imported by the functions that draw, when they do.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, ParamSpec, TypeVar

import xarray as xr

from workbench.analysis.kinds import Analysis
from workbench.analysis.parameters import Parameter, Values
from workbench.arguments import argument
from workbench.errors import InputError, WorkbenchError, in_words
from workbench.storage.record import record_of

__all__ = ["Ask", "Claim", "View", "chosen", "named", "reads"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class NoDisplay(Values):
    """A drawing without parameters."""

    owner = "the drawing"


@dataclass(frozen=True)
class Claim:
    """What a view says of a selection, put so that it can be tested: a title for a button, and params of a study."""

    title: str
    params: Mapping[str, Any]
    study: str = "causal-check"


@dataclass(frozen=True)
class Ask:
    """A parameter, of the analysis or of its drawing, that a form asks for in plain words, before all others.

    words: what stands before its value, so that all of a view read as one sentence ("Remove" L18H6 "by" zero "and
    measure" log-probability). unit: what stands behind it. pick: what it names, to be picked rather than typed: "units"
    (heads, MLPs, edges, as interventions write them), "pos" (a token), "segment" (tokens, as "3,4"), "layer", "head",
    "pair" (a prompt of as many tokens to hold this one against).
    empty: what no value stands for.
    """

    name: str
    words: str
    unit: str = ""
    pick: str = ""
    empty: str = ""

    def said(self, value: Any) -> str:
        """The words with a value."""
        blank = value is None or value == "" or (self.pick == "pos" and value == -1)
        shown = self.empty if blank and self.empty else f"token {value}" if self.pick == "pos" else f"{value}"
        if self.pick == "pair" and not blank:
            shown = json.dumps(value, ensure_ascii=False)  # where a prompt begins and ends, and its lines
        if self.pick == "segment" and not blank:
            is_one = "," not in str(value)
            shown = f"{'token' if is_one else 'tokens'} {value}" if str(value)[:1].isdigit() else f"{value}"
        return " ".join(filter(None, (self.words, shown, self.unit)))


@dataclass(frozen=True)
class View:
    """How an analysis is shown.

    question: what it answers, for a newcomer. figures: `result -> plotly figure`, the first one is shown large.
    details: `(result, selection) -> figure`, drawn beside them when a click has selected something (None where it says
    nothing of that); a text `said` in its meta is written below. tables: `result ->` pandas DataFrame, to sort, filter
    and export; a column named as a variable of the result has its unit, one named `layer`, `head` or `pos` makes a
    click on a row select that. claims: `(result, selection) -> Claim`, None where the view says nothing of the
    selection; each is a button that tests it.

    display: parameters that change only what is drawn from a result, as a `Values` class. A figure, a detail, a claim
    or `sentence` gets those that it names; no pass, no result and no key knows them. sentence: `(result, **display) ->
    str`, the line under the figure where it depends on them. finer: `(analysis, display) -> analysis` whose result
    holds what a display asks for. follow: `(analysis, selection) -> [(View, analysis), ...]`, what is recomputed of one
    layer and drawn beside the figures when a click has selected something. follows: parameters of the analysis that are
    the selection's own (layer, head, pos): the view is recomputed from the kept state when the selection moves.
    around: `(analysis, pos, n_tokens) -> analysis` that reads the token at `pos`, where this one reads only some of the
    prompt's; None where it reads that one, or its positions were chosen by hand. It sees `resid_pre`, `resid_post` and
    what follows from them alone.
    heading: a title in place of that of the analysis. asks: what a form asks for first, in words that make a sentence;
    those of the drawing are no part of what is planned.
    """

    in_words: ClassVar[str] = "a view, such as View(MyProbe, question=...)"

    analysis: type[Analysis]
    question: str
    figures: tuple[Callable[..., Any], ...] = ()
    details: tuple[Callable[..., Any], ...] = ()
    tables: tuple[Callable[..., Any], ...] = ()
    claims: tuple[Callable[..., Claim | None], ...] = ()
    display: type[Values] = NoDisplay
    sentence: Callable[..., str] | None = None
    finer: Callable[[Any, Any], Analysis] | None = None
    follow: "Callable[[Any, Mapping[str, Any]], Sequence[tuple[View, Analysis]]] | None" = None
    follows: tuple[str, ...] = ()
    around: "Callable[[Any, int, int], Analysis | None] | None" = None
    heading: str = ""
    asks: tuple[Ask, ...] = ()

    def __post_init__(self) -> None:
        for name in ("figures", "tables"):
            object.__setattr__(self, name, tuple(map(reads(self.name), getattr(self, name))))

    def plan(self, analysis: Analysis) -> str:
        """What an analysis will do, in a sentence of what was asked; "" where nothing is asked in words.

        Without what it does not use: of prompts of one's own there are not as many as a task would have had.
        """
        left = {parameter.name for parameter in self.display_parameters} | set(analysis.idle())
        asks = [ask for ask in self.asks if ask.name not in left]
        said = [ask.said(getattr(analysis, ask.name)) for ask in asks]
        for at, ask in enumerate(asks[:-1]):
            said[at] += "," if ask.words.endswith(":") else ""  # what a colon opened ends there
        return f"{' '.join(said)}." if said else ""

    @property
    def name(self) -> str:
        """The name of the analysis."""
        return self.analysis.name

    @property
    def title(self) -> str:
        """The title of the analysis, or the heading in its place."""
        return self.heading or self.analysis.title

    def shown(self, display: Mapping[str, Any] | None = None) -> Values:
        """All display parameters, defaults filled in; InputError for unknown names and bad values."""
        return self.display.of(display or {})

    def split(self, given: Mapping[str, Any]) -> tuple[Analysis, Values]:
        """The analysis and the display that one mapping of both asks for; the analysis as fine as the display asks."""
        drawn = {parameter.name for parameter in self.display.parameters()}
        display = self.shown({name: value for name, value in given.items() if name in drawn})
        analysis = self.analysis.of({name: value for name, value in given.items() if name not in drawn})
        return self.fine_enough(analysis, display), display

    def fine_enough(self, analysis: Analysis, display: Values) -> Analysis:
        """The analysis, changed where its result would not hold what a display asks for."""
        return analysis if self.finer is None else self.finer(analysis, display)

    def drawn(self, draw: Callable[..., Any], result: xr.Dataset, *more: Any, display: Values | None = None) -> Any:
        """What a figure, a detail or a table makes of a result (and a selection), with the display that it names."""
        return draw(result, *more, **named(draw, (display or self.shown()).values()))

    def claimed(
        self, result: xr.Dataset, selection: Mapping[str, Any], display: Mapping[str, Any] | None = None
    ) -> list[Claim]:
        """What this view claims of a selection, as shown by a display."""
        shown = self.shown(display)
        found = [self.drawn(claim, result, dict(selection), display=shown) for claim in self.claims]
        return [claim for claim in found if claim is not None]

    def said(self, result: xr.Dataset, display: Mapping[str, Any] | None = None) -> str:
        """What a result says in words, for a display."""
        if self.sentence is not None:
            return str(self.drawn(self.sentence, result, display=self.shown(display)))
        return self.analysis().sentence(result)

    @property
    def display_parameters(self) -> tuple[Parameter, ...]:
        """The parameters of the drawing."""
        return self.display.parameters()


def reads(*names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A figure or a table that says what it was given where that is no result, one of another analysis than these, or
    one that lacks what is drawn.

        @reads("logit-lens")
        def lens_figure(result): ...
    """

    def decorate(draw: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(draw)
        first = next(iter(signature.parameters))

        @wraps(draw)
        def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            result: Any = signature.bind(*args, **kwargs).arguments[first]
            error = getattr(result, "error", None)
            if isinstance(error, Exception):  # a Failure stands in a result's place
                raise error
            argument("result", result, xr.Dataset, f"the figures of {' and '.join(names)}")
            try:
                return draw(*args, **kwargs)
            except WorkbenchError:
                raise
            except (KeyError, ValueError) as error:
                if isinstance(error, ValueError) and record_of(result).get("analysis") in names:
                    raise  # of its own results it is our mistake
                raise _another(result, names, error) from error

        return drawn

    return decorate


def _another(result: xr.Dataset, names: Sequence[str], error: Exception) -> InputError:
    of = record_of(result).get("analysis")
    if of in names:
        got = f"a result of {of} that lacks what is asked of it ({in_words(error)})"
        return InputError(got, "a whole one", "Compute it again")
    got = f"a result of {of or 'no analysis'} in a figure of {names[0]}"
    return InputError(got, f"one of {' or '.join(names)}", "Draw that one")


def chosen(result: xr.Dataset, selection: Mapping[str, Any], *names: str) -> tuple[int, ...] | None:
    """What a selection holds of these names, in this order; None where it lacks one, or holds one that the result does
    not: another index than its dim of that name has, or another than the one in its attributes that it is of."""
    found = []
    for name in names:
        value = selection.get(name)
        if value is None or value != int(value) or value < 0:
            return None
        if name in result.dims:
            known = result[name].values.tolist() if name in result.coords else list(range(result.sizes[name]))
        else:
            known = [result.attrs.get(name, value)]
        if value not in known:
            return None
        found.append(int(value))
    return tuple(found)


def named(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that a function takes by name."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in taken}
