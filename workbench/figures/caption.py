"""What a figure says when it is taken away, below its title: the prompt and those that it was held against, the model,
and the sentence of the result."""

from typing import TYPE_CHECKING, Any

from workbench.figures.text import shorten, show_text, wrapped
from workbench.storage.record import record_of

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["LINE", "caption", "captioned", "drawn_lines", "with_lines"]

_PROMPT = 300  # characters
_WIDTH = 110
_SIZE, LINE = 11, 17  # pixels: of a letter, and of a line
_TOP = 100  # Plotly's own


def caption(result: "xr.Dataset", sentence: str = "") -> list[str]:
    """Lines of plain text: the prompt, its corrupt one, the one that is subtracted, the model with what it was changed
    by, and the sentence (default: the summary), which says what a difference of models or interventions is of."""
    record = record_of(result)
    model, edits = record["model"], record["interventions"]
    about = ", ".join(str(model[name]) for name in ("name", "dtype", "badge") if model.get(name))
    lines = [f"Prompt: {shorten(prompt, _PROMPT)}"] if (prompt := _prompt(result, record)) else []
    lines += [f"Corrupt prompt: {shorten(corrupt, _PROMPT)}"] if (corrupt := _corrupt(result, record)) else []
    if before := _subtracted(record):
        lines.append(f"Minus that of the prompt: {shorten(before, _PROMPT)}")
    lines.append(f"Model: {about}" + (f", with {', '.join(edits)}" if edits else ""))
    return [*lines, *([said] if (said := sentence or str(result.attrs.get("summary", ""))) else [])]


def _prompt(result: "xr.Dataset", record: dict[str, Any]) -> str:
    """The text of the one prompt, or its tokens' texts where there is none; "" where there are several or none."""
    prompts = [prompt for prompt in record["prompts"] if prompt]
    if len(prompts) == 1:
        return _said(prompts[0])
    if "token_text" in result.coords:
        return "".join(map(str, result["token_text"].values))
    return ""


def _said(prompt: Any) -> str:
    """A text as it is, the turns of a chat one behind the other."""
    if isinstance(prompt, str):
        return prompt
    turns = prompt if isinstance(prompt, list) else []
    return " / ".join(f"{turn.get('role')}: {turn.get('content')}" for turn in turns if isinstance(turn, dict))


def _subtracted(record: dict[str, Any]) -> str:
    """The prompt of the result that a difference subtracts, its ids where it has no text; "" where it is the same, or
    there is none of one."""
    before = (record.get("difference") or {}).get("from", {})
    if all(before.get(name) == record[name] for name in ("prompts", "token_ids")):
        return ""
    prompts, ids = before.get("prompts"), before.get("token_ids")
    if isinstance(prompts, list) and len(prompts) == 1 and prompts[0]:
        return _said(prompts[0])
    return f"token ids {' '.join(map(str, ids))}" if isinstance(ids, list) else ""


def _corrupt(result: "xr.Dataset", record: dict[str, Any]) -> str:
    """The prompt that an analysis of two was given, or made (`shown_corrupt`); "" where there is none."""
    given = record["params"].get("corrupt") if isinstance(record.get("params"), dict) else None
    return str(given or result.attrs.get("shown_corrupt", ""))


def captioned(figure: "go.Figure", result: "xr.Dataset", sentence: str = "") -> "go.Figure":
    """The figure with its caption below its title, and as much more room as that takes."""
    return with_lines(figure, drawn_lines(result, sentence))


def drawn_lines(result: "xr.Dataset", sentence: str = "") -> list[str]:
    """The caption in lines that fit below a title, escaped: what the page hands its browser for pictures."""
    return [show_text(line) for text in caption(result, sentence) for line in wrapped(text, _WIDTH)]


def with_lines(figure: "go.Figure", lines: list[str]) -> "go.Figure":
    """The figure with lines below its title. `page/assets/links.js` does the same."""
    title = figure.layout.title.text
    small = f'<span style="font-size:{_SIZE}px">{"<br>".join(lines)}</span>'
    top, pad, more = figure.layout.margin.t, figure.layout.title.pad.b, LINE * len(lines)
    figure.update_layout(
        title_text=f"{title}<br>{small}" if title else small,
        title_pad_b=(pad or 0) + more,  # a title grows downwards from its first line
        margin_t=(_TOP if top is None else top) + more,
    )
    return figure.update_layout(height=figure.layout.height + LINE * len(lines)) if figure.layout.height else figure
