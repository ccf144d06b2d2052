"""The figures of a result as files: a page, pictures, or Plotly's own JSON, as the name ends."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from workbench.errors import UnavailableError, WorkbenchError, in_words
from workbench.files import write_whole
from workbench.storage.endings import PICTURES, need_ending

if TYPE_CHECKING:
    from workbench.analysis.parameters import Values
    from workbench.analysis.view import View

__all__ = ["write_figures"]


def write_figures(view: "View", result: xr.Dataset, display: "Values", path: Path) -> tuple[Path, ...]:
    """Save the figures of a result; returns the files. Of several pictures each is one: `a.png`, `a-2.png`."""
    from apps.cli.report.page import page
    from workbench.figures.caption import captioned

    ending = need_ending(path, PICTURES)
    if ending == "html":
        return (write_whole(path, page(view, result, display).encode()),)
    drawn = [view.drawn(draw, result, display=display) for draw in view.figures]
    figures = [captioned(figure, result, view.said(result, display.values())) for figure in drawn if figure is not None]
    if ending == "json":
        return (write_whole(path, json.dumps([json.loads(f.to_json()) for f in figures], allow_nan=False).encode()),)
    try:
        contents = [figure.to_image(format=ending, width=1000, height=700) for figure in figures]
    except WorkbenchError:
        raise
    except Exception as error:  # kaleido has no browser, or the browser does not start
        raise UnavailableError(
            f"a picture that could not be drawn ({in_words(error)})",
            "kaleido and a browser of the Chromium family that it can start",
            "Install one (on Debian: apt install chromium), name it in BROWSER_PATH, or save as .html",
        ) from error
    names = [path if n == 0 else path.with_name(f"{path.stem}-{n + 1}{path.suffix}") for n in range(len(contents))]
    return tuple(write_whole(name, content) for name, content in zip(names, contents, strict=True))
