"""A result on its way out: saved where it was asked for, then printed."""

import json
import secrets
import tempfile
from pathlib import Path

import xarray as xr

from apps.cli.mistakes import said_of
from apps.cli.report.pictures import write_figures
from apps.cli.report.places import Places
from apps.cli.report.summary import summary
from workbench.analysis.parameters import Values
from workbench.analysis.results import saved
from workbench.analysis.view import View
from workbench.errors import UnavailableError, WorkbenchError, visible
from workbench.storage.json_text import brief

__all__ = ["deliver", "kept_elsewhere"]


def deliver(view: View, result: xr.Dataset, display: Values, places: Places, as_json: bool = False) -> None:
    """Save first: whatever happens while printing, the result is there.

    as_json: one line of strict JSON on stdout in place of the summary. Where no file of it could be written, neither
    itself nor its figures, it is printed all the same and kept in the folder for temporary files, which the
    UnavailableError names; where that fails, the error is the writer's own.
    """
    out, figure = places.of(view.name)
    files: dict[str, list[str]] = {}
    lost: WorkbenchError | None = None
    if out:
        try:
            files["result"] = [str(path) for path in saved(result, out)]
        except Exception as error:  # bad input and mistakes, too: what the format has no place for, what a library says
            lost = kept_elsewhere(view.name, result, said_of(error))
    try:
        if figure:
            files["figures"] = [str(path) for path in write_figures(view, result, display, figure)]
    except Exception as error:  # the figures alone were asked for, or nothing of it could be written
        if "result" in files:
            raise
        lost = lost or kept_elsewhere(view.name, result, said_of(error))
    finally:
        _print(view, result, display, files, as_json)
    if lost is not None:
        raise lost


def _print(view: View, result: xr.Dataset, display: Values, files: dict[str, list[str]], as_json: bool) -> None:
    if as_json:
        said = brief(result) | {"summary": view.said(result, display.values()), "saved": files}
        print(json.dumps(said, allow_nan=False), flush=True)
        return
    words = {"result": "Saved the result in", "figures": "Saved its figures in"}
    lines = [f"{words[what]} {', '.join(paths)}" for what, paths in files.items()]
    print(visible("\n".join([summary(view, result, display), *lines])), flush=True)


def kept_elsewhere(name: str, result: xr.Dataset, error: WorkbenchError) -> WorkbenchError:
    """Keep a result that could not be saved, as JSON where netCDF has no place for it; the error says where it is, or
    that it is only printed."""
    own = secrets.token_hex(8)  # others use that folder, too: their file of this name may stand there, or their link
    for ending in ("nc", "json"):
        try:
            place = Path(tempfile.gettempdir()) / f"workbench-{name}-{own}.{ending}"
            saved(result, place)
        except Exception:  # where there is no such folder, or what the first way ended in; the error says that
            continue
        remedy = f"The result is kept in {place}: move it to where you want it"
        return UnavailableError(error.got, error.expected, remedy)
    return error
