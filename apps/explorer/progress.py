"""What changed since the page last looked: jobs, results that arrived, models that became ready."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from apps.explorer.engine import Engine, Failure, Request
from workbench.errors import WorkbenchError

__all__ = ["Look", "late_slices", "look", "request_of", "results", "woken"]


@dataclass
class Look:
    """The answer to one poll. None: as before. again: the id of the job that runs a forgotten request again."""

    busy: bool
    shown: dict[str, Any] | None = None
    done: dict[str, str] | None = None
    notice: str | None = None
    ended: str | None = None
    again: str | None = None


def woken() -> str:
    """A new value of the store `woken`: something was begun, and a look from before it must not end the looking."""
    return secrets.token_hex(4)


def request_of(engine: Engine, asked: Mapping[str, Any]) -> Request:
    """The request that a page's store stands for; raises as `Engine.request` does."""
    params, chat, edits = asked.get("params") or {}, bool(asked.get("chat")), asked.get("edits") or ()
    return engine.request(asked["model"], asked["text"], params, chat, edits)


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
    hosted = engine.hosted(asked["model"])
    if hosted.loading.alive:
        found.busy = True
        return found
    try:
        request = request_of(engine, asked)
    except WorkbenchError as error:
        found.notice, found.ended = str(error), asked["id"]
        return found
    job = hosted.worker.get(asked.get("job") or "")
    if job is not None and job.alive:
        return found
    if job is not None and job.state != "done":
        found.notice, found.ended = f"{job.error} The last good result stays.", asked["id"]
        return found
    if job is None and not engine.complete(request, asked.get("names") or engine.wanted(request)):
        return _again(engine, session, request, asked, found)
    model = hosted.ready
    found.shown = {
        **asked,
        "tokens": list(request.tokens.strings),
        "sizes": {name: getattr(model.sizes, name) for name in ("n_layers", "n_heads", "d_mlp")},
        "keys": dict(request.keys),
        "weights": model.identity.weights_hash,
        "seconds": job.seconds if job else 0.0,
    }
    _start_background(engine, request, session)
    found.busy = any(j.alive for _, j in engine.jobs(session))
    return found


def _again(engine: Engine, session: str, request: Request, asked: Mapping[str, Any], found: Look) -> Look:
    """The server was restarted and has forgotten the run: the page brought it back."""
    try:
        job = engine.submit(request, session, asked.get("names"))
    except WorkbenchError as error:
        found.notice, found.ended = str(error), asked["id"]
        return found
    found.notice = "The server was restarted in the middle of this run. The prompt was kept and runs again."
    found.again, found.busy = job.id if job else "", True
    return found


def _start_background(engine: Engine, request: Request, session: str) -> None:
    """The first model-scope analysis is computed unasked, so that there is a head to look at; others when opened."""
    first = next((entry.name for entry in engine.entries.values() if entry.scope == "model"), None)
    if first is not None:
        engine.submit_entry(request, first, session)


def late_slices(engine: Engine, session: str) -> int:
    """How many answers to clicks came too late for the click and can be drawn now."""
    return sum(job.late and not job.alive for _, job in engine.jobs(session))


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
