"""Choosing a view, which of its figures, and its parameters; starting what a view needs beyond the prompt's pass."""

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
import xarray as xr
from dash import ALL, Dash, Input, Output, State, ctx, no_update

from apps.explorer.callbacks import display as displaying
from apps.explorer.callbacks.figure import open_claims
from apps.explorer.callbacks.intervene import linked
from apps.explorer.callbacks.run import notice
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.news import request_of, woken
from apps.explorer.page import checks, views
from apps.explorer.page import components as parts
from apps.explorer.page.selection import clean
from workbench.analysis.kinds import kind_of
from workbench.analysis.view import View
from workbench.errors import WorkbenchError

__all__ = ["changed_params", "linked_view", "register", "start_view"]


def register(app: Dash, engine: Engine) -> None:
    """Tabs, figure choice, parameter forms, links, start buttons."""
    _register_view(app, engine)
    _register_model(app, engine)
    _register_about(app, engine)
    _register_params(app, engine)


def _register_view(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("tabs", "value"),
        Output("view-list", "value"),
        Output("figure-choice", "children"),
        Output("params-title", "children"),
        Output("params-form", "children"),
        Input("view", "data"),
        State("params", "data"),
        State("display", "data"),
    )
    def turned(view, params, display):
        seen = engine.views[view["name"]]
        form = parts.param_form(seen, params.get(seen.name, {}))
        if seen.display_parameters:
            form = [*displaying.display_form(seen, (display or {}).get(seen.name, {})), *form]
        return view["name"], view["name"], figure_choice(seen, view["figure"]), seen.title, form

    @app.callback(
        Output("prompt", "value", allow_duplicate=True),
        Output("model", "value"),
        Output("params", "data", allow_duplicate=True),
        Output("view", "data", allow_duplicate=True),
        Output("selection", "data", allow_duplicate=True),
        Output("other", "value"),
        Output("chat", "value"),
        Output("edits", "data", allow_duplicate=True),
        Output("other-model", "value"),
        Output("compare-mode", "value"),
        Output("display", "data", allow_duplicate=True),
        Input("link", "data"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def link(link, view):
        if not link:
            return [no_update] * 11
        known, beside = (link.get(name) in engine.settings.models for name in ("model", "otherModel"))
        display = displaying.linked_display(link)
        params = link.get("params") if isinstance(link.get("params"), dict) else {}
        text = str(link.get("text", ""))
        chosen = linked_view(engine, link.get("view"), view)
        return (
            text,
            link["model"] if known else no_update,
            displaying.fine(engine, params, display),
            chosen,
            clean(link.get("select")),
            str(link.get("other", "")),
            "chat" if link.get("chat") else "raw",
            linked(link)[0],
            link["otherModel"] if beside else no_update,
            "difference" if link.get("compare") == "difference" else "both",
            display,
        )


def _register_model(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("model", "data"),
        Output("other-model", "data"),
        Output("model", "value", allow_duplicate=True),
        Output("notices", "data", allow_duplicate=True),
        Input("any-model", "value"),
        State("model", "data"),
        State("notices", "data"),
        prevent_initial_call=True,
    )
    def named(name, models, notices):
        if not name or not name.strip():
            return [no_update] * 4
        try:
            engine.hosted(
                name.strip(), again=True
            )  # begins to load; refused unless the explorer was started with that leave
        except WorkbenchError as error:
            return no_update, no_update, no_update, [*notices, notice(str(error))]
        known = list(dict.fromkeys([*models, name.strip()]))
        return known, known, name.strip(), no_update


def _register_about(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("about-text", "children"),
        Input("rested", "data"),
        State("view", "data"),
        State("shown", "data"),
    )
    def explained(drawn, view, shown):
        name = view["name"]
        try:
            known = shown and name in engine.standing
            result = engine.found(request_of(engine, shown), name) if known else None
        except WorkbenchError:
            result = None
        return parts.about(engine.views[name], result if isinstance(result, xr.Dataset) else None)


def _register_params(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("params", "data"),
        Output("notices", "data", allow_duplicate=True),
        Input({"type": "param", "entry": ALL, "name": ALL}, "value"),
        State("params", "data"),
        State("notices", "data"),
        prevent_initial_call=True,
    )
    def param(values, params, notices):
        changed, error = changed_params(engine, ctx.triggered_id, ctx.triggered[0]["value"], params or {})
        return changed or no_update, [*notices, notice(error)] if error else no_update

    @app.callback(
        Output("woken", "data", allow_duplicate=True),
        Output("notices", "data", allow_duplicate=True),
        Output("checking", "data", allow_duplicate=True),
        Input("started", "data"),
        Input("view", "data"),
        Input("shown", "data"),
        State("checking", "data"),
        State("notices", "data"),
        State("session", "data"),
        prevent_initial_call=True,
    )
    def start(started, view, shown, checking, notices, session):
        pressed = ctx.triggered_id == "started" and bool(started) and started["start"] == view["name"]
        if checking and shown and shown["params"] == checking["params"] and view["name"] == checking["name"]:
            pressed, checking = True, None  # the click on Check has arrived in what is shown
        error = start_view(engine, shown, view["name"], pressed, session)
        if error is None:
            return no_update, no_update, checking
        return woken(), [*notices, notice(error)] if error else no_update, checking

    @app.callback(
        Output("view", "data", allow_duplicate=True),
        Input({"type": "turn", "name": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def turn(clicks):
        return {"name": ctx.triggered_id["name"], "figure": 0} if any(clicks) else no_update

    @app.callback(
        Output("params", "data", allow_duplicate=True),
        Output("view", "data", allow_duplicate=True),
        Output("checking", "data"),
        Input({"type": "check", "name": ALL}, "n_clicks"),
        State("selection", "data"),
        State("params", "data"),
        State("shown", "data"),
        State("view", "data"),
        State("session", "data"),
        State("display", "data"),
        prevent_initial_call=True,
    )
    def check(clicks, selection, params, shown, view, session, display):
        if not any(clicks) or not shown:
            return no_update, no_update, no_update
        shown = displaying.with_display(shown, display)
        claims = open_claims(engine, shown, view["name"], clean(selection), session)
        turned = checks.params_for(claims, ctx.triggered_id["name"], params or {})
        if turned is None:
            return no_update, no_update, no_update
        params, study = turned
        return params, {"name": study, "figure": 0}, {"name": study, "params": params}


def linked_view(engine: Engine, given: Any, view: Mapping[str, Any]) -> dict[str, Any]:
    """The view that a link names, or the one that is open where it names none of ours."""
    if not isinstance(given, dict) or given.get("name") not in engine.views:
        return dict(view)
    index, count = given.get("figure"), len(views.drawings(engine.views[given["name"]]))
    return {"name": given["name"], "figure": index if isinstance(index, int) and 0 <= index < count else 0}


def figure_choice(view: View, index: int) -> Any:
    """Which of an analysis's figures and tables is drawn, where it has several."""
    draws = views.drawings(view)
    if len(draws) < 2:
        return ""
    data = [{"label": views.figure_label(draw), "value": str(i)} for i, draw in enumerate(draws)]
    return dmc.SegmentedControl(id={"type": "figure-tab", "name": view.name}, data=data, value=str(index), size="xs")


def start_view(engine: Engine, shown: Mapping[str, Any] | None, name: str, pressed: bool, session: str) -> str | None:
    """Compute what a view needs beyond what was run: None if nothing was started, "" or what went wrong.

    A study is started by hand; one that is on its way already, begun in another window, is waited for.
    """
    if not shown or name in engine.slices:
        return None
    try:
        request = request_of(engine, shown)
        if kind_of(engine.standing[name].analysis) == "study" and not pressed:
            return "" if engine.join(request, name, session) else None
        if pressed and engine.join(request, name, session):
            return ""  # it is on its way: a second press must not take its first results
        if pressed:
            engine.cache.drop(request.keys[name])  # a failure is tried again when somebody asks for it
        job = engine.submit_entry(request, name, session)
    except WorkbenchError as error:
        return str(error)
    return None if job is None else ""


def changed_params(
    engine: Engine, identity: Any, value: Any, params: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """The params after one control changed; None where nothing did, with the sentence if the value is no good."""
    if not isinstance(identity, dict) or identity.get("entry") not in engine.views:
        return None, ""
    seen = engine.views[identity["entry"]]
    param = next((p for p in seen.analysis.parameters() if p.name == identity["name"]), None)
    if param is None:
        return None, ""
    try:
        parsed = param.parse("" if value is None else str(value))
    except WorkbenchError as error:
        return None, f"{seen.title}: {error}"
    before = params.get(seen.name, {}).get(param.name, param.default)
    if parsed == before:
        return None, ""
    return {**params, seen.name: {**params.get(seen.name, {}), param.name: parsed}}, ""
