"""The frame of the page: what stands where. Static; everything that changes is put in by callbacks."""

import secrets
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from apps.explorer.engine.continuation import LONGEST
from apps.explorer.page.examples import EXAMPLES, FIRST, FIRST_IDS
from workbench.analysis.kinds import kind_of
from workbench.analysis.view import View
from workbench.loading.pretrained import TOYS

__all__ = ["GRAPH_CONFIG", "POLL", "figure_id", "graph", "page"]

GRAPH_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "displayModeBar": "hover",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "sendChartToCloud"],
}
POLL = 250  # milliseconds between two looks at the jobs, while there are any


def figure_id(name: str) -> dict[str, str]:
    """The id of a figure whose clicks are read and which shows the selection."""
    return {"type": "figure", "name": name}


def graph(name: str, figure: Any = None, **more: Any) -> dcc.Graph:
    """A figure that takes part in the one selection."""
    given = {} if figure is None else {"figure": figure}
    return dcc.Graph(id=figure_id(name), config=GRAPH_CONFIG, responsive=True, className="figure", **given, **more)


def page(
    entries: Mapping[str, View], tabs: Mapping[str, View], models: tuple[str, ...], any_model: bool = False
) -> dmc.MantineProvider:
    """The whole page, for one browser window. any_model: with a field for the name of a model that is not offered."""
    return dmc.MantineProvider(
        [
            *_stores(entries, models),
            html.Div(
                [_header(), _left(models, any_model), _centre(entries, tabs), _right(), _tokens(), _foot()],
                className="frame",
            ),
            _keys_help(),
            dmc.Modal(id="code", title="Python that makes this figure", size="xl", children=[]),
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


def _stores(entries: Mapping[str, View], models: tuple[str, ...]) -> list[Any]:
    first = next(name for name in [*(n for n in entries if n != "surprisal"), *entries])
    return [
        dcc.Store("session", data=secrets.token_hex(8), storage_type="session"),  # the same after a reload
        dcc.Store("window", data=secrets.token_hex(8)),  # another one after a reload
        dcc.Store("loaded", data=None),  # the model that is ready, with its badge and sizes
        dcc.Store("go", data=None),  # Run was pressed: the text as it stood then
        dcc.Store("asked", data=None),  # the latest request
        dcc.Store("shown", data=None),  # the latest request whose results are there
        dcc.Store("done", data={}),  # which results are there
        dcc.Store("selection", data={}),
        dcc.Store("params", data={}),
        dcc.Store("display", data={}),  # what changes only the drawing, by analysis
        dcc.Store("view", data={"name": first, "figure": 0}),
        dcc.Store("notices", data=[]),
        dcc.Store("started", data=None),  # a button with `data-start` was pressed: what it names
        dcc.Store("stopped", data=None),  # the same of `data-cancel`
        dcc.Store("settled", data=None),  # the text that the selection is about
        dcc.Store("edits", data=[]),  # interventions, as phrases
        dcc.Store("asked-b", data=None),  # the same two for the prompt that is compared with
        dcc.Store("shown-b", data=None),
        dcc.Store("continuing", data=None),  # the job that writes more tokens
        dcc.Store("history", data=[], storage_type="local"),  # prompts of this browser, newest first
        dcc.Store("checking", data=None),  # a check that starts as soon as its params are shown
        dcc.Store("woken", data=None),  # something was begun that must be looked at: changes with each
        dcc.Store("idle", data=None),  # the look that found nothing left to do, and what it knew to be begun
        dcc.Store("late", data=0),  # answers to clicks that came after the page stopped waiting
        dcc.Store("take", data=None),  # an export was asked for
        dcc.Store("follow", data=None),  # the selection, for views that are computed from it
        dcc.Store("drawn", data=""),  # what the large view stands for; changes only when it must be drawn anew
        dcc.Store("rested", data=""),  # the same, for what stands around it: follows when a display control rests
        *(dcc.Store({"type": "drawn", "name": name}, data="") for name in entries),
        dcc.Store("link", data=None),  # what the address asked for
        dcc.Location("place", refresh=False),
        dcc.Download("download"),
        dcc.Store("scheme", data="light", storage_type="local"),
        dcc.Interval("poll", interval=POLL, disabled=False),
    ]  # fmt: skip


def _header() -> html.Header:
    return html.Header(
        [
            html.Span("Workbench", className="brand"),
            html.Div(id="model-line", className="model-line"),
            html.Div(
                [
                    html.Button("Copy link", id="link-copy", className="plain"),
                    html.Button("Keys", id="keys-open", className="plain"),
                    html.Button("Light / dark", id="scheme-toggle", className="plain"),
                ],
                className="header-tools",
            ),
        ],
        className="head",
    )


def _left(models: tuple[str, ...], any_model: bool) -> html.Div:
    return html.Div(
        [
            dmc.Select(
                label="Model",
                id="model",
                data=list(models),
                value=models[0],
                size="xs",
                allowDeselect=False,
                comboboxProps={"withinPortal": True},
            ),
            dmc.TextInput(
                id="any-model",
                value="",
                placeholder="or a directory, .gguf or hub name",
                size="xs",
                debounce=True,
                className="" if any_model else "hidden",
                **{"aria-label": "Another model, by name or path"},
            ),
            html.Div([html.Label("Prompt", htmlFor="prompt", className="label"), _chat()], className="row between"),
            dmc.Textarea(
                id="prompt",
                value=FIRST_IDS if models[0] in TOYS else FIRST,
                size="xs",
                autosize=True,
                minRows=4,
                maxRows=10,
                spellCheck=False,
                className="prompt-text",
                debounce=250,
            ),
            html.Div(id="edit-list", className="chips"),
            html.Div(id="prompt-line", className="quiet prompt-line"),
            html.Div(
                [
                    dmc.Select(
                        id="example",
                        placeholder="Examples",
                        data=[
                            {
                                "group": "Examples",
                                "items": [{"label": name, "value": text} for name, text in EXAMPLES.items()],
                            }
                        ],
                        size="xs",
                        clearable=False,
                        className="grow",
                        **{"aria-label": "Example prompts"},
                    ),
                    dmc.Button("Run", id="run", size="xs", rightSection=html.Span("Ctrl ↵", className="kbd")),
                ],
                className="row",
            ),
            _continue(),
            _compare(models),
            html.H2(id="params-title", className="section"),
            html.Div(id="params-form", className="params-form"),
        ],
        className="left",
        role="region",
        **{"aria-label": "Model and prompt"},
    )


def _chat() -> dmc.SegmentedControl:
    """Whether the text is taken as it is or put through the model's chat template."""
    return dmc.SegmentedControl(id="chat", data=["raw", "chat"], value="raw", size="xs", className="chat-choice")


def _compare(models: tuple[str, ...]) -> html.Details:
    model = dmc.Select(
        id="other-model",
        data=list(models),
        value=None,
        placeholder="on the same model",
        size="xs",
        clearable=True,
        **{"aria-label": "Model to compare with"},
    )
    text = dmc.Textarea(
        id="other",
        value="",
        size="xs",
        autosize=True,
        minRows=2,
        maxRows=6,
        spellCheck=False,
        className="prompt-text",
        placeholder="another prompt, or empty for the same",
        **{"aria-label": "Prompt to compare with"},
    )
    return html.Details([html.Summary("Compare with"), text, model], className="quiet compare", id="compare")


def _tabs(shown: Mapping[str, View]) -> dmc.Tabs:
    tabs = [dmc.TabsTab(view.title, value=name, **{"aria-controls": "main-figure"}) for name, view in shown.items()]
    return dmc.Tabs(dmc.TabsList(tabs, className="tabs-list"), id="tabs", value=None, className="tabs")


def _view_list(shown: Mapping[str, View]) -> dmc.Select:
    """All views by what they are computed from, for when there are more than fit as tabs."""
    scopes = {"prompt": "On this prompt", "model": "Of the model", "study": "Studies"}
    data = [
        {
            "group": title,
            "items": [{"value": n, "label": e.title} for n, e in shown.items() if kind_of(e.analysis) == scope],
        }
        for scope, title in scopes.items()
    ]
    return dmc.Select(
        id="view-list",
        data=[group for group in data if group["items"]],
        size="xs",
        searchable=True,
        allowDeselect=False,
        className="view-list",
        comboboxProps={"width": 280, "position": "bottom-end"},
        maxDropdownHeight=420,
        **{"aria-label": "All views"},
    )


def _continue() -> html.Details:
    numbers = [
        dmc.NumberInput(label="tokens", id="continue-n", value=4, min=1, max=LONGEST, size="xs"),
        dmc.NumberInput(label="temperature", id="continue-temperature", value=0, min=0, max=5, step=0.1, size="xs"),
        dmc.NumberInput(label="seed", id="continue-seed", value=0, min=0, size="xs"),
    ]
    return html.Details(
        [
            html.Summary("Continue the prompt"),
            html.Div(numbers, className="row continue"),
            html.Button("Let the model write", id="continue", className="plain", n_clicks=0),
        ],
        className="quiet",
    )


def _centre(entries: Mapping[str, View], shown: Mapping[str, View]) -> html.Div:
    thumbs = [html.Div(_thumb(name, entry), className="thumb-holder") for name, entry in entries.items()]
    return html.Div(
        [
            html.Div([_tabs(shown), _view_list(shown)], className="tabs-row"),
            html.Div(
                [
                    html.Div(id="figure-choice", className="figure-choice"),
                    html.Div(
                        [
                            dmc.SegmentedControl(
                                id="compare-mode",
                                data=["both", "difference"],
                                value="both",
                                size="xs",
                                className="hidden",
                            ),
                            dmc.Popover(
                                [
                                    dmc.PopoverTarget(
                                        dmc.Button(
                                            "?",
                                            id="about",
                                            variant="default",
                                            size="compact-xs",
                                            **{"aria-label": "What this view shows"},
                                        )
                                    ),
                                    dmc.PopoverDropdown(html.Div(id="about-text", className="about", tabIndex=0)),
                                ],
                                width=420,
                                position="bottom-end",
                                withArrow=True,
                                trapFocus=True,
                                withRoles=False,
                            ),
                            _export(),
                            html.Button("Maximise", className="plain", **{"data-maximise": "main"}),
                        ],
                        className="row",
                    ),
                ],
                className="toolbar",
            ),
            html.Div(
                [
                    html.Div(id="table-holder", className="table-holder", **{"data-of": ""}),
                    graph("main"),
                    html.Div(graph("other"), id="other-holder", className="hidden"),
                    html.Div(html.Div("The page is being set up."), id="main-message", className="message"),
                ],
                id="main-figure",
                className="main-figure",
            ),
            html.Div(id="said", className="said"),
            html.Div(thumbs, className="thumbs", role="group", **{"aria-label": "Other views"}),
        ],
        className="centre",
        role="region",
        **{"aria-label": "View"},
    )


def _export() -> dmc.Menu:
    kinds = [
        ("png", "Picture (PNG)"),
        ("svg", "Picture (SVG)"),
        ("html", "Page of its own (HTML)"),
        ("nc", "Data (netCDF)"),
        ("csv", "Data (CSV)"),
        ("py", "Python code"),
    ]
    items = [dmc.MenuItem(title, id={"type": "export", "kind": kind}, n_clicks=0) for kind, title in kinds]
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
            html.Div(id={"type": "thumb-figure", "name": name}, className="thumb-figure"),
        ],
        id={"type": "thumb", "name": name},
        className="thumb",
    )


def _right() -> html.Div:
    return html.Div(
        [
            html.Div(
                [
                    html.H2("Selection", className="section grow"),
                    _intervene(),
                    html.Button("Maximise", className="plain", **{"data-maximise": "right"}),
                ],
                className="row between",
            ),
            html.Div(id="headline", className="chips"),
            html.Div(id="details", className="details"),
        ],
        className="right",
        role="region",
        **{"aria-label": "Details of the selection"},
    )


def _intervene() -> dmc.Menu:
    """What the selection can be changed into; the run follows, beside the intact one."""
    target = dmc.MenuTarget(
        dmc.Button("Intervene", id="intervene", variant="default", size="compact-xs"),
        boxWrapperProps={"role": "group"},
    )
    return dmc.Menu([target, dmc.MenuDropdown([], id="intervene-items")], position="bottom-end")


def _tokens() -> html.Div:
    return html.Div(
        [
            html.Div(id="tokens", className="tokens", role="group", **{"aria-label": "Tokens of the prompt"}),
            html.Div(id="tokens-b", className="tokens", role="group", **{"aria-label": "Tokens of the other prompt"}),
        ],
        className="strip",
    )


def _foot() -> html.Div:
    return html.Div(
        [
            html.Div(id="notice-list", role="alert", **{"aria-live": "assertive"}),
            html.Div("Starting", id="jobs", className="jobs", **{"aria-live": "polite"}),
        ],
        className="foot",
    )


def _keys_help() -> dmc.Modal:
    keys = [
        ("Ctrl Enter", "run the prompt"),
        ("← → ↑ ↓", "move the selection in the large view"),
        ("Escape", "leave the large view, or clear the selection"),
        ("m", "maximise the large view, and back"),
        ("?", "this list"),
    ]
    rows = [dmc.TableTr([dmc.TableTd(dmc.Kbd(key)), dmc.TableTd(what)]) for key, what in keys]
    return dmc.Modal(dmc.Table(dmc.TableTbody(rows)), id="keys-help", title="Keys", size="sm")
