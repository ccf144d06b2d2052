"""The controls of a view: which of its figures is drawn, how it is drawn, and what it is computed with."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html

from apps.explorer.page import views
from apps.explorer.page.attributes import attributes
from workbench.analysis.parameters import Parameter
from workbench.analysis.view import Ask, View
from workbench.figures import show_token

__all__ = [
    "ROUND",
    "display_form",
    "figure_choice",
    "filled",
    "form",
    "has_slider",
    "param_form",
    "slider_ends",
    "slider_value",
    "token_options",
]

_SIDE_BY_SIDE = 14  # characters of choices that fit beside their name
ROUND = 6  # digits of a slider's value: its steps add up in binary


def form(
    view: View,
    params: Mapping[str, Any],
    display: Mapping[str, Any],
    tokens: Sequence[str] = (),
    units: Sequence[str] = (),
) -> list[Any]:
    """All controls of a view. params, display: what was chosen, by view; to choose among: tokens, of the prompt, and
    units, which the selection names."""
    drawn = display_form(view, display.get(view.name, {}), tokens) if view.display_parameters else []
    return [*drawn, *param_form(view, params.get(view.name, {}), tokens, units)]


def filled(
    view: View, params: Mapping[str, Any], selection: Mapping[str, Any], units: Sequence[str], pair: str = ""
) -> dict[str, Any]:
    """The parameters of a view that nobody has set and the page names. params: those that were set. pair: the prompt
    that the shown one is compared with, where a study can hold the two against each other."""
    found: dict[str, Any] = {}
    for ask in view.asks:
        if ask.name in params:
            continue
        if ask.pick == "units" and units:
            found[ask.name] = units[0]
        elif ask.pick == "pair" and pair:
            found[ask.name] = pair
        elif ask.pick in ("layer", "head") and {"layer", "head"} <= set(selection):
            found[ask.name] = int(selection[ask.pick])
    return found


def figure_choice(view: View, index: int) -> Any:
    """Which of an analysis's figures and tables is drawn, where it has several."""
    draws = views.drawings(view)
    if len(draws) < 2:
        return ""
    data = [{"label": views.figure_label(draw), "value": str(i)} for i, draw in enumerate(draws)]
    return dmc.SegmentedControl(data=data, value=str(index), size="xs", **attributes({"data-view": view.name}))


def param_form(
    view: View, values: Mapping[str, Any], tokens: Sequence[str] = (), units: Sequence[str] = ()
) -> list[Any]:
    """One control per parameter of an analysis, those that are asked for in words first and the others folded; none for
    those that follow the selection."""
    shown = {param.name: param for param in view.analysis.parameters() if param.name not in view.follows}
    if not shown:
        return [html.Div("It follows the selection." if view.follows else "No parameters.", className="quiet")]
    value = lambda name: values.get(name, shown[name].default)
    asked = [ask for ask in view.asks if ask.name in shown]
    first: list[Any] = [_asked(view.name, ask, shown[ask.name], value(ask.name), tokens, units) for ask in asked]
    rest = [param for name, param in shown.items() if name not in {ask.name for ask in asked}]
    others = [_param_control(view.name, param, value(param.name)) for param in rest]
    if not view.asks or not others:
        return [*first, *others]
    changed = any(value(param.name) != param.default for param in rest)
    more = html.Details([html.Summary("more"), *others], className="more", open=changed)
    return [*first, more]


def _asked(entry: str, ask: Ask, param: Parameter, value: Any, tokens: Sequence[str], units: Sequence[str]) -> html.Div:
    """A gap of the sentence that a form is: its words above the control, its unit behind it."""
    control = _picker(entry, ask, param, value, tokens, units)
    if control is None:  # not `or`: a component without children counts as false
        control = _param_control(entry, param, value, ask.empty)
    control.label, control.className = None, "grow"
    for name, said in attributes({"aria-label": ask.words or param.name}).items():
        setattr(control, name, said)
    take = html.Button("selection", className="plain take", **attributes({"data-take": ask.pick, "data-entry": entry,
                       "data-name": param.name})) if ask.pick else None  # fmt: skip
    behind = [html.Span(ask.unit, className="unit")] if ask.unit else []
    words = html.Div([html.Span(ask.words, title=param.help), *([take] if take else [])], className="row between words")
    return html.Div([words, html.Div([control, *behind], className="row")], className="asked")


def _picker(entry: str, ask: Ask, param: Parameter, value: Any, tokens: Sequence[str], units: Sequence[str]) -> Any:
    """A control that picks what is asked for from the prompt or the selection; None where it is typed."""
    common = {"id": {"type": "param", "entry": entry, "name": param.name}, "size": "xs"}
    if ask.pick == "units":
        return dmc.Autocomplete(**common, data=list(dict.fromkeys(units)), value=str(value), debounce=700)
    known = {one["value"] for one in token_options(tokens)}
    if ask.pick == "pos":
        shown = "" if value is None or value == -1 else str(value)
        if shown and shown not in known:
            return None  # it counts from the end, or is of another prompt: said where it is run
        return dmc.Select(
            **common, data=token_options(tokens), value=shown or None, placeholder=ask.empty, searchable=True,
            clearable=True, comboboxProps={"width": 200},
        )  # fmt: skip
    if ask.pick == "segment":
        chosen = [part.strip() for part in str(value or "").split(",") if part.strip()]
        if not set(chosen) <= known:
            return None  # a text
        return dmc.MultiSelect(
            **common, data=token_options(tokens), value=chosen, placeholder="" if chosen else ask.empty,
            searchable=True, clearable=True, comboboxProps={"width": 200}, debounce=700,
        )  # fmt: skip
    return None


def _param_control(entry: str, param: Parameter, value: Any, empty: str = "") -> Any:
    identity = {"type": "param", "entry": entry, "name": param.name}
    label = html.Span(param.name.replace("_", " "), title=param.help)
    common = {"id": identity, "label": label, "size": "xs", "className": "param"}
    if param.files:
        return dmc.Autocomplete(**common, data=list(param.choices), value=value, debounce=700)
    if param.type is bool or param.choices:
        choices = ["true", "false"] if param.type is bool else [str(choice) for choice in param.choices]
        return dmc.Select(**common, data=_labelled(choices), value=_text(value), allowDeselect=False)
    if param.type in (int, float):
        bounds = {"min": param.low, "max": param.high} if param.low is not None and param.high is not None else {}
        step = 1 if param.type is int else _step(param)
        shown = "" if value is None else value
        return dmc.NumberInput(
            **common, **bounds, value=shown, step=step, debounce=500, clampBehavior="none", placeholder=empty or "none"
        )
    placeholder = empty or ("none" if param.optional else "")
    if param.lines:  # a field of one line would take the ends of lines out, and leave another prompt
        return dmc.Textarea(
            **common, value="" if value is None else str(value), debounce=700, placeholder=placeholder, autosize=True,
            minRows=1, maxRows=6, spellCheck=False,
        )  # fmt: skip
    return dmc.TextInput(**common, value="" if value is None else str(value), debounce=700, placeholder=placeholder)


def _labelled(choices: Sequence[str]) -> list[dict[str, str]]:
    return [{"value": one, "label": {"false": "no", "true": "yes"}.get(one, one)} for one in choices]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _step(param: Parameter) -> float:
    if param.low is None or param.high is None:
        return 0.1
    return float(f"{(param.high - param.low) / 100:.1g}") or 0.01


def display_form(view: View, chosen: Mapping[str, Any], tokens: Sequence[str] = ()) -> list[Any]:
    """One control per display parameter, in words where the view has some. tokens: those of the prompt to choose
    among."""
    asks = {ask.name: ask for ask in view.asks}
    return [
        _display_control(view.name, one, chosen.get(one.name, one.default), tokens, asks.get(one.name))
        for one in view.display_parameters
    ]


def _display_control(entry: str, param: Parameter, value: Any, tokens: Sequence[str], ask: Ask | None) -> html.Div:
    words = ask.words if ask else param.name.replace("_", " ")
    label = html.Span(words, title=param.help, className="words" if ask else "param-name")
    behind = [html.Span(ask.unit, className="unit")] if ask and ask.unit else []
    first, *under = _display_choice(entry, param, words, value, tokens)
    line = html.Div([first, *behind], className="row") if behind else first
    return html.Div([label, line, *under], className="display-param asked" if ask else "display-param")


def _display_choice(entry: str, param: Parameter, words: str, value: Any, tokens: Sequence[str]) -> list[Any]:
    """What a value is chosen with: a token of the prompt, one of some, or a number and the slider under it."""
    identity = {"type": "display", "entry": entry, "name": param.name, "control": "choice"}
    named: dict[str, Any] = {"size": "xs", **attributes({"aria-label": words})}
    if param.dim == "pos":
        return [_token_choice({**identity, "control": "token"}, named, value, tokens)]
    if param.type is bool or param.choices:
        choices = ["false", "true"] if param.type is bool else [str(choice) for choice in param.choices]
        fits = sum(map(len, choices)) <= _SIDE_BY_SIDE
        kind, more = (dmc.SegmentedControl, {}) if fits else (dmc.Select, {"allowDeselect": False})
        return [kind(id=identity, data=_labelled(choices), value=_text(value), **more, **named)]
    ends = slider_ends(param)
    step = 1 if param.type is int else round((ends[1] - ends[0]) / 100, ROUND)
    number = dmc.NumberInput(
        id={**identity, "control": "number"}, value="" if value is None else value, step=step, min=param.low,
        max=param.high, debounce=400, clampBehavior="none", placeholder="none", **named,
    )  # fmt: skip
    slider = dmc.Slider(
        id={**identity, "control": "slider"}, value=slider_value(param, value), min=ends[0], max=ends[1], step=step,
        size="sm", label=None, thumbLabel=words,
    )  # fmt: skip
    return [number, slider]


def token_options(tokens: Sequence[str]) -> list[dict[str, str]]:
    """The tokens of a prompt to choose among."""
    return [{"value": str(pos), "label": f"{pos} {show_token(text, html=False)}"} for pos, text in enumerate(tokens)]


def _token_choice(
    identity: Mapping[str, str], named: Mapping[str, Any], value: Any, tokens: Sequence[str]
) -> dmc.Select:
    return dmc.Select(
        id=identity, data=token_options(tokens), value=None if value is None else str(value),
        placeholder="the last token", clearable=True, searchable=True, comboboxProps={"width": 200},
        maxDropdownHeight=320, **named,
    )  # fmt: skip


def slider_value(param: Parameter, value: Any) -> float:
    """Where a slider stands: at its low end where there is no value, at an end for what lies beyond."""
    low, high = slider_ends(param)
    return max(low, min(high, value)) if isinstance(value, int | float) else low


def has_slider(param: Parameter) -> bool:
    """Whether a parameter has a slider."""
    return param.type in (int, float) and None not in (param.slider or (param.low, param.high))


def slider_ends(param: Parameter) -> tuple[float, float]:
    """Where its slider ends."""
    low, high = param.slider or (param.low, param.high)
    return low or 0, high or 0
