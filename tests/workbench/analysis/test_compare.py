"""Differences of two results: planted changes come out where they were planted, and nowhere else."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from probes.lens.logit_lens import VIEW, LogitLens
from tests.tiny_models import tiny_hf, tiny_model
from workbench import Ablate, Head, load, wrap
from workbench.analysis.compare import align, difference, difference_figure, need_same_tokenizer, of_differences
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Values
from workbench.analysis.results import dataset, open_result, save
from workbench.analysis.view import View
from workbench.errors import InputError
from workbench.figures import bars


class Planted(OnPrompt, name="planted", title="Planted"):
    """Nothing.

    Definition: d.
    Limits: l.
    Source: s.
    """


class Stretched(Values):
    """How it is drawn."""

    stretch: int = 1


def result(ids, values, analysis="planted", **more) -> xr.Dataset:
    """A result over (pos) and (layer, head) with these token ids."""
    values = np.asarray(values, dtype=np.float32)
    made = dataset(
        None,
        {"pos": range(len(ids)), "token_text": ("pos", [f"t{i}" for i in ids])},
        height=("pos", values, "nats", (0, None)),
        **more,
    )
    return made.assign_attrs(provenance=json.dumps({"analysis": analysis, "token_ids": list(ids), "params": {"k": 1}}))


def test_a_token_more_leaves_one_blank_and_the_rest_aligned():
    change = difference(result([5, 6, 7], [1, 2, 3]), result([5, 9, 6, 7], [1, 8, 2, 5]))
    np.testing.assert_array_equal(change["height"], [0, np.nan, 0, 2])
    assert change.attrs["summary"] == (
        "Largest change of height: 2 nats at pos 3 t7. 1 of 4 tokens has no counterpart and is blank."
    )
    assert change["height"].attrs["units"] == "nats" and change["height"].attrs["valid_min"] == -np.inf


def test_the_token_that_is_named_is_the_prompts_own_and_not_the_one_that_is_followed():
    """`4 ·is minus ·is` was said of ·Italy and ·France, both followed by ·is."""
    followed = lambda one: one.drop_vars("token_text").assign_coords(
        target_text=("pos", ["next"] * 3), token_text=one["token_text"]
    )
    change = difference(followed(result([5, 6, 7], [1, 2, 3])), followed(result([5, 9, 7], [1, 8, 3])))
    assert change.attrs["summary"].endswith("At 1 token another one is subtracted: 1 t9 minus t6.")


def test_the_number_that_changes_is_named_where_the_first_one_does_not():
    """Of neurons on two prompts it was said that the two are equal: their weights are."""
    grid = lambda value: ("layer head", np.array([[0.0, value]]), "logits", None, "pull")
    one, other = (result([5, 6], [1, 2], pull=grid(value)) for value in (1.0, 4.0))
    assert difference(one, other).attrs["summary"] == ("No change of height. Largest change of pull: 3 logits at L0H1.")
    assert difference(one, one).attrs["summary"] == "No change of height: the two are equal."
    empty = lambda one: one.assign(height=one["height"] * np.nan)  # which has no counterpart, and no change either
    assert difference(empty(one), empty(other)).attrs["summary"].startswith("Largest change of pull")


def test_what_only_rounds_is_called_so_and_not_named_before_what_changes():
    """Of a probability that reached 0.75, a change of 1.9e-09 was told as any other."""
    said_of = lambda before, after: difference(before, after).attrs["summary"]
    one = result([5, 6], [1, 700], pull=("pos", np.array([2.0, 1.0]), "logits", None, "pull"))
    other = one.assign(height=one["height"] * (1 + 2e-7))
    rounds = "That is rounding of float32, at 700."
    assert said_of(one, other) == f"Largest change of height: 0.000183 nats at pos 1 t6. {rounds}"
    pulled = other.assign(pull=other["pull"] + [0, 0.5])
    said = "No change of height but for rounding. Largest change of pull: 0.5 logits at pos 1 t6."
    assert said_of(one, pulled) == said
    loud = one.assign(height=one["height"] + [0, 0.01])
    assert said_of(one, loud) == "Largest change of height: 0.01 nats at pos 1 t6."


def test_a_change_beside_a_number_that_rounds_by_as_much_is_not_called_rounding():
    """The first token's state is a thousand times as long as another's, whose change is of the same size."""
    one = result([5, 6, 7], [12_000, 2, 2])
    small = one.assign(height=one["height"] + [0, 0.001, 0])
    assert difference(one, small).attrs["summary"] == "Largest change of height: 0.001 nats at pos 1 t6."


@pytest.mark.parametrize(
    "cut",
    [lambda one: one.isel(pos=[]), lambda one: one.assign_coords(pos=[str(i) for i in range(one.sizes["pos"])])],
    ids=["emptied", "relabelled"],
)
def test_what_was_cut_beyond_comparing_is_one_sentence(cut):
    before, after = result([5, 6, 7], [1, 2, 3]), result([5, 9, 6, 7], [1, 8, 2, 5])
    for pair in ((cut(before), after), (after, cut(before))):
        try:
            difference(*pair)
        except InputError as error:
            assert "\n" not in str(error)  # whatever pandas and numpy make of it


def test_names_are_not_subtracted():
    """Dimension 7 less dimension 3 is no 4: what is a number only by its name has no change."""
    more = lambda n: {
        name: ("pos", np.array([n, n + 4]), name, (0, None))
        for name in ("dimension", "expert", "layer", "head", "tokens")
    }
    change = difference(result([5, 6], [1, 2], **more(3)), result([5, 6], [1, 3], **more(7)))
    assert set(change.data_vars) == {"height", "tokens"} and change["tokens"].values.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], [0, 1, 2]),
        ([1, 2, 3], [1, 9, 3], [0, 1, 2]),  # equal lengths: position by position
        ([1, 2, 3, 4], [1, 8, 3, 4, 5], [0, 1, 2, 3, -1]),  # a token replaced by one
        ([1, 2, 3], [1, 8, 9, 3], [0, -1, -1, 2]),  # one replaced by two: neither is its counterpart
        ([1, 2], [7, 8, 9], [-1, -1, -1]),
    ],
)
def test_tokens_are_aligned(before, after, expected):
    assert align(before, after) == expected


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_an_alignment_keeps_the_order_and_names_each_token_once(before, after):
    found = [i for i in align(before, after) if i >= 0]
    assert found == sorted(set(found)) and all(i < len(before) for i in found)


def test_a_difference_says_where_it_subtracts_unlike_tokens():
    change = difference(result([5, 6, 7, 1], [1, 2, 3, 4]), result([5, 9, 7, 2], [1, 2, 3, 4]))
    assert change.attrs["summary"].endswith("At 2 tokens others are subtracted: 1 t9 minus t6, 3 t2 minus t1.")
    change = difference(result([5, 6, 7], [1, 2, 3]), result([8, 5, 6, 4], [1, 2, 3, 4]))  # 7 became 4, one more begins
    assert change.attrs["summary"].endswith("1 of 4 tokens has no counterpart and is blank. At 1 token another one "
                                            "is subtracted: 3 t4 minus t7.")  # fmt: skip
    many = difference(result(range(6), [0] * 6), result(range(10, 16), [1] * 6)).attrs["summary"]
    assert many.endswith(
        "At 6 tokens others are subtracted: 0 t10 minus t0, 1 t11 minus t1, 2 t12 minus t2 and 3 more."
    )
    assert "subtracted" not in difference(result([5, 6], [1, 2]), result([5, 6], [3, 4])).attrs["summary"]


def test_what_is_of_another_followed_token_is_blank():
    """The probability of ` France` less that of ` Italy` read as a change of the target's, of ten thousand times."""

    def following(targets, probs):
        coords = {"pos": [0, 1], "target_token": ("pos", targets), "target_text": ("pos", [f" t{i}" for i in targets])}
        of = lambda name: (name, "pos", np.asarray(probs, dtype=np.float32))
        made = dataset(
            None, coords, **{n: (d, v, "probability", (0, 1)) for n, d, v in map(of, ("seen", "target_prob"))}
        )
        return made.assign_attrs(provenance=json.dumps({"analysis": "planted", "token_ids": [5, 6]}))

    change = difference(following([6, 8], [0.2, 0.3]), following([6, 9], [0.3, 0.7]))
    np.testing.assert_allclose(change["target_prob"], [0.1, np.nan], rtol=1e-5)
    np.testing.assert_allclose(change["seen"], [0.1, 0.4], rtol=1e-5)  # not of the target
    assert change["target_prob"].attrs["units"] == "probability"
    assert change.attrs["summary"].endswith(
        "At 1 token the two follow different targets (at pos 1 ·t9 and ·t8): blank there."
    )
    alike = difference(following([6, 8], [0.2, 0.3]), following([6, 8], [0.3, 0.7]))
    np.testing.assert_allclose(alike["target_prob"], [0.1, 0.4], rtol=1e-5)
    assert "targets" not in alike.attrs["summary"]


def test_a_rank_is_named_as_people_count_it_and_no_unit_is_said_twice():
    def ranked(values):
        made = dataset(
            None, {"pos": [0]}, chance=("pos rank", np.array([values]), "probability", (0, 1), "probability of the top")
        )
        return made.assign_attrs(provenance=json.dumps({"analysis": "planted", "token_ids": [5]}))

    said = difference(ranked([0.5, 0.25]), ranked([0.75, 0.25])).attrs["summary"]
    assert said == "Largest change of probability of the top: 0.25 at pos 0, rank 1."


def test_squares_are_aligned_along_both_sides_and_text_says_both():
    def patterned(ids, weights, word):
        n = len(ids)
        more = {
            "pattern": ("query key", np.asarray(weights, dtype=np.float32), "share", (0, 1)),
            "word": ("pos", [word] * n, "text", None),
        }
        return result(ids, np.ones(n), **more)

    change = difference(patterned([1, 2], [[1, 0], [0.5, 0.5]], "a"), patterned([1, 9, 2], np.tri(3) / 3, "b"))
    np.testing.assert_allclose(change["pattern"][2], [1 / 3 - 0.5, np.nan, 1 / 3 - 0.5], rtol=1e-6)
    assert np.isnan(change["pattern"][1]).all()
    assert change["word"].values.tolist() == ["a⇒b", "b", "a⇒b"]  # nothing was there before the new token


def test_intervals_flags_ids_and_lists_are_left_out():
    def more(shift):
        return {
            "score": ("layer head", np.full((2, 3), 0.5 + shift), "share", (0, 1)),
            "score_low": ("layer head", np.zeros((2, 3)), "share", (0, 1)),
            "score_q": ("layer head", np.zeros((2, 3)), "q", (0, 1)),
            "flag": ("layer head", np.ones((2, 3), dtype=bool), "flag", None),
            "winner": ("layer", np.array([3, 4]), "token id", (0, None)),
            "weight": ("edge", np.array([0.5, 0.4]), "share", (0, 1)),
        }

    change = difference(result([1], [0], **more(0)), result([1], [0], **more(0.25)))
    assert set(change.data_vars) == {"height", "score"}
    np.testing.assert_allclose(change["score"], 0.25)
    assert (change["score"].attrs["valid_min"], change["score"].attrs["valid_max"]) == (-1, 1)


def test_other_analyses_and_empty_pairs_are_refused():
    with pytest.raises(InputError, match="of the same analysis"):
        difference(result([1], [1]), result([1], [1], analysis="another"))
    bare = result([1], [1]).drop_vars("height")
    with pytest.raises(InputError, match="without a number in common"):
        difference(bare, bare)


def test_another_number_format_is_named():
    """Of one model in two formats it was said `(ba03f3e7), minus that of (604d9686)`."""
    intact = LogitLens().run(tiny_model("llama"), [3, 5, 7, 5])
    half = LogitLens().run(wrap(tiny_hf("llama").to(torch.bfloat16), None, name="tiny-llama"), [3, 5, 7, 5])
    for one, two, said in ((half, intact, "float32, minus {}bfloat16"), (intact, half, "bfloat16, minus {}float32")):
        summary = difference(one, two).attrs["summary"]
        assert summary.endswith(f"Of tiny-llama in {said.format('that of tiny-llama in ')}.")
    near = intact.assign(top_prob=intact["top_prob"] * (1 + 2e-3))  # as far apart as a number of bfloat16 is coarse
    near.attrs["provenance"] = half.attrs["provenance"]
    assert all("rounding of bfloat16" in difference(*two).attrs["summary"] for two in ((intact, near), (near, intact)))


def test_a_head_that_was_taken_out_changes_nothing_before_its_layer(tmp_path):
    model = tiny_model("llama")
    intact = LogitLens().run(model, [3, 5, 7, 5])
    without = LogitLens().run(model, [3, 5, 7, 5], interventions=[Ablate(Head(1, 0))])
    change = difference(intact, without)
    assert np.abs(change["entropy"].sel(depth=slice(0, 1))).max() == 0
    np.testing.assert_allclose(change["entropy"], without["entropy"] - intact["entropy"], atol=1e-6)
    assert np.abs(change["entropy"].sel(depth=2)).max() > 0
    record = json.loads(change.attrs["provenance"])["difference"]
    assert record["from"]["interventions"] == [] and record["to"]["interventions"] == ["Ablate(L1H0 by zero)"]
    said = "Of tiny-llama with Ablate(L1H0 by zero), minus that without an intervention."
    assert change.attrs["summary"].endswith(said)
    back = difference(without, intact).attrs["summary"]  # whose own record knows of none
    assert back.endswith("Of tiny-llama without an intervention, minus that with Ablate(L1H0 by zero).")
    other = LogitLens().run(tiny_model("llama", seed=1), [3, 5, 7, 5])
    assert " (" in difference(intact, other).attrs["summary"].partition("minus that of tiny-llama")[2]
    assert "minus that" not in difference(intact, intact).attrs["summary"]
    again = open_result(save(change, tmp_path / "change.nc"))
    xr.testing.assert_equal(again["entropy"], change["entropy"])
    for index in range(len(VIEW.figures)):
        figure = difference_figure(VIEW, change, index)
        assert figure.layout.meta["scale"] == "signed"
        assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax


def test_a_figure_that_cannot_be_drawn_of_a_difference_gives_way_to_a_plain_one():
    def own(result):
        return result["height_low"]

    change = difference(result([1, 2], [1, 2]), result([1, 2], [1, 4]))
    figure = difference_figure(View(Planted, question="?", figures=(own,)), change)
    assert figure.data[0].y.tolist() == [0, 2]
    assert figure.layout.title.text == "Planted: change of height"


def test_a_difference_is_drawn_with_its_display_parameters():
    def own(result, *, stretch):
        return bars(result, "height", "pos", title=f"stretched {stretch}")

    view = View(Planted, question="?", figures=(own,), display=Stretched)
    change = difference(result([1, 2], [1, 2]), result([1, 2], [1, 4]))
    assert difference_figure(view, change).layout.title.text == "stretched 1"
    assert difference_figure(view, change, display={"stretch": 3}).layout.title.text == "stretched 3"


def test_a_view_of_differences_draws_them_and_says_what_changed_most():
    view = of_differences(View(Planted, question="?", figures=(lambda r: bars(r, "height", "pos", title="own"),)))
    change = difference(result([1, 2], [1, 2]), result([1, 2], [1, 4]))
    assert view.title == "Difference: Planted" and view.name == "planted"
    assert view.drawn(view.figures[0], change).layout.title.text == "own"
    assert view.said(change) == change.attrs["summary"] and view.claimed(change, {"pos": 1}) == []


def test_parts_are_named_and_not_numbered():
    def parts(values):
        about = {"component": range(2), "label": ("component", ["L0H1", "L20 MLP"])}
        made = dataset(None, about, attribution=("component", np.array(values), "logits", None, "attribution"))
        return made.assign_attrs(provenance=json.dumps({"analysis": "parts", "token_ids": [1]}))

    change = difference(parts([0.5, 1.0]), parts([0.5, 3.0]))
    assert change.attrs["summary"] == "Largest change of attribution: 2 logits at L20 MLP."


def test_parts_are_aligned_by_their_names_and_not_by_their_numbers():
    """The third part of a model of two heads is its first MLP, that of a model of three heads a head."""

    def parts(labels, values):
        about = {"component": range(len(labels)), "label": ("component", labels)}
        made = dataset(None, about, attribution=("component", np.array(values), "logits", None, "attribution"))
        return made.assign_attrs(provenance=json.dumps({"analysis": "parts", "token_ids": [1]}))

    change = difference(
        parts(["L0H0", "L0H1", "L0 MLP"], [1, 2, 3.0]), parts(["L0H1", "L0 MLP", "L0H2"], [2.5, 7, 9.0])
    )
    np.testing.assert_array_equal(change["attribution"], [0.5, 4, np.nan])
    assert change["label"].values.tolist() == ["L0H1", "L0 MLP", "L0H2"]
    assert change.attrs["summary"].startswith("Largest change of attribution: 4 logits at L0 MLP.")


def test_segments_are_aligned_by_their_names():
    """The first segment of one prompt is the subject, that of another what stands before it; draws are only counted."""

    def segments(names, values):
        effect = ("segment", np.array(values), "nats", None, "effect")
        made = dataset(None, {"segment": names}, effect=effect, noise=("draw", np.array(values), "nats", None, "noise"))
        return made.assign_attrs(provenance=json.dumps({"analysis": "segments", "token_ids": [1]}))

    change = difference(segments(["subject", "rest"], [1.0, 2.0]), segments(["first", "subject"], [5.0, 4.0]))
    np.testing.assert_array_equal(change["effect"], [np.nan, 3])
    assert "noise" not in change
    assert change.attrs["summary"].startswith("Largest change of effect: 3 nats at segment subject.")


def test_what_is_measured_is_said_where_it_is_not_the_same():
    """Each run asks about the token that it itself predicts, unless told otherwise."""

    def of(**about):
        return result([1], [0.25]).assign_attrs(about)

    said = lambda one, other: difference(of(**one), of(**other)).attrs["summary"].partition("are equal.")[2].strip()
    paris, rome = ({"target": word, "target_ids": ids} for word, ids in ((" Paris", "#7"), (" Rome", "#9")))
    assert said(paris, rome) == "Not the same is measured: the logit of ' Rome' here, the logit of ' Paris' subtracted."
    assert said(paris, paris | {"against": " Rome"}).endswith("the logit of ' Paris' subtracted.")
    piece = {"metric": "log-probability of '�'"}
    assert "(#3) here" in said(piece | {"target_ids": "#2"}, piece | {"target_ids": "#3"})  # bytes that print alike
    assert said(paris, paris) == said({}, rome) == said({}, {}) == ""


def test_the_p_of_one_run_less_that_of_another_is_no_change():
    p = {name: ("", np.array(0.5), "probability", (0, 1), "p") for name in ("p", "p_floor", "relation_p")}
    assert set(difference(result([1], [1], **p), result([1], [2], **p)).data_vars) == {"height"}


def test_models_must_share_their_tokenizer():
    need_same_tokenizer(tiny_model("llama"), tiny_model("gpt2"))
    with pytest.raises(InputError, match="tokenizers differ"):
        need_same_tokenizer(tiny_model("llama"), load("toy-induction"))
