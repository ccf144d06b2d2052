"""Figures hold the planted numbers where they belong, tell what their axes show, and draw hostile text as text."""

import json
import re
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from workbench import figures
from workbench.errors import InputError
from workbench.figures import (
    apply,
    bars,
    compact,
    depth_pos_grid,
    head_name,
    heads_grid,
    pattern_figure,
    pos_ticks,
    selection,
    selection_shapes,
    series,
    show_text,
    show_token,
    strip,
    token_lattice,
    token_strip,
)
from workbench.figures.axes import pack, unpack
from workbench.figures.edges import merged_edges
from workbench.figures.gaps import spread
from workbench.figures.patterns import block_max
from workbench.figures.text import number, thin, wrapped
from workbench.figures.theme import SCALES

NAN = np.nan
HOSTILE = ["<b>bold</b>", "<img src=x onerror=alert(1)>", "&amp;", "$x^2$", "%{meta}", "a\u202eb", "\x00"]
SURROGATE = "\ud800"  # no xarray string may hold one, a list of tokens may


def data(figure: go.Figure) -> dict:
    """The figure as the browser gets it."""
    return json.loads(figure.to_json())


def texts(figure: go.Figure) -> str:
    """Every string of a figure's traces, axes and title, in one."""
    sent = data(figure)
    sent["layout"].pop("template")
    return json.dumps(sent, ensure_ascii=False)


def heads_result(n_layers=3, n_heads=4) -> xr.Dataset:
    score = np.arange(n_layers * n_heads, dtype=float).reshape(n_layers, n_heads) / 100
    score[1, 2] = NAN
    attrs = {"long_name": "induction score", "units": "attention", "valid_min": 0, "valid_max": 1}
    grid = ("layer", "head")
    return xr.Dataset(
        {
            "score": (grid, score, attrs),
            "score_low": (grid, score - 0.01),
            "score_high": (grid, score + 0.02),
            "score_null": ("layer", np.linspace(0.5, 0.6, n_layers)),
            "score_q": (grid, np.full_like(score, 0.031)),
            "found": (grid, np.nan_to_num(score) > 0.08),
        },
        coords={"layer": np.arange(n_layers), "head": np.arange(n_heads)},
    )


def lens_result(n_depths=4, n_pos=3, tokens=("a", " a", " a")) -> xr.Dataset:
    shape = (n_depths, n_pos)
    prob = np.linspace(0, 1, n_depths * n_pos).reshape(shape)
    words = np.array([f"w{i}" for i in range(n_depths * n_pos * 2)], dtype=object).reshape(*shape, 2)
    return xr.Dataset(
        {
            "prob": (("depth", "pos"), prob, {"units": "probability", "valid_min": 0.0, "valid_max": 1.0}),
            "norm": (("depth", "pos"), 10.0 ** np.arange(n_depths)[:, None] * np.ones(n_pos), {"units": "L2 norm"}),
            "rank": (("depth", "pos"), np.arange(n_depths * n_pos).reshape(shape), {"absent": 5}),
            "words": (("depth", "pos", "rank"), words),
            "word_prob": (("depth", "pos", "rank"), np.full((*shape, 2), 0.25)),
        },
        coords={"depth": range(n_depths), "pos": np.arange(n_pos) + 10, "token_text": ("pos", list(tokens))},
    )


def edge_table() -> dict:
    return {
        "kind": ["attention", "attention", "attention", "mlp", "resid_attn", "resid_mlp"],
        "edge_layer": [1, 1, 0, 0, 0, 0],
        "edge_query": [2, 2, 1, 1, 1, 1],
        "edge_key": [0, 0, 1, 0, 1, 1],
        "edge_head": [3, 5, 1, -1, -1, -1],
        "weight": [0.1, 0.3, 0.35, 0.05, 0.9, 0.6],
    }


FIGURES = {
    "heads": lambda: heads_grid(heads_result(), "score", title="t", mark="found"),
    "depths": lambda: depth_pos_grid(lens_result(), "prob", title="t", text="words", text_value="word_prob"),
    "pattern": lambda: pattern_figure(np.full((3, 3), 0.3), ["a", "a", "b"], "t"),
    "series": lambda: series(heads_result().isel(head=0), "score", "layer", title="t"),
    "strip": lambda: strip(heads_result(), "score", "layer", title="t"),
    "bars": lambda: bars(heads_result().isel(head=0), "score", "layer", title="t"),
    "tokens": lambda: token_strip(lens_result().isel(depth=1), "prob", title="t"),
    "lattice": lambda: token_lattice(edge_table(), ["a", "a", "b"], 2, title="t", start=2),
}


# Text


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" Peter", "·Peter"),
        ("\n\t", "↵→"),
        ("", "∅"),
        ("a\r", "a\\u000d"),
        ("\u00a0", "\\u00a0"),
        ("\u202eabc", "\\u202eabc"),
        ("\u200b", "\\u200b"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("·", "\\u00b7"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("\ufffd", "\ufffd"),
        ("<0x0A>", "<0x0A>"),
        ("漢字 é", "漢字·é"),
    ],
)
def test_show_token_makes_every_character_visible(token, shown):
    assert show_token(token, html=False) == shown


def test_show_token_leaves_nothing_that_plotly_reads():
    assert show_token("<b>&amp;</b>") == "&lt;b&gt;&amp;amp;&lt;/b&gt;"
    assert show_token("$x$") == "&#36;x&#36;"
    assert show_token("%{z}") == "&#37;{z}"


@given(st.text(st.characters(), max_size=20))
def test_shown_tokens_are_printable_and_free_of_markup(token):
    plain, escaped = show_token(token, html=False), show_token(token)
    assert plain.isprintable() and " " not in plain and plain
    plain.encode("utf-8")
    assert not set("<>$") & set(escaped)
    assert "%{" not in escaped
    assert all(re.match(r"&(amp|lt|gt|#36|#37);", escaped[i:]) for i in range(len(escaped)) if escaped[i] == "&")


def test_show_text_keeps_spaces_and_marks():
    assert show_text("logit of ·to <b>\u202e") == "logit of ·to &lt;b&gt;\\u202e"


def test_head_names_and_numbers():
    assert head_name(np.int64(18), 6) == "L18H6"
    assert [number(v) for v in (0.71234, 0.0, -3.2, 12345.6, 1e-7, NAN)] == [
        "0.712", "0", "-3.2", "12,346", "1e-07", "not applicable",
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "limit", "step"), [(5, 5, 1), (6, 5, 2), (31, 12, 5), (31, 4, 10), (700, 32, 50)])
def test_thin_steps_are_round(count, limit, step):
    shown = thin(count, limit)
    assert (shown.step, shown.start) == (step, 0)
    assert len(shown) <= limit


def test_pos_ticks_number_equal_tokens_apart():
    assert pos_ticks(["a", " a", " a"]) == ([0, 1, 2], ["0 a", "1 ·a", "2 ·a"])
    assert pos_ticks(["x", "y"], positions=[7, 9]) == ([0, 1], ["7 x", "9 y"])
    ticks, labels = pos_ticks([" internationalization"] * 100, limit=10, width=6)
    assert ticks == list(range(0, 100, 10))
    assert labels[3] == "30 ·inte…"


# Grids


def test_heads_grid_puts_layers_upwards_and_heads_across():
    result = heads_result()
    figure = heads_grid(result, "score", title="Induction")
    heat = figure.data[0]
    np.testing.assert_array_equal(heat.z, result["score"].values.astype(np.float32))
    assert heat.z.dtype == np.float32
    low, high = figure.layout.yaxis.range
    assert low < high  # layer 0 at the bottom
    assert heat.hovertext[2][3] == "<b>L2H3</b> 0.11 [0.1, 0.13]<br>null 0.6<br>q = 0.031"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    assert figure.layout.coloraxis.colorbar.title.text == "attention"


def test_heads_grid_does_not_care_for_the_order_of_dims():
    result = heads_result()
    turned = result.transpose("head", "layer")
    assert data(heads_grid(turned, "score", title="t")) == data(heads_grid(result, "score", title="t"))


def test_missing_heads_are_a_gap_with_a_cross_and_no_number():
    figure = heads_grid(heads_result(), "score", title="t")
    heat, crosses = figure.data
    assert np.isnan(heat.z[1, 2]) and np.isnan(heat.z).sum() == 1
    assert heat.hovertext[1][2] == "<b>L1H2</b> not applicable"
    assert (crosses.x, crosses.y) == ((2,), (1,))
    assert crosses.hoverinfo == "skip"


def test_marks_stand_on_the_named_heads():
    result = heads_result()
    by_variable = heads_grid(result, "score", title="t", mark="found", mark_name="induction head").data[-1]
    by_pairs = heads_grid(result, "score", title="t", mark=[(2, 1), (2, 2), (2, 3)]).data[-1]
    assert (by_variable.x, by_variable.y) == (by_pairs.x, by_pairs.y) == ((1, 2, 3), (2, 2, 2))
    assert by_variable.name == "induction head" and by_variable.showlegend
    with pytest.raises(InputError, match="L9H1"):
        heads_grid(result, "score", title="t", mark=[(9, 1)])


def test_missing_flags_mark_nothing():
    result = heads_result()
    result["found"] = result["found"].astype("int8").assign_attrs(absent=-1)
    result["found"][0, 0], result["found"][2, 3] = -1, -1
    assert heads_grid(result, "score", title="t", mark="found").data[-1].x == (1, 2)
    result["found"] = result["found"].where(result["found"] >= 0).drop_attrs()
    assert heads_grid(result, "score", title="t", mark="found").data[-1].x == (1, 2)


def test_signed_scores_are_centred_at_zero():
    result = heads_result()
    result["score"] = (result["score"] - 0.02).assign_attrs(valid_min=-1, valid_max=0.5)
    figure = heads_grid(result, "score", title="t")
    assert figure.layout.meta["scale"] == "signed"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    narrow = heads_grid(result, "score", title="t", color_range="data").layout.coloraxis
    assert narrow.cmax == pytest.approx(0.09) and narrow.cmin == -narrow.cmax


def test_color_range_is_the_declared_one_unless_asked():
    result = heads_result()
    assert heads_grid(result, "score", title="t", color_range="data").layout.coloraxis.cmax == pytest.approx(0.11)
    assert heads_grid(result, "score", title="t", color_range=(0.2, 0.4)).layout.coloraxis.cmin == 0.2
    result["score"].attrs = {"valid_min": 0.0, "valid_max": np.inf}
    open_ended = heads_grid(result, "score", title="t")
    assert open_ended.layout.meta["scale"] == "amount"
    assert (open_ended.layout.coloraxis.cmin, open_ended.layout.coloraxis.cmax) == (0, pytest.approx(0.11))
    constant = heads_grid(result * 0, "score", title="t", color_range="data").layout.coloraxis
    assert constant.cmin < constant.cmax


def test_depth_pos_grid_holds_numbers_text_and_ranked_tokens():
    result = lens_result()
    figure = depth_pos_grid(result, "prob", title="t", text="words", text_value="word_prob")
    heat = figure.data[0]
    np.testing.assert_array_equal(heat.z, result["prob"].values.astype(np.float32))
    assert heat.text[1][2] == "w10"
    assert heat.hovertext[1][2] == (
        "<b>depth 1, token 12 ·a</b><br>prob (probability): 0.455<br>1 w10 0.25<br>2 w11 0.25"
    )
    assert heat.hovertext[0][0].startswith("<b>depth 0 (embedding), token 10 a</b>")
    assert figure.layout.xaxis.ticktext == ("10 a", "11 ·a", "12 ·a")
    assert figure.layout.yaxis.title.text == "depth, upwards"


def test_listed_limits_the_ranks_in_the_hover():
    hover = depth_pos_grid(lens_result(), "prob", title="t", text="words", listed=1).data[0].hovertext[1][2]
    assert hover.endswith("<br>1 w10")


def test_cell_text_is_left_out_where_cells_are_too_narrow():
    wide = lens_result(n_pos=12, tokens=["a"] * 12)
    narrow = lens_result(n_pos=60, tokens=["a"] * 60)
    assert depth_pos_grid(wide, "prob", title="t", text="words").data[0].texttemplate == "%{text}"
    assert depth_pos_grid(narrow, "prob", title="t", text="words").data[0].texttemplate is None


def test_log_scale_draws_logarithms_and_says_values():
    figure = depth_pos_grid(lens_result(), "norm", title="t", scale="log")
    np.testing.assert_allclose(figure.data[0].z[:, 0], [0, 1, 2, 3], atol=1e-6)
    bar = figure.layout.coloraxis.colorbar
    assert (bar.tickvals, bar.ticktext) == ((0, 1, 2, 3), ("1", "10", "100", "1,000"))
    assert "norm (L2 norm): 1,000" in figure.data[0].hovertext[3][0]


def test_ranks_start_at_one_and_missing_ranks_are_gaps():
    figure = depth_pos_grid(lens_result(), "rank", title="t", scale="rank")
    heat = figure.data[0]
    assert np.isnan(heat.z[0, 0])  # rank 0 does not exist
    assert np.isnan(heat.z[1, 2])  # 5 is this variable's fill value
    assert "not applicable" in heat.hovertext[1][2]
    assert figure.layout.coloraxis.cmin == 0  # log10 of rank 1


def test_exclude_first_takes_position_zero_out_of_the_range():
    result = lens_result().assign_coords(pos=[0, 1, 2])
    result["norm"][:, 0] = 1e9
    assert depth_pos_grid(result, "norm", title="t", scale="log").layout.coloraxis.cmax == pytest.approx(9)
    figure = depth_pos_grid(result, "norm", title="t", scale="log", exclude_first=True)
    assert figure.layout.coloraxis.cmax == pytest.approx(3)
    assert figure.data[0].z[0, 0] == pytest.approx(9)


def test_half_depths_are_named_and_thinned():
    result = lens_result(n_depths=40).assign_coords(depth=np.arange(40) / 2)
    figure = depth_pos_grid(result, "prob", title="t")
    assert figure.data[0].hovertext[1][0].startswith("<b>depth 0.5, token 10")
    assert figure.layout.yaxis.ticktext == ("0", "2.5", "5", "7.5", "10", "12.5", "15", "17.5")
    assert selection(figure.layout.meta, {"x": 0, "y": 3}) == {"pos": 10, "depth": 1.5}


def test_layer_grids_are_drawn_too():
    result = lens_result().rename(depth="layer")
    figure = depth_pos_grid(result, "prob", title="t")
    assert figure.layout.meta["axes"] == {"x": "pos", "y": "layer"}
    assert figure.data[0].hovertext[0][0].startswith("<b>layer 0, token")


# Patterns


def test_pattern_keeps_query_rows_and_blanks_the_future():
    pattern = np.array([[1.0, 9, 9], [0.3, 0.7, 9], [0.2, 0.5, 0.3]])
    figure = pattern_figure(pattern, ["a", " a", " a"], "L1H2")
    z = figure.data[0].z
    np.testing.assert_allclose(z[np.tril_indices(3)], pattern[np.tril_indices(3)], rtol=1e-6)
    assert np.isnan(z[np.triu_indices(3, 1)]).all()
    assert len(figure.data) == 1  # the future is blank, not crossed out
    top, bottom = figure.layout.yaxis.range[::-1]
    assert top < bottom  # query 0 at the top
    assert figure.layout.xaxis.title.text == "attends to (key)"
    assert figure.layout.yaxis.title.text == "attends from (query)"
    assert figure.layout.coloraxis.cmax == pytest.approx(1.0)


def test_pattern_colours_can_leave_the_sink_out():
    pattern = np.array([[1.0, 0, 0], [0.96, 0.04, 0], [0.9, 0.02, 0.08]])
    figure = pattern_figure(pattern, ["a", "b", "c"], "L1H2", exclude_first=True)
    assert figure.layout.coloraxis.cmax == pytest.approx(0.08)
    assert "without key 0" in figure.layout.title.text
    assert figure.data[0].z[2, 0] == pytest.approx(0.9)


def test_long_patterns_show_the_largest_of_every_block_and_say_so():
    random = np.random.default_rng(0)
    pattern = random.random((50, 50))
    figure = pattern_figure(pattern, [f"t{i}" for i in range(50)], "L1H2", limit=17)
    assert figure.data[0].z.shape == (17, 17)
    assert "largest of each 3 x 3 tokens" in figure.layout.title.text.replace("<br>", " ")
    visible = np.where(np.tri(50, dtype=bool), pattern, -1)
    assert figure.data[0].z[9, 4] == pytest.approx(visible[27:30, 12:15].max())
    assert figure.data[0].z[16, 16] == pytest.approx(visible[48:, 48:].max())
    assert selection(figure.layout.meta, {"x": 12, "y": 27}) == {"key": 12, "query": 27}
    assert len(pattern_figure(random.random((1024, 1024)), ["x"] * 1024, "t").to_json()) < 1e6


def test_block_max_agrees_with_a_plain_loop():
    values = np.random.default_rng(1).normal(size=(11, 11))
    values[:4, :4], values[7, 7] = NAN, NAN
    pooled = block_max(values, 4)
    for row in range(3):
        for column in range(3):
            block = values[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            known = block[~np.isnan(block)]
            largest = known[np.abs(known).argmax()] if known.size else NAN  # in size: a difference may be negative
            np.testing.assert_equal(pooled[row, column], largest)


def test_a_head_that_looks_at_key_0_only_shows_no_structure_elsewhere():
    sink = np.tri(4) * 6e-8
    sink[:, 0] = 1 - sink[:, 1:].sum(1)
    figure = pattern_figure(sink, list("abcd"), "a sink", exclude_first=True)
    assert figure.layout.coloraxis.cmax == 0.01


def test_a_difference_is_drawn_around_zero_whatever_its_figure_asks_for():
    def change(values):
        attrs = {"units": "share", "long_name": "shift", "valid_min": -1.0, "valid_max": 1.0, "difference": 1}
        return xr.Dataset({"shift": (("layer", "head"), np.array([values]), attrs)})

    for asked in ({}, {"scale": "log"}, {"color_range": (0.0, 1.0)}):
        figure = heads_grid(change([0.2, -0.5]), "shift", title="change", **asked)
        assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-0.5, 0.5)
        assert figure.layout.meta["scale"] == "signed"
    assert heads_grid(change([2e-8, -5e-8]), "shift", title="nothing").layout.coloraxis.cmax == 1e-3


def test_pattern_of_another_length_is_refused():
    with pytest.raises(InputError, match="2 tokens"):
        pattern_figure(np.ones((3, 3)), ["a", "b"], "t")


# Lines, points, bars


def test_series_draws_values_band_and_null():
    result = heads_result().isel(head=0).drop_vars("found")
    figure = series(result, "score", "layer", title="t")
    band, line, null = figure.data
    np.testing.assert_allclose(line.y, [0.0, 0.04, 0.08])
    assert line.x == figure.layout.xaxis.tickvals == (0.0, 1.0, 2.0)  # there is no layer 0.5
    assert band.fill == "toself" and band.x == (0, 1, 2, 2, 1, 0, None)
    np.testing.assert_allclose(np.array(band.y[:-1], float), [-0.01, 0.03, 0.07, 0.10, 0.06, 0.02])
    np.testing.assert_allclose(null.y, [0.5, 0.55, 0.6])
    assert figure.layout.yaxis.title.text == "induction score (attention)"
    assert len(series(result, "score", "layer", title="t", null=False).data) == 2


def test_series_has_one_line_for_each_value_and_no_bridge_over_gaps():
    result = heads_result(n_layers=5)
    figure = series(result, "score", "layer", by="head", title="t")
    lines = [trace for trace in figure.data if trace.showlegend and trace.name != "null"]
    assert [line.name for line in lines] == ["head 0", "head 1", "head 2", "head 3"]
    np.testing.assert_allclose(lines[2].y, result["score"].values[:, 2])
    assert len({line.line.dash for line in lines}) == len({line.marker.symbol for line in lines}) == 4
    band = figure.data[4]  # of head 2, whose layer 1 is missing: a polygon on either side of it
    assert [x for x in band.x if x is not None] == [0, 0, 2, 3, 4, 4, 3, 2]
    assert band.x.count(None) == 2
    assert [trace.name for trace in figure.data if trace.name == "null" and trace.showlegend] == ["null"]


def test_series_of_numbers_is_drawn_at_the_numbers():
    result = xr.Dataset({"f": ("threshold", [1.0, 2.0, 3.0])}, coords={"threshold": [0.001, 0.04, 1.0]})
    figure = series(result, "f", "threshold", title="t", log_x=True)
    assert figure.data[0].x == (0.001, 0.04, 1.0)
    assert figure.layout.xaxis.type == "log"
    assert series(result, "f", "threshold", title="t").layout.xaxis.tickvals is None
    assert figure.layout.xaxis.range[0] < -3 < 0 < figure.layout.xaxis.range[1]
    assert selection(figure.layout.meta, {"x": 0.04, "y": 2.0}) == {"threshold": 0.04}
    with pytest.raises(InputError):
        series(result.assign_coords(threshold=[-1.0, -2.0, 0.0]), "f", "threshold", title="t", log_x=True)


def test_labels_on_a_logarithmic_axis_do_not_lie_over_each_other():
    """Of a run that is kept every ten steps all labels but four stood in the last tenth: 160251343430."""
    steps = np.array([1, 6, 20, *range(30, 501, 10)], float)
    result = xr.Dataset({"f": ("step", np.arange(len(steps), dtype=float))}, coords={"step": steps})
    ticks = np.array(series(result, "f", "step", title="t", log_x=True).layout.xaxis.tickvals)
    apart = np.diff(np.log10(ticks))
    assert apart.min() >= np.log10(500) / 8 * (1 - 1e-9) and len(ticks) >= 5
    assert ticks[0] == 1 and ticks[-1] == 500
    one = result.isel(step=[3])
    assert series(one, "f", "step", title="t", log_x=True).layout.xaxis.tickvals == (30.0,)


def test_series_over_tokens_and_several_variables():
    result = lens_result().isel(depth=1)
    figure = series(result, ["prob", "norm"], "pos", title="t")
    assert [trace.name for trace in figure.data] == ["prob", "norm"]
    assert figure.data[0].x == (0, 1, 2)
    assert figure.layout.xaxis.ticktext == ("10 a", "11 ·a", "12 ·a")


def test_several_variables_share_an_axis_that_is_named_after_none_of_them():
    """The share of the MLP is no share of attention."""
    of = lambda name, unit: ("layer", [0.1, 0.2], {"long_name": f"share of {name}", "units": unit})
    same = xr.Dataset({"attention": of("attention", "share"), "mlp": of("the MLP", "share")}, coords={"layer": [0, 1]})
    assert series(same, ["attention", "mlp"], "layer", title="t").layout.yaxis.title.text == "share"
    assert series(same, "mlp", "layer", title="t").layout.yaxis.title.text == "share of the MLP"
    mixed = same.assign(mlp=of("the MLP", "nats"))
    assert series(mixed, ["attention", "mlp"], "layer", title="t").layout.yaxis.title.text == "share, nats"


def test_strip_has_every_known_point_in_its_group():
    values = np.array([[1.0, 2.0, NAN], [3.0, 4.0, 5.0]])
    result = xr.Dataset(
        {"v": (("domain", "prompt"), values), "v_low": ("domain", [1.2, 3.5]), "v_high": ("domain", [1.9, 4.5])},
        coords={"domain": ["prose", "<code>"], "prompt": [10, 11, 12], "text": ("prompt", ["x", "<b>", "z"])},
    )
    figure = strip(result, "v", "domain", title="t", text="text")
    prose, code, means = figure.data
    assert sorted(prose.y) == [1, 2] and sorted(code.y) == [3, 4, 5]
    assert all(abs(x - 1) <= 0.25 for x in code.x)
    assert code.customdata[1] == {"domain": "<code>", "prompt": 11}
    assert code.hovertext[1] == "&lt;code&gt;, prompt 11: 4<br>&lt;b&gt;"
    np.testing.assert_allclose(means.y, [1.5, 4.0])
    np.testing.assert_allclose(means.error_y.array, [0.4, 0.5])
    np.testing.assert_allclose(means.error_y.arrayminus, [0.3, 0.5])
    assert figure.layout.xaxis.ticktext == ("prose", "&lt;code&gt;")


def test_bars_keep_order_or_the_largest():
    result = xr.Dataset(
        {
            "v": ("component", [1.0, -5.0, NAN, 3.0]),
            "v_low": ("component", [0.5, -6.0, NAN, 2.0]),
            "v_high": ("component", [2.0, -4.5, NAN, 4.0]),
            "v_null": 0.25,
        },
        coords={"component": ["L0H1", "<mlp>", "embed", "bias"]},
    )
    whole = bars(result, "v", "component", title="t")
    np.testing.assert_array_equal(whole.data[0].x, [1, -5, NAN, 3])
    np.testing.assert_allclose(whole.data[0].error_x.array[:2], [1, 0.5])
    np.testing.assert_allclose(whole.data[0].error_x.arrayminus[:2], [0.5, 1])
    np.testing.assert_array_equal(whole.data[1].x, [0.25] * 4)
    assert whole.layout.yaxis.range[0] > whole.layout.yaxis.range[1]  # the first on top
    assert whole.layout.yaxis.ticktext == ("L0H1", "&lt;mlp&gt;", "embed", "bias")
    largest = bars(result, "v", "component", title="t", limit=2, labels=["a", "b", "c", "d"])
    np.testing.assert_array_equal(largest.data[0].x, [3, -5])
    assert largest.layout.yaxis.ticktext == ("d", "b")
    assert selection(largest.layout.meta, {"x": 3, "y": 0}) == {"component": "bias"}


def test_token_strip_has_one_bar_for_each_token():
    result = lens_result().isel(depth=1)
    result["prob"][1] = NAN
    result["flag"] = ("pos", [False, False, True])
    figure = token_strip(result, "prob", title="t", mark="flag")
    assert figure.data[0].x == (0, 1, 2)
    assert np.isnan(figure.data[0].y[1])
    assert figure.data[0].hovertext[2].startswith("token 12 ·a<br>prob (probability): 0.455")
    assert figure.data[1].x == (2,)


# Lattice


def test_edges_of_heads_are_merged_and_named():
    merged = {(e.kind, e.layer, e.query, e.key): e for e in merged_edges(edge_table())}
    assert len(merged) == 5
    both = merged["attention", 1, 2, 0]
    assert both.weight == pytest.approx(0.4)
    assert both.heads == ((5, 0.3), (3, 0.1))
    assert ("mlp", 0, 1, 1) in merged  # an MLP stays on its token, whatever its key says


def drawn_lines(figure, name: str) -> list:
    """First and last point of every line that a style's paths hold."""
    found = []
    for shape in figure.layout.shapes:
        if shape.name == name and not shape.fillcolor:
            for piece in shape.path.split("M")[1:]:
                words = piece.replace("V", f"L{piece.split(',')[0]},").split("L")
                ends = [tuple(map(float, word.split(","))) for word in (words[0], words[-1])]
                found.append((ends[0], ends[1]))
    return sorted(found)


def test_lattice_edges_lie_where_the_parts_flow():
    figure = token_lattice(edge_table(), ["a", "a", "b"], 2, title="t", start=2)
    between = drawn_lines(figure, "attention")
    assert between == [((0, 1), (2, 1.5)), ((1, 0), (1, 0.5))]  # from a key up to half a block
    assert drawn_lines(figure, "MLP") == [((1, 0.5), (1, 1))]
    assert drawn_lines(figure, "residual") == [((1, 0), (1, 1))]  # two that follow each other are one line
    named = [trace for trace in figure.data if trace.showlegend]
    assert [trace.name for trace in named] == ["residual", "attention", "MLP"]
    assert len({trace.line.dash for trace in named}) == 3 and figure.layout.showlegend
    lines = {shape.name: shape.line.dash for shape in figure.layout.shapes if shape.name and not shape.fillcolor}
    assert lines == {trace.name: trace.line.dash for trace in named}


def answers(figure) -> list[dict]:
    """Every point that answers, as a click sends it, with its hover text."""
    sent = data(figure)["data"]
    return [
        {"x": float(x), "y": float(y), "curveNumber": curve, "customdata": trace["customdata"][i]}
        | {"text": trace["hovertext"][i]}
        for curve, (trace, drawn) in enumerate(zip(sent, figure.data, strict=True))
        if "hovertext" in trace
        for i, (x, y) in enumerate(zip(drawn.x, drawn.y, strict=True))
    ]


def test_lattice_middles_answer_for_their_edges():
    figure = token_lattice(edge_table(), ["a", "<b>", "c"], 2, title="t")
    points = [(point, selection(data(figure)["layout"]["meta"], point)) for point in answers(figure)]
    assert len(points) == 3
    ((between, chosen),) = [pair for pair in points if pair[1].get("query") == 2]
    assert (between["x"], between["y"]) == (1.0, 1.25)
    assert "<b>0.4</b><br>H5 0.3 H3 0.1" in between["text"]
    assert chosen == {"part": "attention", "layer": 1, "query": 2, "key": 0, "head": 5}
    assert {"part": "mlp", "layer": 0, "pos": 1} in [chosen for _, chosen in points]
    # Attention to itself and the MLP of one token stay apart.
    assert len({(point["x"], point["y"]) for point, chosen in points if chosen["layer"] == 0}) == 2


def test_a_node_says_what_of_the_residual_stream_reaches_it():
    figure = token_lattice(edge_table(), ["a", "<b>", "c"], 2, title="t")
    (told,) = [trace for trace in figure.data if trace.customdata is not None and trace.hovertext is None]
    np.testing.assert_allclose([told.x[0], told.y[0], *told.customdata[0]], [1, 1, 0.9, 0.6])
    assert len(told.x) == 1 and "token %{x}" in told.hovertemplate
    assert figure.layout.xaxis.labelalias["1"] == "1 &lt;b&gt;"
    assert selection(figure.layout.meta, {"x": 2, "y": 1, "curveNumber": 3}) == {"pos": 2, "depth": 1}


def test_packed_indices_come_back():
    sizes, columns = [("layer", 4), ("head", 9), ("key", 50)], {"layer": [3, 0], "head": [-1, 8], "key": [49, 0]}
    packed = {"also": {"part": "x"}, "sizes": [[name, size + 1] for name, size in sizes]}
    found = [unpack(packed, number) for number in pack(sizes, columns)]
    assert found == [{"part": "x", "layer": 3, "key": 49}, {"part": "x", "layer": 0, "head": 8, "key": 0}]


def test_heavier_edges_are_wider():
    def width(weight):
        table = {"kind": ["attention"], "edge_layer": [0], "edge_query": [1], "edge_key": [0], "weight": [weight]}
        figure = token_lattice(table, ["a", "b"], 1, title="t")
        return next(shape.line.width for shape in figure.layout.shapes if shape.name == "attention")

    widths = [width(weight) for weight in (0.05, 0.2, 0.4, 0.9)]
    assert widths == sorted(widths) and len(set(widths)) == 4


def test_long_prompts_show_the_positions_that_edges_reach():
    table = {"kind": ["attention"], "edge_layer": [0], "edge_query": [90], "edge_key": [7], "weight": [0.5]}
    figure = token_lattice(table, [f"t{i}" for i in range(100)], 1, title="t", start=99)
    assert figure.layout.meta["x_values"] == [7, 90, 99]
    assert figure.layout.xaxis.ticktext == ("7 t7", "90 t90", "99 t99")
    assert selection(figure.layout.meta, {"x": 1, "y": 0}) == {"pos": 90, "depth": 0}


def test_lattice_takes_a_dataset_and_no_edges_at_all():
    table = xr.Dataset({name: ("edge", values) for name, values in edge_table().items()})
    assert data(token_lattice(table, ["a", "b", "c"], 2, title="t")) == data(
        token_lattice(edge_table(), ["a", "b", "c"], 2, title="t")
    )
    empty = token_lattice({name: [] for name in edge_table()}, ["a", "b"], 2, title="t")
    assert empty.layout.meta["y_values"] == [0, 1, 2]


@pytest.mark.parametrize("change", [{"kind": ["bias"] * 6}, {"weight": [0.1]}])
def test_bad_edge_tables_are_refused(change):
    with pytest.raises(InputError):
        token_lattice(edge_table() | change, ["a", "b", "c"], 2, title="t")


# What every figure owes


def test_every_figure_says_what_its_axes_show():
    axes = {name: draw().layout.meta["axes"] for name, draw in FIGURES.items()}
    assert axes == {
        "heads": {"x": "head", "y": "layer"},
        "depths": {"x": "pos", "y": "depth"},
        "pattern": {"x": "key", "y": "query"},
        "series": {"x": "layer"},
        "strip": {"x": "layer"},
        "bars": {"y": "layer"},
        "tokens": {"x": "pos"},
        "lattice": {"x": "pos", "y": "depth"},
    }


@pytest.mark.parametrize("name", list(FIGURES))
def test_every_figure_is_small_json_with_plain_meta_in_both_themes(name):
    figure = FIGURES[name]()
    for dark in (False, True):
        sent = data(compact(apply(figure, dark=dark)))
        assert sent["layout"]["paper_bgcolor" if "paper_bgcolor" in sent["layout"] else "template"]
        frame = sent["layout"]["template"]["layout"]
        assert frame["paper_bgcolor"] == frame["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert len(figure.to_json()) < 60_000
    assert all(isinstance(v, int | float | str) for k, vs in sent["layout"]["meta"].items() if "_" in k for v in vs)
    assert not [trace for trace in sent["data"] if isinstance(trace.get("customdata"), dict)]


@pytest.mark.parametrize("name", list(FIGURES))
def test_clicks_on_drawn_places_are_read_back_and_outlined(name):
    layout = FIGURES[name]().layout.meta
    last = {axis: len(layout[f"{axis}_values"]) - 1 for axis in layout["axes"]}
    point = {axis: layout.get(f"{axis}_at", range(99))[index] for axis, index in last.items()}
    chosen = selection(layout, point)
    assert chosen == {dim: layout[f"{axis}_values"][-1] for axis, dim in layout["axes"].items()}
    (shape,) = selection_shapes(layout, chosen)
    for axis in layout["axes"]:
        assert (shape[f"{axis}0"], shape[f"{axis}1"]) == (point[axis] - 0.5, point[axis] + 0.5)
        assert shape[f"{axis}ref"] == axis
    go.Figure().update_layout(shapes=[shape])


def test_selections_elsewhere_draw_nothing():
    layout = FIGURES["heads"]().layout.meta
    assert selection_shapes(layout, {"pos": 1}) == []
    assert selection_shapes(layout, {"layer": 99}) == []
    (row,) = selection_shapes(layout, {"layer": 1})
    assert (row["xref"], row["x0"], row["x1"], row["y0"], row["y1"]) == ("x domain", 0, 1, 0.5, 1.5)


def test_a_figure_is_spread_over_columns_with_gaps():
    grid = go.Figure(go.Heatmap(z=[[1, 2, 3]], text=[["a", "b", "c"]]))
    grid.add_shape(x0=0.5, x1=1.5, y0=0, y1=1, name="cell").add_shape(x0=0, x1=2, y0=0, y1=1, name="all")
    grid.add_shape(xref="paper", x0=0, x1=1, y0=0, y1=1)
    grid.update_layout(meta={"axes": {"x": "pos"}, "x_values": [0, 1, 2]})
    drawn = spread(grid, [1, 4, 5])
    assert np.array_equal(drawn.data[0].z, [[1, np.nan, np.nan, 2, 3]], equal_nan=True)
    assert list(drawn.data[0].text[0]) == ["a", "", "", "b", "c"]
    assert (drawn.data[0].x0, drawn.data[0].dx) == (1, 1)
    assert [(s.x0, s.x1) for s in drawn.layout.shapes] == [(3.5, 4.5), (1, 5), (0, 1)]
    for pos, column in enumerate([1, 4, 5]):
        (shape,) = selection_shapes(drawn.layout.meta, {"pos": pos})
        assert (shape["x0"], shape["x1"]) == (column - 0.5, column + 0.5)
        assert selection(drawn.layout.meta, {"x": column + 0.4}) == {"pos": pos}
    lines = spread(go.Figure(go.Scatter(x=[0, 2, None, 1.5, 1], y=[0] * 5)), [1, 4, 5])
    assert list(lines.data[0].x) == [1, 5, None, 4.5, 4]


def test_selection_on_an_uneven_axis_is_a_line():
    layout = {"axes": {"x": "threshold"}, "x_values": [0.001, 0.1, 1.0], "x_at": [0.001, 0.1, 1.0]}
    (line,) = selection_shapes(layout, {"threshold": 0.1})
    assert line["x0"] == line["x1"] == 0.1


def test_hostile_tokens_are_drawn_as_text_everywhere():
    n, tokens = len(HOSTILE), [*HOSTILE[:-1], SURROGATE]
    lens = lens_result(n_pos=n, tokens=HOSTILE)
    lens["words"][:] = np.array(HOSTILE, dtype=object)[:, None]
    edges = {"kind": ["attention"], "edge_layer": [0], "edge_query": [n - 1], "edge_key": [0], "weight": [0.5]}
    labelled = xr.Dataset({"v": ("component", np.arange(float(n)))}, coords={"component": HOSTILE})
    drawn = [
        depth_pos_grid(lens, "prob", title=HOSTILE[1], text="words"),
        pattern_figure(np.ones((n, n)), tokens, HOSTILE[0]),
        token_lattice(edges, tokens, 1, title=HOSTILE[3]),
        token_strip(lens.isel(depth=0), "prob", title=HOSTILE[4]),
        series(lens.isel(depth=0), "prob", "pos", title=HOSTILE[5]),
        bars(labelled, "v", "component", title=HOSTILE[6]),
        strip(labelled.expand_dims(prompt=2), "v", "component", title=SURROGATE),
    ]
    for figure in drawn:
        sent = json.loads(texts(figure))
        sent["layout"].pop("meta")  # values for the program, never drawn
        for trace in sent["data"]:
            trace.pop("customdata", None)
        shown = json.dumps(sent, ensure_ascii=False)
        assert not re.search(r"<(?!/?b>|br>|extra>|/extra>)", shown), figure.layout.title.text
        assert not re.search(r"<b>bold|<img|\$x|%\{meta|\u202e|\x00|\ud800", shown)
        assert "&lt;" in shown


def test_equal_tokens_keep_their_own_columns():
    lens = lens_result(n_pos=4, tokens=[" the"] * 4)
    assert depth_pos_grid(lens, "prob", title="t").layout.xaxis.tickvals == (0, 1, 2, 3)
    lattice = token_lattice(edge_table(), [" the"] * 3, 2, title="t")
    assert lattice.layout.xaxis.ticktext == ("0 ·the", "1 ·the", "2 ·the")


@pytest.mark.parametrize(("rows", "columns"), [(30, 9), (31, 64)])
def test_whole_models_stay_under_a_megabyte(rows, columns):
    heads = heads_result(rows, columns)
    assert len(heads_grid(heads, "score", title="t").to_json()) < 1e6
    lens = lens_result(rows, columns, tokens=[" internationalization"] * columns)
    lens["words"] = lens["words"].dims, np.full(lens["words"].shape, " internationalization", dtype=object)
    assert len(depth_pos_grid(lens, "prob", title="t", text="words", text_value="word_prob").to_json()) < 1e6


def test_themes_swap_frame_and_scale_and_swap_back():
    figure = heads_grid(heads_result(), "score", title="t")
    light = data(figure)
    dark = data(apply(figure, dark=True))
    assert dark["layout"]["coloraxis"]["colorscale"][0][1] == SCALES["share"][1][0]
    assert dark["layout"]["template"]["layout"]["font"] != light["layout"]["template"]["layout"]["font"]
    assert dark["data"] == light["data"]
    assert data(apply(figure)) == light


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("scale", list(SCALES))
def test_scales_are_read_by_lightness_alone(scale):
    for colours in SCALES[scale]:
        steps = np.diff([luminance(colour) for colour in colours])
        if scale == "signed":
            middle = len(steps) // 2
            assert (np.sign(steps[:middle]) == -np.sign(steps[middle:])).all()
            steps = steps[:middle]
        assert (steps > 0).all() or (steps < 0).all()


@pytest.mark.parametrize("background", ["#ffffff", "#1a1b1e"])
def test_lines_and_labels_stand_out_on_both_pages(background):
    def contrast(colour):
        high, low = sorted((luminance(colour), luminance(background)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    from workbench.figures.theme import DARK, LIGHT, LINES

    assert min(contrast(colour) for colour in LINES) >= 3  # WCAG 1.4.11, graphics
    frame = LIGHT if background == "#ffffff" else DARK
    assert min(contrast(frame.text), contrast(frame.quiet)) >= 4.5  # WCAG 1.4.3, text


def test_compact_drops_cell_text_and_thins_labels():
    lens = lens_result(n_pos=20, tokens=["a"] * 20)
    figure = compact(depth_pos_grid(lens, "prob", title="t", text="words"))
    assert figure.data[0].texttemplate is None
    assert figure.layout.xaxis.tickvals == tuple(range(0, 20, 2))
    assert len(figure.layout.xaxis.ticktext) == 10


def test_long_titles_are_broken_and_given_room():
    short = heads_grid(heads_result(), "score", title="short").layout
    long = heads_grid(heads_result(), "score", title="word " * 20).layout
    assert long.title.text.count("<br>") >= 1
    assert long.margin.t > short.margin.t


def test_unknown_variables_scales_and_dims_are_named():
    result = heads_result()
    with pytest.raises(InputError, match="score_low"):
        heads_grid(result, "scores", title="t")
    with pytest.raises(InputError, match="share"):
        heads_grid(result, "score", title="t", scale="viridis")
    with pytest.raises(InputError, match="prompt"):
        heads_grid(result.expand_dims(prompt=2), "score", title="t")
    with pytest.raises(InputError):
        strip(result.expand_dims(prompt=2), "score", "layer", title="t")


def test_figures_leave_their_input_alone():
    result = heads_result()
    before = result.copy(deep=True)
    heads_grid(result, "score", title="t", mark="found")
    series(result, "score", "layer", by="head", title="t")
    xr.testing.assert_identical(result, before)


def test_importing_figures_imports_neither_plotly_nor_torch():
    code = (
        "import importlib.util, sys\n"
        "import workbench.figures\n"
        "sys.exit(any(name in sys.modules for name in ('plotly', 'torch', 'xarray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_names_are_public():
    assert all(callable(getattr(figures, name)) for name in figures.__all__)


def test_lines_are_not_broken_inside_a_quoted_token():
    title = "Estimated effect of patching heads: logit of ' Mary' minus ' John' at a place"
    for width in range(12, 60):
        lines = wrapped(title, width)
        assert " ".join(lines) == title and all(len(line) <= width for line in lines)
        assert not any(line.endswith(("of '", "minus '")) for line in lines)
    assert wrapped("", 10) == [""] and wrapped("it's plain, isn't it", 8) == ["it's", "plain,", "isn't it"]
