"""Whatever is typed as a parameter or as an intervention is taken or refused in a sentence."""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from probes import CATALOG
from tests.long_run import examples
from workbench.errors import InputError
from workbench.intervene.text import phrase

ODD = st.sampled_from(
    [
        "",
        " ",
        "nan",
        "inf",
        "-0",
        "1e999",
        "9" * 400,
        "²",
        "\x00",
        "\ud800",
        "L0H0",
        "L9H9 mean",
        "none",
        "true",
        "1,2,",
    ]
)
TYPED = ODD | st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.lists(st.integers(), max_size=2)
)
PARAMETERS = [
    (view, parameter) for view in CATALOG.views for parameter in (*view.analysis.parameters(), *view.display_parameters)
]


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(PARAMETERS), TYPED)
def test_any_text_is_a_value_or_refused(one, text):
    view, parameter = one
    with suppress(InputError):
        view.split({parameter.name: parameter.parse(text)})


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(
        TYPED | st.sampled_from(["L1H2", "mean", "zero", "cannot see", "MLP", "resid", "head", "neuron"]), max_size=5
    )
)
def test_any_text_is_an_intervention_or_refused(words):
    with suppress(InputError):
        str(phrase(" ".join(words)))


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(PARAMETERS), VALUES)
def test_any_value_of_a_link_is_a_parameter_or_refused(one, value):
    view, parameter = one
    with suppress(InputError):
        view.split({parameter.name: value})
