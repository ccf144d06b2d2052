"""The engine: models that are loaded, what was computed on them, and what is on its way. Knows no browser.

Everything that runs a model goes through its worker; everything else (drawing, tokens, costs) runs in the thread that
asks. Results are found by their keys, so that an answer can never land on another prompt's page.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import xarray as xr

from apps.explorer.cache import Cache
from apps.explorer.generation import continuation, continued_text
from apps.explorer.jobs import LOAD, MODEL, PROMPT, SELECTION, STOPS, STUDY, Job, Worker, sentence
from apps.explorer.settings import Settings
from apps.explorer.states import RESID, States, layer_of, slice_of, states_of
from probes.attention import pattern
from probes.lens import surprisal
from probes.neurons import neurons
from workbench.analysis.keys import spec_key
from workbench.analysis.legacy import Entry, bridged, finish, pass_for, study
from workbench.corpora import names_file, reference_text
from workbench.errors import InputError, RefusedError, UnavailableError, WorkbenchError
from workbench.intervene.text import MEAN_HOOKS, Phrase, phrase
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.observation import Observation, observe, predict_bytes
from workbench.observation.recording import Means, measure_means

__all__ = ["Engine", "Failure", "Hosted", "Request"]

_SURPRISAL = surprisal.VIEW.name  # the page shows it over the prompt, whatever the catalog holds
_SHORT = 64  # tokens up to which every analysis of the prompt runs at once
_GONE = 10.0  # seconds without a look after which a window that waits for something counts as closed
_PATIENCE = 2.0  # seconds a click waits for its slice before the page says that the model is busy


@dataclass(frozen=True)
class Failure:
    """Why an analysis gave no result; kept in its place."""

    sentence: str
    nbytes: int = 256


@dataclass(frozen=True)
class Request:
    """One prompt on one model with the params of every analysis, and the keys under which its results are found.

    chat: the text is one message of a user, put through the model's chat template. edits: interventions; they touch
    what is computed on the prompt, not what is of the model.
    """

    model: str
    text: str
    tokens: Tokens = field(repr=False)
    params: Mapping[str, Mapping[str, Any]] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    states: str = ""
    chat: bool = False
    edits: tuple[Phrase, ...] = ()


class Hosted:
    """A model that the page offers: its worker, and the model once it is loaded."""

    def __init__(self, name: str, load):
        self.name, self.model, self.seconds = name, None, 0.0
        self._means: Means | None = None
        self.worker = Worker(name).start()
        self.tokenising = threading.Lock()  # fast tokenizers must not be borrowed twice
        self.loading = self.worker.submit(Job(f"load {name}", f"load {name}", LOAD, lambda job: self._load(job, load)))

    def _load(self, job: Job, load) -> str:
        def progress(stage: str, share: float, text: str) -> None:
            job.note = text or stage
            job.progress(share)

        self.model = load(self.name, progress)
        self.seconds = _forward_seconds(self.model)
        return self.name

    def means(self) -> Means:
        """Means over the reference text, measured when an intervention first asks; for the worker's thread alone."""
        if self._means is None:
            self._means = measure_means(self.ready, hooks=MEAN_HOOKS)
        return self._means

    @property
    def ready(self) -> Model:
        """The model; UnavailableError while it is loading or where loading failed."""
        if self.model is not None:
            return self.model
        if self.loading.alive:
            raise UnavailableError(f"{self.name}, which is still loading", "a loaded model", "Wait a few seconds")
        raise UnavailableError(
            f"{self.name}, which did not load ({self.loading.error})", "a model", "Press Run to try again"
        )


def _forward_seconds(model: Model) -> float:
    """Seconds of a bare pass over 16 tokens, the better of two: what predicted costs are multiples of."""
    ids = Prompt.ids([3] * min(16, model.sizes.n_ctx))
    times = []
    for _ in range(2):
        started = time.perf_counter()
        observe(model, [ids], positions="last")
        times.append(time.perf_counter() - started)
    return min(times)


def _loader(settings: Settings):
    def load(name: str, progress) -> Model:
        from workbench.loading.pretrained import load

        return load(name, progress=progress, allow_network=settings.allow_network)

    return load


class Engine:
    """See the module."""

    def __init__(self, settings: Settings, catalog: Sequence[Entry], load=None):
        self.settings = settings
        self.slices: dict[str, Entry] = {view.name: bridged(view) for view in (pattern.VIEW, neurons.VIEW)}
        self.entries: dict[str, Entry] = {_SURPRISAL: bridged(surprisal.VIEW)}
        self.entries |= {entry.name: entry for entry in catalog if entry.name not in self.slices}
        self.cache = Cache(settings.memory, settings.directory, settings.disk)
        self._load, self._hosted, self._lock = load or _loader(settings), {}, threading.Lock()
        self._looked: dict[str, float] = {}  # when a session last asked for its jobs

    def close(self) -> None:
        """End all workers."""
        for hosted in self._hosted.values():
            hosted.worker.close()

    def hosted(self, name: str, again: bool = False) -> Hosted:
        """A model by name; it begins to load when it is first asked for. InputError for one that is not offered.

        again: load it once more where that failed.
        """
        if name not in self.settings.models and not self.settings.any_model:
            raise InputError(
                f"the model {name!r}",
                f"one of {', '.join(self.settings.models)}",
                "Choose one of these; others are offered by whoever starts the explorer",
            )
        with self._lock:
            ended = again and name in self._hosted and self._hosted[name].loading.state in ("failed", "cancelled")
            if ended:
                self._hosted[name].worker.close()
            if ended or name not in self._hosted:
                self._hosted[name] = Hosted(name, self._load)
            return self._hosted[name]

    @property
    def views(self) -> dict[str, Entry]:
        """Everything that can be looked at, by name: the catalog, surprisal, and what follows the selection."""
        own = {_SURPRISAL: self.entries[_SURPRISAL], **self.slices}
        return {**{name: entry for name, entry in self.entries.items() if name not in own}, **own}

    def jobs(self, session: str) -> list[tuple[str, Job]]:
        """(model, job) of everything that a session waits for, and models that are loading."""
        self._looked[session] = time.monotonic()
        return [
            (name, job)
            for name, hosted in list(self._hosted.items())
            for job in hosted.worker.jobs()
            if session in job.sessions or job is hosted.loading
        ]

    def cancel(self, job_id: str, session: str) -> None:
        """Stop a job of this session, unless somebody else looks at it."""
        now = time.monotonic()
        gone = [other for other, looked in list(self._looked.items()) if now - looked > _GONE]
        for hosted in list(self._hosted.values()):
            hosted.worker.cancel(job_id, session, gone)

    def join(self, request: Request, name: str, session: str) -> bool:
        """Let a session wait for an analysis that is on its way, as after its window was closed and opened again."""
        return self.hosted(request.model).worker.join(request.keys[name], session)

    def tokens(self, name: str, text: str, chat: bool = False) -> Tokens:
        """Tokens of a text, or of a user's message; of ids separated by spaces where the model has no tokenizer."""
        if len(text) > self.settings.longest_text:
            raise InputError(
                f"a text of {len(text)} characters", f"at most {self.settings.longest_text}", "Shorten the prompt"
            )
        hosted = self.hosted(name)
        model = hosted.ready
        with hosted.tokenising:
            if model.tokenizer is None:
                return tokenise(model, _ids(text))
            return tokenise(model, Prompt.chat([{"role": "user", "content": text}]) if chat and text else text)

    def request(
        self,
        name: str,
        text: str,
        params: Mapping[str, Mapping[str, Any]],
        chat: bool = False,
        edits: Sequence[str] = (),
    ) -> Request:
        """What a run of a prompt asks for; edits: phrases. Raises InputError for bad ones, a bad prompt or params."""
        if not isinstance(text, str) or not all(isinstance(given, Mapping) for given in params.values()):
            raise InputError(
                "a prompt or params of another kind", "a text, and params by analysis", "Load the page again"
            )
        model, tokens = self.hosted(name).ready, self.tokens(name, text, chat)
        phrases = _phrases(model, tokens, edits)
        interventions = tuple(self._printed(said) for said in phrases)
        checked = {entry.name: entry.checked(params.get(entry.name, {})) for entry in self.entries.values()}
        self._refuse_files(checked)
        checked |= {name: dict(params.get(name, {})) for name in self.slices}
        keys = {
            entry.name: self._key(entry, model, tokens, checked[entry.name], interventions)
            for entry in self.entries.values()
        }
        weights, ids = model.identity.weights_hash, list(tokens.ids)
        states = spec_key(weights, ids, "explorer-states", "1", {}, interventions=interventions)
        return Request(name, text, tokens, checked, keys, states, chat, phrases)

    def _printed(self, said: Phrase) -> str:
        """An intervention as part of a key: with the text that its mean is taken over."""
        return f"{said} of {self._reference}" if said.how == "mean" else str(said)

    @cached_property
    def _reference(self) -> str:
        return str(reference_text())

    def _refuse_files(self, params: Mapping[str, Mapping[str, Any]]) -> None:
        """A browser names no file of this machine unless the explorer was started for it."""
        for name, values in params.items():
            for param in self.entries[name].params:
                value = values[param.name]
                if param.files and names_file(value) and not self.settings.any_file:
                    raise InputError(
                        f"{param.name}={value!r} for {self.entries[name].title.lower()}",
                        f"one of {', '.join(param.choices)}",
                        "Files are read by an explorer that was started with --allow-files",
                    )

    def _key(self, entry: Entry, model: Model, tokens: Tokens, params: Mapping, interventions: Sequence) -> str:
        """Where the result of an analysis is found; where it cannot have one (nothing was trained yet), its reason."""
        about = None if entry.scope == "model" else tokens
        try:
            return entry.key(model, about, params, interventions if entry.scope == "prompt" else ())
        except WorkbenchError as error:
            key = spec_key(model.identity.weights_hash, None, f"unavailable {entry.name}", str(entry.version), params)
            self.cache.put(key, Failure(str(error)))
            return key

    def cost(self, request: Request, names: Sequence[str]) -> tuple[float, int]:
        """Predicted seconds and kept bytes of computing those of the named analyses that are not in the cache."""
        hosted = self.hosted(request.model)
        model, n = hosted.ready, len(request.tokens)
        wanted = self._missing(request, names)
        needs, passes = [RESID], 1.0
        for entry in wanted:
            params = request.params[entry.name]
            try:
                needs += entry.needs(model, request.tokens, **params)
            except WorkbenchError:
                continue  # it will say why in its own place
            passes += entry.cost(model.sizes, n, **params) if entry.cost else 0.5
        seconds = (
            hosted.seconds * max(1.0, n / 16) * passes if wanted or self.cache.get(request.states) is None else 0.0
        )
        return seconds, predict_bytes(model.sizes, list(dict.fromkeys(needs)), 1, n)

    def submit(self, request: Request, session: str, names: Sequence[str] | None = None) -> Job | None:
        """Compute what is missing of the named prompt-scope analyses (default: all); None where everything is there."""
        names = [e.name for e in self.entries.values() if e.scope == "prompt"] if names is None else names
        wanted = self._missing(request, names)
        if not wanted and self.cache.get(request.states) is not None:
            return None
        _, nbytes = self.cost(request, names)
        if nbytes > self.settings.budget:
            raise RefusedError(
                f"a run that would keep {nbytes / 1e9:.2f} GB",
                f"at most {self.settings.budget / 1e9:.2f} GB",
                "Shorten the prompt or narrow the parameters",
            )
        title = "prompt" if len(wanted) != 1 else wanted[0].title.lower()
        key = " ".join([request.states, *(request.keys[entry.name] for entry in wanted)])
        job = Job(title, key, PROMPT, lambda job: self._run_prompt(request, wanted, job), {session})
        return self.hosted(request.model).worker.submit(job)

    def submit_entry(self, request: Request, name: str, session: str) -> Job | None:
        """Compute one analysis; None where its result is there."""
        entry, key = self.entries[name], request.keys[name]
        if entry.scope == "prompt":
            return None if self.cache.get(key) is not None else self.submit(request, session, [name])
        if self.cache.get(key) is not None and not self._is_partial(request, name):
            return None
        work = self._run_study if entry.scope == "study" else self._run_model
        priority = STUDY if entry.scope == "study" else MODEL
        job = Job(entry.title.lower(), key, priority, lambda job: work(request, entry, job), {session})
        hosted = self.hosted(request.model)
        job.restarts = entry.scope == "model"
        if entry.scope == "study":  # between two of its passes, but not within one, whose hooks another would meet
            job.gives_way = lambda: not hosted.ready.is_held
        return hosted.worker.submit(job)

    def complete(self, request: Request, names: Sequence[str]) -> bool:
        """Whether each of the named analyses has a result or a reason why not."""
        return all(self.cache.get(request.keys[name]) is not None for name in names)

    def is_running(self, request: Request, name: str) -> bool:
        """Whether an analysis is on its way, for whoever asked."""
        key = request.keys[name]
        return any(job.alive and key in job.key for job in self.hosted(request.model).worker.jobs())

    def found(self, request: Request, name: str) -> xr.Dataset | Failure | None:
        """The result of an analysis for a request (a study's may be partial), why there is none, or None."""
        return self.cache.get(request.keys[name])

    def slice_params(self, request: Request, name: str, selection: Mapping[str, Any]) -> dict[str, Any] | None:
        """Params of a view that follows the selection; None where the selection leaves one of them open."""
        entry, given = self.slices[name], dict(request.params.get(name, {}))
        for follows in ("layer", "head", "pos"):
            if any(param.name == follows for param in entry.params):
                if follows not in selection:
                    return None
                given[follows] = int(selection[follows])
        return entry.checked(given)

    def slice(self, request: Request, name: str, params: Mapping[str, Any], session: str) -> xr.Dataset | None:
        """The result of a view that follows the selection; see `of_layer`."""
        return self.of_layer(request, self.slices[name], params, session)

    def of_layer(self, request: Request, entry: Entry, params: Mapping[str, Any], session: str) -> xr.Dataset | None:
        """One layer's result, recomputed from its kept state; None where the model is too busy to answer now.

        Raises InputError where the selection does not fit the model or the prompt. The job goes on after a None.
        """
        model = self.hosted(request.model).ready
        key = entry.key(model, request.tokens, params, tuple(map(self._printed, request.edits)))
        found = self.cache.get(key)
        if found is not None:
            return found
        # A bad selection is refused here, in the thread that asks.
        layer = layer_of(entry.needs(model, request.tokens, **params))

        def work(job: Job) -> xr.Dataset:
            edits = self.interventions(request, layer)  # those of earlier layers are in the kept state
            result = slice_of(entry, model, self._states(request), params, edits)
            self.cache.put(key, result, write=False)
            return result

        job = self.hosted(request.model).worker.submit(Job(entry.title.lower(), key, SELECTION, work, {session}))
        job.late |= not job.finished.wait(_PATIENCE)
        if job.state == "failed":
            raise InputError(f"no answer ({job.error})", "one layer's result", "Select something else")
        return job.result if job.state == "done" else None

    def submit_continuation(self, request: Request, n: int, temperature: float, seed: int, session: str) -> Job:
        """Continue a prompt; the job's result is the longer text."""
        model = self.hosted(request.model).ready

        def work(job: Job) -> str:
            edits = self.interventions(request)
            added = continuation(model, request.tokens, n, temperature, seed, job.progress, edits)
            return continued_text(model, request.text, added)

        key = f"continue {request.states} {n} {temperature} {seed}"
        return self.hosted(request.model).worker.submit(Job(f"{n} more tokens", key, PROMPT, work, {session}))

    def _states(self, request: Request) -> States:
        """The kept states; recomputed by a bare pass where they were dropped or the server was restarted."""
        found = self.cache.get(request.states)
        if found is None:
            model = self.hosted(request.model).ready
            interventions = self.interventions(request)
            found = states_of(observe(model, [request.tokens], [RESID], positions="none", interventions=interventions))
            self.cache.put(request.states, found)
        return found

    def wanted(self, request: Request, view: str | None = None) -> tuple[str, ...]:
        """Prompt-scope analyses to compute at once: all for a short prompt, else surprisal and the one that is seen."""
        names = [entry.name for entry in self.entries.values() if entry.scope == "prompt"]
        if len(request.tokens) <= _SHORT:
            return tuple(names)
        return tuple(name for name in names if name in (_SURPRISAL, view))

    def _missing(self, request: Request, names: Sequence[str]) -> list[Entry]:
        return [self.entries[n] for n in names if self.cache.get(request.keys[n]) is None]

    def interventions(self, request: Request, layer: int | None = None) -> list[Any]:
        """The edits of a request as values, all or those of one layer; for the worker's thread alone."""
        hosted = self.hosted(request.model)
        found = [said.intervention(hosted.ready, hosted.means, layer) for said in request.edits]
        return [value for value in found if value is not None]

    def _is_partial(self, request: Request, name: str) -> bool:
        found = self.cache.get(request.keys[name])
        return isinstance(found, xr.Dataset) and bool(found.attrs.get("partial", False))

    def _run_prompt(self, request: Request, wanted: Sequence[Entry], job: Job) -> None:
        """One pass for all wanted analyses and the states; an analysis that fails costs the others nothing."""
        model = self.hosted(request.model).ready
        possible = [entry for entry in wanted if self._allowed(request, entry, model)]
        try:
            asked = pass_for(possible, model, request.tokens, request.params)
            asked["needs"] = [*asked["needs"], RESID]
            asked |= {"interventions": self.interventions(request), "progress": lambda share: job.progress(0.8 * share)}
            observation = observe(model, [request.tokens], **asked)
        except STOPS:
            raise
        except Exception as error:  # also a bug in one analysis must not take the others with it
            if len(possible) > 1:
                for entry in possible:  # one of them cannot run on this model: find out which
                    self._run_prompt(request, [entry], job)
                return
            self._fail(request, possible, error)
            self._states(request)
            return
        self.cache.put(request.states, states_of(observation))
        for done, entry in enumerate(possible):
            self._finish(request, entry, observation, model)
            job.progress(0.8 + 0.2 * (done + 1) / len(possible))

    def _finish(self, request: Request, entry: Entry, observation: Observation, model: Model) -> None:
        try:
            result = finish(entry, observation, model, request.params[entry.name])
        except Exception as error:  # as above
            self._fail(request, [entry], error)
        else:
            self.cache.put(request.keys[entry.name], result)

    def _allowed(self, request: Request, entry: Entry, model: Model) -> bool:
        reason = entry.refusal(model)
        if reason:
            error = RefusedError(
                f"{entry.title} on {model.name}", f"a passed self-check ({reason})", "Use another model"
            )
            self._fail(request, [entry], error)
        return not reason

    def _fail(self, request: Request, entries: Sequence[Entry], error: Exception) -> None:
        for entry in entries:
            self.cache.put(request.keys[entry.name], Failure(sentence(entry.title, error)))

    def _run_model(self, request: Request, entry: Entry, job: Job) -> None:
        model = self.hosted(request.model).ready
        try:
            result = entry.run(model, progress=job.progress, **request.params[entry.name])
        except STOPS:
            raise
        except Exception as error:  # the reason stands in the view's place
            self._fail(request, [entry], error)
        else:
            self.cache.put(request.keys[entry.name], result)

    def _run_study(self, request: Request, entry: Entry, job: Job):
        model = self.hosted(request.model).ready
        if not self._allowed(request, entry, model):
            return
        options = {"progress": job.progress, "allow_network": self.settings.allow_network}
        partials = study(entry, model, request.tokens, **options, **request.params[entry.name])
        last = None
        try:
            for last in partials:
                self.cache.put(request.keys[entry.name], last.assign_attrs(partial=1), write=False)
                yield last
        except (*STOPS, GeneratorExit):
            raise
        except Exception as error:  # the reason stands in the view's place
            self._fail(request, [entry], error)
            return
        if last is not None:
            self.cache.put(request.keys[entry.name], last)


def _phrases(model: Model, tokens: Tokens, given: Sequence[str]) -> tuple[Phrase, ...]:
    """Interventions from a page or a link, each once and in order; InputError where there is no such thing."""
    if not isinstance(given, list | tuple):
        raise InputError(f"the interventions {given!r}", "a list of texts", "Load the page again")
    phrases = tuple(phrase(text) for text in sorted(set(map(str, given))))
    for said in phrases:
        said.check(model, len(tokens))
    return phrases


def _ids(text: str) -> Prompt:
    parts = text.replace(",", " ").replace("#", " ").split()
    if not parts or not all(part.isdigit() for part in parts):
        raise InputError(
            "a text, for a model without a tokenizer", "token ids separated by spaces", "For example: 0 5 9 5"
        )
    return Prompt.ids([int(part) for part in parts])
