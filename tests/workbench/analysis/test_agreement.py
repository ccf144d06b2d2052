"""What several prompts share: planted units come out where they were planted, and chance is said."""

import json

import numpy as np
import pytest
import xarray as xr

from workbench.analysis.agreement import agreement
from workbench.analysis.results import dataset
from workbench.errors import InputError


def of_heads(scores, analysis="planted", **more) -> xr.Dataset:
    """A result over (layer, head)."""
    scores = np.asarray(scores, dtype=np.float32)
    coords = {"layer": range(scores.shape[0]), "head": range(scores.shape[1])}
    made = dataset(None, coords, score=("layer head", scores, "share", (None, None)), **more)
    return made.assign_attrs(provenance=json.dumps({"analysis": analysis}))


def of_tokens(values, dims=("pos",), analysis="planted") -> xr.Dataset:
    """A result over (pos), or (depth, pos)."""
    values = np.asarray(values, dtype=np.float32)
    coords = {dim: range(n) for dim, n in zip(dims, values.shape, strict=True)}
    made = dataset(None, coords, height=(" ".join(dims), values, "nats", (None, None)))
    return made.assign_attrs(provenance=json.dumps({"analysis": analysis}))


def test_the_head_that_is_the_largest_in_most_prompts_is_named_with_its_span():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 0.1, (4, 6, 8))
    scores[[0, 1, 3], 4, 2] = 0.5, 0.75, 0.625  # L4H2, but in the third prompt
    scores[2, 1, 7] = -0.9  # counts by its size
    said = agreement([of_heads(one) for one in scores])
    assert said.startswith(
        "Score of 4 prompts: L4H2 is the largest in 3 of them (0.5 to 0.75). Of the 10 largest of 48, "
    )
    largest = [set(np.argsort(-np.abs(one).ravel())[:10]) for one in scores]
    assert f" {len(set.intersection(*largest))} " in said.partition("of 48,")[2].partition("the same in all")[0]
    assert "(by chance 0.1)" in said  # 10 (10 / 48) ** 3 = 0.09
    assert "Least alike are prompts " in said and said.endswith(").")


def test_equal_prompts_agree_in_everything_and_two_have_one_order():
    one = of_heads(np.arange(1, 25).reshape(4, 6))
    assert agreement([one, one]) == (
        "Score of 2 prompts: L3H5 is the largest in all (24). Of the 6 largest of 24, 6 are the same in all"
        " (by chance 1.5). All order them alike (rank correlation 1.00 at least)."
    )
    upside = of_heads(np.arange(24, 0, -1).reshape(4, 6))
    said = agreement([one, upside])
    assert "the largest is another one in each" in said and "0 are the same" in said and "-1.00" in said


def test_a_prompt_without_a_number_is_left_out_and_named():
    """As one in which nothing repeats, beside others with an induction score."""
    one, none = of_heads(np.arange(1, 25).reshape(4, 6)), of_heads(np.full((4, 6), np.nan))
    said = agreement([none, one, one], [1, 3, 4])
    assert said == agreement([one, one], [3, 4]) + " Left out for having no such number: prompt 1."
    with pytest.raises(InputError, match="a number of prompt 2 alone; expected those of at least two"):
        agreement([none, one])
    with pytest.raises(InputError, match="without a number over heads"):
        agreement([none, none])


def test_depths_are_taken_at_the_last_token_of_each_and_tokens_alone_give_one_number():
    short, long = np.zeros((5, 2)), np.zeros((5, 7))
    short[3, 1], long[3, 6], long[0, 0] = 2, 4, 99  # the first token of the long one does not count
    said = agreement([of_tokens(short, ("depth", "pos")), of_tokens(long, ("depth", "pos"))])
    assert said.startswith("Height of 2 prompts: depth 3 is the largest in all (2 to 4).")
    said = agreement([of_tokens([9, 1]), of_tokens([0, 0, 3]), of_tokens([2])])
    assert said == "Height at the last token of 3 prompts: 1 nats (prompt 1) to 3 nats (prompt 2)."


def test_a_number_that_is_nowhere_known_at_the_last_token_is_passed_over():
    blank = of_tokens([[1, np.nan], [2, np.nan]], ("depth", "pos"))
    with pytest.raises(InputError, match="one that all prompts have"):
        agreement([blank, blank])
    known = blank.assign(entropy=blank["height"].fillna(1).assign_attrs(long_name="entropy", units="nats"))
    assert agreement([known, known]).startswith("Entropy of 2 prompts: depth 0 is the largest in all (1)")


def test_prompts_are_named_by_their_own_numbers():
    assert agreement([of_tokens([9, 1]), of_tokens([3])], [2, 7]) == (
        "Height at the last token of 2 prompts: 1 nats (prompt 2) to 3 nats (prompt 7)."
    )
    with pytest.raises(InputError, match="1 numbers of 2 results"):
        agreement([of_tokens([9, 1]), of_tokens([3])], [2])


def test_what_is_zero_is_said():
    assert agreement([of_heads(np.ones((2, 2))), of_heads(np.zeros((2, 2)))]) == (
        "Score of 2 prompts: it is 0 everywhere in prompt 2."
    )


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([of_heads(np.ones((2, 2)))], "1 result"),
        ([], "0 results"),
        ([of_heads(np.ones((2, 2))), of_heads(np.ones((2, 2)), "another")], "results of another, planted"),
        ([of_tokens(np.ones((3, 3)), ("query", "key"))] * 2, "without a number over heads"),
    ],
)
def test_what_cannot_be_held_against_each_other_is_refused(results, said):
    with pytest.raises(InputError, match=said):
        agreement(results)


def test_parts_are_those_of_one_name():
    """Other controls stand beside other prompts: the first of one is not the first of the other."""

    def parts(labels, values):
        about = {"component": range(len(labels)), "label": ("component", labels)}
        made = dataset(None, about, score=("component", np.array(values), "nats", (None, None)))
        return made.assign_attrs(provenance=json.dumps({"analysis": "planted"}))

    said = agreement([parts(["L0H0", "L0H1", "L2H2"], [1, 9, 0.5]), parts(["L0H1", "L0H0", "L1H1"], [8.0, 1, 0.1])])
    assert said.startswith("Score of 2 prompts: L0H1 is the largest in all (8 to 9)")
