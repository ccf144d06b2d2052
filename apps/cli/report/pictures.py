"""The figures of a result as files: a page, pictures, or Plotly's own JSON, as the name ends."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from workbench.errors import UnavailableError, in_words
from workbench.files import write_whole
from workbench.storage.endings import PICTURES, need_ending

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.analysis.parameters import Values
    from workbench.analysis.view import View

__all__ = ["write_figures"]

_WIDTH, _HEIGHT = 1000, 700  # pixels, beside those of the caption


def write_figures(view: "View", result: xr.Dataset, display: "Values", path: Path) -> tuple[Path, ...]:
    """Save the figures of a result; returns the files. Of several pictures each is one: `a.png`, `a-2.png`."""
    from apps.cli.report.page import page
    from workbench.figures.caption import LINE, drawn_lines, with_lines

    ending = need_ending(path, PICTURES)
    if ending == "html":
        return (write_whole(path, page(view, result, display).encode()),)
    drawn = [view.drawn(draw, result, display=display) for draw in view.figures]
    lines = drawn_lines(result, view.said(result, display.values()))
    figures = [with_lines(figure, lines) for figure in drawn if figure is not None]
    if ending == "json":
        return (write_whole(path, json.dumps([json.loads(f.to_json()) for f in figures], allow_nan=False).encode()),)
    contents = [_picture(figure, ending, _HEIGHT + LINE * len(lines)) for figure in figures]
    names = [path if n == 0 else path.with_name(f"{path.stem}-{n + 1}{path.suffix}") for n in range(len(contents))]
    return tuple(write_whole(name, content) for name, content in zip(names, contents, strict=True))


def _picture(figure: "go.Figure", ending: str, height: int) -> bytes:
    """A figure as a picture, drawn by a browser that kaleido starts, without anything of the network.

    By itself kaleido has the browser fetch MathJax from elsewhere, which no label of ours needs: where a firewall
    drops what it is asked, each picture would wait for it, and then fail. Plotly's own `to_image` cannot say so.
    """
    try:
        import kaleido

        size = {"format": ending, "width": _WIDTH, "height": height}
        return bytes(kaleido.calc_fig_sync(figure.to_dict(), opts=size, kopts={"mathjax": False}))
    except Exception as error:  # kaleido has no browser, or the browser does not start
        raise UnavailableError(
            f"a picture that could not be drawn ({in_words(error)})",
            "kaleido (1.0 or later) and a browser of the Chromium family that it can start",
            "Install one (on Debian: apt install chromium), name it in BROWSER_PATH, or save as .html",
        ) from error
