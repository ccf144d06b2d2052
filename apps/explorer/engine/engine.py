"""The engine: models that are loaded, what was computed on them, and what is on its way. Knows no browser.

Everything that runs a model goes through its worker; everything else (drawing, tokens, costs) runs in the thread that
asks. Results are found by their keys, so that an answer can never land on another prompt's page.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any, cast

import xarray as xr

from apps.explorer.engine.batches import Batches, begin
from apps.explorer.engine.cache import Cache
from apps.explorer.engine.continuation import WRITTEN_OUT, continued, continued_text, other_tokens
from apps.explorer.engine.hosted import Hosted, Load, loader
from apps.explorer.engine.jobs import CONTINUATION, MODEL, PROMPT, SELECTION, STUDY, Fate, Job, State
from apps.explorer.engine.presence import Presence
from apps.explorer.engine.request import Request, phrases_of, refuse_files
from apps.explorer.engine.settings import Settings
from apps.explorer.engine.states import RESID, States, layer_of, reading_of, slice_of, states_of
from apps.explorer.engine.tally import Tally
from probes.attention import pattern
from probes.lens import surprisal
from probes.neurons import neurons
from workbench.analysis.catalog import Catalog
from workbench.analysis.keys import spec_key
from workbench.analysis.kinds import Analysis, OnPrompt, kind_of
from workbench.analysis.run import Failure, outcomes
from workbench.analysis.view import View
from workbench.corpora import reference_text
from workbench.errors import InputError, RefusedError, WorkbenchError, of_the_machine
from workbench.intervene.text import Phrase
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.models.typed import is_ids, typed
from workbench.observation import observe, predict_bytes

__all__ = ["Engine"]

_SURPRISAL = surprisal.VIEW.name  # computed with every prompt: the chips of its tokens show it
_SHORT = 64  # tokens up to which every analysis of the prompt runs at once
_PATIENCE = 2.0  # seconds a click waits for its slice before the page says that the model is busy


class Engine:
    """See the module."""

    def __init__(self, settings: Settings, catalog: Catalog | Sequence[View], load: Load | None = None) -> None:
        self.settings = settings
        offered = catalog.views if isinstance(catalog, Catalog) else tuple(catalog)
        by_name = {view.name: view for view in (surprisal.VIEW, pattern.VIEW, neurons.VIEW, *offered)}
        self.slices: dict[str, View] = {name: view for name, view in by_name.items() if view.follows}
        self.standing: dict[str, View] = {name: view for name, view in by_name.items() if not view.follows}
        self.cache = Cache(settings.memory, settings.directory, settings.disk)
        self.tally = Tally(settings.directory)
        self._load, self._lock = load or loader(settings), threading.Lock()
        self._hosted: dict[str, Hosted] = {}
        self.boot = secrets.token_hex(4)  # names this server: a job of another one was lost in a restart
        self.presence = Presence()
        self.batches = Batches(settings.runs, begin, settings.allow_network)

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
            states = (State.FAILED, State.CANCELLED)
            ended = again and name in self._hosted and self._hosted[name].loading.state in states
            if ended:
                self._hosted[name].worker.close()
            if ended or name not in self._hosted:
                self._hosted[name] = Hosted(name, self._load, self.boot)
            return self._hosted[name]

    @property
    def views(self) -> dict[str, View]:
        """Everything that can be looked at, by name: the catalog, surprisal, and what follows the selection."""
        own = {_SURPRISAL: self.standing[_SURPRISAL], **self.slices}
        return {**{name: view for name, view in self.standing.items() if name not in own}, **own}

    def jobs(self, session: str) -> list[tuple[str, Job]]:
        """(model, job) of everything that a session waits for or has left to others, and models that are loading."""
        return [
            (name, job)
            for name, hosted in list(self._hosted.items())
            for job in hosted.worker.jobs()
            if session in job.sessions | job.left or job is hosted.loading
        ]

    def before(self, name: str, job: Job) -> int:
        """How many jobs of a model come before one that waits."""
        return self.hosted(name).worker.before(job)

    def cancel(self, job_id: str, session: str, for_all: bool = False) -> None:
        """Stop a job of this session; unless it is for all, one that another open window waits for goes on."""
        gone = self.presence.gone()
        for hosted in list(self._hosted.values()):
            hosted.worker.cancel(job_id, session, gone, for_all)

    def join(self, request: Request, name: str, session: str) -> bool:
        """Let a session wait for an analysis that is on its way, as after its window was closed and opened again."""
        return self.hosted(request.model).worker.join(request.keys[name], session)

    def fates(self, request: Request) -> dict[str, Fate]:
        """By analysis: what became of those that were ever asked for, or how far they are."""
        found = self.hosted(request.model).worker.fates(set(request.keys.values()))
        return {name: found[key] for name, key in request.keys.items() if key in found}

    def fate(self, request: Request, name: str) -> Fate | None:
        """What became of one analysis, or how far it is; None where this server was never asked for it."""
        return self.fates(request).get(name)

    def tokens(self, name: str, text: str, chat: bool = False) -> Tokens:
        """Tokens of a text, or of a user's message; of ids separated by spaces where the model has no tokenizer, and of
        ids written as `#0 #504 #28` on any model."""
        if len(text) > self.settings.longest_text:
            raise InputError(
                f"a text of {len(text)} characters", f"at most {self.settings.longest_text}", "Shorten the prompt"
            )
        hosted = self.hosted(name)
        model = hosted.ready
        with hosted.tokenising:
            if chat and text and model.tokenizer is not None:
                return tokenise(model, Prompt.chat([{"role": "user", "content": text}]))
            return typed(model, text)

    def written(self, name: str, ids: Sequence[int]) -> str:
        """What to type for these tokens: the text that becomes them, or the ids where none does."""
        model = self.hosted(name).ready
        as_ids = " ".join(f"#{token}" for token in ids)
        if model.tokenizer is None:
            return as_ids.replace("#", "")
        text = model.tokenizer.decode(list(ids)[len(model.vocabulary.prefix) :], clean_up_tokenization_spaces=False)
        return text if text and not is_ids(text) and self.tokens(name, text).ids == tuple(ids) else as_ids

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
        # its weights are looked at once, and not for every key
        model, tokens = self.hosted(name).ready.fixed(), self.tokens(name, text, chat)
        phrases = phrases_of(model, tokens, edits)
        interventions = tuple(self._printed(said) for said in phrases)
        analyses = {name: view.analysis.of(params.get(name, {})) for name, view in self.standing.items()}
        if not self.settings.any_file:
            refuse_files(analyses.values())
        given = {name: dict(params.get(name, {})) for name in self.slices}
        keys = {name: self._key(analysis, model, tokens, interventions) for name, analysis in analyses.items()}
        of, carried = model.identity, tuple(map(str, model.interventions))
        states = spec_key(of.key, list(tokens.ids), "explorer-states", "1", {}, interventions=interventions)
        return Request(name, text, tokens, analyses, given, keys, states, chat, phrases, of.key, of.dtype, carried)

    def _printed(self, said: Phrase) -> str:
        """An intervention as part of a key: with the text that its mean is taken over."""
        return f"{said} of {self._reference}" if said.how == "mean" else str(said)

    @cached_property
    def _reference(self) -> str:
        return str(reference_text())

    def _key(self, analysis: Analysis, model: Model, tokens: Tokens, interventions: Sequence[str]) -> str:
        """Where the result of an analysis is found; where it cannot have one (nothing was trained yet), its reason."""
        try:
            return analysis.spec_key(model, tokens, interventions)
        except WorkbenchError as error:
            named = f"unavailable {analysis.name}"
            key = spec_key(model.identity.key, None, named, "", analysis.values())
            self.cache.put(key, Failure(analysis.name, analysis.title, error))
            return key

    def cost(self, request: Request, names: Sequence[str]) -> tuple[float, int]:
        """Predicted seconds and kept bytes of computing those of the named analyses that are not in the cache."""
        hosted = self.hosted(request.model)
        model, n = hosted.ready, len(request.tokens)
        wanted = self._missing(request, names)
        needs, passes = [RESID], 1.0
        for view in wanted:
            analysis = cast(OnPrompt, request.analyses[view.name])  # callers name those of the prompt
            try:
                needs += analysis.needs(model, request.tokens)
            except WorkbenchError:
                continue  # it will say why in its own place
            passes += analysis.cost(model.sizes, n)
        seconds = hosted.pace.seconds(n, passes) if wanted or self.cache.get(request.states) is None else 0.0
        return seconds, predict_bytes(model.sizes, list(dict.fromkeys(needs)), 1, n)

    def seconds(self, request: Request, name: str) -> float:
        """Predicted seconds of an analysis alone."""
        hosted = self.hosted(request.model)
        return hosted.pace.of(request.analyses[name], hosted.ready, request.tokens)

    def submit(self, request: Request, session: str, names: Sequence[str] | None = None) -> Job | None:
        """Compute what is missing of the named prompt-scope analyses (default: all); None where everything is there."""
        names = self.of_prompt if names is None else names
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
        about = (request.states, *(request.keys[view.name] for view in wanted))
        work = lambda job: self._run_prompt(request, wanted, job)
        job = Job(title, " ".join(about), PROMPT, work, {session}, about)
        return self.hosted(request.model).worker.submit(job)

    def submit_entry(self, request: Request, name: str, session: str) -> Job | None:
        """Compute one analysis; None where its result is there."""
        view, key, kind = self.standing[name], request.keys[name], kind_of(self.standing[name].analysis)
        if kind == "prompt":
            return None if self.cache.get(key) is not None else self.submit(request, session, [name])
        if self.cache.get(key) is not None and not self._is_partial(request, name):
            return None
        priority = STUDY if kind == "study" else MODEL
        job = Job(view.title.lower(), key, priority, lambda job: self._run_own_passes(request, view, job), {session})
        job.restarts = kind == "model"
        return self.hosted(request.model).worker.submit(job)

    def complete(self, request: Request, names: Sequence[str]) -> bool:
        """Whether each of the named analyses has a result or a reason why not."""
        return all(self.cache.get(request.keys[name]) is not None for name in names)

    def found(self, request: Request, name: str) -> xr.Dataset | Failure | None:
        """The result of an analysis for a request (a study's may be partial), why there is none, or None."""
        return self.cache.get(request.keys[name])

    def slice_of(self, request: Request, name: str, selection: Mapping[str, Any]) -> Analysis | None:
        """A view's analysis of the selection; None where the selection leaves one of its parameters open."""
        view = self.slices[name]
        if any(parameter not in selection for parameter in view.follows):
            return None
        chosen = {parameter: int(selection[parameter]) for parameter in view.follows}
        return view.analysis.of({**request.given.get(name, {}), **chosen})

    def of_layer(self, request: Request, analysis: Analysis, session: str) -> xr.Dataset | None:
        """One layer's result, recomputed from its kept state; None where the model is too busy to answer now.

        Raises InputError where the selection does not fit the model or the prompt. The job goes on after a None. The
        result is in the cache alone: jobs are remembered, and what they held would be outside the cache's bound.
        """
        sliced = cast(OnPrompt, analysis)  # what follows a selection shares the pass of the prompt
        layer_of(sliced.needs(self.hosted(request.model).ready, request.tokens))  # a bad selection is refused here
        return self._from_states(request, sliced, session, slice_of)

    def around(self, request: Request, name: str, pos: int, session: str) -> tuple[bool, xr.Dataset | None]:
        """Whether a view's result leaves the token at `pos` out, and then one that reads it; None as in `of_layer`."""
        view = self.standing[name]
        analysis = view.around(request.analyses[name], pos, len(request.tokens)) if view.around else None
        if analysis is None:
            return False, None
        return True, self._from_states(request, cast(OnPrompt, analysis), session, reading_of)

    def _from_states(
        self, request: Request, analysis: OnPrompt, session: str, made: Callable[[OnPrompt, Model, States], xr.Dataset]
    ) -> xr.Dataset | None:
        model = self.hosted(request.model).of(request.weights)
        key = analysis.spec_key(model, request.tokens, tuple(map(self._printed, request.edits)))
        found = self.cache.get(key)
        if found is not None:
            return found

        def work(job: Job) -> None:
            edited = self.hosted(request.model).of(request.weights).edited(self.interventions(request))
            self.cache.put(key, made(analysis, edited, self._states(request)), write=False)

        title = analysis.title.lower()
        job = self.hosted(request.model).worker.submit(Job(title, key, SELECTION, work, {session}))
        job.late |= not job.finished.wait(_PATIENCE)
        if job.state == State.FAILED:
            raise InputError(f"no answer ({job.error})", "what is at the selection", "Select something else")
        return self.cache.get(key)

    def submit_continuation(self, request: Request, n: int, temperature: float, seed: int, session: str) -> Job:
        """Continue a prompt; the job's result is the longer text, to be taken as it is: a chat's is written out."""
        model = self.hosted(request.model).ready

        def work(job: Job) -> str:
            edits = self.interventions(request)
            added = continued(model, request.tokens, n, temperature, seed, job.progress, edits)
            job.note, ids = added.ending, (*request.tokens.ids, *added.ids)
            if request.chat:
                job.note = f"{WRITTEN_OUT} {job.note}".strip()
                return self.written(request.model, ids)
            longer = continued_text(model, request.text, added.ids, is_ids(request.text))
            job.note = f"{job.note} {other_tokens(ids, self.tokens(request.model, longer).ids)}".strip()
            return longer

        key = f"continue {request.states} {n} {temperature} {seed}"
        return self.hosted(request.model).worker.submit(Job(f"{n} more tokens", key, CONTINUATION, work, {session}))

    def _states(self, request: Request) -> States:
        """The kept states; recomputed by a bare pass where they were dropped or the server was restarted."""
        found = self.cache.get(request.states)
        if found is None:
            model = self.hosted(request.model).of(request.weights)
            interventions = self.interventions(request)
            found = states_of(observe(model, [request.tokens], [RESID], positions="none", interventions=interventions))
            self.cache.put(request.states, found)
        return found

    def wanted(self, request: Request, view: str | None = None) -> tuple[str, ...]:
        """Prompt-scope analyses to compute at once: all for a short prompt, else surprisal and the one that is seen."""
        names = self.of_prompt
        if len(request.tokens) <= _SHORT:
            return tuple(names)
        return tuple(name for name in names if name in (_SURPRISAL, view))

    @property
    def of_prompt(self) -> list[str]:
        """Analyses that share the pass over the prompt."""
        return [name for name, view in self.standing.items() if kind_of(view.analysis) == "prompt"]

    def _missing(self, request: Request, names: Sequence[str]) -> list[View]:
        return [self.standing[n] for n in names if self.cache.get(request.keys[n]) is None]

    def interventions(self, request: Request) -> list[Any]:
        """The edits of a request as values; for the worker's thread alone."""
        hosted = self.hosted(request.model)
        return [said.intervention(hosted.ready, hosted.means) for said in request.edits]

    def _is_partial(self, request: Request, name: str) -> bool:
        found = self.found(request, name)
        return isinstance(found, xr.Dataset) and bool(found.attrs.get("partial", False))

    def _run_prompt(self, request: Request, wanted: Sequence[View], job: Job) -> None:
        """One pass for all wanted analyses and the states; the runner sees to it that each fails alone."""
        analyses = [request.analyses[view.name] for view in wanted]
        found = outcomes(
            self.hosted(request.model).of(request.weights),
            request.tokens,
            analyses,
            interventions=self.interventions(request),
            also=[RESID],
            seen=lambda observation: self.cache.put(request.states, states_of(observation)),
            progress=lambda share: job.progress(0.8 * share),
        )
        for done, outcome in enumerate(found):
            self._keep(request.keys[outcome.analysis.name], outcome.result)
            job.progress(0.8 + 0.2 * (done + 1) / len(analyses))

    def _run_own_passes(self, request: Request, view: View, job: Job) -> Iterator[None]:
        """Everything that brings its own passes; between partial results something more urgent may run."""
        key = request.keys[view.name]
        if self.cache.get(key) is not None:
            if not self._is_partial(request, view.name):
                return  # the one before it, which was to be stopped, came to its end all the same
            self.cache.drop(key)  # that one's last part: what is said from here on is about this one
        model, printed = self.hosted(request.model).of(request.weights), tuple(map(self._printed, request.edits))
        found = outcomes(
            model, request.tokens, [request.analyses[view.name]], interventions=self.interventions(request),
            progress=job.progress, allow_network=self.settings.allow_network,
        )  # fmt: skip
        with closing(found):
            for outcome in found:
                if outcome.complete and view.analysis.learns:  # what it is kept by is there only now
                    self.cache.drop(key)
                    key = self._key(request.analyses[view.name], model, request.tokens, printed)
                self._keep(key, outcome.result, outcome.complete)
                if outcome.complete and isinstance(outcome.result, xr.Dataset) and "p_floor" in outcome.result:
                    self.tally.add(request.states, key)  # a test of one selection, as a click makes them
                yield  # what was found is in the cache, and nowhere else

    def _keep(self, key: str, result: xr.Dataset | Failure, complete: bool = True) -> None:
        if isinstance(result, Failure) and not isinstance(of_the_machine(result.error) or result.error, WorkbenchError):
            log = logging.getLogger("workbench.explorer")  # a bug: the whole of it goes to the log
            log.error("%s failed", result.title, exc_info=result.error)
        if complete or isinstance(result, Failure):
            self.cache.put(key, result)
        else:
            self.cache.put(key, result.assign_attrs(partial=1), write=False)
