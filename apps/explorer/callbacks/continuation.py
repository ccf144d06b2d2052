"""Letting the model write more of the prompt."""

from typing import Any

from dash import Dash, Input, Output, State

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import State as JobState
from apps.explorer.page.news import request_of, woken
from apps.explorer.page.state import Clicks, Continuing, Go, Notices, Session, Shown, Typed
from workbench.errors import WorkbenchError

__all__ = ["came", "register"]

_NOT_CONTINUED = {
    JobState.RESTARTED: "The server was restarted before the continuation was written. Let the model write it again.",
    JobState.FORGOTTEN: "The continuation is no longer kept: newer work took its room. Let the model write it again.",
}


def register(app: Dash, engine: Engine) -> None:
    """The button that starts it; `came` tells the poll how it ended."""
    answer = Answers(app, engine)

    @answer(
        {
            "continuing": Output("continuing", "data", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
            "woken": Output("woken", "data", allow_duplicate=True),
        },
        inputs={"clicks": Input("continue", "n_clicks")},
        state={
            "n": State("continue-n", "value"),
            "temperature": State("continue-temperature", "value"),
            "seed": State("continue-seed", "value"),
            "shown": State("shown", "data"),
            "notices": State("notices", "data"),
            "session": State("session", "data"),
        },
        prevent_initial_call=True,
    )
    def go_on(
        clicks: Clicks,
        n: Typed,
        temperature: Typed,
        seed: Typed,
        shown: Shown | None,
        notices: Notices,
        session: Session,
    ) -> Answer:
        if not clicks or not shown:
            return {}
        try:
            numbers = _whole(n), _number(temperature), _whole(seed)
            job = engine.submit_continuation(request_of(engine, shown), *numbers, session)
        except WorkbenchError as error:
            return {"notices": with_notices(notices, [str(error)])}
        except (TypeError, ValueError):
            return {"notices": with_notices(notices, ["Got an empty field; expected numbers. Fill it in."])}
        return {"continuing": Continuing(job=job.id, model=shown.model, chat=shown.chat), "woken": woken()}


def _whole(typed: Any) -> int:
    return int(typed)


def _number(typed: Any) -> float:
    return float(typed)


def came(engine: Engine, continuing: Continuing | None) -> tuple[Answer, str]:
    """The page's prompt, run and waiting state after a continuation has ended, nothing before; and what is to be said:
    at which token it ended, that a chat is a raw prompt by now, or why there is none."""
    if not continuing:
        return {}, ""
    worker = engine.hosted(continuing.model).worker
    job = worker.get(continuing.job)
    state = job.state if job is not None else worker.state(continuing.job)
    if state.alive:
        return {}, ""
    if job is None or state != JobState.DONE:
        return {"continuing": None}, job.error if job is not None else _NOT_CONTINUED[state]
    if not isinstance(job.result, str):  # the id of another job: no page of ours sends it
        return {"continuing": None}, _NOT_CONTINUED[JobState.FORGOTTEN]
    raw = {"chat": "raw"} if continuing.chat else {}
    return {"prompt": job.result, "go": Go(text=job.result, clicks=job.id), "continuing": None, **raw}, job.note
