"""Tables of the page: what stands in their cells is data, and what is taken away is the table itself."""

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from apps.explorer.page import exports, tables
from probes import CATALOG
from workbench.analysis.results import dataset
from workbench.errors import InputError, RefusedError

HOSTILE = ["=cmd()", "<b>x</b>", "a b\n", "\u202eright", "-1", "plain"]


def some_table(result):
    """Rows with every kind of cell."""
    frame = result[["text", "mean_psi"]].to_dataframe()
    frame["layer"], frame["is_word"] = np.arange(len(frame)), frame["mean_psi"] > 0
    return frame.rename_axis("name")


@pytest.fixture
def result():
    psi = np.array([0.123456, np.nan, -0.5, 0.25, 1e-5, 0.0])
    return dataset(
        text=("row", np.array(HOSTILE, dtype=object), "text", None, "string of the segment"),
        mean_psi=("row", psi, "psi", (-1, 1), "mean psi"),
    )


def view():
    return replace(CATALOG.view("logit-lens"), tables=(some_table,))


def test_tables_stand_behind_the_figures(result):
    some = view()
    count = len(some.figures)
    assert not tables.is_table(some, count - 1) and tables.is_table(some, count)
    assert not tables.is_table(CATALOG.view("logit-lens"), count)
    assert tables.frame_of(some, result, count).columns.tolist() == ["name", "text", "mean_psi", "layer", "is_word"]
    with pytest.raises(RefusedError, match="no table"):
        tables.frame_of(replace(some, tables=(lambda result: 1 / 0,)), result, count)


def test_cells_show_every_character_and_numbers_sort_as_numbers(result):
    shown = tables.grid(tables.frame_of(view(), result, 99), result).to_plotly_json()["props"]
    rows, columns = shown["rowData"], {column["field"]: column for column in shown["columnDefs"]}
    assert [row["row"] for row in rows] == list(range(6)) and rows[2]["layer"] == 2
    assert rows[2]["text"] == "a b↵" and "\u202e" not in rows[3]["text"]
    assert [row["mean_psi"] for row in rows] == [0.123, None, -0.5, 0.25, 1e-5, 0.0]
    assert [row["is_word"] for row in rows] == ["yes", "no", "no", "yes", "yes", "no"]
    assert columns["mean_psi"]["filter"] == "agNumberColumnFilter" and columns["text"]["filter"] == "agTextColumnFilter"
    assert columns["mean_psi"]["headerTooltip"] == "mean_psi: mean psi, psi"


def test_a_space_between_words_is_a_space_and_one_of_a_token_is_seen():
    frame = pd.DataFrame({"text": [" to", "made of pairs", "a  b", "L0 MLP", " ", "end ", ""]})
    rows = tables.grid(frame, xr.Dataset()).to_plotly_json()["props"]["rowData"]
    assert [row["text"] for row in rows] == ["·to", "made of pairs", "a··b", "L0 MLP", "·", "end·", ""]


def test_a_long_header_takes_width_rather_than_many_lines():
    names = ["n", "logit of the answer minus that of the wrong one"]
    short, long = tables.grid(pd.DataFrame([[1, 2]], columns=names), xr.Dataset()).to_plotly_json()["props"][
        "columnDefs"
    ]
    assert long["minWidth"] >= 8 * len(names[1]) / 3 > short["minWidth"]


def test_whole_numbers_stay_whole_where_some_are_missing():
    frame = pd.DataFrame({"head": pd.array([4, None, 0], dtype="Int64")})
    shown = tables.grid(frame, xr.Dataset()).to_plotly_json()["props"]
    assert [row["head"] for row in shown["rowData"]] == [4, None, 0]
    assert shown["columnDefs"][0]["filter"] == "agNumberColumnFilter"


def test_long_texts_take_room_from_short_ones():
    frame = pd.DataFrame({"step": ["pairs"], "what": ["w" * 60], "n": [1]})
    step, what, n = tables.grid(frame, xr.Dataset()).to_plotly_json()["props"]["columnDefs"]
    assert what["flex"] > 4 * step["flex"] and what["flex"] > 4 * n["flex"]
    assert what["tooltipField"] == "what" and "tooltipField" not in n  # what is cut off can be read


def test_a_csv_holds_the_rows_that_are_shown_as_they_are_and_no_formula(result):
    frame = tables.frame_of(view(), result, 99)
    read = lambda *rows: pd.read_csv(io.StringIO(tables.csv(frame, *rows)), keep_default_na=False)
    assert read()["text"].tolist() == ["'=cmd()", "<b>x</b>", "a b\n", "\u202eright", "'-1", "plain"]
    assert read([5, 0])["text"].tolist() == ["plain", "'=cmd()"] and read([])["text"].tolist() == []
    assert float(read([0])["mean_psi"][0]) == pytest.approx(0.123456) and float(read([2])["mean_psi"][0]) == -0.5
    for bad in ([6], [-1], ["0"]):
        with pytest.raises(InputError, match="rows"):
            tables.csv(frame, bad)


def test_a_page_of_its_own_escapes_text(result):
    page = tables.html(tables.frame_of(view(), result, 99), "A <title>")
    assert "<b>x</b>" not in page and "&lt;b&gt;x" in page and "A <title>" not in page


@pytest.mark.parametrize("name", [view.name for view in CATALOG.views if view.tables])
def test_code_makes_the_table_again(name):
    view = CATALOG.view(name)
    lines = code_of(view, len(view.figures))
    table = view.tables[0]
    assert re.search(rf"^from {table.__module__} import .*\b{table.__name__}\b", lines, re.MULTILINE)
    assert f"rows = {table.__name__}(result)\nprint(rows)" in lines
    assert "figure.show()" in code_of(view, 0)


def code_of(view, index):
    from apps.explorer.engine.request import Request
    from tests.tiny_models import tiny_model
    from workbench.models.prompt import Prompt, tokenise

    tokens = tokenise(tiny_model("llama"), Prompt.ids([1, 2, 3]))
    return exports.code(view, Request("m", "t", tokens, {}, {}, {}), view.analysis(), index, {})
