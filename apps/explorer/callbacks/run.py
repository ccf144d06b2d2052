"""Running a prompt."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from dash import Dash, Input, Output, State, html, no_update

from apps.explorer.callbacks.answer import Answers
from apps.explorer.callbacks.intervene import linked
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.callbacks.poll import look_other
from apps.explorer.engine.engine import Engine
from apps.explorer.page.news import look, request_of, woken
from apps.explorer.page.state import (
    Asked,
    Choice,
    Done,
    Edits,
    Go,
    Link,
    Loaded,
    ModelName,
    Notices,
    Params,
    Seen,
    Session,
    Shown,
    Text,
    Typed,
)
from workbench.analysis.compare import need_same_tokenizer
from workbench.errors import WorkbenchError

__all__ = ["ask", "ask_beside", "follow_link", "known", "prompt_line", "register"]

_UNASKED = 20.0  # predicted seconds up to which a link is computed without a click on Run


def register(app: Dash, engine: Engine) -> None:
    """The line under the prompt, and Run."""
    answer = Answers(app, engine)
    _register_prompt(answer, engine)
    _register_run(answer, engine)


def _register_prompt(answer: Answers, engine: Engine) -> None:
    @answer(
        Output("prompt-line", "children"),
        inputs={
            "text": Input("prompt", "value"),
            "loaded": Input("loaded", "data"),
            "chat": Input("chat", "value"),
            "shown": Input("shown", "data"),  # what was about to cost is computed then
        },
        state={"model": State("model", "value"), "params": State("params", "data"), "view": State("view", "data")},
        prevent_initial_call=True,
    )
    def typed(
        text: Text | None,
        loaded: Loaded | None,
        chat: Choice,
        shown: Shown | None,
        model: ModelName,
        params: Params | None,
        view: Seen,
    ) -> Any:
        if not loaded:
            return "The model is loading."
        return prompt_line(engine, model, text or "", params or {}, view.name, chat == "chat")


def _register_run(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "asked": Output("asked", "data"),
            "beside": Output("asked-b", "data"),
            "notices": Output("notices", "data", allow_duplicate=True),
            "woken": Output("woken", "data", allow_duplicate=True),
            "shown": Output("shown", "data", allow_duplicate=True),
            "done": Output("done", "data", allow_duplicate=True),
            "shown_b": Output("shown-b", "data", allow_duplicate=True),
            "went": Output("went", "data"),
        },
        inputs={
            "go": Input("go", "data"),
            "loaded": Input("loaded", "data"),
            "params": Input("params", "data"),
            "model": Input("model", "value"),
            "chat": Input("chat", "value"),
            "edits": Input("edits", "data"),
        },
        state={
            "text": State("prompt", "value"),
            "asked": State("asked", "data"),
            "view": State("view", "data"),
            "notices": State("notices", "data"),
            "session": State("session", "data"),
            "link": State("link", "data"),
            "other": State("other", "value"),
            "other_model": State("other-model", "value"),
            "shown": State("shown", "data"),
            "done": State("done", "data"),
            "went": State("went", "data"),
        },
        prevent_initial_call=True,
    )
    def run(
        go: Go | None,
        loaded: Loaded | None,
        params: Params | None,
        model: ModelName,
        chat: Choice,
        edits: Edits | None,
        text: Text | None,
        asked: Asked | None,
        view: Seen,
        notices: Notices,
        session: Session,
        link: Link | None,
        other: Text | None,
        other_model: ModelName | None,
        shown: Shown | None,
        done: Done | None,
        went: Typed,
    ) -> Any:
        if not loaded or loaded.model != model:
            return {"woken": woken()}  # it runs when the model is ready
        pressed, said = "go" in answer.causes or (go is not None and go.clicks != went), []
        if loaded.failed and "go" not in answer.causes:
            return no_update  # why is said already; Run tries it once more
        if pressed and go:
            text, other = go.text, other if go.other is None else go.other
        elif answer.cause in ("params", "edits") and asked:
            text = asked.text  # a new value of a parameter is about the prompt that is shown
        elif asked is None and link:
            told = follow_link(engine, link, loaded, params or {}, view.name)
            said = [words for words, _ in told]
            if any(is_dear for _, is_dear in told):
                return {"notices": with_notices(notices, said), "woken": woken(), "went": go and go.clicks}
        common = {"params": params or {}, "view": view.name, "chat": chat == "chat", "again": pressed}
        found, second, more = _both(
            engine, session, (model, text or ""), (other_model or model, other or ""), common, edits or ()
        )
        return {
            "asked": found or no_update,
            "beside": second,
            "notices": with_notices(notices, [*said, *more]),
            "woken": woken(),
            "went": go and go.clicks,
            **known(engine, session, (found, second), shown, done),
        }


def known(
    engine: Engine, session: str, asked: tuple[Asked | None, Asked | None], shown: Shown | None, done: Done | None
) -> dict[str, Any]:
    """The page's shown run, what is done of it and what it is held against, where a request was computed before: it
    need not wait for a look. asked: the request, and the one beside it.
    """
    one, beside = asked
    if not one or one.job or one.names is None:
        return {}
    found = look(engine, session, one, shown, done)
    if not found.shown:
        return {}
    other = look_other(engine, session, one, beside, None).shown
    return {"shown": found.shown, "done": found.done or no_update, "shown_b": other}


def _both(
    engine: Engine,
    session: str,
    one: tuple[str, str],
    beside: tuple[str, str],
    common: Mapping[str, Any],
    edits: Sequence[str],
) -> tuple[Asked | None, Asked | None, list[str]]:
    """Start a run, and the one that it is held against; what is to be said. one, beside: model and text."""
    asked, error = ask(engine, session, *one, **common, edits=edits)
    said, second = [error] if error else [], None
    (model, text), (other_model, other) = one, beside
    if asked and (other or other_model != model or edits):  # a changed run is held against the intact one
        second, error = ask_beside(engine, session, model, other_model, other or text, common)
        said += [f"What to compare with: {error}"] if error else []
    return asked, second, said


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
) -> tuple[Asked | None, str]:
    """Start a run; what the page keeps as its latest request, or the sentence that says why not.

    again: load the model once more where that failed.
    """
    asked = Asked(id=secrets.token_hex(8), model=model, text=text, params=dict(params), chat=chat, edits=tuple(edits))
    asked = asked.model_copy(update={"boot": engine.boot})
    try:
        if engine.hosted(model, again).loading.alive:  # a server that was started again: the poll runs it when it can
            return asked, ""  # no job: it never ran
        request = request_of(engine, asked)
        names = engine.wanted(request, view)
        job = engine.submit(request, session, names)
    except WorkbenchError as error:
        return None, str(error)
    return asked.model_copy(update={"names": tuple(names), "job": job.id if job else ""}), ""


def ask_beside(
    engine: Engine, session: str, model: str, beside: str, text: str, common: Mapping[str, Any]
) -> tuple[Asked | None, str]:
    """Start the run that another one is held against; refused where its model is there and has other tokens."""
    try:
        hosted = [engine.hosted(name, common.get("again", False)) for name in (model, beside)]
        if beside != model and not any(one.loading.alive for one in hosted):
            need_same_tokenizer(hosted[0].ready, hosted[1].ready)
    except WorkbenchError as error:
        return None, str(error)
    return ask(engine, session, beside, text, **common)


def follow_link(
    engine: Engine, link: Link, loaded: Loaded, params: Mapping[str, Any], view: str
) -> list[tuple[str, bool]]:
    """What must be said about a link before it is shown, and whether it must wait for a click on Run."""
    said = []
    if link.broken:
        said.append((f"The link's part {link.broken!r} could not be read and was left out.", False))
    if link.model and link.model != loaded.model:
        said.append((f"The link is about the model {link.model!r}, this is {loaded.model}.", False))
    elif link.weights and not loaded.hash.startswith(link.weights):
        said.append((f"The link was made with other weights or settings of {loaded.model}: numbers may differ.", False))
    edits, error = linked(link)
    said += [(error, False)] if error else []
    try:
        request = engine.request(loaded.model, link.text, params, link.chat, edits)
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
    return [html.Div(f"{n} of {limit} tokens, {request.tokens.start}; {cost}"), *notes]
