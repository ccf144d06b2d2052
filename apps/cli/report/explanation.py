"""An explanation as one HTML page that needs no network: the finding on the first screen, then what it stands on."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from apps.template import render
from probes.explain.explain import VIEW
from probes.explain.figures import circuit_figure, heads_figure, pairs_table, parts_table, steps_table, where_figure
from probes.explain.sentences import NOTHING, named, unexplained
from workbench.figures import show_token
from workbench.figures.caption import caption
from workbench.statistics import ENOUGH
from workbench.storage.record import record_of
from workbench.words import hundredths

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["explanation", "numbers"]


def explanation(result: xr.Dataset) -> str:
    """The report of an explanation as HTML; whatever a text holds is shown as text."""
    attrs = result.attrs
    summary = str(attrs["summary"])
    draws = [circuit_figure] if "n_kept" in result and int(result["n_kept"]) else []
    details = [where_figure, heads_figure] if "resid_estimate" in result else []
    figures = [_div(draw(result), first=i == 0) for i, draw in enumerate([*draws, *details])]
    tables = [("What the parts do", parts_table)] if "part_name" in result else []
    tables += [("Test pairs, those on which the circuit keeps least first", pairs_table), ("Steps", steps_table)]
    return render(
        "cli/report/explanation.html",
        title=f"Explained: {attrs['shown_clean']}",
        about=caption(result, " ")[:-1],
        summary=summary,
        nothing=NOTHING in summary,
        numbers=numbers(result),
        left_out=unexplained(result),
        drawing=figures[: len(draws)],
        details=figures[len(draws) :],
        shown=[(name, _visible(str(attrs.get(key, "")))) for name, key in _SHOWN],
        tables=[(name, _table(draw(result), result)) for name, draw in tables],
        nulls=[attrs[name] for name in ("null", "copying_null") if attrs.get(name)],
        partial=bool(attrs.get("partial", False)),
        definition=VIEW.analysis.definition,
        limits=VIEW.analysis.limits,
        source=VIEW.analysis.source,
        provenance=json.dumps(record_of(result), indent=1, ensure_ascii=False),
    )


_SHOWN = (
    ("Clean prompt", "shown_clean"),
    ("Counterfactual", "shown_corrupt"),
    ("Answer", "target"),
    ("Wrong answer", "against"),
    ("How they were made", "made"),
    ("Pairs to rank on, to search on and to test on", "pairs"),
)


def _visible(text: str) -> str:
    """A text of which something is seen: an answer may be a line's end."""
    return text if text.strip() else show_token(text, html=False)


def numbers(result: xr.Dataset) -> list[tuple[str, str, str]]:
    """The three numbers of the first page with their intervals, and what each is; of a result without a circuit none.

    Of fewer than 16 pairs, and where the difference itself may be none, the first two have no interval.
    """
    if "holds" not in result:
        return []
    few = result.sizes["prompt"] < ENOUGH
    why = f"no interval below {ENOUGH} pairs" if few else "no interval: the difference may be none"
    found = []
    for name, what in (
        ("faithfulness", "of the difference is kept by these edges alone"),
        ("completeness", "of it is left when they are taken out"),
        ("holds", "of the pairs keep half of their own difference"),
    ):
        value, low, high = (float(result[f"{name}{end}"]) for end in ("", "_low", "_high"))
        found.append((hundredths(value), named(low, high).strip() or why, what))
    return found


def _table(frame: "pd.DataFrame", result: xr.Dataset) -> dict[str, Any]:
    """A frame as texts; a column that is a variable of the result has its long name and unit."""
    frame = frame.reset_index()
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return {"columns": [_header(str(name), result) for name in frame.columns], "rows": rows}


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _header(name: str, result: xr.Dataset) -> str:
    name = {"layer": "part_layer", "head": "part_head"}.get(name, name) if "part_name" in result else name
    known = result[name].attrs if name in result.data_vars else {}
    title = str(known.get("long_name", name)).replace("_", " ")
    unit = str(known.get("units", ""))
    return f"{title} ({unit})" if unit in ("share", "logits") else title


def _div(figure: "go.Figure", *, first: bool) -> str:
    """A figure as a piece of HTML; the first one brings the drawing library with it."""
    said: str = figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
    return said
