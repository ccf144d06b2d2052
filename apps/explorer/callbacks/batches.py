"""The panel of batches: the list of runs, what came out so far, the table of prompts, and prompts that are opened."""

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pandas as pd
from dash import Dash, Input, Output, State, html, no_update

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.batches import Cell
from apps.explorer.engine.engine import Engine
from apps.explorer.page import batches as panel
from apps.explorer.page.batch_state import BatchAsked, Chosen, Column, Grouping, Part, Point, Rows
from apps.explorer.page.state import Choice, Clicks, Flag, Notices, Selection, Text
from workbench.errors import InputError, WorkbenchError

__all__ = ["link_of", "opened", "register"]


def register(app: Dash, engine: Engine) -> None:
    """Everything of the panel."""
    answer = Answers(app, engine)
    _register_open(answer, engine)
    _register_list(answer, engine)
    _register_choices(answer, engine)
    _register_body(answer, engine)
    _register_prompt(answer, engine)


def _register_open(answer: Answers, engine: Engine) -> None:
    @answer(
        {"opened": Output("batches", "opened"), "asleep": Output("batch-poll", "disabled")},
        inputs={"clicks": Input("batches-open", "n_clicks"), "opened": Input("batches", "opened")},
        prevent_initial_call=True,
    )
    def toggle(clicks: Clicks, opened: Flag | None) -> Answer:
        if answer.cause == "batches-open":
            return {"opened": True, "asleep": False}
        return {"asleep": not opened}


def _register_list(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "list": Output("batch-list", "children"),
            "line": Output("batch-line", "children"),
            "news": Output("batch-news", "data"),
            "body": Output("batch-body", "children", allow_duplicate=True),
        },
        inputs={
            "n": Input("batch-poll", "n_intervals"),
            "opened": Input("batches", "opened"),
            "chosen": Input("batch", "data"),
            "asked": Input("batch-asked", "data"),
        },
        state={"news": State("batch-news", "data")},
        prevent_initial_call=True,
    )
    def look(
        n: Clicks, opened: Flag | None, chosen: Chosen | None, asked: BatchAsked | None, news: Text | None
    ) -> Answer:
        if answer.cause == "batch-asked" and asked:
            begin_or_stop(engine, asked)
        names = engine.batches.names()
        name = name_of(engine, chosen)
        known = [engine.batches.known(one) for one in names]
        try:
            sign = f"{name} {engine.batches.sign(name)}" if name else ""
        except WorkbenchError:  # the list says why
            sign = ""
        line = report_line(engine, name) if name else ""
        folder = str(engine.batches.folder or "")
        is_new = sign != news  # also that there is none
        is_another = is_new and answer.cause == "batch"  # what stands there is of the run before
        return {
            "list": panel.batch_list(known, name, folder),
            "line": line,
            "news": sign if is_new else no_update,
            "body": panel.reading() if is_another else no_update,
        }


def begin_or_stop(engine: Engine, asked: BatchAsked) -> None:
    """Resume or cancel a run."""
    if asked.resume is not None:
        engine.batches.resume(asked.resume)
    elif asked.halt is not None:
        engine.batches.cancel(asked.halt)


def name_of(engine: Engine, chosen: Chosen | None) -> str:
    """The run that is looked at: the chosen one, or the one that changed last; "" where there is none."""
    names = engine.batches.names()
    if chosen and chosen.batch in names:
        return chosen.batch
    return names[0] if names else ""


def report_line(engine: Engine, name: str) -> list[Any]:
    """The name of the run, and its report."""
    address = f"{engine.settings.base_path}batches/{quote(name, safe='')}/report.html"
    return [html.B(name), " ", html.A("Report", href=address, target="_blank", id="batch-report")]


def _register_choices(answer: Answers, engine: Engine) -> None:
    @answer(
        {
            "variables": Output("batch-variable", "data"),
            "variable": Output("batch-variable", "value"),
            "xs": Output("batch-x", "data"),
            "ys": Output("batch-y", "data"),
        },
        inputs={"news": Input("batch-news", "data"), "part": Input("batch-part", "value")},
        state={
            "chosen": State("batch", "data"),
            "variable": State("batch-variable", "value"),
            "selection": State("selection", "data"),
        },
        prevent_initial_call=True,
    )
    def offer(news: Text | None, part: Part, chosen: Chosen | None, variable: Column, selection: Selection) -> Answer:
        name = name_of(engine, chosen)
        if not name:
            return {"variables": [], "variable": None, "xs": [], "ys": []}
        try:
            if part == "prompts":
                columns = panel.columns_of(_table(engine, name, selection))
                return {"xs": columns, "ys": columns}
            variables = panel.offered(engine.batches.variables(name))
        except WorkbenchError:  # what is drawn says it
            return {}
        kept = variable if variable in variables else next(iter(variables), None)
        return {"variables": variables, "variable": kept}


def _table(engine: Engine, name: str, selection: Mapping[str, Any]) -> pd.DataFrame:
    """The table of prompts, with columns for the head that is selected on the page."""
    head = (selection["layer"], selection["head"]) if {"layer", "head"} <= set(selection) else None
    return engine.batches.table(name, head)


def _register_body(answer: Answers, engine: Engine) -> None:
    @answer(
        {"body": Output("batch-body", "children"), "tools": Output("batch-body", "className")},
        inputs={
            "news": Input("batch-news", "data"),
            "part": Input("batch-part", "value"),
            "variable": Input("batch-variable", "value"),
            "by": Input("batch-by", "value"),
            "x": Input("batch-x", "value"),
            "y": Input("batch-y", "value"),
            "scheme": Input("scheme", "data"),
        },
        state={"chosen": State("batch", "data"), "selection": State("selection", "data")},
        prevent_initial_call=True,
    )
    def draw(
        news: Text | None,
        part: Part,
        variable: Column,
        by: Grouping | None,
        x: Column,
        y: Column,
        scheme: Choice,
        chosen: Chosen | None,
        selection: Selection,
    ) -> Answer:
        name, dark = name_of(engine, chosen), scheme == "dark"
        tools = f"batch-body of-{part}"
        if not name:
            return {"body": [], "tools": tools}
        try:
            if part == "prompts":
                table = _table(engine, name, selection)
                return {"body": panel.prompt_table(table, by or "prompt", x, y, dark), "tools": tools}
            if part == "failures":
                return {"body": panel.failure_list(engine.batches.failures(name)), "tools": tools}
            return {"body": results(engine, name, variable, dark), "tools": tools}
        except WorkbenchError as error:
            return {"body": [html.P(str(error), className="note")], "tools": tools}


def results(engine: Engine, name: str, variable: str | None, dark: bool) -> list[Any]:
    """The figures of ANALYSIS.VARIABLE. Raises InputError for one that the run has not."""
    if not variable:
        return [html.P("Nothing of it is there yet.", className="quiet")]
    analysis, _, inner = variable.partition(".")
    result = engine.batches.aggregate(name, analysis, inner)
    if variable not in panel.variables_of(analysis, result):
        return [html.P("Choose what to draw.", className="quiet")]
    return panel.results_of(result, inner, dark)


def _register_prompt(answer: Answers, engine: Engine) -> None:
    """One callback for rows and one for points: Dash calls none whose other input is not on the page."""

    def outputs() -> dict[str, Output]:
        return {
            "link": Output("link", "data", allow_duplicate=True),
            "opened": Output("batches", "opened", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
        }

    def state() -> dict[str, State]:
        return {"chosen": State("batch", "data"), "notices": State("notices", "data")}

    @answer(outputs(), inputs={"rows": Input("batch-table", "selectedRows")}, state=state(), prevent_initial_call=True)
    def of_row(rows: Rows, chosen: Chosen | None, notices: Notices) -> Answer:
        return opened(engine, name_of(engine, chosen), rows[0].row, notices) if rows else {}

    @answer(outputs(), inputs={"point": Input("batch-scatter", "clickData")}, state=state(), prevent_initial_call=True)
    def of_point(point: Point | None, chosen: Chosen | None, notices: Notices) -> Answer:
        return opened(engine, name_of(engine, chosen), point.points[0].customdata, notices) if point else {}


def opened(engine: Engine, name: str, row: int, notices: Notices) -> Answer:
    """The prompt of a row of the table is shown in place of the panel; why not, where it cannot be."""
    try:
        link = link_of(engine, engine.batches.cell(name, row))
    except WorkbenchError as error:
        return {"notices": with_notices(notices, [str(error)]), "opened": False}
    return {"link": {**link, "asked": secrets.token_hex(4)}, "opened": False}


def link_of(engine: Engine, cell: Cell) -> dict[str, Any]:
    """A prompt of a run as a link, with the run's parameters and interventions.

    Raises InputError where the page does not offer its model, UnavailableError while that is loading.
    """
    if cell.model not in engine.settings.models and not engine.settings.any_model:
        raise InputError(
            f"a prompt of the model {cell.model!r}", f"one of {', '.join(engine.settings.models)}",
            "Start the explorer with --also and its name",
        )  # fmt: skip
    views = {name: params for name, params in cell.params.items() if name in engine.standing}
    for name, params in views.items():
        if "seed" in {parameter.name for parameter in engine.standing[name].analysis.parameters()}:
            params.setdefault("seed", cell.seed)
    text = engine.written(cell.model, cell.ids)
    view = next(iter(views), None)
    return {
        "text": text, "model": cell.model, "weights": cell.weights[:12], "params": views, "edits": list(cell.edits),
        "view": None if view is None else {"name": view, "figure": 0},
        "select": {}, "display": {}, "other": "", "otherModel": "", "compare": "", "chat": None,
    }  # fmt: skip
