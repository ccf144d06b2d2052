"""What changed since the page last looked: jobs, results that arrived, models that became ready.

Whatever is said of a job is a state that the server names; see `apps.explorer.engine.jobs.State`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import Fate, Job, State
from apps.explorer.engine.request import Request
from apps.explorer.page.state import Asked, Shown, Sizes
from workbench.analysis.kinds import kind_of
from workbench.analysis.run import Failure
from workbench.errors import WorkbenchError

__all__ = ["Look", "ended", "fate_of", "late_slices", "look", "request_of", "results", "woken"]


# Why a request runs a second time, by what became of the first.
_WHY_AGAIN = {
    State.RESTARTED: "The server was restarted before this run came to its end. The prompt was kept and runs again.",
    State.FORGOTTEN: "The results of this run are no longer kept: newer ones took their room. It runs again.",
}
_ALIVE = frozenset(state.value for state in State if state.alive)


@dataclass
class Look:
    """The answer to one poll. None: as before. again: the id of the job that runs a request that did not run before."""

    busy: bool
    shown: Shown | None = None
    done: dict[str, str] | None = None
    notice: str | None = None
    ended: str | None = None
    again: str | None = None


def woken() -> str:
    """A new value of the store `woken`: something was begun, and a look from before it must not end the looking."""
    return secrets.token_hex(4)


def request_of(engine: Engine, asked: Asked) -> Request:
    """The request that a page's store stands for; raises as `Engine.request` does."""
    return engine.request(asked.model, asked.text, asked.params, asked.chat, asked.edits)


def look(
    engine: Engine, session: str, asked: Asked | None, shown: Shown | None, done: Mapping[str, str] | None
) -> Look:
    """How far the latest request is. asked, shown: the page's stores; only the latest request can become `shown`."""
    found = Look(busy=any(job.alive for _, job in engine.jobs(session)))
    if asked and (shown is None or shown.id != asked.id):
        found = _promote(engine, session, asked, found)
    current = found.shown or shown
    if current is not None:
        try:
            now = results(engine, request_of(engine, current), done or {} if current is shown else {})
        except WorkbenchError:
            return found  # the model is being loaded again; the page keeps what it shows until then
        found.done = now if found.shown or now != done else None
    return found


def _promote(engine: Engine, session: str, asked: Asked, found: Look) -> Look:
    """Show the request if it is there, say why it is not, or run it where it does not run yet or any more."""
    hosted = engine.hosted(asked.model)
    if hosted.loading.alive:
        found.busy = True
        return found
    try:
        request = request_of(engine, asked)
    except WorkbenchError as error:
        found.notice, found.ended = str(error), asked.id
        return found
    names = asked.names or engine.wanted(request)
    job = hosted.worker.get(asked.job)
    if job is not None and job.alive:
        return found
    if job is not None and job.state != State.DONE:
        return _ended(asked, found, job.error)
    if job is None and not engine.complete(request, names):
        return _again(engine, session, request, asked, names, found)
    return _show(engine, session, request, asked, found, job)


def _show(engine: Engine, session: str, request: Request, asked: Asked, found: Look, job: Job | None) -> Look:
    model = engine.hosted(asked.model).ready
    found.shown = Shown(
        **asked.model_dump(),
        tokens=request.tokens.strings,
        sizes=Sizes.model_validate(model.sizes, from_attributes=True),
        keys=dict(request.keys),
        weights=model.identity.key,
        seconds=job.seconds if job else 0.0,
    )
    _start_background(engine, request, session)
    found.busy = any(j.alive for _, j in engine.jobs(session))
    return found


def _ended(asked: Asked, found: Look, why: str) -> Look:
    found.notice, found.ended = f"{why} The last good result stays.", asked.id
    return found


def _again(engine: Engine, session: str, request: Request, asked: Asked, names: Sequence[str], found: Look) -> Look:
    """Run a request that has no results and no job that is remembered; say why where it ran before."""
    state = _was(engine, asked)
    if state == State.FORGOTTEN:
        fates = engine.fates(request)
        stopped = [fates[n] for n in names if n in fates and fates[n].state in (State.CANCELLED, State.FAILED)]
        if stopped:
            return _ended(asked, found, stopped[0].error)
    try:
        job = engine.submit(request, session, asked.names)
    except WorkbenchError as error:
        found.notice, found.ended = str(error), asked.id
        return found
    found.notice = None if state is None else _WHY_AGAIN.get(state)
    found.again, found.busy = job.id if job else "", True
    return found


def _was(engine: Engine, asked: Asked) -> State | None:
    """What can be said of the job of a request; None where it never had one: its model was being loaded."""
    if asked.boot and asked.boot != engine.boot:
        return State.RESTARTED
    return engine.hosted(asked.model).worker.state(asked.job) if asked.job else None


def _start_background(engine: Engine, request: Request, session: str) -> None:
    """The first model-scope analysis is computed unasked, so that there is a head to look at; others when opened."""
    first = next((name for name, view in engine.standing.items() if kind_of(view.analysis) == "model"), None)
    fate = None if first is None else engine.fate(request, first)
    if first is not None and not (fate and fate.state == State.CANCELLED):  # what was stopped waits to be asked for
        engine.submit_entry(request, first, session)


def late_slices(engine: Engine, session: str) -> int:
    """How many answers to clicks came too late for the click and can be drawn now."""
    return sum(job.late and not job.alive for _, job in engine.jobs(session))


def ended(engine: Engine, other: Shown | None) -> int:
    """How many analyses of the run that is compared with have come to an end, of whatever kind."""
    try:
        known = {} if other is None else results(engine, request_of(engine, other))
    except WorkbenchError:
        return 0
    return sum(words.partition(" ")[0] not in _ALIVE for words in known.values())


def results(engine: Engine, request: Request, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """How every analysis stands of which anything is known.

    "ok", or a state and the id of its job; of one that is alive and has partial results also how many and the share,
    of one that waits how many are before it, where it is not one. The words are others whenever what is to be seen may
    be another: the page draws when they change. before: the answer to the look before, from which a job of a server
    that is no more is known.
    """
    fates = engine.fates(request)
    found: dict[str, str] = {}
    for name, key in request.keys.items():
        fate = fates.get(name) or _lost(engine, request, (before or {}).get(name, ""))
        words = _words(engine.cache.get(key), fate)
        if words:
            found[name] = words
    return found


def fate_of(engine: Engine, request: Request, name: str, told: str = "") -> Fate | None:
    """What became of an analysis, or how far it is. told: the words for it that the page last heard, see `results`."""
    return engine.fate(request, name) or _lost(engine, request, told)


def _words(value: object, fate: Fate | None) -> str:
    if isinstance(value, xr.Dataset) and not value.attrs.get("partial"):
        return "ok"
    if fate is None:
        return "failed" if isinstance(value, Failure) else "partial" if value is not None else ""
    if isinstance(value, Failure) and not fate.state.alive:
        return f"{State.FAILED} {fate.job}"
    far = f" {fate.parts} {fate.share:.3f}" if fate.parts and fate.state.alive else ""
    place = f" {fate.before}" if fate.state == State.QUEUED and fate.before > 1 else ""
    return f"{fate.state} {fate.job}{far}{place}"


def _lost(engine: Engine, request: Request, before: str) -> Fate | None:
    """What the page last heard of an analysis that this server was never asked for: it may have been another server."""
    state, _, rest = before.partition(" ")
    if state not in (State.QUEUED, State.RUNNING, State.CANCELLING, State.RESTARTED):
        return None
    job_id = rest.partition(" ")[0]
    was = engine.hosted(request.model).worker.state(job_id)
    return Fate(State.RESTARTED, job_id) if was == State.RESTARTED else None
