"""Parameters: typed fields of a frozen value, and what they refuse."""

import copy
import inspect
from dataclasses import FrozenInstanceError
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.parameters import Choice, Parameter, Position, Range, Slider, Values
from workbench.errors import InputError

FINITE = {"allow_nan": False, "allow_infinity": False}


class Knobs(Values):
    """One parameter of every kind."""

    owner: ClassVar[str] = "the knobs"

    count: Annotated[int, Range(1, 9), "how many"] = 4
    at_least: Annotated[int, Range(low=-2), "open above"] = 0
    share: Annotated[float, Range(0, 1), "a share", Slider(0.1, 0.5)] = 0.25
    free: Annotated[float, "any number"] = -3.5
    upper: Annotated[float, Range(high=2.5), "open below"] = 1.0
    flag: Annotated[bool, "on or off"] = False
    text: Annotated[str, "a text"] = "so"
    how: Annotated[str, Choice(("zero", "mean")), "one of two"] = "zero"
    corpus: Annotated[str, Choice(("own", "wiki"), files=True), "a name or a file"] = "own"
    size: Annotated[int, Choice((8, 16)), "powers"] = 8
    mode: Literal["fast", "slow"] = "fast"
    layer: Annotated[int | None, Range(0, 3), "None for all"] = None
    rate: Annotated[float | None, Range(0), "None to choose"] = None
    word: Annotated[str | None, "None for the first"] = None
    side: Annotated[str | None, Choice(("left", "right")), "None for both"] = None
    pos: Annotated[int, Position(), "a token"] = 0
    query: Annotated[int | None, Position("query")] = None


BY_NAME = {parameter.name: parameter for parameter in Knobs.parameters()}


# --- what is read from the fields -------------------------------------------------------------------------------------


def test_every_field_is_a_parameter_in_its_order():
    assert list(BY_NAME) == list(Knobs().values())
    about = {name: (p.type, p.default, p.optional, p.low, p.high, p.choices) for name, p in BY_NAME.items()}
    assert about == {
        "count": (int, 4, False, 1, 9, ()),
        "at_least": (int, 0, False, -2, None, ()),
        "share": (float, 0.25, False, 0, 1, ()),
        "free": (float, -3.5, False, None, None, ()),
        "upper": (float, 1.0, False, None, 2.5, ()),
        "flag": (bool, False, False, None, None, ()),
        "text": (str, "so", False, None, None, ()),
        "how": (str, "zero", False, None, None, ("zero", "mean")),
        "corpus": (str, "own", False, None, None, ("own", "wiki")),
        "size": (int, 8, False, None, None, (8, 16)),
        "mode": (str, "fast", False, None, None, ("fast", "slow")),
        "layer": (int, None, True, 0, 3, ()),
        "rate": (float, None, True, 0, None, ()),
        "word": (str, None, True, None, None, ()),
        "side": (str, None, True, None, None, ("left", "right")),
        "pos": (int, 0, False, None, None, ()),
        "query": (int, None, True, None, None, ()),
    }
    assert BY_NAME["count"].help == "how many" and BY_NAME["query"].help == ""
    assert [n for n, p in BY_NAME.items() if p.files] == ["corpus"]
    assert {n: p.slider for n, p in BY_NAME.items() if p.slider} == {"share": (0.1, 0.5)}
    assert {n: p.dim for n, p in BY_NAME.items() if p.dim} == {"pos": "pos", "query": "query"}


def test_an_editor_sees_the_fields():
    assert list(inspect.signature(Knobs).parameters) == list(BY_NAME)
    assert repr(Knobs(count=2)).startswith("Knobs(count=2, at_least=0, share=0.25")


# --- what is taken and what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 1), ("count", 9), ("at_least", -2), ("at_least", 10**12), ("share", 0.0), ("share", 1.0),
        ("free", 1e300), ("upper", -1e9), ("flag", True), ("text", ""), ("how", "mean"), ("corpus", "no/such/file.txt"),
        ("size", 16), ("mode", "slow"), ("layer", None), ("layer", 3), ("rate", None), ("rate", 0.5), ("word", None),
        ("word", " Paris"), ("side", None), ("side", "left"), ("query", None),
    ],
)  # fmt: skip
def test_what_may_be_is_taken_as_it_is(name, value):
    assert getattr(Knobs(**{name: value}), name) == value
    assert BY_NAME[name].check(value) == value
    assert type(getattr(Knobs(**{name: value}), name)) is type(value)


def test_a_whole_number_will_do_for_a_float():
    made = Knobs(share=1, rate=2)
    assert made == Knobs(share=1.0, rate=2.0) and type(made.share) is float and type(made.rate) is float
    assert type(BY_NAME["free"].check(7)) is float


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("count", 0, "count=0; expected a value in the range 1 to 9. Correct the value."),
        ("count", 10, "range 1 to 9"),
        ("count", True, "count=True; expected a value of type int"),
        ("count", "3", "count='3'; expected a value of type int"),
        ("count", 3.0, "value of type int"),
        ("count", None, "count=None; expected a value of type int"),
        ("count", [3], "value of type int"),
        ("at_least", -3, "range -2 to any"),
        ("share", float("nan"), "share=nan; expected a finite number"),
        ("share", -1e-9, "range 0 to 1"),
        ("share", True, "value of type float"),
        ("share", "0.5", "value of type float"),
        ("free", float("nan"), "a finite number"),
        ("free", float("inf"), "a finite number"),
        ("upper", 3, "range any to 2.5"),
        ("flag", 1, "flag=1; expected a value of type bool"),
        ("flag", "true", "value of type bool"),
        ("flag", None, "value of type bool"),
        ("text", 3, "text=3; expected a value of type str"),
        ("text", None, "value of type str"),
        ("how", "median", "how='median'; expected one of zero, mean. Choose one of these."),
        ("how", 3, "value of type str"),
        ("corpus", 3, "value of type str"),
        ("size", 12, "size=12; expected one of 8, 16"),
        ("size", True, "value of type int"),
        ("mode", "quick", "one of fast, slow"),
        ("layer", 4, "range 0 to 3"),
        ("layer", False, "value of type int"),
        ("rate", float("nan"), "a finite number"),
        ("side", "top", "one of left, right"),
    ],
)
def test_what_may_not_be_is_refused_in_a_sentence(name, value, said):
    for make in (lambda: Knobs(**{name: value}), lambda: BY_NAME[name].check(value)):
        with pytest.raises(InputError) as error:
            make()
        assert said in str(error.value) and str(error.value).startswith(f"Got {name}=")
        assert "\n" not in str(error.value) and "pydantic" not in str(error.value)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(InputError, match="the parameter 'cuont' for the knobs; expected one of count, at_least"):
        Knobs(cuont=3)

    class Bare(Values):
        """Without parameters."""

    with pytest.raises(InputError, match="'x' for Bare; expected one of none"):
        Bare(x=1)
    with pytest.raises(InputError, match="by name"):
        Knobs(3)


@given(st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.none())
def test_whatever_is_given_the_value_is_in_range_or_refused(value):
    for name, low, high in (("count", 1, 9), ("share", 0, 1)):
        try:
            made = getattr(Knobs(**{name: value}), name)
        except InputError:
            continue
        assert low <= made <= high and made == value and type(made) is BY_NAME[name].type


# --- definitions that cannot be ---------------------------------------------------------------------------------------


def test_a_parameter_needs_a_default_that_may_be_used():
    with pytest.raises(InputError, match="'count' of Careless without a default"):

        class Careless(Values):
            count: int

    with pytest.raises(InputError, match=r"count=0; expected a value in the range 1 to 9"):

        class Contradictory(Values):
            count: Annotated[int, Range(1, 9)] = 0


def test_a_parameter_is_a_number_a_text_or_a_flag():
    with pytest.raises(InputError, match="'places' of type"):

        class Listed(Values):
            places: tuple[int, ...] = ()


# --- values -----------------------------------------------------------------------------------------------------------


def test_equal_values_are_one():
    assert Knobs(count=4) == Knobs() and hash(Knobs(count=4)) == hash(Knobs()) and Knobs(count=5) != Knobs()
    assert len({Knobs(), Knobs(count=4), Knobs(count=5), Knobs(share=0.25)}) == 2

    class Alike(Knobs):
        """The same fields under another name."""

    assert Alike() != Knobs()


def test_a_value_is_frozen():
    made = Knobs()
    with pytest.raises(FrozenInstanceError):
        made.count = 3
    with pytest.raises(FrozenInstanceError):
        del made.count
    assert copy.deepcopy(made) == copy.copy(made) == made


def test_other_values_of_some_parameters():
    made = Knobs(count=2, word="a")
    assert made.replaced(word=None, flag=True) == Knobs(count=2, flag=True) and made.word == "a"
    assert Knobs.of(made.values()) == made
    with pytest.raises(InputError, match="range 1 to 9"):
        made.replaced(count=0)
    with pytest.raises(InputError, match="'counts'"):
        made.replaced(counts=3)


def test_a_subclass_inherits_and_changes_fields():
    class Finer(Knobs):
        """One more, and another range of one."""

        count: Annotated[int, Range(1, 99), "more of them"] = 50
        extra: Annotated[bool, "something else"] = True

    assert [p.name for p in Finer.parameters()] == [*BY_NAME, "extra"]
    assert Finer().count == 50 and Finer(count=99).share == 0.25
    with pytest.raises(InputError, match="range 0 to 1"):
        Finer(share=2.0)
    with pytest.raises(InputError, match="range 1 to 9"):
        Knobs(count=99)


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "3", 3), ("count", " 7 ", 7), ("share", "0.5", 0.5), ("share", "1", 1.0), ("free", "-1e3", -1000.0),
        ("flag", "true", True), ("flag", "No", False), ("flag", "1", True), ("text", " two  words", " two  words"),
        ("how", "mean", "mean"), ("corpus", "texts/mine.txt", "texts/mine.txt"), ("size", "16", 16),
        ("layer", "none", None), ("layer", "", None), ("layer", "2", 2), ("word", "None", None), ("word", " a", " a"),
        ("side", "right", "right"), ("rate", "none", None),
    ],
)  # fmt: skip
def test_texts_are_read(name, text, value):
    read = BY_NAME[name].parse(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("count", "3.5", "count='3.5'; expected a value of type int"),
        ("count", "ten", "value of type int"),
        ("count", "", "value of type int"),
        ("count", "none", "value of type int"),
        ("count", "10", "range 1 to 9"),
        ("at_least", "-3", "range -2 to any"),
        ("share", "nan", "a finite number"),
        ("free", "inf", "a finite number"),
        ("share", "half", "value of type float"),
        ("flag", "maybe", "flag='maybe'; expected true or false"),
        ("flag", "", "true or false"),
        ("how", "median", "one of zero, mean"),
        ("size", "12", "one of 8, 16"),
        ("mode", "quick", "one of fast, slow"),
        ("layer", "4", "range 0 to 3"),
        ("side", "top", "one of left, right"),
    ],
)
def test_texts_that_say_no_value_are_refused(name, text, said):
    with pytest.raises(InputError, match=said):
        BY_NAME[name].parse(text)


@given(st.integers(1, 9), st.floats(0, 1, **FINITE), st.booleans(), st.none() | st.integers(0, 3))
def test_what_is_printed_is_read_again(count, share, flag, layer):
    made = Knobs(count=count, share=share, flag=flag, layer=layer)
    assert Knobs.of({name: BY_NAME[name].parse(str(value)) for name, value in made.values().items()}) == made


def test_a_parameter_by_itself_is_a_plain_value():
    assert BY_NAME["count"] == Parameter("count", int, 4, "how many", 1, 9)


def test_numbers_of_numpy_are_the_same_parameters():
    """A loop over `argwhere` gave heads that units take and analyses refused."""
    layer, query = np.argwhere(np.eye(4))[2]
    knobs = Knobs(layer=layer, query=query, share=np.float64(0.25), flag=np.bool_(True), text=np.str_("so"))
    assert knobs == Knobs(layer=2, query=2, flag=True) and repr(knobs) == repr(Knobs(layer=2, query=2, flag=True))
    assert all(type(value) in (int, float, bool, str, type(None)) for value in knobs.values().values())
    assert type(BY_NAME["count"].check(np.int8(3))) is int
    with pytest.raises(InputError, match="0 to 3"):
        Knobs(layer=np.int64(4))
    with pytest.raises(InputError, match="type int"):
        Knobs(count=np.float32(3))


def test_what_belongs_to_the_class_is_no_parameter():
    """`owner=` ended in a KeyError, and stood among the names to give."""
    with pytest.raises(InputError, match="the parameter 'owner' for the knobs; expected one of count, at_least"):
        Knobs(owner="mine")
    with pytest.raises(InputError, match="parameters by name: count=, at_least=") as told:
        Knobs(3)
    assert "owner=" not in str(told.value)
