"""Callbacks: thin wrappers that hand a page's stores to plain functions and their answers back.

The browser keeps the state (what is asked, what is shown, the selection); the server knows only keys and results, so a
restart loses nothing and two windows cannot disturb each other. One callback serves every analysis of the catalog.
"""

import secrets
from typing import Any

from dash import ALL, MATCH, ClientsideFunction, Dash, Input, Output, State, ctx, html, no_update

from apps.explorer import parts, views
from apps.explorer.engine import Engine
from apps.explorer.examples import EXAMPLES
from apps.explorer.layout import figure_id, graph
from apps.explorer.progress import look, request_of
from apps.explorer.selection import clean, headline, settle, strongest_head
from workbench.errors import WorkbenchError

__all__ = ["register"]


def register(app: Dash, engine: Engine) -> None:
    """All callbacks of the page."""
    _in_the_browser(app)
    _running(app, engine)
    _looking(app, engine)
    _drawing(app, engine)
    _parameters(app, engine)


def notice(text: str) -> dict[str, str]:
    """Something that went wrong, to stay until it is dismissed."""
    return {"id": secrets.token_hex(6), "text": text}


def _in_the_browser(app: Dash) -> None:
    """What needs no server: clicks into the selection, marks on the figures, light and dark."""

    def local(function: str, output, *inputs, initial: bool = True) -> None:
        app.clientside_callback(
            ClientsideFunction("spine", function), output, *inputs, prevent_initial_call=not initial
        )

    local(
        "clicked",
        Output("selection", "data", allow_duplicate=True),
        Input({"type": "figure", "name": ALL}, "clickData"),
        initial=False,
    )
    local("show", Output("headline", "className"), Input("selection", "data"))
    local("run", Output("go", "data"), Input("run", "n_clicks"))
    local("scheme", Output("scheme", "data"), Input("scheme-toggle", "n_clicks"), State("scheme", "data"))
    local("same", Output("provider", "forceColorScheme"), Input("scheme", "data"))
    local("opened", Output("keys-help", "opened"), Input("keys-open", "n_clicks"))


def _running(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("prompt", "value"),
        Output("go", "data", allow_duplicate=True),
        Input("example", "value"),
        prevent_initial_call=True,
    )
    def example(name):
        text = EXAMPLES.get(name)
        return (no_update, no_update) if text is None else (text, {"text": text, "clicks": secrets.token_hex(4)})

    @app.callback(
        Output("prompt-line", "children"),
        Input("prompt", "value"),
        Input("loaded", "data"),
        State("model", "value"),
        State("params", "data"),
    )
    def typed(text, loaded, model, params):
        return prompt_line(engine, model, text or "", params or {}) if loaded else "The model is loading."

    @app.callback(
        Output("asked", "data"),
        Output("notices", "data", allow_duplicate=True),
        Output("poll", "disabled", allow_duplicate=True),
        Input("go", "data"),
        Input("loaded", "data"),
        Input("params", "data"),
        Input("model", "value"),
        State("prompt", "value"),
        State("asked", "data"),
        State("notices", "data"),
        State("session", "data"),
        prevent_initial_call=True,
    )
    def run(go, loaded, params, model, text, asked, notices, session):
        if ctx.triggered_id == "go" and go:
            text = go["text"]
        elif ctx.triggered_id == "params" and asked:
            text = asked["text"]  # a new value of a parameter is about the prompt that is shown
        asked, error = ask(engine, session, model, text or "", params or {})
        return asked or no_update, [*notices, notice(error)] if error else no_update, False

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
        Output("ran", "data"),
        Input({"type": "cancel", "job": ALL}, "n_clicks"),
        State("session", "data"),
        prevent_initial_call=True,
    )
    def cancel(clicks, session):
        if any(clicks):
            engine.cancel(ctx.triggered_id["job"], session)
        return no_update


def ask(engine: Engine, session: str, model: str, text: str, params: dict) -> tuple[dict[str, Any] | None, str]:
    """Start a run; what the page keeps as its latest request, or the sentence that says why not.

    While the model is loading there is neither: the page runs the prompt when the model is ready.
    """
    try:
        if engine.hosted(model).loading.alive:
            return None, ""
        request = engine.request(model, text, params)
        job = engine.submit(request, session)
    except WorkbenchError as error:
        return None, str(error)
    return {
        "id": secrets.token_hex(8),
        "model": model,
        "text": text,
        "params": params,
        "job": job.id if job else "",
    }, ""


def prompt_line(engine: Engine, model: str, text: str, params: dict) -> list[Any]:
    """Length, predicted cost and soft warnings of what is typed."""
    try:
        request = engine.request(model, text, params)
        seconds, nbytes = engine.cost(request)
    except WorkbenchError as error:
        return [html.Div(str(error), className="note")]
    n, limit = len(request.tokens), engine.hosted(model).ready.sizes.n_ctx
    cost = f"about {max(seconds, 0.05):.1f} s, {nbytes / 1e6:.0f} MB" if seconds else "computed before"
    return [
        html.Div(f"{n} of {limit} tokens; {cost}"),
        *(html.Div(note, className="note") for note in request.tokens.notes),
    ]


def _looking(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("jobs", "children"),
        Output("loaded", "data"),
        Output("model-line", "children"),
        Output("shown", "data"),
        Output("done", "data"),
        Output("notices", "data"),
        Output("asked", "data", allow_duplicate=True),
        Output("poll", "disabled"),
        Input("poll", "n_intervals"),
        Input("asked", "data"),
        State("model", "value"),
        State("loaded", "data"),
        State("shown", "data"),
        State("done", "data"),
        State("notices", "data"),
        State("session", "data"),
        prevent_initial_call="initial_duplicate",
    )
    def poll(_, asked, model, loaded, shown, done, notices, session):
        hosted = engine.hosted(model)
        waiting = asked if asked and not asked.get("ended") else None
        found = look(engine, session, waiting, shown, done)
        if hosted.loading.state == "failed" and (loaded or {}).get("failed") != hosted.loading.id:
            found.notice = hosted.loading.error
        current = found.shown or shown
        last = (
            f"{len(current['tokens'])} tokens in {current['seconds']:.2f} s" if current and current["seconds"] else ""
        )
        jobs = engine.jobs(session)
        ready = loaded_store(hosted)
        news = ready is not None and ready != loaded
        return (
            parts.job_line(jobs, last),
            ready if news else no_update,
            parts.model_line(hosted.model) if news and hosted.model else no_update,
            found.shown or no_update,
            found.done if found.done is not None else no_update,
            [*notices, notice(found.notice)] if found.notice else no_update,
            {**asked, "ended": True} if found.ended and asked else no_update,
            not (found.busy or hosted.loading.alive),
        )


def loaded_store(hosted) -> dict[str, Any] | None:
    """What the page knows of the chosen model; None while it is loading."""
    if hosted.model is not None:
        return {"model": hosted.name, "hash": hosted.model.identity.weights_hash}
    return {"model": hosted.name, "failed": hosted.loading.id} if hosted.loading.state == "failed" else None


def _drawing(app: Dash, engine: Engine) -> None:
    @app.callback(Output("tokens", "children"), Input("shown", "data"))
    def tokens(shown):
        return token_strip(engine, shown) if shown else []

    @app.callback(
        Output("selection", "data"),
        Input("shown", "data"),
        Input("done", "data"),
        State("selection", "data"),
        prevent_initial_call=True,
    )
    def choose(shown, done, selection):
        if not shown:
            return no_update
        head = None if "head" in selection else first_head(engine, shown, done or {})
        settled = settle(selection, len(shown["tokens"]), head=head, **shown["sizes"])
        return settled if settled != selection and (selection or ctx.triggered_id == "shown") else no_update

    @app.callback(
        Output(figure_id("main"), "figure"),
        Output("main-message", "children"),
        Output("said", "children"),
        Input("shown", "data"),
        Input("done", "data"),
        Input("view", "data"),
        Input("scheme", "data"),
        State("selection", "data"),
    )
    def main(shown, done, view, scheme, selection):
        if not shown:
            return no_update, html.Div("The model is loading; the first prompt is computed as soon as it is ready."), ""
        request = request_of(engine, shown)
        figure, said = views.large(engine, request, view["name"], view["figure"], scheme == "dark")
        if figure is None:
            return no_update, message(engine, view["name"], said), ""
        return figure, [], said

    @app.callback(
        Output({"type": "thumb-figure", "name": MATCH}, "children"),
        Output({"type": "thumb", "name": MATCH}, "className"),
        Input("shown", "data"),
        Input("done", "data"),
        Input("view", "data"),
        Input("scheme", "data"),
        State({"type": "thumb-figure", "name": MATCH}, "id"),
    )
    def thumb(shown, done, view, scheme, this):
        name, current = this["name"], "thumb current" if view["name"] == this["name"] else "thumb"
        if ctx.triggered_id == "view":
            return no_update, current
        return (thumb_figure(engine, shown, name, scheme == "dark") if shown else "", current)

    @app.callback(
        Output("headline", "children"),
        Output("details", "children"),
        Input("selection", "data"),
        Input("shown", "data"),
        Input("done", "data"),
        Input("view", "data"),
        Input("scheme", "data"),
        State("session", "data"),
    )
    def details(selection, shown, done, view, scheme, session):
        if not shown:
            return [], []
        selection = clean(selection)
        chips = [html.Span(text, className="chip") for text in headline(selection, shown["tokens"])]
        nothing = [html.Span("Nothing: click a token or a cell.", className="quiet")]
        return chips or nothing, detail_panel(engine, shown, view["name"], selection, scheme == "dark", session)


def token_strip(engine: Engine, shown: dict) -> list[Any]:
    """The chips of the shown prompt with their surprisal."""
    result = engine.found(request_of(engine, shown), "surprisal")
    values = getattr(result, "surprisal", None)
    nats = [float("nan")] * len(shown["tokens"]) if values is None else values.values.tolist()
    return parts.token_chips(shown["tokens"], nats)


def first_head(engine: Engine, shown: dict, done: dict) -> tuple[int, int] | None:
    """The head to select before anybody chose one."""
    request = request_of(engine, shown)
    found = [engine.found(request, name) for name, state in done.items() if state == "ok"]
    return strongest_head([result for result in found if result is not None])


def thumb_figure(engine: Engine, shown: dict, name: str, dark: bool) -> Any:
    """A small multiple, or the words in its place."""
    from dash import dcc

    figure = views.small(engine, request_of(engine, shown), name, dark)
    if isinstance(figure, str):
        return figure
    return dcc.Graph(figure=figure, config={"staticPlot": True, "responsive": True}, style={"height": "84px"})


def message(engine: Engine, name: str, said: str) -> html.Div:
    """What stands in place of a figure; a study gets its start button."""
    parts_ = [html.Div(said)]
    if engine.entries[name].scope == "study":
        parts_.append(html.Button("Start", id={"type": "start", "name": name}, className="plain", n_clicks=0))
    return html.Div(parts_)


def detail_panel(engine: Engine, shown: dict, name: str, selection: dict, dark: bool, session: str) -> list[Any]:
    """What the chosen view says about the selection, and the pattern of the selected head."""
    request, entry = request_of(engine, shown), engine.entries[name]
    found, panel = engine.found(request, name), []
    if hasattr(found, "data_vars"):
        figures, said = views.detail_figures(entry, found, selection, dark)
        panel += [graph(f"detail {i}", figure) for i, figure in enumerate(figures)]
        panel += [html.Div(sentence, className="quiet") for sentence in said]
    if "layer" in selection and "head" in selection:
        panel.append(pattern_panel(engine, request, selection, dark, session))
    else:
        panel.append(html.Div("Click a head to see its attention pattern.", className="quiet"))
    return panel


def pattern_panel(engine: Engine, request, selection: dict, dark: bool, session: str) -> Any:
    """The attention of the selected head, recomputed from the kept state of its layer."""
    try:
        pattern = engine.pattern(request, selection["layer"], selection["head"], session)
    except WorkbenchError as error:
        return html.Div(str(error), className="quiet")
    if pattern is None:
        return html.Div("The model is busy; the pattern follows.", className="quiet")
    return graph("pattern", views.pattern_figure(pattern, dark))


def _parameters(app: Dash, engine: Engine) -> None:
    @app.callback(
        Output("view", "data"),
        Input("tabs", "value"),
        Input({"type": "thumb", "name": ALL}, "n_clicks"),
        Input({"type": "figure-tab", "name": ALL}, "value"),
        State("view", "data"),
        prevent_initial_call=True,
    )
    def turn(tab, thumbs, index, view):
        trigger = ctx.triggered_id
        if isinstance(trigger, dict) and trigger["type"] == "figure-tab":
            chosen = {"name": view["name"], "figure": int(index[0] or 0)}
        elif isinstance(trigger, dict):
            chosen = {"name": trigger["name"], "figure": 0} if any(thumbs) else view
        else:
            chosen = {"name": tab, "figure": view["figure"] if tab == view["name"] else 0}
        return chosen if chosen != view and chosen["name"] in engine.entries else no_update

    @app.callback(
        Output("tabs", "value"),
        Output("figure-choice", "children"),
        Output("about-text", "children"),
        Output("params-title", "children"),
        Output("params-form", "children"),
        Input("view", "data"),
        State("params", "data"),
    )
    def turned(view, params):
        entry = engine.entries[view["name"]]
        return (
            entry.title and view["name"],
            figure_choice(entry, view["figure"]),
            parts.about(entry),
            f"Parameters of {entry.title}",
            parts.param_form(entry, params.get(entry.name, {})),
        )

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
        Output("poll", "disabled", allow_duplicate=True),
        Output("notices", "data", allow_duplicate=True),
        Input({"type": "start", "name": ALL}, "n_clicks"),
        Input("view", "data"),
        Input("shown", "data"),
        State("notices", "data"),
        State("session", "data"),
        prevent_initial_call=True,
    )
    def start(clicks, view, shown, notices, session):
        pressed = isinstance(ctx.triggered_id, dict) and any(clicks)
        error = start_view(engine, shown, view["name"], pressed, session)
        if error is None:
            return no_update, no_update
        return False, [*notices, notice(error)] if error else no_update


def figure_choice(entry, index: int) -> Any:
    """Which of an analysis's figures is drawn, where it has several."""
    import dash_mantine_components as dmc

    if len(entry.figures) < 2:
        return html.Span(views.figure_label(entry.figures[0]), className="quiet") if entry.figures else ""
    data = [{"label": views.figure_label(draw), "value": str(i)} for i, draw in enumerate(entry.figures)]
    return dmc.SegmentedControl(id={"type": "figure-tab", "name": entry.name}, data=data, value=str(index), size="xs")


def start_view(engine: Engine, shown: dict | None, name: str, pressed: bool, session: str) -> str | None:
    """Compute what a view needs beyond the prompt's pass: None if nothing was started, "" or what went wrong."""
    if not shown or (engine.entries[name].scope == "study" and not pressed):
        return None
    try:
        job = engine.submit_entry(request_of(engine, shown), name, session)
    except WorkbenchError as error:
        return str(error)
    return None if job is None else ""


def changed_params(engine: Engine, identity, value, params: dict) -> tuple[dict | None, str]:
    """The params after one control changed; None where nothing did, with the sentence if the value is no good."""
    if not isinstance(identity, dict) or identity.get("entry") not in engine.entries:
        return None, ""
    entry = engine.entries[identity["entry"]]
    param = next((p for p in entry.params if p.name == identity["name"]), None)
    if param is None:
        return None, ""
    try:
        parsed = param.parse("" if value is None else str(value))
    except WorkbenchError as error:
        return None, f"{entry.title}: {error}"
    before = params.get(entry.name, {}).get(param.name, param.default)
    if parsed == before:
        return None, ""
    return {**params, entry.name: {**params.get(entry.name, {}), param.name: parsed}}, ""
