"""Display parameters: what changes only the drawing is answered from the kept result, without a job.

The page keeps them beside the params of the runs. Where one asks for more than a result holds, the params of the run
are made finer, and the run follows like after any other change of params.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, html, set_props

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.engine.engine import Engine
from apps.explorer.page.attributes import attributes
from apps.explorer.page.state import Display, DisplayId, Named, Notices, Params, Shown
from workbench.analysis.kinds import Analysis
from workbench.analysis.parameters import Parameter
from workbench.analysis.view import View
from workbench.errors import WorkbenchError
from workbench.figures import show_token

__all__ = [
    "changed",
    "display_form",
    "fine",
    "forget_places",
    "lacking",
    "register",
    "token_options",
    "without_places",
]

_SIDE_BY_SIDE = 14  # characters of choices that fit beside their name
_ROUND = 6  # digits of a slider's value: its steps add up in binary


def register(app: Dash, engine: Engine) -> None:
    """The controls of display parameters."""
    answer = Answers(app, engine)

    @answer(
        {
            "display": Output("display", "data"),
            "params": Output("params", "data", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
        },
        inputs={"values": Input({"type": "display", "entry": ALL, "name": ALL, "control": ALL}, "value")},
        state={
            "display": State("display", "data"),
            "params": State("params", "data"),
            "notices": State("notices", "data"),
        },
        prevent_initial_call=True,
    )
    def moved(values: list[Any], display: Display | None, params: Params | None, notices: Notices) -> Answer:
        identity: DisplayId | None = answer.pressed(DisplayId)
        if identity is None:
            return {}
        view = engine.standing[identity.entry]
        try:
            after = changed(engine, identity, answer.value(), display or {})
        except WorkbenchError as error:
            return {"notices": with_notices(notices, [f"{view.title}: {error}"])}
        if after is None:
            return {}
        _twins(view, identity, after)
        finer = fine(engine, params or {}, after)
        if finer == (params or {}):
            return {"display": after}
        for name, value in finer[view.name].items():
            set_props({"type": "param", "entry": view.name, "name": name}, {"value": value})
        return {"display": after, "params": finer}

    @answer(
        Output({"type": "display", "entry": ALL, "name": ALL, "control": "token"}, "data"),
        inputs={"shown": Input("shown", "data"), "form": Input("params-form", "children")},
        state={"controls": State({"type": "display", "entry": ALL, "name": ALL, "control": "token"}, "id")},
    )
    def named_tokens(shown: Shown | None, form: Any, controls: Named) -> Any:
        return [token_options(shown.tokens if shown else ())] * len(controls)


def changed(engine: Engine, identity: DisplayId, value: Any, display: Mapping[str, Any]) -> dict[str, Any] | None:
    """The display parameters after one control moved; None where nothing changed. InputError for a bad value."""
    view = engine.standing[identity.entry]
    param = next((p for p in view.display_parameters if p.name == identity.name), None)
    if param is None:
        return None
    mine = display.get(view.name, {})
    before = mine.get(param.name, param.default)
    if identity.control == "slider":
        if not _slides(param):
            return None
        if value is None or value == slider_value(param, before):
            return None  # it was set, not moved
        if not isinstance(value, int | float):
            raise param.refused(value)
        ends = _ends(param)
        after = None if param.optional and value <= ends[0] else param.check(param.type(round(value, _ROUND)))
    else:
        after = param.parse("" if value is None else str(value))
    return None if after == before else {**display, view.name: {**mine, param.name: after}}


def slider_value(param: Parameter, value: Any) -> float:
    """Where a slider stands: at its low end where there is no value, at an end for what lies beyond."""
    low, high = _ends(param)
    return max(low, min(high, value)) if isinstance(value, int | float) else low


def _slides(param: Parameter) -> bool:
    """Whether a parameter has a slider."""
    return param.type in (int, float) and None not in (param.slider or (param.low, param.high))


def _ends(param: Parameter) -> tuple[float, float]:
    """Where its slider ends."""
    low, high = param.slider or (param.low, param.high)
    return low or 0, high or 0


def _twins(view: View, identity: DisplayId, display: Mapping[str, Any]) -> None:
    """A slider and the number beside it show the same."""
    param = next(p for p in view.display_parameters if p.name == identity.name)
    value, others = display[view.name][param.name], {"type": "display", "entry": view.name, "name": param.name}
    if identity.control == "slider":
        set_props({**others, "control": "number"}, {"value": "" if value is None else value})
    elif identity.control == "number" and _slides(param):
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


def forget_places(engine: Engine, display: Mapping[str, Any], view: str) -> dict[str, Any]:
    """As `without_places`; what the form of the open view shows follows."""
    after = without_places(engine, display)
    for name in set(display.get(view, {})) - set(after.get(view, {})):
        set_props({"type": "display", "entry": view, "name": name, "control": "token"}, {"value": None})
    return after


def without_places(engine: Engine, display: Mapping[str, Any]) -> dict[str, Any]:
    """The display parameters without those that name a token: of another text they mean nothing."""
    places = {
        name: {p.name for p in view.display_parameters if p.dim == "pos"} for name, view in engine.standing.items()
    }
    return {
        name: {key: value for key, value in chosen.items() if key not in places.get(name, ())}
        for name, chosen in display.items()
    }


# --- the form ---------------------------------------------------------------------------------------------------------


def display_form(view: View, chosen: Mapping[str, Any]) -> list[Any]:
    """One control per display parameter; the tokens to choose among are filled in."""
    return [_control(view.name, param, chosen.get(param.name, param.default)) for param in view.display_parameters]


def _control(entry: str, param: Parameter, value: Any) -> Any:
    name = param.name.replace("_", " ")
    identity = {"type": "display", "entry": entry, "name": param.name, "control": "choice"}
    label = html.Span(name, title=param.help, className="param-name")
    if param.dim == "pos":
        return html.Div(
            [label, _token_choice({**identity, "control": "token"}, name, value)], className="display-param"
        )
    if param.type is bool or param.choices:
        choices = ["false", "true"] if param.type is bool else [str(choice) for choice in param.choices]
        shown = str(value).lower() if param.type is bool else str(value)
        fits = sum(map(len, choices)) <= _SIDE_BY_SIDE
        kind, more = (dmc.SegmentedControl, {}) if fits else (dmc.Select, {"allowDeselect": False})
        chosen = kind(id=identity, data=choices, value=shown, size="xs", **more, **attributes({"aria-label": name}))
        return html.Div([label, chosen], className="display-param")
    ends = _ends(param)
    step = 1 if param.type is int else round((ends[1] - ends[0]) / 100, _ROUND)
    number = dmc.NumberInput(
        id={**identity, "control": "number"}, value="" if value is None else value, size="xs", step=step,
        min=param.low, max=param.high, debounce=400, clampBehavior="none", placeholder="none",
        **attributes({"aria-label": name}),
    )  # fmt: skip
    slider = dmc.Slider(
        id={**identity, "control": "slider"}, value=slider_value(param, value), min=ends[0], max=ends[1], step=step,
        size="sm", label=None, thumbLabel=name,
    )  # fmt: skip
    return html.Div([label, number, slider], className="display-param")


def token_options(tokens: Sequence[str]) -> list[dict[str, str]]:
    """The tokens of a prompt to choose among."""
    return [{"value": str(pos), "label": f"{pos} {show_token(text, html=False)}"} for pos, text in enumerate(tokens)]


def _token_choice(identity: Mapping[str, str], name: str, value: Any) -> dmc.Select:
    return dmc.Select(
        id=identity, data=[], value=None if value is None else str(value), placeholder="last", clearable=True,
        searchable=True, size="xs", comboboxProps={"width": 200}, maxDropdownHeight=320,
        **attributes({"aria-label": name}),
    )  # fmt: skip
