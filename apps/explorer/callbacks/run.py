"""Running a prompt and looking how far it is."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, html, no_update

from apps.explorer.callbacks.intervene import linked
from apps.explorer.engine.engine import Engine, Hosted
from apps.explorer.engine.jobs import State as JobState
from apps.explorer.engine.news import Look, late_slices, look, request_of, woken
from apps.explorer.page import components as parts
from apps.explorer.page.layout import POLL
from workbench.analysis.compare import need_same_tokenizer
from workbench.errors import WorkbenchError

__all__ = ["ask", "follow_link", "loaded_store", "notice", "prompt_line", "register"]

# Dash holds back whatever depends on what an answer on its way may change: with slow answers and looks that overlap,
# that would be for as long as anything is looked for.
_NOT_YET = 10_000  # milliseconds
_NOT_CONTINUED = {
    JobState.RESTARTED: "The server was restarted before the continuation was written. Let the model write it again.",
    JobState.FORGOTTEN: "The continuation is no longer kept: newer work took its room. Let the model write it again.",
}
_UNASKED = 20.0  # predicted seconds up to which a link is computed without a click on Run


def register(app: Dash, engine: Engine) -> None:
    """Run, cancel, dismiss, and the poll."""
    _register_run(app, engine)
    _register_continue(app, engine)
    _register_notices(app, engine)
    _register_poll(app, engine)


def _register_run(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("prompt", "value"),
        Output("go", "data", allow_duplicate=True),
        Input("example", "value"),
        prevent_initial_call=True,
    )
    def example(text):
        return (no_update, no_update) if not text else (text, {"text": text, "clicks": secrets.token_hex(4)})

    @app.callback(
        Output("prompt-line", "children"),
        Input("prompt", "value"),
        Input("loaded", "data"),
        State("model", "value"),
        Input("chat", "value"),
        Input("shown", "data"),  # what was about to cost is computed then
        State("params", "data"),
        State("view", "data"),
    )
    def typed(text, loaded, model, chat, shown, params, view):
        if not loaded:
            return "The model is loading."
        return prompt_line(engine, model, text or "", params or {}, view["name"], chat == "chat")

    @app.callback(
        Output("asked", "data"),
        Output("asked-b", "data"),
        Output("notices", "data", allow_duplicate=True),
        Output("woken", "data", allow_duplicate=True),
        Input("go", "data"),
        Input("loaded", "data"),
        Input("params", "data"),
        Input("model", "value"),
        State("prompt", "value"),
        State("asked", "data"),
        State("view", "data"),
        State("notices", "data"),
        State("session", "data"),
        State("link", "data"),
        State("other", "value"),
        State("other-model", "value"),
        Input("chat", "value"),
        Input("edits", "data"),
        prevent_initial_call=True,
    )
    def run(go, loaded, params, model, text, asked, view, notices, session, link, other, other_model, chat, edits):
        if not loaded or loaded["model"] != model:
            return no_update, no_update, no_update, woken()  # it runs when the model is ready
        pressed, errors = ctx.triggered_id == "go", []
        if loaded.get("failed") and not pressed:
            return [no_update] * 4  # why is said already; Run tries it once more
        if pressed and go:
            text = go["text"]
        elif ctx.triggered_id in ("params", "edits") and asked:
            text = asked["text"]  # a new value of a parameter is about the prompt that is shown
        elif asked is None and link:
            errors = follow_link(engine, link, loaded, params or {}, view["name"])
            if any(dear for _, dear in errors):
                return no_update, no_update, [*notices, *(notice(text) for text, _ in errors)], woken()
        common = {"params": params or {}, "view": view["name"], "chat": chat == "chat", "again": pressed}
        asked, error = ask(engine, session, model, text or "", **common, edits=edits or ())
        said = [text for text, _ in errors] + ([error] if error else [])
        second, beside = None, other_model or model
        if asked and (other or beside != model or edits):  # a changed run is held against the intact one
            second, error = ask_beside(engine, session, model, beside, other or text, common)
            said += [f"What to compare with: {error}"] if error else []
        return asked or no_update, second, [*notices, *map(notice, said)] if said else no_update, woken()


def _register_continue(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("continuing", "data", allow_duplicate=True),
        Output("notices", "data", allow_duplicate=True),
        Output("woken", "data", allow_duplicate=True),
        Input("continue", "n_clicks"),
        State("continue-n", "value"),
        State("continue-temperature", "value"),
        State("continue-seed", "value"),
        State("shown", "data"),
        State("notices", "data"),
        State("session", "data"),
        prevent_initial_call=True,
    )
    def go_on(clicks, n, temperature, seed, shown, notices, session):
        if not clicks or not shown:
            return no_update, no_update, no_update
        try:
            job = engine.submit_continuation(request_of(engine, shown), int(n), float(temperature), int(seed), session)
        except (TypeError, ValueError) as error:
            said = (
                str(error) if isinstance(error, WorkbenchError) else "Got an empty field; expected numbers. Fill it in."
            )
            return no_update, [*notices, notice(said)], no_update
        return {"job": job.id, "model": shown["model"]}, no_update, woken()


def _register_notices(app: Dash, engine: Engine) -> None:
    @app.callback(Output("notice-list", "children"), Input("notices", "data"))
    def show_notices(notices):
        return parts.notice_list(notices)

    @app.callback(
        Output("notices", "data", allow_duplicate=True),
        Input({"type": "dismiss", "notice": ALL}, "n_clicks"),
        State("notices", "data"),
        prevent_initial_call=True,
    )
    def dismiss(clicks, notices):
        return [n for n in notices if n["id"] != ctx.triggered_id["notice"]] if any(clicks) else no_update

    @app.callback(
        Output("jobs", "children", allow_duplicate=True),
        Output("woken", "data", allow_duplicate=True),
        Input("stopped", "data"),
        State("session", "data"),
        prevent_initial_call=True,
    )
    def cancel(stopped, session):
        if not stopped:
            return no_update, no_update
        engine.cancel(str(stopped["cancel"]), session, for_all="all" in stopped)
        return parts.job_line(engine.jobs(session), "", session, engine.presence.gone()), woken()


def _register_poll(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("jobs", "children"),
        Output("loaded", "data"),
        Output("model-line", "children"),
        Output("shown", "data"),
        Output("done", "data"),
        Output("notices", "data"),
        Output("asked", "data", allow_duplicate=True),
        Output("idle", "data"),
        Output("late", "data"),
        Output("prompt", "value", allow_duplicate=True),
        Output("go", "data", allow_duplicate=True),
        Output("continuing", "data"),
        Output("shown-b", "data"),
        Output("asked-b", "data", allow_duplicate=True),
        Input("poll", "n_intervals"),
        State("asked", "data"),  # no Input: it would wait for itself through the model that is loaded
        State("asked-b", "data"),
        State("model", "value"),
        State("loaded", "data"),
        State("shown", "data"),
        State("done", "data"),
        State("notices", "data"),
        State("session", "data"),
        State("late", "data"),
        State("continuing", "data"),
        State("shown-b", "data"),
        State("woken", "data"),
        State("window", "data"),
        prevent_initial_call="initial_duplicate",
        running=[(Output("poll", "interval"), _NOT_YET, POLL)],  # the next look begins when this one was answered
    )
    def poll(n, asked, asked_b, model, loaded, shown, done, notices, session, late, continuing, shown_b, wake, window):
        engine.presence.looked(session, window)
        try:
            hosted = engine.hosted(model)
        except WorkbenchError as error:
            return (
                *[no_update] * 5,
                [*notices, notice(str(error))],
                no_update,
                [n, wake],
                *[no_update] * 6,
            )
        waiting = asked if asked and not asked.get("ended") else None
        found = look(engine, session, waiting, shown, done)
        if hosted.loading.state == "failed" and (loaded or {}).get("failed") != hosted.loading.id:
            found.notice = hosted.loading.error
        current = found.shown or shown
        arrived = not asked or asked.get("ended") or (current or {}).get("id") == asked["id"]
        beside = look_other(engine, session, asked, asked_b, shown_b) if arrived else Look(busy=False)
        back, why = came(engine, continuing)
        told = [said for said in dict.fromkeys((found.notice, beside.notice, why)) if said]  # one restart, one sentence
        last = (
            f"{len(current['tokens'])} tokens in {current['seconds']:.2f} s" if current and current["seconds"] else ""
        )
        ready = loaded_store(hosted)
        news = ready is not None and ready != loaded
        return (
            parts.job_line(engine.jobs(session), last, session, engine.presence.gone()),
            ready if news else no_update,
            parts.model_line(hosted.model) if news and hosted.model else no_update,
            found.shown or no_update,
            found.done if found.done is not None else no_update,
            [*notices, *map(notice, told)] if told else no_update,
            changed_request(engine, asked, found),
            None if found.busy or beside.busy or hosted.loading.alive else [n, wake],
            count if (count := late_slices(engine, session)) != late else no_update,
            *back,
            (None if shown_b and not asked_b else no_update) if beside.shown is None else beside.shown,
            changed_request(engine, asked_b, beside),
        )


def look_other(
    engine: Engine,
    session: str,
    asked: Mapping[str, Any] | None,
    other: Mapping[str, Any] | None,
    shown: Mapping[str, Any] | None,
) -> Look:
    """How far the run is that the latest request is compared with; refused where its tokens mean something else."""
    waits = bool(other) and not other.get("ended") and (shown is None or shown["id"] != other["id"])
    if not waits:
        return Look(busy=False)
    try:
        if asked and other["model"] != asked["model"]:
            models = [engine.hosted(one["model"]) for one in (asked, other)]
            if any(one.loading.alive for one in models):
                return Look(busy=True)
            need_same_tokenizer(models[0].ready, models[1].ready)
    except WorkbenchError as error:
        return Look(busy=False, notice=f"What to compare with: {error}", ended=other["id"])
    found = look(engine, session, other, shown, None)
    found.busy = found.shown is None and found.ended is None
    return found


def changed_request(engine: Engine, asked: Mapping[str, Any] | None, found: Look) -> Any:
    """The page's latest request after a look: over, or run again under another job, of this server."""
    if asked and found.ended:
        return {**asked, "ended": True}
    again = asked and found.again is not None
    return {**asked, "job": found.again, "boot": engine.boot} if again else no_update


def came(engine: Engine, continuing: Mapping[str, Any] | None) -> tuple[tuple[Any, Any, Any], str]:
    """Prompt, run and waiting state after a continuation has ended, as before while it has not; why there is none."""
    if not continuing:
        return (no_update, no_update, no_update), ""
    worker = engine.hosted(continuing["model"]).worker
    job = worker.get(continuing["job"])
    state = job.state if job is not None else worker.state(continuing["job"])
    if state.alive:
        return (no_update, no_update, no_update), ""
    if job is None or state != JobState.DONE:
        return (no_update, no_update, None), job.error if job is not None else _NOT_CONTINUED[state]
    return (job.result, {"text": job.result, "clicks": job.id}, None), ""


def notice(text: str) -> dict[str, str]:
    """Something that went wrong, to stay until it is dismissed."""
    return {"id": secrets.token_hex(6), "text": text}


def ask(
    engine: Engine,
    session: str,
    model: str,
    text: str,
    params: Mapping[str, Any],
    view: str | None = None,
    *,
    chat: bool = False,
    edits: Sequence[str] = (),
    again: bool = False,
) -> tuple[dict[str, Any] | None, str]:
    """Start a run; what the page keeps as its latest request, or the sentence that says why not.

    again: load the model once more where that failed.
    """
    asked = {"model": model, "text": text, "params": dict(params), "chat": chat, "edits": list(edits)}
    asked["boot"] = engine.boot  # which server was asked, also where it has no job yet
    try:
        if engine.hosted(model, again).loading.alive:  # a server that was started again: the poll runs it when it can
            return {**asked, "id": secrets.token_hex(8), "names": None, "job": ""}, ""  # no job: it never ran
        request = request_of(engine, asked)
        names = engine.wanted(request, view)
        job = engine.submit(request, session, names)
    except WorkbenchError as error:
        return None, str(error)
    return {**asked, "id": secrets.token_hex(8), "names": list(names), "job": job.id if job else ""}, ""


def ask_beside(
    engine: Engine, session: str, model: str, beside: str, text: str, common: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """Start the run that another one is held against; refused where its model is there and has other tokens."""
    try:
        hosted = [engine.hosted(name, common.get("again", False)) for name in (model, beside)]
        if beside != model and not any(one.loading.alive for one in hosted):
            need_same_tokenizer(hosted[0].ready, hosted[1].ready)
    except WorkbenchError as error:
        return None, str(error)
    return ask(engine, session, beside, text, **common)


def follow_link(
    engine: Engine, link: Mapping[str, Any], loaded: Mapping[str, Any], params: Mapping[str, Any], view: str
) -> list[tuple[str, bool]]:
    """What must be said about a link before it is shown, and whether it must wait for a click on Run."""
    said = []
    if link.get("broken"):
        said.append((f"The link's part {link['broken']!r} could not be read and was left out.", False))
    if link.get("model") and link["model"] != loaded["model"]:
        said.append((f"The link is about the model {link['model']!r}, this is {loaded['model']}.", False))
    elif link.get("weights") and not loaded.get("hash", "").startswith(link["weights"]):
        said.append((f"The link was made with other weights of {loaded['model']}: numbers may differ.", False))
    edits, error = linked(link)
    said += [(error, False)] if error else []
    try:
        request = engine.request(loaded["model"], str(link.get("text", "")), params, bool(link.get("chat")), edits)
        seconds, _ = engine.cost(request, engine.wanted(request, view))
    except WorkbenchError:
        return said  # running it says what is wrong
    if seconds > _UNASKED:
        said.append((f"The link asks for about {seconds:.0f} s of computing. Press Run to start it.", True))
    return said


def prompt_line(
    engine: Engine, model: str, text: str, params: Mapping[str, Any], view: str | None = None, chat: bool = False
) -> list[Any]:
    """Length, predicted cost and soft warnings of what is typed."""
    try:
        request = engine.request(model, text, params, chat)
        seconds, nbytes = engine.cost(request, engine.wanted(request, view))
    except WorkbenchError as error:
        return [html.Div(str(error), className="note")]
    n, limit = len(request.tokens), engine.hosted(model).ready.sizes.n_ctx
    cost = f"about {max(seconds, 0.05):.1f} s, {nbytes / 1e6:.0f} MB" if seconds else "computed before"
    notes = [html.Div(note, className="note") for note in request.tokens.notes]
    return [html.Div(f"{n} of {limit} tokens; {cost}"), *notes]


def loaded_store(hosted: Hosted) -> dict[str, Any] | None:
    """What the page knows of the chosen model; None while it is loading."""
    if hosted.model is not None:
        return {"model": hosted.name, "hash": hosted.model.identity.weights_hash}
    return {"model": hosted.name, "failed": hosted.loading.id} if hosted.loading.state == "failed" else None
