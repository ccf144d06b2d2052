"""Pinned prompts: what belongs together stands in one column, equal colours are equal numbers, and words are true."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page.alignment import columns, counterparts, roles
from apps.explorer.page.parsing import Malformed, parse
from apps.explorer.page.pins import pinned
from apps.explorer.page.state import Asked, Link, PinsAsked, Seen, Visit
from apps.explorer.page.visit import visit_page
from probes import CATALOG
from workbench.figures import selection_shapes

MODEL = "toy-induction"
TEXTS = ("3 7 9 5 3 7 9", "2 4 6 2 4", "8 1 2 4 6 2 4")
VIEWS = ("logit-lens", "surprisal", "induction-on-prompt", "induction-heads", "causal-check", "attention-knockout")


@pytest.fixture(scope="module")
def engine():
    made = Engine(Settings(models=(MODEL,)), [CATALOG.view(name) for name in VIEWS])
    assert made.hosted(MODEL).loading.finished.wait(120)
    yield made
    made.close()


def row(engine, name, texts=TEXTS, session="me", aligned="token", **more):
    asked = Asked(id="one", model=MODEL, text=texts[0], **more)
    return pinned(engine, asked, texts, Seen(name=name), False, {}, session, aligned)


def computed(engine, name, **more):
    """The row when all that was begun is there."""
    first = row(engine, name, **more)
    for _, job in engine.jobs("me"):
        assert job.finished.wait(120)
    return first, row(engine, name, **more)


def test_what_shares_a_pass_is_begun_and_drawn_on_one_scale(engine):
    first, there = computed(engine, "induction-on-prompt")
    assert all(one.waits or one.result is not None for one in first.prompts)
    assert [one.waits for one in there.prompts] == [False] * 3
    ranges = {(one.figure.layout.coloraxis.cmin, one.figure.layout.coloraxis.cmax) for one in there.prompts}
    assert len(ranges) == 1
    assert there.said.startswith("Induction score of 3 prompts: L1H0 is the largest in all (")


def test_tokens_that_are_equal_stand_below_each_other(engine):
    _, there = computed(engine, "logit-lens", texts=TEXTS[1:])
    ranges = [tuple(one.figure.layout.xaxis.range) for one in there.prompts]
    assert ranges == [(-2.5, 4.5), (-0.5, 6.5)]  # 2 4 6 2 4 stands below the last five of 8 1 2 4 6 2 4
    first = row(engine, "logit-lens", texts=TEXTS[1:], aligned="first").prompts
    assert [tuple(one.figure.layout.xaxis.range) for one in first] == [(-0.5, 6.5)] * 2


@pytest.mark.parametrize(
    ("ids", "aligned", "expected"),
    [
        ([[1, 2, 3]], "token", [(0, 2)]),
        ([[1, 2, 3, 4], [9, 1, 2, 3, 4]], "token", [(-1, 3), (0, 4)]),
        ([[9, 1, 2, 3, 4], [1, 2, 3, 4], [5, 6]], "token", [(0, 4), (-1, 3), (0, 4)]),
        ([[1, 2, 3], [7, 8, 9, 4, 5]], "last", [(-2, 2), (0, 4)]),
        ([[1, 2, 3], [7, 8, 9, 4, 5]], "first", [(0, 4), (0, 4)]),
        ([[1, 2], [3, 4, 5]], "token", [(0, 2), (0, 2)]),  # nothing is equal
    ],
)
def test_columns(ids, aligned, expected):
    found = columns(ids, aligned)
    assert found == expected
    assert len({high - low for low, high in found}) == 1
    assert all(low <= 0 and high >= len(one) - 1 for one, (low, high) in zip(ids, found, strict=True))


@pytest.mark.parametrize(
    ("shown", "one", "aligned", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], "token", [0, 1, 2]),
        ([1, 2, 3], [9, 1, 2, 3], "token", [1, 2, 3]),
        ([9, 1, 2, 3], [1, 2, 3], "token", [-1, 0, 1, 2]),  # one has no counterpart
        ([1, 5, 3, 4], [1, 6, 3, 7, 4], "token", [0, 1, 2, 4]),  # 5 and 6 have the same role, 7 has none
        ([1, 2, 3], [4, 5], "first", [0, 1, -1]),
        ([1, 2, 3], [4, 5], "last", [-1, 0, 1]),
    ],
)
def test_counterparts(shown, one, aligned, expected):
    assert counterparts(shown, [one, shown], aligned) == [expected, list(range(len(shown)))]


@pytest.mark.parametrize(
    ("ids", "expected", "n"),
    [
        ([[1, 2, 3]], [[0, 1, 2]], 3),
        # 7 8 and 9 are one name: they end together, whoever has the longer one
        ([[1, 7, 8, 2, 3], [1, 9, 2, 3]], [[0, 1, 2, 3, 4], [0, 2, 3, 4]], 5),
        ([[1, 9, 2, 3], [1, 7, 8, 2, 3]], [[0, 2, 3, 4], [0, 1, 2, 3, 4]], 5),
        # a token in front, one behind, and a third that has neither
        ([[1, 2, 3], [9, 1, 2, 3], [1, 2, 3, 4, 5]], [[1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4, 5]], 6),
        ([[1, 2], [3, 4]], [[0, 1], [0, 1]], 2),  # as many tokens, none equal
        ([[1, 2], [3, 4, 5]], [[1, 2], [0, 1, 2]], 3),
        ([[1, 2, 3], [3]], [[0, 1, 2], [2]], 3),
    ],
)
def test_roles(ids, expected, n):
    assert roles(ids) == (expected, n)


@seed(0)
@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), min_size=1, max_size=8))
def test_every_token_has_one_column_and_equal_neighbours_share_theirs(ids):
    columns, n = roles(ids)
    assert [len(one) for one in columns] == [len(one) for one in ids]
    assert all(one == sorted(set(one)) and one[0] >= 0 and one[-1] < n for one in columns)
    assert set().union(*columns) == set(range(n))  # none is empty in all of them
    found = counterparts(ids[-1], ids, "role")
    for one, at in zip(ids, found, strict=True):
        for pos, other in enumerate(at):
            assert other == -1 or (0 <= other < len(one) and columns[ids.index(one)][other] == columns[-1][pos])
        assert [other for other in at if other >= 0] == sorted({other for other in at if other >= 0})


def test_prompts_are_drawn_with_gaps_where_others_have_a_token(engine):
    """A number is drawn in the column of its role, and the selection finds it there."""
    texts = ("1 7 8 2 3", "1 9 2 3")
    _, there = computed(engine, "logit-lens", texts=texts, aligned="role")
    assert [one.at for one in there.prompts] == [[0, 1, 2, 3, 4], [0, -1, 1, 2, 3]]
    assert [tuple(one.figure.layout.xaxis.range) for one in there.prompts] == [(-0.5, 4.5)] * 2
    cells, own = (np.array(f.data[0].z, float) for f in (there.prompts[1].figure, plain(engine, texts[1])))
    assert np.isnan(cells[:, 1]).all() and np.array_equal(cells[:, [0, 2, 3, 4]], own)
    (shape,) = selection_shapes(there.prompts[1].figure.layout.meta, {"pos": 1})
    assert (shape["x0"], shape["x1"]) == (1.5, 2.5)
    _, bars = computed(engine, "surprisal", texts=texts, aligned="role")
    assert list(bars.prompts[1].figure.data[0].x)[-3:] == [2, 3, 4]


def plain(engine, text):
    return row(engine, "logit-lens", texts=(text,), aligned="first").prompts[0].figure


def test_every_pinned_prompt_knows_the_counterparts_of_the_shown_tokens(engine):
    _, there = computed(engine, "logit-lens", texts=TEXTS[1:])
    assert [one.at for one in there.prompts] == [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]]  # 2 4 6 2 4 is shown


def test_what_has_no_row_says_why(engine):
    assert "the same for every prompt" in row(engine, "induction-heads").said
    study = row(engine, "attention-knockout")
    assert [one.words for one in study.prompts] == ["not computed on this prompt"] * 3
    assert not any(one.waits for one in study.prompts) and "when two of them have a result" in study.said
    assert "follows the selection" in row(engine, next(iter(engine.slices))).said


def test_a_prompt_that_cannot_be_read_says_why_and_the_others_stand(engine):
    _, there = computed(engine, "induction-on-prompt", texts=(*TEXTS[:2], "no <b>ids</b>"))
    assert "token ids separated by spaces" in there.prompts[2].words and there.prompts[0].figure is not None
    assert there.said.endswith("1 without a result is left out.")


def test_nothing_is_begun_without_a_session(engine):
    found = row(engine, "logit-lens", texts=("1 2 3 4 5 6 7 8", "8 7 6 5 4 3 2 1"), session=None)
    assert [one.words for one in found.prompts] == ["not computed on this prompt"] * 2


def test_a_link_keeps_at_most_eight_and_a_visit_draws_them(engine):
    link = parse(Link, {"text": "3 7", "pins": ["1 2", "3 4"]}, engine=engine)
    assert link.pins == ("1 2", "3 4")
    assert parse(Link, {"text": "3 7", "pins": ["1"] * 9}, engine=engine).broken == "pins"
    assert parse(Link, {"text": "3 7", "aligned": "last"}, engine=engine).aligned == "last"
    assert parse(Link, {"text": "3 7", "aligned": "up"}, engine=engine).broken == "aligned"
    with pytest.raises(Malformed):
        parse(PinsAsked, {"texts": ["1"] * 9, "view": {"name": "logit-lens"}}, engine=engine)
    computed(engine, "induction-on-prompt")
    step = {"link": {"text": TEXTS[0], "model": MODEL, "view": {"name": "induction-on-prompt", "figure": 0},
                     "pins": [*TEXTS, "<b>x</b>"]}, "title": "t", "said": "s"}  # fmt: skip
    page = visit_page(engine, parse(Visit, {"steps": [step]}, engine=engine), "me").partition("</script>")[2]
    assert "L1H0 is the largest in all" in page and "beside 4 pinned prompts" in page
    assert "<b>x</b>" not in page and page.count("plotly-graph-div") == 4


def test_bars_of_all_prompts_reach_equally_high_for_equal_numbers(engine):
    _, there = computed(engine, "surprisal")
    ranges = {tuple(one.figure.layout.yaxis.range) for one in there.prompts}
    highest = max(float(one.result["surprisal"].max()) for one in there.prompts)
    assert len(ranges) == 1 and min(ranges.copy().pop()) == 0 and ranges.pop()[1] == pytest.approx(1.05 * highest)
