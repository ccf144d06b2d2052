"""Choosing a view, and which of its figures; starting what a view needs beyond the prompt's pass."""

import secrets
from typing import Any

import xarray as xr
from dash import Dash, Input, Output, State, no_update

from apps.explorer.callbacks import display as displaying
from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.intervene import linked, nameable
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import State as JobState
from apps.explorer.engine.request import Request
from apps.explorer.page import components as parts
from apps.explorer.page.comparison import is_comparable
from apps.explorer.page.forms import figure_choice, filled, form
from apps.explorer.page.news import request_of, woken
from apps.explorer.page.state import (
    Aligned,
    Asked,
    Checking,
    Choice,
    Clicks,
    Display,
    Edits,
    Go,
    Link,
    Notices,
    Params,
    Pressed,
    Seen,
    Selection,
    Session,
    Shown,
    Text,
    Typed,
)
from apps.explorer.page.swaps import pair_of
from workbench.analysis.kinds import kind_of
from workbench.errors import WorkbenchError

__all__ = ["register", "start_view"]


def register(app: Dash, engine: Engine) -> None:
    """Tabs, figure choice, links, models by name, explanations, start buttons."""
    answer = Answers(app, engine)
    _register_view(answer, engine)
    _register_link(answer, engine)
    _register_model(answer, engine)
    _register_about(answer, engine)
    _register_start(answer, engine)


def _register_view(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "choice": Output("figure-choice", "children"),
            "title": Output("params-title", "children"),
            "form": Output("params-form", "children"),
            "params": Output("params", "data", allow_duplicate=True),
        },
        inputs={"view": Input("view", "data")},
        state={
            "params": State("params", "data"),
            "display": State("display", "data"),
            "shown": State("shown", "data"),
            "selection": State("selection", "data"),
            "other": State("shown-b", "data"),
        },
        prevent_initial_call=True,  # the page comes with the form of the first view
    )
    def turned(
        view: Seen,
        params: Params | None,
        display: Display | None,
        shown: Shown | None,
        selection: Selection,
        other: Shown | None,
    ) -> Answer:
        seen = engine.views[view.name]
        units = nameable(selection, shown.sizes if shown else None)
        own = (params or {}).get(view.name, {})
        fills = filled(seen, own, selection, units, pair_of(shown, other)) if shown else {}
        if fills:
            params = {**(params or {}), view.name: {**(params or {}).get(view.name, {}), **fills}}
        return {
            "choice": figure_choice(seen, view.figure),
            "title": seen.title,
            "form": form(seen, params or {}, display or {}, shown.tokens if shown else (), units),
            "params": params if fills else no_update,
        }


def _register_link(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "prompt": Output("prompt", "value", allow_duplicate=True),
            "model": Output("model", "value"),
            "params": Output("params", "data", allow_duplicate=True),
            "view": Output("view", "data", allow_duplicate=True),
            "selection": Output("selection", "data", allow_duplicate=True),
            "other": Output("other", "value"),
            "chat": Output("chat", "value"),
            "edits": Output("edits", "data", allow_duplicate=True),
            "other_model": Output("other-model", "value"),
            "mode": Output("compare-mode", "value"),
            "display": Output("display", "data", allow_duplicate=True),
            "go": Output("go", "data", allow_duplicate=True),
            "settled": Output("settled", "data", allow_duplicate=True),
            "pinned": Output("pinned", "data"),
            "aligned": Output("aligned", "data"),
        },
        inputs={"link": Input("link", "data")},
        state={
            "view": State("view", "data"),
            "asked": State("asked", "data"),
            "chat": State("chat", "value"),
            "mode": State("compare-mode", "value"),
            "edits": State("edits", "data"),
            "aligned": State("aligned", "data"),
        },
        prevent_initial_call=True,
    )
    def follow(
        link: Link | None,
        view: Seen,
        asked: Asked | None,
        chat: Choice,
        mode: Choice,
        edits: Edits | None,
        aligned: Aligned,
    ) -> Answer:
        if not link:
            return {}
        offered = engine.settings.models
        # What is written anew calls all that listen to it, also where it is the same.
        changed = lambda value, before: no_update if value == before else value
        return {
            "prompt": link.text,
            "model": link.model if link.model in offered else no_update,
            "params": displaying.fine(engine, link.params, link.display),
            "view": link.view or view,
            "selection": link.select,
            "other": link.other,
            "chat": changed("chat" if link.chat else "raw", chat),
            "edits": changed(list(linked(link)[0]), list(edits or ())),
            "other_model": link.other_model if link.other_model in offered else no_update,
            "mode": changed("difference" if link.compare == "difference" else "both", mode),
            "display": link.display,
            "pinned": link.pins,
            "aligned": changed(link.aligned, aligned),
            "settled": link.text,  # the link's selection is about it
            # The link that a page opens with runs when its model is there, where it does not cost too much.
            "go": Go(text=link.text, clicks=secrets.token_hex(4)) if asked else no_update,
        }


def _register_model(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "models": Output("model", "data"),
            "others": Output("other-model", "data"),
            "model": Output("model", "value", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
        },
        inputs={"name": Input("any-model", "value")},
        state={"models": State("model", "data"), "notices": State("notices", "data")},
        prevent_initial_call=True,
    )
    def named(name: Text | None, models: list[Text], notices: Notices) -> Answer:
        if not name or not name.strip():
            return {}
        try:  # begins to load; refused unless the explorer was started with that leave
            engine.hosted(name.strip(), again=True)
        except WorkbenchError as error:
            return {"notices": with_notices(notices, [str(error)])}
        known = list(dict.fromkeys([*models, name.strip()]))
        return {"models": known, "others": known, "model": name.strip()}


def _register_about(answer: Answers, engine: Engine) -> None:
    @answer(
        Output("about-text", "children"),
        inputs={"clicks": Input("about", "n_clicks")},
        state={"view": State("view", "data"), "shown": State("shown", "data")},
        prevent_initial_call=True,
    )
    def explained(clicks: Clicks, view: Seen, shown: Shown | None) -> Any:
        found = None
        if shown and view.name in engine.standing:
            try:
                found = engine.found(request_of(engine, shown), view.name)
            except WorkbenchError:
                found = None
        return parts.about(engine.views[view.name], found if isinstance(found, xr.Dataset) else None)


def _register_start(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "woken": Output("woken", "data", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
            "checking": Output("checking", "data", allow_duplicate=True),
            "began": Output("began", "data"),
        },
        inputs={
            "started": Input("started", "data"),
            "view": Input("view", "data"),
            "shown": Input("shown", "data"),
            "other": Input("shown-b", "data"),
        },
        state={
            "checking": State("checking", "data"),
            "notices": State("notices", "data"),
            "session": State("session", "data"),
            "params": State("params", "data"),
            "began": State("began", "data"),
        },
        prevent_initial_call=True,
    )
    def start(
        started: Pressed | None,
        view: Seen,
        shown: Shown | None,
        other: Shown | None,
        checking: Checking | None,
        notices: Notices,
        session: Session,
        params: Params | None,
        began: Typed,
    ) -> Answer:
        is_new = started is not None and started.clicks != began
        began = started.clicks if started else None
        pressed = is_new and started is not None and started.start == view.name
        if pressed and shown and shown.params != (params or {}):  # what was typed is on its way into what is shown
            return {"checking": Checking(name=view.name, params=params or {}), "began": began}
        if checking and shown and shown.params == checking.params and view.name == checking.name:
            pressed, checking = True, None  # the click on Check has arrived in what is shown
        # Both runs are needed to hold one against the other. What one of them has already is not made again.
        runs = (shown, other) if is_comparable(engine, view, shown, other) else (shown,)
        lacking = [run for run in runs if not _is_whole(engine, run, view.name)]
        said = [start_view(engine, run, view.name, pressed, session) for run in (lacking or runs)]
        error = None if all(one is None for one in said) else next(filter(None, said), "")
        if error is None:
            return {"checking": checking, "began": began}
        return {
            "woken": woken(),
            "notices": with_notices(notices, [error] if error else []),
            "checking": checking,
            "began": began,
        }


def start_view(engine: Engine, shown: Asked | None, name: str, pressed: bool, session: str) -> str | None:
    """Compute what a view needs beyond what was run: None if nothing was started, "" or what went wrong.

    A study is started by hand; one that is on its way already, begun in another window, is waited for.
    """
    if not shown or name in engine.slices:
        return None
    try:
        request = request_of(engine, shown)
        if kind_of(engine.standing[name].analysis) == "study" and not pressed:
            return "" if engine.join(request, name, session) else None
        if not pressed and _was_stopped(engine, request, name):
            return None
        if pressed and engine.join(request, name, session):
            return ""  # it is on its way: a second press must not take its first results
        if pressed:
            engine.cache.drop(request.keys[name])  # a failure is tried again when somebody asks for it
        job = engine.submit_entry(request, name, session)
    except WorkbenchError as error:
        return str(error)
    return None if job is None else ""


def _is_whole(engine: Engine, run: Asked | None, name: str) -> bool:
    """Whether a view of a run has its whole result."""
    if not run or name in engine.slices:
        return False
    try:
        found = engine.found(request_of(engine, run), name)
    except WorkbenchError:
        return False
    return isinstance(found, xr.Dataset) and not found.attrs.get("partial")


def _was_stopped(engine: Engine, request: Request, name: str) -> bool:
    """Whether somebody cancelled it: then it begins again when somebody asks for it, and not by itself."""
    fate = engine.fate(request, name)
    return fate is not None and fate.state == JobState.CANCELLED
