"""The figures of a result as files: a page, pictures, or Plotly's own JSON, as the name ends."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from workbench.files import write_whole
from workbench.storage.endings import PICTURES, need_ending

if TYPE_CHECKING:
    from workbench.analysis.parameters import Values
    from workbench.analysis.view import View

__all__ = ["write_figures"]

_WIDTH, _HEIGHT = 1000, 700  # pixels, beside those of the caption


def write_figures(view: "View", result: xr.Dataset, display: "Values", path: Path) -> tuple[Path, ...]:
    """Save the figures of a result; returns the files. Of several pictures each is one: `a.png`, `a-2.png`."""
    from apps.cli.report.drawing import pictures
    from apps.cli.report.page import page
    from workbench.figures.caption import LINE, drawn_lines, with_lines

    ending = need_ending(path, PICTURES)
    if ending == "html":
        return (write_whole(path, page(view, result, display).encode()),)
    drawn = [view.drawn(draw, result, display=display) for draw in view.figures]
    lines = drawn_lines(result, view.said(result, display.values()))
    figures = [with_lines(figure, lines) for figure in drawn if figure is not None]
    plain = [json.loads(figure.to_json()) for figure in figures]
    if ending == "json":
        return (write_whole(path, json.dumps(plain, allow_nan=False).encode()),)
    contents = pictures(plain, format=ending, width=_WIDTH, height=_HEIGHT + LINE * len(lines))
    names = [path if n == 0 else path.with_name(f"{path.stem}-{n + 1}{path.suffix}") for n in range(len(contents))]
    return tuple(write_whole(name, content) for name, content in zip(names, contents, strict=True))
