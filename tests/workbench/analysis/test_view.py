"""A view: how one mapping of parameters is split, what a drawing gets, what is said and claimed."""

from typing import Annotated, ClassVar

import pytest
import xarray as xr

from tests.example_probe import VIEW as PLAIN
from tests.example_probe import AttentionEntropy
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Choice, Range, Slider, Values
from workbench.analysis.results import dataset
from workbench.analysis.view import Claim, View, named
from workbench.errors import InputError


class Lengths(OnPrompt, name="lengths", title="Lengths of tokens"):
    """How long tokens are.

    Definition: characters of each token.
    Limits: bytes are something else.
    Source: made for these tests.
    """

    kept: Annotated[int, Range(1, 10), "how many are kept"] = 3
    spaces: Annotated[bool, "count spaces"] = True

    def needs(self, model, tokens):
        """Nothing of the model."""
        return ()

    def analyse(self, observation):
        """Of the first tokens."""
        lengths = [float(len(text)) for text in observation.tokens[0].strings[: self.kept]]
        return dataset(observation, length=("pos", lengths, "characters", (0, None)))


class Drawing(Values):
    """How lengths are drawn."""

    owner: ClassVar[str] = "drawing lengths"

    shown: Annotated[int, Range(1, 10), "bars", Slider(1, 8)] = 2
    order: Annotated[str, Choice(("as they come", "longest first")), "order"] = "as they come"


def bars_figure(result, *, shown):
    """Some of them."""
    return [float(v) for v in result["length"].values[:shown]]


def one_figure(result, selection, order):
    """The selected one."""
    return None if "pos" not in selection else (float(result["length"][selection["pos"]]), order)


def long_claim(result, selection, *, shown):
    """Of a long token among those that are shown."""
    at = selection.get("pos")
    if at is None or at >= shown:
        return None
    return Claim(f"token {at} is {float(result['length'][at]):g} long", {"units": f"L0 pos {at}"})


def no_claim(result, selection):
    """Never."""
    return None


def said_sentence(result, *, shown, order):
    """Of those that are shown."""
    return f"{shown} of {result.sizes['pos']}, {order}"


VIEW = View(
    Lengths,
    question="How long are the tokens?",
    figures=(bars_figure,),
    details=(one_figure,),
    claims=(long_claim, no_claim),
    display=Drawing,
    sentence=said_sentence,
    finer=lambda analysis, display: analysis.replaced(kept=max(analysis.kept, display.shown)),
    follow=lambda analysis, selection: [(PLAIN, AttentionEntropy(first=selection["pos"] + 1))],
    follows=("pos",),
)


@pytest.fixture
def result() -> xr.Dataset:
    return dataset(None, length=("pos", [1.0, 5.0, 3.0], "characters", (0, None)))


def test_it_has_the_name_and_the_title_of_its_analysis():
    assert (VIEW.name, VIEW.title) == ("lengths", "Lengths of tokens")
    assert [p.name for p in VIEW.display_parameters] == ["shown", "order"] and PLAIN.display_parameters == ()


def test_one_mapping_is_split_into_what_is_computed_and_what_is_drawn():
    assert VIEW.split({}) == (Lengths(), Drawing())
    assert VIEW.split({"shown": 1, "spaces": False}) == (Lengths(spaces=False), Drawing(shown=1))
    assert PLAIN.split({"first": 3}) == (AttentionEntropy(first=3), PLAIN.shown())


def test_a_display_that_asks_for_more_makes_the_analysis_finer():
    analysis, display = VIEW.split({"shown": 7, "kept": 2})
    assert (analysis, display) == (Lengths(kept=7), Drawing(shown=7))
    assert VIEW.fine_enough(Lengths(kept=9), display) == Lengths(kept=9)
    assert PLAIN.fine_enough(AttentionEntropy(), PLAIN.shown()) == AttentionEntropy()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shown": 11}, "shown=11; expected a value in the range 1 to 10"),
        ({"order": "shortest"}, "one of as they come, longest first"),
        ({"kept": 0}, "kept=0; expected a value in the range 1 to 10"),
        ({"colour": "red"}, "'colour' for lengths; expected one of kept, spaces"),
    ],
)
def test_what_may_not_be_is_refused_on_either_side(given, said):
    with pytest.raises(InputError, match=said):
        VIEW.split(given)


def test_each_side_takes_its_own_only():
    with pytest.raises(InputError, match="'kept' for drawing lengths; expected one of shown, order"):
        VIEW.shown({"kept": 3})
    with pytest.raises(InputError, match="'shown' for lengths"):
        Lengths(shown=3)
    with pytest.raises(InputError, match="'shown' for the drawing; expected one of none"):
        PLAIN.shown({"shown": 3})


def test_a_drawing_gets_the_display_parameters_that_it_names(result):
    assert VIEW.drawn(bars_figure, result) == [1.0, 5.0]
    assert VIEW.drawn(bars_figure, result, display=Drawing(shown=3)) == [1.0, 5.0, 3.0]
    assert VIEW.drawn(one_figure, result, {"pos": 1}, display=Drawing(order="longest first")) == (5.0, "longest first")
    assert VIEW.drawn(one_figure, result, {}) is None
    assert named(bars_figure, {"shown": 1, "order": 2}) == {"shown": 1} and named(no_claim, {"shown": 1}) == {}


def test_it_claims_what_it_shows(result):
    (claim,) = VIEW.claimed(result, {"pos": 1})
    assert claim == Claim("token 1 is 5 long", {"units": "L0 pos 1"}, "causal-check")
    assert VIEW.claimed(result, {"pos": 2}) == [] and len(VIEW.claimed(result, {"pos": 2}, {"shown": 3})) == 1
    assert VIEW.claimed(result, {}) == [] and PLAIN.claimed(result, {"pos": 1}) == []


def test_it_says_what_the_result_says(result):
    assert VIEW.said(result) == "2 of 3, as they come"
    assert VIEW.said(result, {"shown": 3, "order": "longest first"}) == "3 of 3, longest first"
    plain = View(Lengths, question="?")
    assert plain.said(result) == ""
    assert plain.said(result.assign_attrs(summary="All short.")) == "All short."
    heads = dataset(None, entropy=("layer head", [[0.5, 0.25]], "share of uniform", (0, 1)))
    assert PLAIN.said(heads) == "L0H1 looks at the fewest tokens: 0.25 of uniform."


def test_a_click_may_be_followed_by_another_analysis():
    ((view, analysis),) = VIEW.follow(Lengths(), {"pos": 4})
    assert view is PLAIN and analysis == AttentionEntropy(first=5) and VIEW.follows == ("pos",)


def test_it_is_a_value():
    assert VIEW in {VIEW} and View(Lengths, question="?") == View(Lengths, question="?")
