"""The runs of batches: the panel that lists them, what came out so far, and the table of prompts."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import xarray as xr
from dash import dcc, html

from apps.batches.figures import averaged, figures, scatter
from apps.explorer.engine.batches import Known
from apps.explorer.page.attributes import attributes
from apps.explorer.page.graphs import GRAPH_CONFIG, graph
from apps.explorer.page.tables import grid
from workbench.words import counted

__all__ = [
    "PARTS", "batch_list", "batches_panel", "columns_of", "failure_list", "grouped", "offered", "prompt_table",
    "reading", "results_of", "variables_of",
]  # fmt: skip

PARTS = {"results": "Results", "prompts": "Prompts", "failures": "Failures"}
_GROUPINGS = {"prompt": "a row a prompt", "group": "by group", "model": "by model", "document": "by document"}
_ROWS = 5000  # of the table that a browser is sent; an export has all
_FIGURES = 12
_FAILURES = 200


def reading() -> list[Any]:
    """What stands in place of the results of a run until they are there: of many prompts that takes a while."""
    return [html.P("Reading what has come out so far ...", className="quiet")]


def batches_panel() -> dmc.Modal:
    """The panel; callbacks fill it."""
    return dmc.Modal(
        html.Div(
            [
                html.Div(id="batch-list", className="batch-list", role="group", **attributes({"aria-label": "Runs"})),
                html.Div(
                    [_controls(), html.Div(reading(), id="batch-body", className="batch-body")], className="batch-shown"
                ),
            ],
            className="batches",
        ),
        id="batches",
        title="Runs",
        size="96%",
        closeButtonProps={"aria-label": "Close the runs"},
    )


def _controls() -> html.Div:
    parts = [{"label": label, "value": name} for name, label in PARTS.items()]
    ways = [{"label": label, "value": name} for name, label in _GROUPINGS.items()]
    return html.Div(
        [
            html.Div(id="batch-line", className="quiet"),
            html.Div(
                [
                    dmc.SegmentedControl(id="batch-part", data=parts, value="results", size="xs"),
                    _select("batch-variable", "What was measured", ""),
                    _select("batch-by", "Rows", "", data=ways, value="prompt"),
                    _select("batch-x", "Drawn along", "drawn along ..."),
                    _select("batch-y", "Drawn against", "drawn against ..."),
                ],
                className="row",
            ),
        ]
    )


def _select(name: str, label: str, placeholder: str, **more: Any) -> dmc.Select:
    return dmc.Select(
        id=name, size="xs", placeholder=placeholder, searchable=True, className="batch-select",
        comboboxProps={"withinPortal": True}, **{"data": [], "value": None, **more},
        **attributes({"aria-label": label}),
    )  # fmt: skip


def batch_list(runs: Sequence[Known], chosen: str, folder: str) -> list[Any]:
    """One entry a run: its progress, and what can be done with it."""
    if not runs:
        said: list[Any] = [
            f"The folder {folder} holds no run. In the shell, ",
            html.Code("workbench batch run SPEC"),
            " makes one.",
        ]
        return [html.P(said if folder else "This explorer was started without a folder of runs.", className="quiet")]
    return [_entry(known, known.name == chosen) for known in runs]


def _entry(known: Known, is_chosen: bool) -> html.Div:
    state = known.state
    name = html.Button(
        known.name, className="plain batch-name",
        **attributes({"data-batch": known.name, "aria-pressed": "true" if is_chosen else "false"}),
    )  # fmt: skip
    parts: list[Any] = [html.Div([name, *_tools(known)], className="row between")]
    if state is not None:
        share = attributes({"aria-label": f"progress of {known.name}"})
        parts.append(html.Div([html.Progress(value=f"{state.share:.3f}", max="1", **share), html.Span(_far(known))]))
    parts += [html.Div(known.sentence, className="note")] if known.sentence else []
    return html.Div(parts, className="batch-entry")


def _tools(known: Known) -> list[Any]:
    state = known.state
    if state is None:
        return []
    if known.works:
        return [] if state.wants_stop else [_button("Cancel", "halt", known.name)]
    return [_button("Resume", "resume", known.name)] if state.done < state.shards else []


def _button(words: str, kind: str, name: str) -> html.Button:
    return html.Button(words, className="plain", **attributes({f"data-{kind}": name}))


def _far(known: Known) -> str:
    state = known.state
    assert state is not None, "an entry with a state"
    said = f"{state.done} of {state.shards} shards"
    if state.failed:
        said += f", {counted(state.failed, 'failure')}"  # of a prompt, which the tab names; no shard fails
    if known.works:
        said += ", stopping" if state.wants_stop else ", running" if state.workers else ", starting"
    if state.time_left is not None and state.done < state.shards:
        said += f", about {_time(state.time_left)} left"
    return said


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def offered(variables: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """What can be drawn of a run, as ANALYSIS.VARIABLE. variables: of each analysis, with their own axes."""
    return [f"{one}.{name}" for one, own in variables.items() for name, axes in own.items() if _is_drawn(axes)]


def variables_of(analysis: str, result: xr.Dataset) -> list[str]:
    """What can be drawn of an aggregate, as ANALYSIS.VARIABLE."""
    return offered({analysis: {name: [str(dim) for dim in result[name].dims[2:]] for name in averaged(result)}})


def _is_drawn(axes: Sequence[str]) -> bool:
    return len(axes) == 1 or tuple(axes) == ("layer", "head")


def results_of(result: xr.Dataset, variable: str, dark: bool) -> list[Any]:
    """The figures of a variable, a figure a group and model, under the sentence of how much is behind them."""
    from workbench.figures import apply

    drawn = list(islice(figures(result, variable), _FIGURES + 1))
    graphs = [graph(f"batch-{i}", apply(figure, dark)) for i, figure in enumerate(drawn[:_FIGURES])]
    said = [html.P(" ".join([result.attrs["summary"], *_without(result, variable)]))]
    said += [html.P(f"The first {_FIGURES} models and groups; the report has more.")] if len(drawn) > _FIGURES else []
    if not drawn:
        said.append(html.P("Nothing of it is there yet.", className="quiet"))
    return [*said, html.Div(graphs, className="batch-figures")]


def _without(result: xr.Dataset, variable: str) -> list[str]:
    """The groups that have prompts and no value of a variable: an empty place says nothing by itself."""
    has = np.isfinite(result[variable].values).any(axis=tuple(range(2, result[variable].ndim)))
    empty = [
        " of ".join(part for part in (str(group), str(model) if result.sizes["model"] > 1 else "") if part)
        for i, model in enumerate(result["model"].values) for j, group in enumerate(result["group"].values)
        if not has[i, j] and result["n_prompts"].values[i, j]
    ]  # fmt: skip
    named = [one for one in empty if one]
    return [f"There is no value in {', '.join(named[:_FIGURES])}."] if named else []


def columns_of(table: pd.DataFrame) -> list[str]:
    """The columns of the table of prompts that hold numbers."""
    return [str(name) for name in table.columns if table[name].dtype.kind in "fiu"]


def grouped(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """A row a group: how many prompts, and the mean of every column of numbers."""
    numbers = columns_of(table)
    rows = table.groupby(by, sort=False, dropna=False)
    return pd.concat([rows.size().rename("prompts"), rows[numbers].mean()], axis=1).reset_index()


def prompt_table(table: pd.DataFrame, by: str, x: str | None, y: str | None, dark: bool) -> list[Any]:
    """The table, and two of its columns against each other where both are chosen."""
    if table.empty:
        return [html.P("The run has no prompts.", className="quiet")]
    parts: list[Any] = list(_drawn(table, x, y, dark))
    shown = _ordered(table) if by == "prompt" else grouped(table, by)
    said = "A click on a row or a point opens that prompt in every view." if by == "prompt" else "Means of the prompts."
    if len(shown) > _ROWS:
        said += f" The first {_ROWS:,} of {len(shown):,} rows; `workbench batch export` writes all."
    name = "batch-table" if by == "prompt" else "batch-means"
    headers = xr.Dataset({"n": ((), 0, {"long_name": "tokens"})})
    made = grid(shown.head(_ROWS).reset_index(drop=True), headers, name)
    return [html.P(said, className="quiet"), *parts, html.Div(made, className="batch-grid")]


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """What a prompt is and its numbers first: where it came from would push them out of sight."""
    last = [name for name in ("status", "where", "document", "model") if name in table.columns]
    first = [name for name in ("group", "text", "n") if name in table.columns]
    between = [name for name in table.columns if name not in (*first, *last)]
    return table[[*first, *between, *last]]


def _drawn(table: pd.DataFrame, x: str | None, y: str | None, dark: bool) -> Iterator[Any]:
    if x in columns_of(table) and y in columns_of(table):
        figure = scatter(table, str(x), str(y), dark)
        yield dcc.Graph(id="batch-scatter", figure=figure, config=GRAPH_CONFIG, responsive=True, className="batch-plot")


def failure_list(failures: Sequence[dict[str, str]]) -> list[Any]:
    """What failed and was refused, each with its reason."""
    if not failures:
        return [html.P("Nothing failed.", className="quiet")]
    head = dmc.TableThead(dmc.TableTr([dmc.TableTh(name) for name in ("model", "group", "prompt", "analysis", "why")]))
    rows = [
        dmc.TableTr([dmc.TableTd(one[name]) for name in ("model", "group", "where", "analysis", "why")])
        for one in failures[:_FAILURES]
    ]
    more = [html.P(f"and {len(failures) - _FAILURES:,} more.")] if len(failures) > _FAILURES else []
    return [dmc.Table([head, dmc.TableTbody(rows)], fz="xs"), *more]
