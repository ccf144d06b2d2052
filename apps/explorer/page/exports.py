"""Taking a view away: a page of its own, the numbers, and the Python that makes the same figure again."""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xarray as xr

from apps.explorer.engine.request import Request
from apps.explorer.page.graphs import GRAPH_CONFIG
from workbench.analysis.kinds import Analysis
from workbench.analysis.view import View, named
from workbench.figures.caption import captioned
from workbench.intervene.text import MEAN_HOOKS
from workbench.storage.netcdf import encoded
from workbench.storage.tables import tables, text_of

__all__ = ["KINDS", "code", "csv", "difference_code", "html", "netcdf"]

KINDS = {
    "png": "Picture (PNG)",
    "svg": "Picture (SVG)",
    "html": "Page of its own (HTML)",
    "nc": "Data (netCDF)",
    "csv": "Data (CSV)",
    "py": "Python code",
    "toml": "Batch of it (TOML)",
}
_PLAIN = "float32"  # what `load` takes where nothing is said


def html(figure: Any, result: xr.Dataset, said: str = "") -> str:
    """The figure with prompt, model and sentence, in one file that holds the plotting library too."""
    return captioned(figure, result, said).to_html(include_plotlyjs=True, full_html=True, config=GRAPH_CONFIG)


def netcdf(result: xr.Dataset) -> bytes:
    """The whole result with labels, units and provenance; `workbench.open_result` reads it."""
    return encoded(result)


def csv(result: xr.Dataset) -> tuple[bytes, str]:
    """The variables as a table, and the ending of its name: one table per set of dims, zipped if there are several."""
    made = {name: text_of(table) for name, table in tables(result).items()}
    if len(made) == 1:
        return next(iter(made.values())).encode(), "csv"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, table in made.items():
            archive.writestr(f"{name}.csv", table)
    return packed.getvalue(), "csv.zip"


def code(
    view: View,
    request: Request,
    analysis: Analysis,
    figure: int,
    display: Mapping[str, Any] | None = None,
    held: bool = False,
) -> str:
    """Python lines that make a figure or table again. held: the model is the one that `show()` was given."""
    draw = (*view.figures, *view.tables)[figure]
    is_figure = figure < len(view.figures)
    drawn = ", ".join(["result", *(f"{name}={value!r}" for name, value in _chosen(view, draw, display).items())])
    lines = [
        *_imports([request], analysis, {draw.__module__: {draw.__name__}}, held),
        "",
        *_model_lines(request, held),
        *_run_lines(request, analysis, "result"),
        f"{'figure' if is_figure else 'rows'} = {draw.__name__}({drawn})",
        "figure.show()" if is_figure else "print(rows)",
    ]
    return "\n".join(lines) + "\n"


def _chosen(view: View, draw: Callable[..., Any], display: Mapping[str, Any] | None) -> dict[str, Any]:
    """The display parameters of a figure that are not at their default."""
    plain, asked = view.shown().values(), named(draw, view.shown(display).values())
    return {name: value for name, value in asked.items() if value != plain[name]}


def difference_code(
    view: View,
    runs: Sequence[tuple[Request, Analysis]],
    figure: int,
    said: str,
    display: Mapping[str, Any] | None = None,
    held: bool = False,
) -> str:
    """Python lines that make the figure of a difference again. runs: what is subtracted, and what it is subtracted
    from. said: what the title says of that. held: as of `code`."""
    (before, before_analysis), (after, after_analysis) = runs
    chosen = _chosen(view, view.figures[figure], display)
    drawn = f", display={chosen!r}" if chosen else ""
    more = {"workbench.analysis.compare": {"difference", "difference_figure"}, "probes": {"CATALOG"}}
    lines = [
        *_imports([before, after], after_analysis, more, held),
        "",
        f"view = CATALOG.with_plugins().view({view.name!r})",
        *_model_lines(before, held),
        *_run_lines(before, before_analysis, "before"),
        *(_model_lines(after, held) if after.model != before.model else []),
        *_run_lines(after, after_analysis, "after"),
        f"figure = difference_figure(view, difference(before, after), {figure}{drawn})",
        f"figure.update_layout(title_text=figure.layout.title.text + {f': {said}'!r})",
        "figure.show()",
    ]
    return "\n".join(lines) + "\n"


def _model_lines(request: Request, held: bool) -> list[str]:
    """The model in the number format of the page, in another it gives other numbers; one that is held has no name that
    loads it as it is, with the weights and the interventions that it has by now."""
    if not held:
        dtype = "" if request.dtype == _PLAIN else f", dtype=torch.{request.dtype}"
        return [f"model = load({request.model!r}{dtype})"]
    carried = list(request.carried)
    edited = [
        "# every pass of the page carries these out: model = model.edited([...]) with the values that show() was given",
        f"assert [str(given) for given in model.interventions] == {carried!r}, 'not the interventions of the page'",
    ]
    return [
        "# model: the one that show() was given",
        f"assert model.identity.key == {request.weights!r}, 'not the weights of the page'",
        *(edited if carried else []),
    ]


def _run_lines(request: Request, analysis: Analysis, name: str) -> list[str]:
    """The lines that run an analysis on a request and name its result, where `model` is loaded."""
    prompt = [_prompt(request)] if analysis.prompted else []
    given = [f"interventions=[{', '.join(edit.code() for edit in request.edits)}]"] if request.edits else []
    params = ", ".join(f"{name}={value!r}" for name, value in analysis.values().items())
    return [
        *([f"means = measure_means(model, hooks={MEAN_HOOKS!r})"] if _needs_means(request) else []),
        f"{name} = {type(analysis).__name__}({params}).run(",
        *(f"    {argument}," for argument in ["model", *prompt, *given]),
        ")",
    ]


def _needs_means(request: Request) -> bool:
    return any(edit.how == "mean" for edit in request.edits)


def _prompt(request: Request) -> str:
    source = request.tokens.source
    if source.messages is not None:
        return f"Prompt.chat([{{'role': 'user', 'content': {request.text!r}}}])"
    return repr(request.text) if source.text is not None else f"Prompt.ids({list(request.tokens.ids)!r})"


def _imports(
    requests: Sequence[Request], analysis: Analysis, more: Mapping[str, set[str]], held: bool = False
) -> list[str]:
    """The import lines that the code of runs needs. more: names by module."""
    words = {word for request in requests for edit in request.edits for word in edit.words}
    words |= set() if held else {"load"}
    if analysis.prompted and any(_prompt(request).startswith("Prompt") for request in requests):
        words.add("Prompt")
    if any(map(_needs_means, requests)):
        words |= {"measure_means", *map(repr, MEAN_HOOKS)}
    names: dict[str, set[str]] = {module: set(found) for module, found in more.items()}
    names.setdefault(type(analysis).__module__, set()).add(type(analysis).__name__)
    names |= {"workbench": names.get("workbench", set()) | words} if words else {}
    lines = [f"from {module} import {', '.join(sorted(found))}" for module, found in sorted(names.items())]
    return [*(["import torch"] if not held and any(request.dtype != _PLAIN for request in requests) else []), *lines]
