"""An example of what the figure of a study looks like, before it is started; `docs/thumbnails.py` draws them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from dash import html

from workbench.analysis.view import View

__all__ = ["FOLDER", "example", "examples"]

FOLDER = Path(__file__).parent / "assets" / "thumbnails"


@cache
def examples() -> dict[str, str]:
    """By analysis, what its example is of."""
    found: dict[str, str] = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    return found


def example(view: View) -> list[Any]:
    """The picture with its label; nothing for an analysis that has none."""
    on = examples().get(view.name)
    if on is None:
        return []
    alternative = f"Example of a figure of {view.title}: {view.question}"
    picture = html.Img(src=f"assets/thumbnails/{view.name}.webp", alt=alternative, width=460, height=250)
    return [html.Figure([picture, html.Figcaption(f"Example, on {on}: what it draws, and not of this prompt.")])]
