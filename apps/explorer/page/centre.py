"""The centre: the tabs, the large view with what is done with it, and the small views below."""

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import html

from apps.explorer.page.attributes import attributes
from apps.explorer.page.exports import KINDS
from apps.explorer.page.forms import figure_choice
from apps.explorer.page.graphs import graph
from apps.explorer.page.rooms import rooms
from apps.explorer.page.sheet import OPENS, QUESTION, TITLE
from workbench.analysis.view import View

__all__ = ["centre"]


def centre(entries: Mapping[str, View], shown: Mapping[str, View], first: View) -> html.Main:
    """The panel. entries: views with a small multiple; shown: all of them; first: the one that is open."""
    thumbs = [html.Div(_thumb(name, entry), className="thumb-holder") for name, entry in entries.items()]
    return html.Main(
        [
            html.Div(_rooms(shown), className="tabs-row"),
            html.Div(
                [
                    html.Span(id="question", className="question"),
                    _tabs(shown, first.name),
                    _view_list(shown, first.name),
                ],
                className="tabs-row",
            ),
            html.Div(
                [
                    html.Div(figure_choice(first, 0), id="figure-choice", className="figure-choice"),
                    html.Div(id="part-shown", className="part-shown", role="status"),
                    html.Div(_tools(), className="row"),
                ],
                className="toolbar",
            ),
            html.Div(_large(), id="main-figure", className="main-figure"),
            html.Div(id="said", className="said"),
            html.Div(id="pins-row", className="pins", role="group", **attributes({"aria-label": "Pinned prompts"})),
            html.Div(thumbs, className="thumbs", role="group", **attributes({"aria-label": "Other views"})),
        ],
        className="centre",
        **attributes({"aria-label": "View"}),
    )


def _large() -> list[Any]:
    return [
        html.Div(id="table-holder", className="table-holder", **attributes({"data-of": ""})),
        graph("main"),
        html.Div(graph("other"), id="other-holder", className="hidden"),
        html.Div(html.Div("The page is being set up."), id="main-message", className="message"),
    ]


def _tools() -> list[Any]:
    return [
        dmc.SegmentedControl(
            id="compare-mode", data=["both", "difference"], value="both", size="xs", className="hidden"
        ),
        _about(),
        _export(),
        html.Button("Maximise", className="plain", **attributes({"data-maximise": "main"})),
    ]


def _about() -> dmc.Popover:
    words = {"aria-label": "What this view shows"}
    button = dmc.Button("?", id="about", variant="default", size="compact-xs", **words)
    text = html.Div(id="about-text", className="about", tabIndex=0)
    return dmc.Popover(
        [dmc.PopoverTarget(button), dmc.PopoverDropdown(text)],
        width=420,
        position="bottom-end",
        withArrow=True,
        trapFocus=True,
        withRoles=False,
    )


def _rooms(shown: Mapping[str, View]) -> html.Div:
    """What can be asked; the tabs below are those of one room, which the scripts show."""
    buttons = [
        html.Button(
            room.label, className="room", title=room.question,
            **attributes({"data-room": room.name, "data-question": room.question, "aria-pressed": "false"}),
        )
        for room in rooms(shown)
    ]  # fmt: skip
    whole = html.Button(
        "Model",
        className="room",
        title=TITLE,
        **{**OPENS, **attributes({"data-find": TITLE, "data-question": QUESTION})},
    )
    return html.Div(
        [*buttons, whole], className="rooms", role="group", **attributes({"aria-label": "Views by question"})
    )


def _tabs(shown: Mapping[str, View], first: str) -> dmc.Tabs:
    tabs = [
        dmc.TabsTab(
            view.title,
            value=name,
            **attributes(
                {
                    "aria-controls": "main-figure",
                    "data-room": room.name,
                    "data-view": name,
                    "data-turn": name,
                    "data-question": view.question,
                }
            ),
        )
        for room, views in rooms(shown).items()
        for name, view in views.items()
    ]
    return dmc.Tabs(dmc.TabsList(tabs, className="tabs-list"), id="tabs", value=first, className="tabs")


def _view_list(shown: Mapping[str, View], first: str) -> dmc.Select:
    """All views by their question, to search among."""
    data = [
        {"group": room.question, "items": [{"value": name, "label": view.title} for name, view in views.items()]}
        for room, views in rooms(shown).items()
    ]
    return dmc.Select(
        id="view-list",
        value=first,
        data=data,
        size="xs",
        searchable=True,
        allowDeselect=False,
        className="view-list",
        comboboxProps={"width": 280, "position": "bottom-end"},
        maxDropdownHeight=420,
        **attributes({"aria-label": "All views"}),
    )


def _export() -> dmc.Menu:
    items = [dmc.MenuItem(title, **attributes({"data-export": kind})) for kind, title in KINDS.items()]
    return dmc.Menu(
        [
            dmc.MenuTarget(
                dmc.Button("Export", variant="default", size="compact-xs"), boxWrapperProps={"role": "group"}
            ),
            dmc.MenuDropdown(items),
        ],
        position="bottom-end",
    )


def _thumb(name: str, view: View) -> html.Button:
    return html.Button(
        [
            html.Span(view.title, className="thumb-title"),
            html.Div(className="thumb-figure", **attributes({"data-thumb": name})),
        ],
        className="thumb",
        **attributes({"data-turn": name}),
    )
