"""One selection: what moves together, what lies outside, and what is said about it."""

import numpy as np
import pytest

from apps.explorer.callbacks.intervene import offers, said
from apps.explorer.page.card import unit_of
from apps.explorer.page.selection import clean, headline, merge, settle, strongest_head
from apps.explorer.page.state import Sizes
from workbench.analysis.results import dataset
from workbench.intervene.text import phrase


def test_position_and_query_are_one_token_and_a_layer_marks_its_state():
    assert merge({}, {"pos": 3}) == {"pos": 3, "query": 3}
    assert merge({"head": 1}, {"query": 2, "key": 1}) == {"head": 1, "query": 2, "key": 1, "pos": 2}
    assert merge({}, {"layer": 4, "head": 2})["depth"] == 5
    assert "layer" not in merge({}, {"depth": 5, "pos": 0})


def test_a_key_after_its_query_is_dropped():
    assert "key" not in merge({"query": 9, "pos": 9, "key": 7}, {"pos": 3})


def test_only_known_small_numbers_come_from_outside():
    given = {"pos": 3, "head": "<b>", "layer": True, "depth": 2.5, "key": -1, "other": 1, "query": 1e12, "unit": None}
    assert clean(given) == {"pos": 3, "depth": 2.5}
    assert clean("pos=3") == {} and clean(None) == {} and clean([1]) == {}


def test_the_kind_of_edge_is_about_the_last_click():
    clicked = merge({"pos": 2}, {"part": "mlp", "layer": 1, "pos": 3})
    assert clean(clicked) == clicked == {"part": "mlp", "layer": 1, "pos": 3, "query": 3, "depth": 2}
    assert "part" not in merge(clicked, {"pos": 4}) and "part" not in clean({"part": "<b>", "pos": 1})
    assert settle(clicked, 5, 2, 4)["part"] == "mlp"


def test_something_is_always_selected_and_always_inside():
    assert settle({}, 5, 2, 4) == {"pos": 4, "query": 4, "depth": 2}
    settled = settle({"pos": 9, "layer": 3, "head": 1, "depth": 7, "key": 2}, 5, 2, 4, head=(1, 3))
    assert settled == {"pos": 4, "query": 4, "layer": 1, "head": 3, "key": 2, "depth": 2}
    assert settle({"layer": 0, "head": 2}, 5, 2, 4, head=(1, 3))["head"] == 2


def test_a_neuron_is_one_of_its_layers():
    """Of a mixture, neurons are counted through the experts, beyond what a layer with one MLP has."""
    sizes = Sizes(n_layers=2, n_heads=4, d_mlp=64, experts=(1,), n_experts=8, d_expert=16)
    for layer, number, name in ((0, 63, "L0N63"), (1, 127, "L1E7N15"), (0, 64, ""), (1, 128, "")):
        chosen = settle({"layer": layer, "neuron": number}, 5, 2, 4, sizes.neurons)
        said = headline(chosen, ["a"] * 5, sizes.neuron)
        assert ("neuron" in chosen) == bool(name) and (not name or name in said)
        offered = [str(phrase) for phrase in offers(chosen, sizes)]
        assert not name or name in offered
        assert ("L1E7N15 mean" in offered, "L0N63 mean" in offered) == (False, name == "L0N63")
        assert not name or unit_of(chosen, sizes.neuron).name == name


def test_the_strongest_head_of_the_first_table():
    scores = np.array([[0.1, np.nan], [0.2, 0.7]])
    table = dataset(score=("layer head", scores, "share", (0, 1)))
    other = dataset(loss=("pos", np.ones(3), "nats", (0, None)))
    assert strongest_head([other, table]) == (1, 1)
    assert strongest_head([other]) is None


def test_the_headline_shows_tokens_as_data():
    said = headline({"pos": 1, "key": 0, "layer": 2, "head": 3, "depth": 3}, ["<b>", " x\n"])
    assert said == ["token 1 ·x↵", "← 0 <b>", "L2H3", "depth 3"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("L1H0", "without L1H0"),
        ("L1H0 mean", "L1H0 at its mean"),
        ("L3E5", "without L3E5"),
        ("L3E5 forced", "L3E5 forced"),
        ("L1H0 previous-token", "L1H0 looks at the previous token alone"),
        ("L1H0 first-token", "L1H0 looks at the first token alone"),
        ("L1H0 own-token", "L1H0 looks at its own token alone"),
        ("9 cannot see 3", "token 9 cannot see 3"),
        ("L1H0 9 cannot see 3", "L1H0: token 9 cannot see 3"),
    ],
)
def test_a_chip_says_what_its_text_does(text, told):
    """A forced expert, and a head that was told where to look, were said to be at their mean."""
    assert said(phrase(text)) == told
