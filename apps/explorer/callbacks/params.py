"""The parameters of the views, and the studies that a claim turns to itself."""

from collections.abc import Mapping
from typing import Any

from dash import Dash, Input, Output, State, no_update, set_props

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.details import open_claims
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.engine import Engine
from apps.explorer.page import checks, swaps
from apps.explorer.page.form_state import TypedParam
from apps.explorer.page.state import (
    Checked,
    Checking,
    Display,
    Notices,
    Params,
    Seen,
    Selection,
    Session,
    Shown,
    Swapped,
)
from workbench.analysis.view import Claim
from workbench.errors import WorkbenchError

__all__ = ["changed_params", "register"]


def register(app: Dash, engine: Engine) -> None:
    """The controls of parameters, and the buttons of claims."""
    answer = Answers(app, engine)
    _register_params(answer, engine)
    _register_checks(answer, engine)
    _register_swaps(answer, engine)


def _register_params(answer: Answers, engine: Engine) -> None:
    @answer(
        {"params": Output("params", "data"), "notices": Output("notices", "data", allow_duplicate=True)},
        inputs={"typed": Input("typed", "data")},
        state={"params": State("params", "data"), "notices": State("notices", "data")},
        prevent_initial_call=True,
    )
    def param(typed: TypedParam | None, params: Params | None, notices: Notices) -> Answer:
        if not typed:
            return {}
        changed, error = changed_params(engine, typed, params or {})
        # A value that is no good stays in its field, marked, until it is: Start waits for that.
        set_props({"type": "param", "entry": typed.entry, "name": typed.name}, {"error": error or None})
        return {"params": changed or no_update, "notices": with_notices(notices, [error] if error else [])}


def _register_checks(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "params": Output("params", "data", allow_duplicate=True),
            "view": Output("view", "data", allow_duplicate=True),
            "checking": Output("checking", "data"),
        },
        inputs={"checked": Input("checked", "data")},
        state={
            "selection": State("selection", "data"),
            "params": State("params", "data"),
            "shown": State("shown", "data"),
            "view": State("view", "data"),
            "session": State("session", "data"),
            "display": State("display", "data"),
            "other": State("shown-b", "data"),
        },
        prevent_initial_call=True,
    )
    def check(
        checked: Checked | None,
        selection: Selection,
        params: Params | None,
        shown: Shown | None,
        view: Seen,
        session: Session,
        display: Display | None,
        other: Shown | None,
    ) -> Answer:
        if not checked or not shown:
            return {}
        claims = open_claims(engine, shown.displayed(display), view.name, selection, session, other)
        return _turned(claims, checked.check, params)


def _register_swaps(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "params": Output("params", "data", allow_duplicate=True),
            "view": Output("view", "data", allow_duplicate=True),
            "checking": Output("checking", "data", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
        },
        inputs={"swapped": Input("swapped", "data")},
        state={
            "params": State("params", "data"),
            "shown": State("shown", "data"),
            "other": State("shown-b", "data"),
            "notices": State("notices", "data"),
        },
        prevent_initial_call=True,
    )
    def swap(
        swapped: Swapped | None, params: Params | None, shown: Shown | None, other: Shown | None, notices: Notices
    ) -> Answer:
        if not swapped or shown is None or other is None or not swaps.can_give(engine, shown, other):
            return {}
        try:
            claim = swaps.swap(shown, other, swapped)
        except WorkbenchError as error:
            return {"notices": with_notices(notices, [str(error)])}
        return _turned([claim], claim.title, params)


def _turned(claims: list[Claim], title: str, params: Params | None) -> Answer:
    """The study of a claim with the claim's parameters, begun as soon as they are shown."""
    turned = checks.params_for(claims, title, params or {})
    if turned is None:
        return {}
    changed, study = turned
    return {"params": changed, "view": Seen(name=study), "checking": Checking(name=study, params=changed)}


def changed_params(engine: Engine, typed: TypedParam, params: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The params after one control changed; None where nothing did, with the sentence if the value is no good.

    What was changed in the form before is taken along (see `TypedParam.also`), where it is a value.
    """
    seen = engine.views[typed.entry]
    known = {param.name: param for param in seen.analysis.parameters()}
    own, said = dict(params.get(seen.name, {})), ""
    for name, value in {**typed.also, typed.name: typed.value}.items():
        if name not in known:
            continue
        try:
            parsed = known[name].parse("" if value is None else str(value))
        except WorkbenchError as error:
            said = f"{seen.title}: {error}" if name == typed.name else said
            continue
        if parsed != own.get(name, known[name].default):
            own[name] = parsed
    is_new = own != params.get(seen.name, {})
    return ({**params, seen.name: own} if is_new else None), said
