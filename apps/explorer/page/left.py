"""The left panel: the model, the prompt, what it is compared with, and the parameters of the open view."""

from typing import Any

import dash_mantine_components as dmc
from dash import html

from apps.explorer.engine.continuation import LONGEST
from apps.explorer.page.attributes import attributes
from apps.explorer.page.examples import EXAMPLES, FIRST, FIRST_IDS
from apps.explorer.page.forms import form
from workbench.analysis.view import View
from workbench.loading.pretrained import TOYS

__all__ = ["left"]


PIN = "keep the prompt that is shown beside others, up to eight, to see what they share"


def left(models: tuple[str, ...], any_model: bool, first: View) -> html.Div:
    """The panel. any_model: with a field for the name of a model that is not offered; first: the view that is open."""
    return html.Div(
        [
            *_model(models, any_model),
            *_prompt(models),
            _continue(),
            _compare(models),
            html.H2(first.title, id="params-title", className="section"),
            html.Div(form(first, {}, {}), id="params-form", className="params-form"),
        ],
        className="left",
        role="region",
        **attributes({"aria-label": "Model and prompt"}),
    )


def _model(models: tuple[str, ...], any_model: bool) -> list[Any]:
    return [
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
            **attributes({"aria-label": "Another model, by name or path"}),
        ),
    ]


def _prompt(models: tuple[str, ...]) -> list[Any]:
    return [
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
        html.Div("The page is being set up.", id="prompt-line", className="quiet prompt-line"),
        html.Div(
            [
                _examples(),
                html.Button("Pin", id="pin", className="plain", title=PIN, **attributes({"data-title": PIN})),
                dmc.Button("Run", id="run", size="xs", rightSection=html.Span("Ctrl ↵", className="kbd")),
            ],
            className="row",
        ),
    ]


def _examples() -> dmc.Select:
    items = [{"label": name, "value": text} for name, text in EXAMPLES.items()]
    return dmc.Select(
        id="example",
        placeholder="Examples",
        data=[{"group": "Examples", "items": items}],
        size="xs",
        clearable=False,
        className="grow",
        **attributes({"aria-label": "Example prompts"}),
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
        **attributes({"aria-label": "Model to compare with"}),
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
        **attributes({"aria-label": "Prompt to compare with"}),
    )
    return html.Details([html.Summary("Compare with"), text, model], className="quiet compare", id="compare")


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
