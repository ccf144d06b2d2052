"""Display parameters: what changes only the drawing is answered from the kept result, without a job.

The page keeps them beside the params of the runs. Where one asks for more than a result holds, the params of the run
are made finer, and the run follows like after any other change of params.
"""

from collections.abc import Mapping
from typing import Any

from dash import ALL, Dash, Input, Output, State, set_props

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.engine import Engine
from apps.explorer.page.form_state import Moved, Named
from apps.explorer.page.forms import ROUND, has_slider, slider_ends, slider_value, token_options
from apps.explorer.page.state import Display, Notices, Params, Shown
from workbench.analysis.kinds import Analysis
from workbench.analysis.view import View
from workbench.errors import WorkbenchError

__all__ = [
    "changed",
    "fine",
    "lacking",
    "register",
]


def register(app: Dash, engine: Engine) -> None:
    """The controls of display parameters."""
    answer = Answers(app, engine)

    @answer(
        {
            "display": Output("display", "data"),
            "params": Output("params", "data", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
        },
        inputs={"moved": Input("moved", "data")},
        state={
            "display": State("display", "data"),
            "params": State("params", "data"),
            "notices": State("notices", "data"),
        },
        prevent_initial_call=True,
    )
    def move(moved: Moved | None, display: Display | None, params: Params | None, notices: Notices) -> Answer:
        if not moved:
            return {}
        view = engine.standing[moved.entry]
        try:
            after = changed(engine, moved, display or {})
        except WorkbenchError as error:
            return {"notices": with_notices(notices, [f"{view.title}: {error}"])}
        if after is None:
            return {}
        _twins(view, moved, after)
        finer = fine(engine, params or {}, after)
        if finer == (params or {}):
            return {"display": after}
        for name, value in finer[view.name].items():
            set_props({"type": "param", "entry": view.name, "name": name}, {"value": value})
        return {"display": after, "params": finer}

    @answer(
        Output({"type": "display", "entry": ALL, "name": ALL, "control": "token"}, "data"),
        inputs={"shown": Input("shown", "data")},
        state={"controls": State({"type": "display", "entry": ALL, "name": ALL, "control": "token"}, "id")},
        prevent_initial_call=True,
    )
    def named_tokens(shown: Shown | None, controls: Named) -> Any:
        return [token_options(shown.tokens if shown else ())] * len(controls)


def changed(engine: Engine, moved: Moved, display: Mapping[str, Any]) -> dict[str, Any] | None:
    """The display parameters after one control moved; None where nothing changed. InputError for a bad value."""
    view = engine.standing[moved.entry]
    param = next((p for p in view.display_parameters if p.name == moved.name), None)
    if param is None:
        return None
    mine, value = display.get(view.name, {}), moved.value
    before = mine.get(param.name, param.default)
    if moved.control == "slider":
        if not has_slider(param):
            return None
        if value is None or value == slider_value(param, before):
            return None  # it was set, not moved
        if not isinstance(value, int | float):
            raise param.refused(value)
        ends = slider_ends(param)
        after = None if param.optional and value <= ends[0] else param.check(param.type(round(value, ROUND)))
    else:
        after = param.parse("" if value is None else str(value))
    return None if after == before else {**display, view.name: {**mine, param.name: after}}


def _twins(view: View, moved: Moved, display: Mapping[str, Any]) -> None:
    """A slider and the number beside it show the same."""
    param = next(p for p in view.display_parameters if p.name == moved.name)
    value, others = display[view.name][param.name], {"type": "display", "entry": view.name, "name": param.name}
    if moved.control == "slider":
        set_props({**others, "control": "number"}, {"value": "" if value is None else value})
    elif moved.control == "number" and has_slider(param):
        set_props({**others, "control": "slider"}, {"value": slider_value(param, value)})


def fine(engine: Engine, params: Mapping[str, Any], display: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a page, fine enough for its display. What is no good in either is said where it is used."""
    made = dict(params)
    for name, chosen in display.items():
        view = engine.standing.get(name)
        if view is None or view.finer is None:
            continue
        try:
            before = view.analysis.of(made.get(name, {}))
            finer = _finer(view, before, chosen)
        except WorkbenchError:
            continue
        made |= {name: {**made.get(name, {}), **finer}} if finer else {}
    return made


def _finer(view: View, analysis: Analysis, display: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that must be others for a display."""
    before, after = analysis.values(), view.fine_enough(analysis, view.shown(display)).values()
    return {name: value for name, value in after.items() if value != before[name]}


def lacking(view: View, analysis: Analysis, display: Mapping[str, Any]) -> str:
    """What a result of an analysis does not hold of a display, in words; "" where it holds all."""
    finer = [f"{name}={value:g}" for name, value in _finer(view, analysis, display).items()]
    return f"More than was kept is asked for: it is computed again with {', '.join(finer)}." if finer else ""
