"""The frame of the page: what stands where. Static; everything that changes is put in by callbacks."""

from collections.abc import Mapping

import dash_mantine_components as dmc
from dash import html

from apps.explorer.page.attributes import attributes
from apps.explorer.page.batches import batches_panel
from apps.explorer.page.centre import centre
from apps.explorer.page.left import left
from apps.explorer.page.stores import first_view, stores
from workbench.analysis.view import View

__all__ = ["page"]


def page(
    entries: Mapping[str, View], tabs: Mapping[str, View], models: tuple[str, ...], any_model: bool = False
) -> dmc.MantineProvider:
    """The whole page, for one browser window. any_model: with a field for the name of a model that is not offered."""
    first = tabs[first_view(entries)]
    return dmc.MantineProvider(
        [
            *stores(entries),
            html.Div(
                [_header(), left(models, any_model, first), centre(entries, tabs, first), _right(), _tokens(), _foot()],
                className="frame",
            ),
            _keys_help(),
            batches_panel(),
            dmc.Modal(id="card", title="Card", size="xl", children=[], closeButtonProps=_CLOSE),
            dmc.Modal(
                id="code", title="Python that makes this figure", size="xl", children=[], closeButtonProps=_CLOSE
            ),
        ],
        id="provider",
        forceColorScheme="light",
        theme={
            "primaryColor": "blue",
            "primaryShade": 8,
            "fontFamily": "var(--sans)",
            "fontFamilyMonospace": "var(--mono)",
            "defaultRadius": "sm",
        },
    )


def _header() -> html.Div:
    """The line at the top: no `header`, which a dialog over the page has of its own."""
    return html.Div(
        [
            html.H1(
                "Workbench", className="brand", title="What a language model computes, in figures that answer clicks"
            ),
            html.Div(id="model-line", className="model-line"),
            html.Div(
                [
                    _opens("Tour", "tour", "five steps on an example"),
                    html.Button("Find", id="find", className="plain", title="a view, a head or a token (Ctrl K)"),
                    _opens("Visit", "visit-open", "what was seen, noted and to send"),
                    _opens("Runs", "batches-open", "experiments over many prompts"),
                    html.Button("Copy link", id="link-copy", className="plain"),
                    _opens("Keys", "keys-open", "what each key does"),
                    html.Button("Light / dark", id="scheme-toggle", className="plain"),
                ],
                className="header-tools",
            ),
        ],
        className="head",
        role="region",
        **attributes({"aria-label": "Workbench"}),
    )


def _opens(text: str, name: str, what: str) -> html.Button:
    """A button that opens a sheet; it is found by its name, too."""
    found = attributes({"data-find": text, "data-question": what})
    return html.Button(text, id=name, className="plain", title=what, **found)


def _right() -> html.Div:
    return html.Div(
        [
            html.Div(
                [
                    html.H2("Selection", className="section grow"),
                    html.Button(
                        "Card", id="card-open", className="plain", title="all that is known of the selected unit"
                    ),
                    _intervene(),
                    html.Button("Maximise", className="plain", **attributes({"data-maximise": "right"})),
                ],
                className="row between",
            ),
            html.Div(id="headline", className="chips"),
            html.Div(id="details", className="details"),
        ],
        className="right",
        role="region",
        **attributes({"aria-label": "Details of the selection"}),
    )


_CLOSE = {"aria-label": "Close"}
NOTHING_SELECTED = [dmc.MenuLabel("Select a head, a layer or two tokens first.")]


def _intervene() -> dmc.Menu:
    """What the selection can be changed into; the run follows, beside the intact one."""
    target = dmc.MenuTarget(
        dmc.Button("Intervene", id="intervene", variant="default", size="compact-xs"),
        boxWrapperProps={"role": "group"},
    )
    return dmc.Menu([target, dmc.MenuDropdown(NOTHING_SELECTED, id="intervene-items")], position="bottom-end")


def _tokens() -> html.Div:
    return html.Div(
        [
            html.Div(
                id="tokens", className="tokens", role="group", **attributes({"aria-label": "Tokens of the prompt"})
            ),
            html.Div(
                id="tokens-b",
                className="tokens",
                role="group",
                **attributes({"aria-label": "Tokens of the other prompt"}),
            ),
        ],
        className="strip",
        role="region",
        **attributes({"aria-label": "Tokens"}),
    )


def _foot() -> html.Div:
    return html.Div(
        [
            html.Div(id="notice-list", role="alert", **attributes({"aria-live": "assertive"})),
            html.Div("Starting", id="jobs", className="jobs", **attributes({"aria-live": "polite"})),
        ],
        className="foot",
    )


def _keys_help() -> dmc.Modal:
    keys = [
        ("Ctrl Enter", "run the prompt"),
        ("Ctrl K", "find a view, a head (L18H6), a layer (L18) or a token"),
        ("← → ↑ ↓", "move the selection in the large view"),
        ("Escape", "leave the large view, or clear the selection"),
        ("m", "maximise the large view, and back"),
        ("?", "this list"),
    ]
    rows = [dmc.TableTr([dmc.TableTd(dmc.Kbd(key)), dmc.TableTd(what)]) for key, what in keys]
    return dmc.Modal(dmc.Table(dmc.TableTbody(rows)), id="keys-help", title="Keys", size="sm", closeButtonProps=_CLOSE)
