"""Entries: how an analysis presents itself to the command line, the explorer and the batch runner.

Three readers, one table. A catalog is a tuple-like of entries that are imported only when looked at, so that listing
names costs nothing. `run()` feeds any number of entries from one forward pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbench.analysis.catalog import Catalog, _imported
from workbench.errors import InputError, RefusedError

if TYPE_CHECKING:
    import xarray as xr

    from workbench.analysis.kinds import Stimulus
    from workbench.analysis.view import Claim
    from workbench.models.model import Model

__all__ = ["Claim", "Entry", "LegacyCatalog", "Param", "Stimulus", "finish", "named", "pass_for", "run", "study"]

_ELSEWHERE = {"Claim": "view", "Stimulus": "kinds"}


def __getattr__(name: str) -> Any:
    """Names that are defined elsewhere, imported when first asked for: listing a catalog needs none of them."""
    if name not in _ELSEWHERE:
        raise AttributeError(name)
    home = _ELSEWHERE[name]
    return getattr(import_module(home if "." in home else f"workbench.analysis.{home}"), name)


def named(function: Callable, values: Mapping[str, Any]) -> dict[str, Any]:
    """See `view.named`."""
    from workbench.analysis.view import named

    return named(function, values)


@dataclass(frozen=True)
class Param:
    """One parameter of an analysis: the source of its command-line option, its control on the page and its checks.

    type: int, float, str or bool. low, high: inclusive. choices: the only values. optional: None is allowed too.
    files: beside the choices, a file or folder of texts or hub:NAME (see `corpora.find_corpus`).
    Of display parameters only: slider, the ends of its slider on the page; dim, "pos" where it names a token.
    """

    name: str
    type: type
    default: Any
    help: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False
    files: bool = False
    slider: tuple[float, float] | None = None
    dim: str | None = None

    def parse(self, text: str) -> Any:
        """A value from the command line or a page's field."""
        if self.optional and text.strip().lower() in ("", "none"):
            return None
        if self.type is bool:
            known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
            if text.lower() not in known:
                raise InputError(f"{self.name}={text!r}", "true or false", "Correct the value")
            return known[text.lower()]
        try:
            return self.check(self.type(text))
        except InputError:
            raise
        except ValueError:
            raise InputError(
                f"{self.name}={text!r}", f"a value of type {self.type.__name__}", "Correct the value"
            ) from None

    def check(self, value: Any) -> Any:
        """The value, if it may be used; InputError with the range otherwise."""
        if value is None and self.optional:
            return None
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, self.type) or (self.type is not bool and isinstance(value, bool)):
            raise InputError(f"{self.name}={value!r}", f"a value of type {self.type.__name__}", "Correct the value")
        if self.choices and value not in self.choices and not self.files:
            raise InputError(
                f"{self.name}={value!r}", f"one of {', '.join(map(str, self.choices))}", "Choose one of these"
            )
        low, high = self.low, self.high
        if self.type in (int, float) and (
            value != value or (low is not None and value < low) or (high is not None and value > high)
        ):
            span = f"{'any' if low is None else low} to {'any' if high is None else high}"
            raise InputError(f"{self.name}={value!r}", f"a value in the range {span}", "Correct the value")
        return value


@dataclass(frozen=True)
class Entry:
    """One line of the catalog.

    scope: "prompt" (needs a prompt and shares its pass), "model" (makes its own stimulus, computed once per model) or
    "study" (several passes; `study` yields partial results). needs: `(model, tokens, **params) -> tuple[Need, ...]`.
    analyse: `(observation, readout, **params) -> Dataset`. stimulus: `(model, **params) -> Stimulus`. study:
    `(model, tokens, **params) -> iterator of Dataset`, the last one complete. positions: `(n_tokens, **params) ->`
    positions whose final logits are kept. figures: `result -> plotly figure`, the first one is shown large. details:
    `(result, selection) -> figure`, drawn beside them when a click has selected something; a text `said` in its meta is
    written below. tables: `result ->` pandas DataFrame, to sort, filter and export; a column named as a variable of the
    result has its unit, one named `layer`, `head` or `pos` makes a click on a row select that. requires: names of
    self-check items. claims:
    `(result, selection) -> Claim`, None where the view says nothing of the selection; each is a button that tests it.
    definition: what is computed, with its formula; limits: what a reader must not conclude. cost:
    `(sizes, n_tokens, **params) ->` seconds relative to one bare forward pass. artifact: `(model, **params) ->` hash of
    what was learned from data, or of a user's files, that enters the result (None: nothing), part of its key.

    display: parameters that change only what is drawn from a result: a figure, a detail, a claim or `sentence` gets
    those that it names; no pass, no result and no key knows them. sentence: `(result, **display) -> str`, the line
    under the figure where it depends on them (else the result's `summary`). finer: `(params, display) -> params` that
    keep what a display asks for. follow: `(selection, **params) -> [(entry, params), ...]`, what is recomputed of one
    layer and drawn beside the figures when a click has selected something. prompted: False for a study on texts of its
    own, which is the same for every prompt.
    """

    name: str
    title: str
    source: str
    limits: str
    scope: str = "prompt"
    definition: str = ""
    needs: Callable | None = None
    analyse: Callable | None = None
    stimulus: Callable | None = None
    study: Callable | None = None
    positions: Callable | None = None
    figures: tuple[Callable, ...] = ()
    details: tuple[Callable, ...] = ()
    tables: tuple[Callable, ...] = ()
    params: tuple[Param, ...] = ()
    requires: tuple[str, ...] = ()
    claims: tuple[Callable, ...] = ()
    cost: Callable | None = None
    artifact: Callable | None = None
    version: int = 1
    display: tuple[Param, ...] = ()
    sentence: Callable | None = None
    finer: Callable | None = None
    follow: Callable | None = None
    prompted: bool = True

    def __post_init__(self):
        if self.scope not in ("prompt", "model", "study"):
            raise InputError(f"scope={self.scope!r}", "'prompt', 'model' or 'study'", "Correct the entry")
        wanted = {"prompt": ("needs", "analyse"), "model": ("stimulus", "needs", "analyse"), "study": ("study",)}
        missing = [name for name in wanted[self.scope] if getattr(self, name) is None]
        if missing:
            raise InputError(f"entry {self.name} without {missing[0]}", f"{wanted[self.scope]}", "Complete the entry")

    def checked(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All params with defaults filled in; InputError for unknown names and bad values."""
        drawn = next((param.name for param in self.display if param.name in params), None)
        if drawn is not None:
            raise InputError(
                f"the parameter {drawn!r} for computing {self.name}",
                "parameters that change the result",
                f"Give it to the figure: {self.figures[0].__name__}(result, {drawn}={params[drawn]!r})",
            )
        return _checked(self.name, self.params, params)

    def shown(self, display: Mapping[str, Any]) -> dict[str, Any]:
        """All display parameters with defaults filled in; InputError as in `checked`."""
        return _checked(self.name, self.display, display)

    def split(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Params and display parameters out of one mapping of both, the params as fine as the display asks."""
        names = {param.name for param in self.display}
        display = self.shown({name: value for name, value in given.items() if name in names})
        params = self.checked({name: value for name, value in given.items() if name not in names})
        return self.fine_enough(params, display), display

    def fine_enough(self, params: Mapping[str, Any], display: Mapping[str, Any]) -> dict[str, Any]:
        """The params, changed where their result would not hold what a display asks for."""
        return dict(params) if self.finer is None else self.checked(self.finer(params, display))

    def claimed(
        self, result: "xr.Dataset", selection: Mapping[str, Any], display: Mapping[str, Any] | None = None
    ) -> "list[Claim]":
        """What this view claims of a selection, as shown by a display."""
        shown = self.shown(display or {})
        found = [claim(result, dict(selection), **named(claim, shown)) for claim in self.claims]
        return [claim for claim in found if claim is not None]

    def said(self, result: "xr.Dataset", display: Mapping[str, Any] | None = None) -> str:
        """What a result says in words, for a display."""
        if self.sentence is not None:
            return self.sentence(result, **named(self.sentence, self.shown(display or {})))
        return str(result.attrs.get("summary") or result.attrs.get("sentence") or "")

    def refusal(self, model: "Model") -> str | None:
        """Why this analysis cannot be trusted on this model, or None."""
        failed = model.selfcheck.failed(self.requires) if model.selfcheck is not None else []
        return failed[0].sentence if failed else None

    def ready(self, model: "Model") -> bool:
        """Whether what it learned from data, with its default params, is there; true where it learns nothing."""
        return self.artifact is None or self.artifact(model, **self.checked({})) is not None

    def key(self, model: "Model", tokens: Any, params: Mapping[str, Any], interventions: Sequence[Any] = ()) -> str:
        """The spec_key of this analysis on these tokens (None: its own stimulus)."""
        from workbench.analysis.keys import spec_key

        ids = None if tokens is None or not self.prompted else list(tokens.ids)
        return spec_key(
            model.identity.weights_hash,
            ids,
            self.name,
            str(self.version),
            params,
            interventions=interventions,
            artifact_hash=None if self.artifact is None else self.artifact(model, **params),
        )

    def run(
        self,
        model: "Model",
        prompt: Any = None,
        *,
        interventions: Sequence[Any] = (),
        progress=None,
        partial=None,
        allow_network: bool = False,
        **params,
    ) -> "xr.Dataset":
        """Run this one analysis and return its Dataset; see `run`."""
        options = {"progress": progress, "partial": partial, "allow_network": allow_network}
        options["interventions"] = interventions
        return run([self], model, prompt, {self.name: params}, **options)[self.name]


def _checked(entry: str, params: Sequence[Param], given: Mapping[str, Any]) -> dict[str, Any]:
    known = {param.name: param for param in params}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(
            f"the parameter {unknown[0]!r} for {entry}", f"one of {', '.join(known) or 'none'}", "Correct the name"
        )
    return {name: param.check(given.get(name, param.default)) for name, param in known.items()}


class LegacyCatalog(Catalog):
    """Entries by name, made of views where an analysis is a value already. Goes when all are."""

    def get(self, name: str) -> Entry:
        """The entry of that name."""
        found = _imported(self._paths_of(name)[0])
        return found if isinstance(found, Entry) else bridged(self.view(name))

    def view(self, name: str) -> Any:
        """The view of that name."""
        found = _imported(self._paths_of(name)[0])
        return viewed(found) if isinstance(found, Entry) else super().view(name)

    def with_plugins(self, group: str = "workbench.probes") -> "LegacyCatalog":
        """See `Catalog`."""
        return LegacyCatalog(super().with_plugins(group)._paths)


class _Bridged(Entry):
    def key(self, model, tokens, params, interventions=()):
        """See `Analysis`."""
        about = None if tokens is None or not self.prompted else tokens
        return self.analysis.of(params).spec_key(model, about, interventions)


_VIEWED: dict[str, Any] = {}


def viewed(entry: Entry) -> Any:
    """A view that does what an entry does."""
    import types
    from typing import Annotated

    from workbench.analysis import kinds
    from workbench.analysis.parameters import Choice, Position, Range, Slider, Values
    from workbench.analysis.view import View

    if entry.name in _VIEWED:
        return _VIEWED[entry.name]

    def fields(params, body):
        body["__annotations__"] = {}
        for p in params:
            notes = [p.help or p.name]
            if p.low is not None or p.high is not None:
                notes.append(Range(p.low, p.high))
            if p.choices:
                notes.append(Choice(p.choices, p.files))
            if p.slider:
                notes.append(Slider(*p.slider))
            if p.dim:
                notes.append(Position(p.dim))
            plain = p.type | None if p.optional else p.type
            body["__annotations__"][p.name] = Annotated[(plain, *notes)]
            body[p.name] = p.default

    def fill(body):
        fields(entry.params, body)
        body["__module__"] = (entry.needs or entry.study).__module__
        told = (("Definition", entry.definition or entry.title), ("Limits", entry.limits), ("Source", entry.source))
        body["__doc__"] = "\n".join(f"{name}: {text}" for name, text in told)
        extra = named(entry.analyse, {"readout": 1}) if entry.analyse else {}
        if entry.scope == "study":

            def partials(self, model, tokens, *, progress=None, allow_network=False):
                options = named(entry.study, {"progress": progress, "allow_network": allow_network})
                yield from entry.study(model, tokens, **self.values(), **options)

            body["partials"] = partials
        else:
            body["needs"] = lambda self, model, tokens: entry.needs(model, tokens, **self.values())
            body["analyse"] = lambda self, observation: entry.analyse(
                observation, *([observation.readout] if extra else []), **self.values()
            )
        if entry.scope == "model":

            def stimulus(self, model, progress=None):
                return entry.stimulus(model, **self.values())

            body["stimulus"] = stimulus
        if entry.positions:
            body["read_positions"] = lambda self, n: entry.positions(n, **self.values())
        if entry.cost:
            body["cost"] = lambda self, sizes, n: entry.cost(sizes, n, **self.values())
        if entry.artifact:
            body["artifact"] = lambda self, model: entry.artifact(model, **self.values())
        if not entry.prompted:
            body["prompted"] = False

    base = {"prompt": kinds.OnPrompt, "model": kinds.OnModel, "study": kinds.Study}[entry.scope]
    options = {"name": entry.name, "title": entry.title, "requires": entry.requires}
    cls = types.new_class("".join(map(str.title, entry.name.split("-"))), (base,), options, fill)

    def shown(body):
        fields(entry.display, body)
        body["owner"] = f"drawing {entry.name}"

    more = {"display": types.new_class("Display", (Values,), {}, shown)} if entry.display else {}
    follows = tuple(p.name for p in entry.params if p.help == "follows the selection")
    view = _VIEWED[entry.name] = View(
        cls, f"{entry.title}?", entry.figures, entry.details, entry.tables, entry.claims, sentence=entry.sentence,
        finer=entry.finer and (lambda a, d: a.replaced(**entry.finer(a.values(), d.values()))),
        follow=entry.follow and (lambda a, selection: [
            (viewed(e), viewed(e).analysis.of(p)) for e, p in entry.follow(selection, **a.values())
        ]),
        follows=follows, **more,
    )  # fmt: skip
    return view


def _param(p) -> Param:
    return Param(p.name, p.type, p.default, p.help, p.low, p.high, p.choices, p.optional, p.files, p.slider, p.dim)


def bridged(view: Any) -> Entry:
    """An entry that does what a view and its analysis do."""
    cls = view.analysis
    scope = "prompt" if cls.shares_pass else "model" if hasattr(cls, "stimulus") else "study"
    own = {
        "prompt": {
            "needs": lambda model, tokens, **p: cls(**p).needs(model, tokens),
            "analyse": lambda observation, readout=None, **p: cls(**p).analyse(observation),
            "positions": lambda n, **p: cls(**p).read_positions(n),
        },
        "model": {
            "stimulus": lambda model, **p: cls(**p).stimulus(model),
            "needs": lambda model, tokens, **p: cls(**p).needs(model, tokens),
            "analyse": lambda observation, readout=None, **p: cls(**p).analyse(observation),
        },
        "study": {
            "study": lambda model, tokens, progress=None, allow_network=False, **p: cls(**p).partials(
                model, tokens, progress=progress, allow_network=allow_network
            )
        },
    }[scope]
    from workbench.analysis.kinds import Analysis

    follow = view.follow
    entry = _Bridged(
        name=view.name, title=view.title, source=cls.source, limits=cls.limits, scope=scope, definition=cls.definition,
        figures=view.figures, details=view.details, tables=view.tables, params=tuple(map(_param, cls.parameters())),
        requires=cls.requires, claims=view.claims, cost=lambda sizes, n, **p: cls(**p).cost(sizes, n),
        artifact=None if cls.artifact is Analysis.artifact else lambda model, **p: cls(**p).artifact(model),
        display=tuple(map(_param, view.display_parameters)), sentence=view.sentence,
        finer=None if view.finer is None else lambda params, display: view.finer(
            cls(**params), view.shown(display)
        ).values(),
        follow=None if follow is None else lambda selection, **p: [
            (bridged(other), analysis.values()) for other, analysis in follow(cls(**p), selection)
        ],
        prompted=cls.prompted or scope == "model", **own,
    )  # fmt: skip
    object.__setattr__(entry, "analysis", cls)
    return entry


def run(
    entries: Sequence[Entry],
    model: "Model",
    prompt: Any = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    interventions: Sequence[Any] = (),
    progress: Callable[[float], None] | None = None,
    partial: "Callable[[xr.Dataset], None] | None" = None,
    allow_network: bool = False,
) -> "dict[str, xr.Dataset]":
    """Run analyses on a model; all prompt-scope ones share one forward pass.

    params: by entry name. partial: is shown what a study has so far, each time there is more. allow_network: whether
    texts may be fetched from the hub. Returns one Dataset per entry, with key and provenance. Raises InputError for bad
    params or a missing prompt, RefusedError where a self-check that an analysis relies on failed.
    """
    from workbench.models.prompt import tokenise

    given = {name: dict(values) for name, values in (params or {}).items()}
    checked = {entry.name: entry.checked(given.get(entry.name, {})) for entry in entries}
    for entry in entries:
        reason = entry.refusal(model)
        if reason:
            raise RefusedError(f"{entry.name} on {model.name}", f"a passed self-check ({reason})", "Use another model")
        if prompt is None and entry.scope == "prompt":
            raise InputError(
                f"{entry.name} without a prompt", "a prompt", "Give one, for example 'The capital of France is'"
            )
    tokens = None if prompt is None else tokenise(model, prompt)
    results = {}
    shared = [entry for entry in entries if entry.scope == "prompt"]
    if shared:
        results |= _run_prompt(shared, model, tokens, checked, interventions, progress)
    for entry in entries:
        if entry.scope == "model":
            results[entry.name] = _run_model(entry, model, checked[entry.name], interventions, progress)
        elif entry.scope == "study":
            options = {"progress": progress, "allow_network": allow_network}
            for result in study(entry, model, tokens, **options, **checked[entry.name]):
                results[entry.name] = result
                if partial is not None:
                    partial(result)
    return {entry.name: results[entry.name] for entry in entries}


def _run_prompt(entries, model, tokens, checked, interventions, progress) -> "dict[str, xr.Dataset]":
    from workbench.observation import observe

    observation = observe(
        model, tokens, **pass_for(entries, model, tokens, checked), interventions=interventions, progress=progress
    )
    return {e.name: finish(e, observation, model, checked[e.name]) for e in entries}


def pass_for(entries: Sequence[Entry], model: "Model", tokens, params: Mapping[str, Mapping[str, Any]]) -> dict:
    """What prompt-scope entries ask of one shared pass: `needs` and `positions` for observe(). params: checked ones."""
    needs = [need for e in entries for need in e.needs(model, tokens, **params[e.name])]
    asked = sorted(
        {p % len(tokens) for e in entries if e.positions for p in e.positions(len(tokens), **params[e.name])}
    )
    return {"needs": needs, "positions": asked or "last"}


def finish(entry: Entry, observation, model: "Model", params: Mapping[str, Any]) -> "xr.Dataset":
    """A prompt-scope entry's result, with key and provenance, from a pass that met its needs."""
    result = entry.analyse(observation, model.readout, **params)
    return _finish(entry, result, model, observation.tokens[0], params, observation.interventions)


def _run_model(entry: Entry, model, params, interventions, progress) -> "xr.Dataset":
    from workbench.observation import observe

    stimulus, tell = _stimulus(entry, model, params, progress)
    needs = entry.needs(model, stimulus.tokens, **params)
    observation = observe(
        model,
        stimulus.tokens,
        needs,
        positions="none",
        fields=stimulus.fields,
        interventions=interventions,
        progress=tell,
    )
    return _finish(entry, entry.analyse(observation, model.readout, **params), model, None, params, interventions)


def _stimulus(entry: Entry, model, params, progress) -> "tuple[Stimulus, Callable[[float], None] | None]":
    """The stimulus, and the progress of the pass that follows; one that tells its own takes the first fifth."""
    if progress is None or not named(entry.stimulus, {"progress": progress}):
        return entry.stimulus(model, **params), progress
    stimulus = entry.stimulus(model, progress=lambda share: progress(share / 5), **params)
    return stimulus, lambda share: progress((1 + 4 * share) / 5)


def study(
    entry: Entry, model, tokens, *, progress=None, allow_network: bool = False, **params
) -> "Iterator[xr.Dataset]":
    """Partial results of a study, each with provenance; progress and the network's leave go to one that takes them."""
    extra = named(entry.study, {"progress": progress, "allow_network": allow_network})
    for partial in entry.study(model, tokens, **params, **extra):
        yield _finish(entry, partial, model, tokens, params, ())


def _finish(entry: Entry, result, model, tokens, params, interventions) -> "xr.Dataset":
    from workbench.analysis.results import check, stamped

    key = entry.key(model, tokens, params, interventions)
    return stamped(
        check(result), analysis=entry.name, title=entry.title, key=key, params=params, model=model, tokens=tokens,
        source=entry.source,
    )  # fmt: skip
