"""Tables of a view: rows that can be sorted, filtered, walked with the keys and clicked, and taken away as CSV."""

import re
from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
import numpy as np
import pandas as pd
import xarray as xr

from apps.template import render
from workbench.analysis.view import View
from workbench.errors import InputError, RefusedError
from workbench.figures import show_token
from workbench.storage.tables import text_of

__all__ = ["csv", "frame_of", "grid", "html", "is_table"]

_LETTER, _BESIDE = 8, 48  # pixels of a header's letter, and of its buttons and edges
_EDGES, _WIDEST = 18, 24  # pixels beside a cell's text, and letters of it that are always seen
_LINES = 3  # of a header, about
_LONGEST = 72  # letters for which a column takes room from shorter ones
_BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
_DIGITS = 3  # significant, as drawn; what is taken away has them all


_ANY_COLUMN = {
    "sortable": True,
    "resizable": True,
    "floatingFilter": True,
    "suppressFloatingFilterButton": True,  # the same choices are in the header's menu
    "wrapHeaderText": True,
    "autoHeaderHeight": True,
}


def is_table(view: View, index: int) -> bool:
    """Whether an index names one of a view's tables, which stand behind its figures."""
    return index >= len(view.figures) and bool(view.tables)


def frame_of(view: View, result: xr.Dataset, index: int) -> pd.DataFrame:
    """One of a view's tables, a named index as its first column. RefusedError where making it breaks."""
    make = view.tables[min(index - len(view.figures), len(view.tables) - 1)]
    try:
        frame = make(result)
    except Exception as error:  # a mistake in one table must not take the page with it
        raise RefusedError(f"no table of {view.title} ({error})", "a table", "Report this") from error
    return frame.reset_index() if frame.index.name else frame.reset_index(drop=True)


def grid(frame: pd.DataFrame, result: xr.Dataset, table: str = "table") -> dag.AgGrid:
    """The table as the page shows it. Every row keeps its place in the frame as `row`. table: its id."""
    columns = {name: _shown(frame[name]) for name in frame.columns}
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return dag.AgGrid(
        id=table,
        rowData=[{**cells, "row": i} for i, cells in enumerate(rows)],
        columnDefs=[_column(frame[name], result) for name in frame.columns],
        defaultColDef=_ANY_COLUMN,
        dashGridOptions={
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
            "suppressFieldDotNotation": True,
            "animateRows": False,
            "rowHeight": 26,
            "floatingFiltersHeight": 30,
            "tooltipShowDelay": 300,
        },
        className="table",
        style={"height": "100%"},
    )


def _column(cells: pd.Series, result: xr.Dataset) -> dict[str, Any]:
    """Header and filter of a column; one named as a variable of the result has its long name and unit."""
    known = result[cells.name].attrs if cells.name in result else {}
    title = str(known.get("long_name", cells.name)).replace("_", " ")
    unit = f", {known['units']}" if known.get("units") else ""
    longest = max(*map(len, re.split(r"[ -]", title)), len(title) // _LINES)  # words of a header are not broken
    widest = 0 if _is_number(cells) else max(map(len, map(str, cells)), default=0)
    least = max(_BESIDE + _LETTER * longest, _EDGES + _LETTER * min(_WIDEST, widest))
    column = {
        "field": cells.name,
        "headerName": title,
        "headerTooltip": f"{cells.name}: {title}{unit}",
        "minWidth": least,
        "flex": max(least, _EDGES + _LETTER * min(_LONGEST, widest)),
    }
    if not _is_number(cells):
        return {**column, "filter": "agTextColumnFilter", "tooltipField": cells.name}
    return {
        **column,
        "filter": "agNumberColumnFilter",
        "filterParams": {"defaultOption": "greaterThanOrEqual"},
        "type": "rightAligned",
    }


def _is_number(cells: pd.Series) -> bool:
    return cells.dtype.kind in "fiu"


def _shown(cells: pd.Series) -> list[Any]:
    """Cells as they are drawn: text made visible, numbers cut to some digits, nothing where there is none."""
    if cells.dtype.kind == "b":
        return ["yes" if value else "no" for value in cells]
    if not _is_number(cells):
        return [_text(str(value)) for value in cells]
    known = np.isfinite(cells.astype(float).to_numpy())
    return [_number(value) if there else None for value, there in zip(cells.tolist(), known, strict=True)]


def _text(text: str) -> str:
    """A cell's text with every character visible: one space between two words is a space, others are of a token."""
    return " ".join(show_token(word, html=False) for word in _BETWEEN_WORDS.split(text)) if text else ""


def _number(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def csv(frame: pd.DataFrame, rows: Sequence[int] | None = None) -> str:
    """The table, or the rows that the page shows in its order, with text as it is and no cell that is a formula."""
    if rows is not None:
        if not all(isinstance(row, int) and 0 <= row < len(frame) for row in rows):
            raise InputError("rows that the table does not have", f"rows 0 to {len(frame) - 1}", "Reload the page")
        frame = frame.iloc[list(rows)]
    return text_of(frame)


def html(frame: pd.DataFrame, title: str) -> str:
    """The table as a page of its own; its text is escaped."""
    return render("explorer/page/table.html", title=title, table=frame.to_html(index=False))  # pandas escapes the cells
