"""What changed since the page last looked: jobs, results that arrived, models that became ready."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from apps.explorer.engine import Engine, Failure, Request
from workbench.errors import WorkbenchError

__all__ = ["Look", "look", "request_of"]

_BACKGROUND = 30.0  # predicted seconds up to which a model-scope analysis is computed without being asked for


@dataclass
class Look:
    """The answer to one poll. None: as before."""

    busy: bool
    shown: dict[str, Any] | None = None
    done: dict[str, str] | None = None
    notice: str | None = None
    ended: str | None = None


def request_of(engine: Engine, asked: Mapping[str, Any]) -> Request:
    """The request that a page's store stands for; raises as `Engine.request` does."""
    return engine.request(asked["model"], asked["text"], asked.get("params") or {})


def look(
    engine: Engine,
    session: str,
    asked: Mapping[str, Any] | None,
    shown: Mapping[str, Any] | None,
    done: Mapping[str, str] | None,
) -> Look:
    """How far the latest request is. asked, shown: the page's stores; only the latest request can become `shown`."""
    found = Look(busy=any(job.alive for _, job in engine.jobs(session)))
    if asked and (shown is None or shown["id"] != asked["id"]):
        found = _promote(engine, session, asked, found)
    current = found.shown or shown
    if current is not None:
        try:
            now = results(engine, session, request_of(engine, current))
        except WorkbenchError:
            return found  # the model is being loaded again; the page keeps what it shows until then
        found.done = now if found.shown or now != done else None
    return found


def _promote(engine: Engine, session: str, asked: Mapping[str, Any], found: Look) -> Look:
    try:
        request = request_of(engine, asked)
    except WorkbenchError as error:
        found.notice, found.ended = str(error), asked["id"]
        return found
    hosted = engine.hosted(request.model)
    job = hosted.worker.get(asked.get("job") or "")
    if job is not None and job.alive:
        return found
    if job is not None and job.state != "done":
        found.notice, found.ended = f"{job.error} The last good result stays.", asked["id"]
        return found
    if job is None and not engine.complete(request, asked.get("names") or engine.wanted(request)):
        found.notice = "The server was restarted and no longer knows this run. The prompt is kept: press Run."
        found.ended = asked["id"]
        return found
    model = hosted.ready
    found.shown = {
        **asked,
        "tokens": list(request.tokens.strings),
        "sizes": {"n_layers": model.sizes.n_layers, "n_heads": model.sizes.n_heads},
        "keys": dict(request.keys),
        "weights": model.identity.weights_hash,
        "seconds": job.seconds if job else 0.0,
    }
    _start_background(engine, request, session)
    found.busy = any(j.alive for _, j in engine.jobs(session))
    return found


def _start_background(engine: Engine, request: Request, session: str) -> None:
    """Model-scope analyses are computed once per model, after the prompt, while nothing more urgent waits."""
    hosted = engine.hosted(request.model)
    for entry in engine.entries.values():
        if entry.scope != "model":
            continue
        passes = entry.cost(hosted.ready.sizes, 16, **request.params[entry.name]) if entry.cost else 1.0
        if passes * hosted.seconds <= _BACKGROUND:
            engine.submit_entry(request, entry.name, session)


def results(engine: Engine, session: str, request: Request) -> dict[str, str]:
    """For every analysis that has one: "ok", "failed", or "partial" with how far it is."""
    found = {}
    running = {job.key: job for _, job in engine.jobs(session) if job.alive}
    for name, key in request.keys.items():
        value = engine.cache.get(key)
        if isinstance(value, Failure):
            found[name] = "failed"
        elif isinstance(value, xr.Dataset):
            partial = value.attrs.get("partial")
            found[name] = (
                f"partial {running[key].share:.3f}" if partial and key in running else "partial" if partial else "ok"
            )
        elif key in running:
            found[name] = "running"
    return found
