"""What two runs hold at a selection, beside each other."""

import json

import numpy as np
import plotly.graph_objects as go

from apps.explorer.page.comparison import values_at, values_table
from apps.explorer.page.views import side_by_side
from workbench.analysis.compare import difference
from workbench.analysis.results import dataset


def run_of(ids, heights, words):
    coords = {"pos": range(len(ids)), "layer": [0, 1], "head": [0, 1, 2]}
    made = dataset(
        None,
        coords,
        height=("pos", np.array(heights, dtype=np.float32), "nats", (0, None), "tallness"),
        word=("pos", words, "text", None, "top token"),
        score=("layer head", np.arange(6.0).reshape(2, 3) * heights[0], "share", None),
    )
    return made.assign_attrs(provenance=json.dumps({"analysis": "planted", "token_ids": ids}))


BEFORE = run_of([5, 6], [1, 2], [" a", " b"])
AFTER = run_of([5, 9, 6], [2, 8, 2.5], [" a", " b", " c"])
CHANGE = difference(BEFORE, AFTER)


def test_both_values_and_their_difference_stand_at_the_counterpart():
    assert values_at(AFTER, CHANGE, {"pos": 2}) == [
        ("tallness (nats)", "2", "2.5", "0.5"),
        ("top token", "·b", "·c", ""),
    ]
    assert values_at(AFTER, CHANGE, {"layer": 1, "head": 2}) == [("score (share)", "5", "10", "5")]


def test_what_has_no_counterpart_is_blank_and_what_is_not_selected_is_left_out():
    assert values_at(AFTER, CHANGE, {"pos": 1, "layer": 1}) == [("tallness (nats)", "–", "8", "–")]
    assert values_at(AFTER, CHANGE, {"pos": 7, "layer": 1, "head": 9}) == []


def test_the_panel_says_whose_figures_are_below():
    table, said = values_table(values_at(AFTER, CHANGE, {"pos": 2}), "intact")
    assert table.className == "values" and "intact" in str(table) and "this run alone" in said.children
    assert values_table([], "intact")[0].children == said.children
    blank = values_table(values_at(AFTER, CHANGE, {"pos": 1}), "intact")  # why there is a stroke in place of a number
    assert "follows another target" in blank[1].children and "follows another" not in str(table)


def test_what_neither_run_has_is_not_laid_upon_the_other_one():
    """As the previous occurrence of a token that occurs once; and a token of its own is no missing value."""
    once = run_of([5, 6], [1, np.nan], [" a", " –"])
    said = str(values_table(values_at(once, difference(once, once), {"pos": 1}), "intact"))
    assert "in this run: there is no such value" in said and "follows another target" not in said
    there = str(values_table(values_at(AFTER, CHANGE, {"pos": 2}), "intact"))
    assert "no such value" not in there and "follows another target" not in there


def test_labels_of_two_figures_stand_alike_so_that_equal_rows_are_side_by_side():
    """A word that is one letter longer turns all labels of its own figure, and lowers its rows."""
    grids = [go.Figure(go.Heatmap(z=[[1]])).update_xaxes(tickangle=angle) for angle in (-90, 0)]
    side_by_side(*grids, "compared")
    assert [grid.layout.xaxis.tickangle for grid in grids] == [-90, -90]
    level = [go.Figure(go.Heatmap(z=[[1]])).update_xaxes(tickangle=0) for _ in range(2)]
    side_by_side(*level, "compared")
    assert [grid.layout.xaxis.tickangle for grid in level] == [0, 0]
