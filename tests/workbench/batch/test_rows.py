"""What of a result is averaged over prompts, and why the rest is not; partials merge in any grouping."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.analysis.results import dataset
from workbench.batch.values import merge
from workbench.batch.values.export import _long
from workbench.batch.values.merge import _Pieces
from workbench.batch.values.partials import Partial
from workbench.batch.values.rows import Reduction, Rows
from workbench.statistics import bootstrap_interval

FREE = (-np.inf, np.inf)


def result(neurons=(3, 1)):
    return dataset(
        None,
        {"neuron": list(neurons)},
        count=("layer", np.array([4, -1]), "keys", (0, None)),
        score=("layer", np.array([0.5, np.nan]), "share", (0, 1)),
        score_low=("layer", np.array([0.1, np.nan]), "share", (0, 1)),
        loss=("pos", np.array([np.nan, 1.0, 3.0]), "nats", (0, None)),
        best=("layer", np.array([7, 9]), "token id", (0, None)),
        activation=("neuron", np.array([1.0, 2.0]), "activation", (None, None)),
        on=("layer", np.array([True, False]), "true or false", (0, 1)),
    )


def stacked(rows):
    """Rows of several prompts, None where one failed."""
    found = Rows(len(rows))
    for i, row in enumerate(rows):
        if row is not None:
            found.put(i, row)
    assert [found.has(i) for i in range(len(rows))] == [row is not None for row in rows]
    return found.dataset()


def test_what_is_missing_stays_missing_and_names_are_not_averaged():
    rows = stacked([Reduction().row(result()), None, Reduction().row(result())])
    assert rows["count"].values[0].tolist()[0] == 4 and np.isnan(rows["count"].values[0, 1])  # -1 says missing
    assert np.isnan(rows["count"].values[1]).all()  # a prompt that failed
    assert rows["on"].values[2].tolist() == [1.0, 0.0]
    left = json.loads(rows.attrs["left_out"])
    assert set(left) == {"score_low", "loss", "best"} and "positions" in left["loss"]


@pytest.mark.parametrize("units", ["expert", "layer", "head", "dimension", "position"])
def test_a_number_that_names_something_has_no_mean(units):
    named = dataset(None, which=("layer", np.array([3, 7]), units, (0, None)))
    assert "not quantities" in Reduction().row(named)[1]["which"]


@pytest.mark.parametrize(("positions", "loss"), [("mean", 2.0), ("last", 3.0)])
def test_positions_are_reduced_where_the_spec_says_so(positions, loss):
    assert stacked([Reduction(positions).row(result())])["loss"].item() == loss


def test_an_axis_that_holds_other_things_in_every_prompt_is_left_out():
    rows = stacked([Reduction().row(result()), Reduction().row(result(neurons=(3, 2)))])
    assert "activation" not in rows and "other things" in json.loads(rows.attrs["left_out"])["activation"]
    assert "score" in rows
    assert stacked([None, None]) is None


def test_parts_of_other_names_are_left_out_and_those_of_one_name_keep_it():
    def parts(labels):
        about = {"component": range(2), "label": ("component", labels)}
        return Reduction().row(dataset(None, about, effect=("component", np.array([1.0, 2.0]), "nats", (None, None))))

    rows = stacked([parts(["L0H0", "L0H1"]), parts(["L0H0", "L1H1"])])
    assert "effect" not in rows and "other things" in json.loads(rows.attrs["left_out"])["effect"]
    assert stacked([parts(["L0H0", "L0H1"])] * 2)["label"].values.tolist() == ["L0H0", "L0H1"]


def test_segments_that_each_text_is_cut_into_anew_have_no_mean_and_named_ones_do():
    """Of two texts of three segments each the third was averaged with the third; attention-knockout has words."""
    about = lambda coords: dataset(None, coords, psi=("segment", np.array([0.1, 0.2]), "psi", (-1, 1)))
    taken, left = Reduction().row(about(None))
    assert not taken and "segment is numbered anew" in left["psi"]
    assert set(Reduction().row(about({"segment": ["first token", "rest"]}))[0]) == {"psi"}


def test_a_long_table_names_parts():
    shape = ("model", "group", "component")
    coords = {"model": ["m"], "group": ["g"], "component": range(2), "label": ("component", ["L0H1", "L2 MLP"])}
    made = {f"effect{end}": (shape, np.ones((1, 1, 2))) for end in ("", "_low", "_high", "_n")}
    assert [row[3] for row in _long(xr.Dataset(made, coords))] == ["component=L0H1", "component=L2 MLP"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=2, max_size=30), st.data())
def test_partials_merge_in_any_grouping(values, data):
    array = np.array(values)[:, None]
    cut = data.draw(st.integers(0, len(values)))
    merged = Partial.of(array[:cut]).merged(Partial.of(array[cut:]))
    whole = Partial.of(array)
    known = array[~np.isnan(array)]
    assert merged.n == whole.n == len(known)
    if len(known) > 1:  # float64: sums of up to 30 numbers of 1e3
        np.testing.assert_allclose(merged.known_mean, known.mean(), atol=1e-9)
        np.testing.assert_allclose(merged.sd, known.std(ddof=1), atol=1e-6)
    else:
        assert np.isnan(merged.sd) and np.isnan(merged.known_mean) == (len(known) == 0)


def test_documents_that_are_too_many_to_draw_from_are_folded_in_pieces(monkeypatch):
    """Mean, number and interval are those of all of them, wherever a piece ends and whatever is missing."""
    monkeypatch.setattr(merge, "BOOTSTRAPPED", 20)
    monkeypatch.setattr(merge, "_PIECE", 4)
    random = np.random.default_rng(0)
    for n in (20, 21, 24, 25, 26, 61):
        values = random.normal(5, 1, (n, 3))
        values[::7, 1] = np.nan
        group = merge._Group(Partial.empty((3,)))
        for i, value in enumerate(values):
            group.add(f"{i:02}", value)
        known = (~np.isnan(values)).sum(0)
        assert group.partial.n.tolist() == known.tolist() and group.is_large == (n > 20)
        np.testing.assert_allclose(group.partial.known_mean, np.nanmean(values, 0), rtol=1e-12)
        low, high = merge._intervals({"x": group}, {"x": FREE})["x"]
        half = stats.t.ppf(0.975, known - 1) * np.nanstd(values, 0, ddof=1) / np.sqrt(known)
        if n > 20:
            np.testing.assert_allclose((high - low) / 2, half, rtol=1e-9)
        else:  # bootstrap-t, never narrower than Student's
            assert ((high - low) / 2 > half * (1 - 1e-12)).all()


def test_rare_flags_of_many_documents_have_the_interval_of_their_share(monkeypatch):
    """No flag among more documents than are drawn from had an interval of no width, and five one that held too few."""
    monkeypatch.setattr(merge, "BOOTSTRAPPED", 2_000)
    values = np.zeros((3_000, 5))
    values[:5, 1] = values[:, 2] = values[::2, 3] = 1
    values[:, 4] = np.linspace(0, 1, 3_000)  # no flag: Student's
    group = merge._Group(Partial.empty((5,)))
    for i, value in enumerate(values):
        group.add(f"{i:04}", value)
    low, high = merge._intervals({"x": group}, {"x": (0.0, 1.0)})["x"]
    drawn = bootstrap_interval(values, bounds=(0.0, 1.0))
    assert low[0] == 0 and high[0] == pytest.approx(drawn[1][0], rel=0.3) and high[0] > 0.0009  # 3 in 3,000
    assert low[2] == pytest.approx(1 - high[0]) and high[2] == 1
    wilson = stats.binomtest(5, 3_000).proportion_ci(method="wilson")
    assert low[1] <= wilson.low * (1 + 1e-9) and high[1] >= wilson.high * (1 - 1e-9)
    np.testing.assert_allclose(high[3:] - low[3:], drawn[1][3:] - drawn[0][3:], rtol=0.1)  # of 2,000 resamples


def test_a_share_of_documents_that_all_agree_is_not_sure():
    """The interval of a flag that twenty documents share had no width, and so held a share of 95 % in none."""
    own = {}
    for name, value in (("flag", [1.0, 0.0]), ("nats", [0.0])):
        own[name] = merge._Group(Partial.empty((len(value),)))
        for i in range(20):
            own[name].add(str(i), np.array(value))
    found = merge._intervals(own, {"flag": (0.0, 1.0), "nats": FREE})
    low, high = (end.tolist() for end in found["flag"])
    assert low[0] < 0.9 and high[0] == 1 and low[1] == 0 and high[1] > 0.1
    assert found["nats"][0] == found["nats"][1] == 0  # it can be anything: that it is 0 everywhere has a reason


def test_an_interval_is_the_same_whatever_is_drawn_beside_it(monkeypatch):
    """Sums of more columns at once may be associated otherwise: 1e-12 of values near 5."""
    monkeypatch.setattr(merge, "_COLUMNS", 7)
    random, own = np.random.default_rng(1), {}
    for name, shape, n in (("a", (2, 3), 30), ("b", (), 30), ("c", (4,), 17), ("d", (9,), 30), ("e", (2,), 8)):
        own[name] = merge._Group(Partial.empty(shape))
        for i, value in enumerate(random.normal(5, 1, (n, *shape))):
            own[name].add(str(i), value)
    own["a"].by_name["3"][1, 2] = np.nan
    found = merge._intervals(own, dict.fromkeys(own, FREE))
    assert list(found["a"][0].shape) == [2, 3] and set(found) == set(own)
    for name, one in own.items():
        for got, alone in zip(found[name], bootstrap_interval(np.stack(one.values)), strict=True):
            np.testing.assert_allclose(got, alone, rtol=1e-12)
    assert np.isnan(found["e"][0]).all()  # too few


def test_means_and_intervals_do_not_know_in_which_order_documents_came():
    """Shards are named by what computes them: another version of another analysis must move no number of this one."""
    random, found = np.random.default_rng(2), []
    values = {f"doc{i}": value for i, value in enumerate(random.normal(0, 1, (40, 5)))}
    for order in (list(values), list(random.permutation(list(values)))):
        group = merge._Group(Partial.empty((5,)))
        for name in order:
            group.add(name, values[name])
        found.append((group.partial.mean, *merge._intervals({"x": group}, {"x": FREE})["x"]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_piece_without_a_value_counts_in_no_mean():
    """Counted as a piece it would be a zero among the others."""
    pieces = _Pieces()
    for values in ([1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [8.0, np.nan, np.nan]):
        pieces.add({"x": np.array(values)})
    np.testing.assert_array_equal(pieces.mean["x"], [4.0, 5.0, np.nan])
