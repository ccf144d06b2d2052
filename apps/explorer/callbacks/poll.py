"""Looking how far everything is."""

from typing import Any

from dash import Dash, Input, Output, State, no_update

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.continuation import came
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.hosted import Hosted
from apps.explorer.page import components as parts
from apps.explorer.page.news import Look, ended, late_slices, look, woken
from apps.explorer.page.state import (
    Asked,
    Choice,
    Clicks,
    Continuing,
    Done,
    Loaded,
    ModelName,
    Notices,
    Session,
    Shown,
    Stopped,
)
from apps.explorer.page.stores import POLL
from workbench.analysis.compare import need_same_tokenizer
from workbench.analysis.view import View
from workbench.errors import WorkbenchError
from workbench.models.model import Model
from workbench.words import counted

__all__ = ["loaded_store", "look_other", "register"]

# Dash holds back whatever depends on what an answer on its way may change: with slow answers and looks that overlap,
# that would be for as long as anything is looked for. `assets/connection.js` gives up one that is not answered.
_NOT_YET = 60_000  # milliseconds


def register(app: Dash, engine: Engine) -> None:
    """The poll, and what stops a job."""
    answer = Answers(app, engine)
    _register_poll(answer, engine)
    _register_cancel(answer, engine)


def _register_cancel(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "jobs": Output("jobs", "children", allow_duplicate=True),
            "woken": Output("woken", "data", allow_duplicate=True),
        },
        inputs={"stopped": Input("stopped", "data")},
        state={"session": State("session", "data")},
        prevent_initial_call=True,
    )
    def cancel(stopped: Stopped | None, session: Session) -> Answer:
        if not stopped:
            return {}
        engine.cancel(stopped.cancel, session, for_all=stopped.all is not None)
        return {"jobs": _job_line(engine, session, None), "woken": woken()}


def _register_poll(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "jobs": Output("jobs", "children"),
            "loaded": Output("loaded", "data"),
            "model_line": Output("model-line", "children"),
            "shown": Output("shown", "data"),
            "done": Output("done", "data"),
            "notices": Output("notices", "data"),
            "asked": Output("asked", "data", allow_duplicate=True),
            "idle": Output("idle", "data"),
            "late": Output("late", "data"),
            "prompt": Output("prompt", "value", allow_duplicate=True),
            "go": Output("go", "data", allow_duplicate=True),
            "chat": Output("chat", "value", allow_duplicate=True),
            "continuing": Output("continuing", "data"),
            "shown_b": Output("shown-b", "data"),
            "asked_b": Output("asked-b", "data", allow_duplicate=True),
        },
        inputs={"n": Input("poll", "n_intervals")},
        state={
            "asked": State("asked", "data"),  # no Input: it would wait for itself through the model that is loaded
            "asked_b": State("asked-b", "data"),
            "model": State("model", "value"),
            "loaded": State("loaded", "data"),
            "shown": State("shown", "data"),
            "done": State("done", "data"),
            "notices": State("notices", "data"),
            "session": State("session", "data"),
            "late": State("late", "data"),
            "continuing": State("continuing", "data"),
            "shown_b": State("shown-b", "data"),
            "wake": State("woken", "data"),
            "window": State("window", "data"),
        },
        prevent_initial_call="initial_duplicate",
        running=[(Output("poll", "interval"), _NOT_YET, POLL)],  # the next look begins when this one was answered
    )
    def poll(
        n: Clicks,
        asked: Asked | None,
        asked_b: Asked | None,
        model: ModelName,
        loaded: Loaded | None,
        shown: Shown | None,
        done: Done | None,
        notices: Notices,
        session: Session,
        late: Clicks,
        continuing: Continuing | None,
        shown_b: Shown | None,
        wake: Choice,
        window: Session,
    ) -> Answer:
        engine.presence.looked(session, window)
        try:
            hosted = engine.hosted(model)
        except WorkbenchError as error:
            return {"notices": with_notices(notices, [str(error)]), "idle": [n, wake]}
        found = look(engine, session, None if asked and asked.ended else asked, shown, done)
        current = found.shown or shown
        arrived = not asked or asked.ended or (current is not None and current.id == asked.id)
        beside = look_other(engine, session, asked, asked_b, shown_b) if arrived else Look(busy=False)
        back, why = came(engine, continuing)
        # By sentence, whether it is news and nothing that went wrong: one restart is said once.
        told = {why: "go" in back, beside.notice: beside.again is not None}
        failed = _failure(hosted, loaded)
        told |= {failed: False} if failed else {found.notice: found.again is not None}
        is_busy, count = (
            found.busy or beside.busy or hosted.loading.alive,
            late_slices(engine, session) + ended(engine, shown_b),
        )
        return {
            "jobs": _job_line(engine, session, current, "" if asked else "Getting ready"),
            **_news_of_model(engine, hosted, loaded),
            "shown": found.shown or no_update,
            "done": found.done if found.done is not None else no_update,
            "notices": with_notices(notices, *(_said(told, news) for news in (False, True))),
            "asked": changed_request(engine, asked, found),
            "idle": None if is_busy else [n, wake],
            "late": count if count != late else no_update,
            **back,
            "shown_b": held_against(asked, asked_b, current, shown_b, beside),
            "asked_b": changed_request(engine, asked_b, beside),
        }


def _said(told: dict[str | None, bool], news: bool) -> list[str]:
    return [words for words, is_news in told.items() if words and is_news == news]


def _job_line(engine: Engine, session: str, current: Shown | None, rest: str = "") -> list[Any]:
    """Work in hand, or how long the shown run took. rest: what is said where there is neither."""
    last = f"{counted(len(current.tokens), 'token')} in {current.seconds:.2f} s" if current and current.seconds else ""
    return parts.job_line(engine.jobs(session), last or rest, session, engine.presence.gone(), engine.before)


def _failure(hosted: Hosted, loaded: Loaded | None) -> str | None:
    """Why the model did not load, where the page does not know that yet."""
    is_known = loaded is not None and loaded.failed == hosted.loading.id
    return hosted.loading.error if hosted.loading.state == "failed" and not is_known else None


def _news_of_model(engine: Engine, hosted: Hosted, loaded: Loaded | None) -> dict[str, Any]:
    ready = loaded_store(engine, hosted)
    if ready is None or ready == loaded:
        return {}
    return {"loaded": ready, "model_line": parts.model_line(hosted.model) if hosted.model else no_update}


def look_other(engine: Engine, session: str, asked: Asked | None, other: Asked | None, shown: Shown | None) -> Look:
    """How far the run is that the latest request is compared with; refused where its tokens mean something else."""
    if other is None or other.ended or (shown is not None and shown.id == other.id):
        return Look(busy=False)
    try:
        if asked and other.model != asked.model:
            models = [engine.hosted(one.model) for one in (asked, other)]
            if any(one.loading.alive for one in models):
                return Look(busy=True)
            need_same_tokenizer(models[0].ready, models[1].ready)
    except WorkbenchError as error:
        return Look(busy=False, notice=f"What to compare with: {error}", ended=other.id)
    found = look(engine, session, other, shown, None)
    found.busy = found.shown is None and found.ended is None
    return found


def held_against(
    asked: Asked | None, asked_b: Asked | None, shown: Shown | None, shown_b: Shown | None, beside: Look
) -> Any:
    """What the shown run is held against: what has come, or as before; nothing where there is nothing, and nothing
    while that of the latest request, which is shown, is on its way: the one before belongs to another run.
    """
    is_latest = asked is not None and shown is not None and shown.id == asked.id
    is_over = shown_b is not None and (asked_b is None or (is_latest and shown_b.id != asked_b.id))
    return beside.shown or (None if is_over else no_update)


def changed_request(engine: Engine, asked: Asked | None, found: Look) -> Any:
    """The page's latest request after a look: over, or run again under another job, of this server."""
    if asked and found.ended:
        return asked.model_copy(update={"ended": True})
    if asked and found.again is not None:
        return asked.model_copy(update={"job": found.again, "boot": engine.boot})
    return no_update


def is_elsewhere(view: View, model: Model) -> bool:
    """Whether a view is of what a model has not."""
    try:
        return view.analysis.inapplicable(model) is not None
    except Exception:  # a mistake in one view must not take the page with it; opening it says what it is
        return False


def loaded_store(engine: Engine, hosted: Hosted) -> Loaded | None:
    """What the page knows of the chosen model; None while it is loading."""
    if hosted.model is not None:
        lacking = tuple(name for name, view in engine.views.items() if is_elsewhere(view, hosted.model))
        return Loaded(model=hosted.name, hash=hosted.model.identity.key, elsewhere=lacking)
    return Loaded(model=hosted.name, failed=hosted.loading.id) if hosted.loading.state == "failed" else None
