"""Taking a view away: a page of its own, the numbers, and the Python that makes the same figure again."""

import io
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from apps.explorer.engine.engine import Request
from apps.explorer.page.layout import GRAPH_CONFIG
from workbench.analysis.legacy import Entry, named
from workbench.analysis.results import save
from workbench.intervene.text import MEAN_HOOKS, Phrase

__all__ = ["code", "csv", "difference_code", "guarded", "html", "netcdf"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def html(figure: Any) -> str:
    """The figure with the plotting library in one file that opens without a network."""
    return figure.to_html(include_plotlyjs=True, full_html=True, config=GRAPH_CONFIG)


def netcdf(result: xr.Dataset) -> bytes:
    """The whole result with labels, units and provenance; `workbench.results.open_result` reads it."""
    with tempfile.TemporaryDirectory() as place:
        return save(result, Path(place) / "result.nc").read_bytes()


def csv(result: xr.Dataset) -> tuple[bytes, str]:
    """The variables as a table, and the ending of its name: one table per set of dims, zipped if there are several."""
    tables = {}
    for dims in dict.fromkeys(tuple(map(str, v.dims)) for v in result.data_vars.values()):
        names = [name for name, v in result.data_vars.items() if tuple(map(str, v.dims)) == dims]
        tables["_".join(dims) or "scalars"] = _table(result[names], dims)
    if len(tables) == 1:
        return next(iter(tables.values())).encode(), "csv"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, table in tables.items():
            archive.writestr(f"{name}.csv", table)
    return packed.getvalue(), "csv.zip"


def _table(part: xr.Dataset, dims: tuple[str, ...]) -> str:
    if not dims:
        return "name,value\n" + "".join(f"{guarded(name)},{guarded(v.item())}\n" for name, v in part.data_vars.items())
    frame = part.to_dataframe().reset_index()
    for column in frame.columns:
        if frame[column].dtype.kind not in "fiub":
            frame[column] = frame[column].map(guarded)
    return frame.to_csv(index=False)


def guarded(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; numbers stay as they are."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def code(
    entry: Entry,
    request: Request,
    params: Mapping[str, Any],
    figure: int,
    home: Mapping[str, tuple[str, str]],
    display: Mapping[str, Any] | None = None,
) -> str:
    """Python lines that make a figure or table again. home: for entries outside the catalog, their module and name."""
    draw = (*entry.figures, *entry.tables)[figure]
    is_figure = figure < len(entry.figures)
    chosen = _chosen(entry, draw, display)
    drawn = ", ".join(["result", *(f"{name}={value!r}" for name, value in chosen.items())])
    lines = [
        f"from {draw.__module__} import {draw.__name__}",
        *_imports([request], entry),
        *_entry_lines(entry, home),
        f"model = load({request.model!r})",
        *_run_lines(entry, request, params, "result"),
        f"{'figure' if is_figure else 'rows'} = {draw.__name__}({drawn})",
        "figure.show()" if is_figure else "print(rows)",
    ]
    return "\n".join(lines) + "\n"


def _chosen(entry: Entry, draw: Callable, display: Mapping[str, Any] | None) -> dict[str, Any]:
    """The display parameters of a figure that are not at their default."""
    plain, asked = entry.shown({}), named(draw, entry.shown(display or {}))
    return {name: value for name, value in asked.items() if value != plain[name]}


def difference_code(
    entry: Entry,
    runs: Sequence[tuple[Request, Mapping[str, Any]]],
    figure: int,
    home: Mapping[str, tuple[str, str]],
    display: Mapping[str, Any] | None = None,
) -> str:
    """Python lines that make the figure of a difference again. runs: request and params of what is subtracted, and of
    what it is subtracted from."""
    (before, before_params), (after, after_params) = runs
    chosen = _chosen(entry, entry.figures[figure], display)
    drawn = f", display={chosen!r}" if chosen else ""
    lines = [
        "from workbench import difference, difference_figure",
        *_imports([before, after], entry),
        *_entry_lines(entry, home),
        f"model = load({before.model!r})",
        *_run_lines(entry, before, before_params, "before"),
        *([f"model = load({after.model!r})"] if after.model != before.model else []),
        *_run_lines(entry, after, after_params, "after"),
        f"figure = difference_figure(entry, difference(before, after), {figure}{drawn})",
        "figure.show()",
    ]
    return "\n".join(lines) + "\n"


def _entry_lines(entry: Entry, home: Mapping[str, tuple[str, str]]) -> list[str]:
    if entry.name in home:
        return ["from {} import {} as entry".format(*home[entry.name]), ""]
    return ["from probes import CATALOG", "", f"entry = CATALOG.with_plugins().get({entry.name!r})"]


def _run_lines(entry: Entry, request: Request, params: Mapping[str, Any], name: str) -> list[str]:
    """The lines that run an entry on a request and name its result, where `model` is loaded."""
    prompt = [] if entry.scope == "model" else [_prompt(request)]
    edits = _edits(entry, request)
    given = [f"interventions=[{', '.join(edit.code() for edit in edits)}]"] if edits else []
    needs_means = any(edit.how == "mean" for edit in edits)
    return [
        *([f"means = measure_means(model, hooks={MEAN_HOOKS!r})"] if needs_means else []),
        f"{name} = entry.run(",
        *(f"    {argument}," for argument in ["model", *prompt, *given, *(f"{k}={v!r}" for k, v in params.items())]),
        ")",
    ]


def _prompt(request: Request) -> str:
    source = request.tokens.source
    if source.messages is not None:
        return f"Prompt.chat([{{'role': 'user', 'content': {request.text!r}}}])"
    return repr(request.text) if source.text is not None else f"Prompt.ids({list(request.tokens.ids)!r})"


def _edits(entry: Entry, request: Request) -> tuple[Phrase, ...]:
    return request.edits if entry.scope == "prompt" else ()


def _imports(requests: Sequence[Request], entry: Entry) -> list[str]:
    """The import lines that the code of runs needs."""
    edits = [edit for request in requests for edit in _edits(entry, request)]
    words = {"load", *(word for edit in edits for word in re.findall(r"[A-Z]\w+(?=\()", edit.code()))}
    if entry.scope != "model" and any(_prompt(request).startswith("Prompt") for request in requests):
        words.add("Prompt")
    if any(edit.how == "mean" for edit in edits):
        words |= {"measure_means", *map(repr, MEAN_HOOKS)}
    return [f"from workbench import {', '.join(sorted(words))}"]
