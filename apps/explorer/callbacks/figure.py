"""Drawing what is shown: the large view, its table, the small ones, the tokens."""

from collections.abc import Mapping
from typing import Any

import xarray as xr
from dash import Dash, Input, Output, State, html, no_update

from apps.explorer.callbacks.answer import Answers
from apps.explorer.callbacks.display import lacking
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import Fate
from apps.explorer.engine.jobs import State as JobState
from apps.explorer.engine.request import Request
from apps.explorer.page import checks, tables, thumbnails, views
from apps.explorer.page import comparison as comparing
from apps.explorer.page import components as parts
from apps.explorer.page.attributes import attributes
from apps.explorer.page.form_state import Wanted
from apps.explorer.page.graphs import figure_id
from apps.explorer.page.news import fate_of, request_of, results
from apps.explorer.page.results import at_selection, result_of, slice_result, unfit, window_of
from apps.explorer.page.state import Choice, Clicks, Display, Done, Seen, Selection, Session, Shown, Text
from workbench.analysis.run import Failure
from workbench.analysis.view import View
from workbench.errors import WorkbenchError

__all__ = ["large_view", "message", "register", "small_view", "token_strip"]


def register(app: Dash, engine: Engine) -> None:
    """What is drawn when something else is shown."""
    answer = Answers(app, engine)
    _register_tokens(answer, engine)
    _register_large(answer, engine)
    _register_small(answer, engine)


def _register_tokens(answer: Answers, engine: Engine) -> None:
    @answer(Output("tokens", "children"), inputs={"shown": Input("shown", "data")}, prevent_initial_call=True)
    def tokens(shown: Shown | None) -> Any:
        return token_strip(engine, shown) if shown else []

    @answer(
        Output("tokens-b", "children"),
        inputs={"other": Input("shown-b", "data"), "shown": Input("shown", "data")},
        prevent_initial_call=True,
    )
    def beside(other: Shown | None, shown: Shown | None) -> Any:
        if other is None:
            return []
        said = (
            [html.Span(comparing.word_for(shown, other), className="quiet")] if shown else []
        )  # behind: the columns stay
        return [*token_strip(engine, other), *said]


def _register_large(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "figure": Output(figure_id("main"), "figure"),
            "message": Output("main-message", "children"),
            "said": Output("said", "children"),
            "other": Output(figure_id("other"), "figure"),
            "holder": Output("other-holder", "className"),
            "table": Output("table-holder", "children"),
            "of": Output("table-holder", "data-of"),
            "modes": Output("compare-mode", "className"),
            "stands": Output("main-figure", "data-stands"),
        },
        inputs={
            "drawn": Input("drawn", "data"),
            "follow": Input("follow", "data"),
            "late": Input("late", "data"),
            "other": Input("shown-b", "data"),
            "mode": Input("compare-mode", "value"),
        },
        state={
            "view": State("view", "data"),
            "shown": State("shown", "data"),
            "selection": State("selection", "data"),
            "scheme": State("scheme", "data"),
            "session": State("session", "data"),
            "display": State("display", "data"),
            "done": State("done", "data"),
            "before": State("table-holder", "data-of"),
            "stood": State("main-figure", "data-stands"),
        },
        prevent_initial_call=True,
    )
    def main(
        drawn: Text | None,
        follow: Selection,
        late: Clicks,
        other: Shown | None,
        mode: Choice,
        view: Seen,
        shown: Shown | None,
        selection: Selection,
        scheme: Choice,
        session: Session,
        display: Display | None,
        done: Done | None,
        before: Text | None,
        stood: Text | None,
    ) -> Any:
        window = window_of(engine, shown, view.name, selection)
        stands = f"{drawn} {mode} {other.id if other else ''} {window} {beside_words(engine, other, view.name)}"
        if answer.cause in ("follow", "late") and view.name not in engine.slices and stood == stands:
            return no_update  # only those views change with the selection
        compared = comparing.is_comparable(engine, view, shown, other)
        around = {"modes": "compare-mode" if compared else "hidden", "stands": stands}
        around |= table_beside(engine, view, shown, done, before)
        dark, told = scheme == "dark", (done or {}).get(view.name, "")
        shown, other = (run.displayed(display) if run else None for run in (shown, other))
        if shown and other and mode == "difference" and compared:
            find = lambda run: result_of(engine, run, view.name, selection, session)
            lacking_one = next((run for run in (shown, other) if find(run)[0] is None), None)
            if lacking_one is None:
                figure, message, said = comparing.difference_view(engine, view, find, shown, other, dark)
            else:  # why, and what starts it
                heard = told if lacking_one is shown else ""
                figure, message, said = large_view(engine, view, lacking_one, selection, dark, session, heard)
            return {"figure": figure, "message": message, "said": said, "holder": "hidden", **around}

        def draw(run: Shown | None) -> tuple[Any, Any, Any]:
            heard = told if run is shown else ""
            figure, *words = large_view(engine, view, run, selection, dark, session, heard)
            return (figure if figure is no_update else views.marked(figure, selection), *words)

        large, word = draw(shown), comparing.word_for(shown, other) if shown and other else ""
        beside, holder = comparing.second_view(engine, view, large, shown, other, draw, word)
        figure, message, said = large
        lacks = comparing.not_beside(engine, view, shown, other, selection, session) if holder == "hidden" else []
        under = [html.Div(said), html.Div(lacks)] if lacks and figure is not no_update else said
        if window and figure is no_update:
            around["stands"] = ""  # what comes late is drawn
        return {"figure": figure, "message": message, "said": under, "other": beside, "holder": holder, **around}


def beside_words(engine: Engine, other: Shown | None, name: str) -> str:
    """How a view of the other run stands: no store of the page says that, and the figure is drawn anew when it ends."""
    try:
        words = (
            "" if other is None or name in engine.slices else results(engine, request_of(engine, other)).get(name, "")
        )
    except WorkbenchError:
        return ""
    return words.partition(" ")[0]


def _register_small(answer: Answers, engine: Engine) -> None:
    @answer(
        Output("thumbs", "data"),
        inputs={"wanted": Input("wanted", "data")},
        state={
            "shown": State("shown", "data"),
            "scheme": State("scheme", "data"),
            "display": State("display", "data"),
        },
        prevent_initial_call=True,
    )
    def thumbs(wanted: Wanted | None, shown: Shown | None, scheme: Choice, display: Display | None) -> Any:
        if not wanted or not shown:
            return {}
        shown, dark = shown.displayed(display), scheme == "dark"
        return {name: {"sign": sign, **small_view(engine, shown, name, dark)} for name, sign in wanted.items()}


# Which of the two holds, the browser knows before anybody asks: there is work in hand or none (`style.css`).
NOTHING_YET = html.Div(
    [
        html.Span("No prompt has been computed yet.", className="at-rest"),
        html.Span("The prompt is being computed, in one pass that all views share: how far it is stands at the bottom.",
                  className="at-work"),
    ]
)  # fmt: skip
NOT_HERE = "This view is for other models: this one {}."  # what no start would change


def large_view(
    engine: Engine,
    view: Seen,
    shown: Shown | None,
    selection: Mapping[str, Any],
    dark: bool,
    session: str,
    told: str = "",
) -> tuple[Any, Any, Any]:
    """Figure, message over it, and the line under it. told: what the page last heard of the analysis."""
    if not shown:
        return no_update, NOTHING_YET, ""
    try:
        request, name = request_of(engine, shown), view.name
    except WorkbenchError as error:  # the server was restarted and the model is loading again
        return no_update, html.Div(str(error)), ""
    if name in engine.slices:
        part, why = slice_result(engine, request, name, selection, session)
        if part is None:
            lacks = engine.slices[name].analysis.inapplicable(engine.hosted(request.model).ready)
            return no_update, html.Div(NOT_HERE.format(lacks) if lacks else why), ""
        return shown_result(engine.slices[name], part, view.figure, dark, {})
    fate = fate_of(engine, request, name, told)  # before the result: what has just ended has one
    found = at_selection(engine, request, name, selection, session)
    if isinstance(found, str):
        return no_update, html.Div(found), ""
    if not isinstance(found, xr.Dataset):
        own = engine.standing[name]
        lacks = own.analysis.inapplicable(engine.hosted(request.model).ready)
        return no_update, not_here(own, lacks) if lacks else message(engine, name, found, fate, request), ""
    display = shown.display.get(name, {})
    missing = lacking(engine.standing[name], request.analyses[name], display)
    if missing:
        return no_update, html.Div(missing), ""
    figure, words, said = shown_result(engine.standing[name], found, view.figure, dark, display)
    if found.attrs.get("partial"):
        return figure, words, so_far(name, said, fate)
    made = checks.made_so_far(found, len(engine.tally.of(request.states)))
    return figure, words, f"{said} {made}".strip()


def not_here(view: View, lacks: str) -> html.Div:
    """What a view says of a model that it is not for, and what it looks like on one of the others."""
    said = NOT_HERE.format(lacks)
    return html.Div([html.Div(said), *pictures]) if (pictures := thumbnails.example(view)) else html.Div(said)


def so_far(name: str, said: str, fate: Fate | None) -> Any:
    """The line under a figure of a study that has not come to its end."""
    if fate is not None and fate.state == JobState.CANCELLING:
        return f"Stopping ...; so far: {said}" if said else "Stopping ..."
    if fate is not None and fate.state.alive:
        return f"So far: {said}" if said else "Not complete yet."
    begins = "Stopped before its end" if fate is not None and fate.state == JobState.CANCELLED else "Not complete"
    stopped = f"{begins}; so far: {said} " if said else f"{begins}. "
    return [stopped, start_button(name, "Start again")]


def shown_result(
    view: View, result: xr.Dataset, index: int, dark: bool, display: Mapping[str, Any]
) -> tuple[Any, Any, str]:
    """Figure, nothing over it, and the line under it; or why it cannot be drawn. A table is put in its own place."""
    try:
        said = view.said(result, display)
        if tables.is_table(view, index):
            return no_update, [], said
        figure = views.drawn(view, result, index, dark, display)
        return views.with_caption(figure, result, said), [], said
    except WorkbenchError as error:
        return no_update, html.Div(str(error)), ""


def table_of(view: Seen, shown: Shown | None, done: Done) -> str:
    """What a table is made of. Not of light or dark, nor of what is only drawn: it keeps its order, filters and place.

    Neither how far a study is, only how many parts of it are there.
    """
    if not shown:
        return ""
    parts = done.get(view.name, "").split()[:3]  # state, job, number of parts
    return " ".join([view.name, str(view.figure), shown.keys.get(view.name) or shown.id, *parts])


def table_beside(
    engine: Engine, view: Seen, shown: Shown | None, done: Done | None, before: Text | None
) -> dict[str, Any]:
    """What stands in the table's place, and what it is made of; nothing where that is as before."""
    of = table_of(view, shown, done or {})
    return {} if of == (before or "") else {"table": table_view(engine, view, shown) if shown else [], "of": of}


def table_view(engine: Engine, view: Seen, shown: Shown) -> Any:
    """The table that the view shows, why there is none, or nothing where it shows a figure."""
    seen = engine.views[view.name]
    if not tables.is_table(seen, view.figure):
        return []
    try:
        result = engine.found(request_of(engine, shown), seen.name)
        if not isinstance(result, xr.Dataset):
            return []  # the message over it says why
        return tables.grid(tables.frame_of(seen, result, view.figure), result)
    except WorkbenchError as error:
        return html.Div(str(error), className="quiet")


def message(
    engine: Engine, name: str, found: Failure | None, fate: Fate | None, request: Request | None = None
) -> html.Div:
    """What stands in place of a figure, with a button where it can be started and one to what is to be run first.

    request: of which it is; then what Start will do, on what and for how long, is said too.
    """
    view = engine.standing[name]
    ended = fate is None or not fate.state.alive
    why = unfit(engine, request, name) if request is not None and ended else ""
    # What is refused says why, in place of an offer. A reason why not may be known from before, with no job left.
    said = views.waiting(view, found, fate) if found is not None or not why else why
    inside: list[Any] = [html.Div(said, className="note" if said == why else None)]
    if found is not None and found.first in engine.standing:
        inside.append(turn_button(engine.standing[found.first]))
    planned = fate is None or fate.state in (JobState.QUEUED, JobState.RUNNING)
    if request is not None and found is None and planned and not why:
        inside.append(html.Div(views.planned(view, request, engine.seconds(request, name)), className="plan"))
    if ended:
        words = "Start" if fate is None and found is None else "Start again"
        inside.append(start_button(name, words, disabled=bool(why)))
        inside += thumbnails.example(view) if found is None else []
    return html.Div(inside)


def turn_button(view: View) -> html.Button:
    """What opens a view."""
    return html.Button(f"Open {view.title}", className="plain", **attributes({"data-turn": view.name}))


def start_button(name: str, words: str, disabled: bool = False) -> html.Button:
    """What starts an analysis; the browser reads the click, since the button may be drawn anew meanwhile."""
    return html.Button(words, className="plain", disabled=disabled, **attributes({"data-start": name}))


def small_view(engine: Engine, shown: Shown, name: str, dark: bool) -> dict[str, Any]:
    """A small multiple, or the words in its place."""
    try:
        figure = views.small(engine, request_of(engine, shown), name, dark, shown.display.get(name))
    except WorkbenchError:
        return {"words": "waiting for the model"}
    return {"words": figure} if isinstance(figure, str) else {"figure": figure.to_plotly_json()}


def token_strip(engine: Engine, shown: Shown) -> list[Any]:
    """The chips of the shown prompt with their surprisal."""
    strings, nats = shown.tokens, [float("nan")] * len(shown.tokens)
    try:
        request = request_of(engine, shown)
        result = engine.found(request, "surprisal")
        strings, nats = request.tokens.strings, [float("nan")] * len(request.tokens)
    except WorkbenchError:
        result = None  # the tokens are shown all the same
    if isinstance(result, xr.Dataset):
        nats = result["surprisal"].values.tolist()
    return parts.token_chips(strings, nats)
