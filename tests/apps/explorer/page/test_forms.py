"""Forms in words: what is asked for first, how it is picked, and what Start says that it will do."""

import pytest

from apps.explorer.callbacks.intervene import nameable
from apps.explorer.page.forms import filled, param_form
from apps.explorer.page.state import Sizes
from apps.explorer.page.views import planned
from probes import CATALOG
from workbench.analysis.kinds import kind_of
from workbench.analysis.view import Ask

SIZES = Sizes(n_layers=4, n_heads=4, d_mlp=32)
TOKENS = ["<s>", " one", " two"]


def controls(part) -> dict:
    """The controls inside of a part, by the parameter."""
    if isinstance(part, list):
        return {name: one for inner in part for name, one in controls(inner).items()}
    identity = getattr(part, "id", None)
    if isinstance(identity, dict):
        return {identity["name"]: part}
    inner = getattr(part, "children", None)
    return controls(inner) if isinstance(inner, list) else {}


@pytest.mark.parametrize("view", CATALOG.views, ids=lambda view: view.name)
def test_what_is_asked_for_is_there_and_reads_as_a_sentence(view):
    known = {param.name: param for param in view.analysis.parameters()}
    drawn = {param.name: param for param in view.display_parameters}
    names = [ask.name for ask in view.asks if ask.name not in drawn]
    assert set(names) <= set(known) and len(set(names)) == len(names) <= 3
    assert set(drawn) == {ask.name for ask in view.asks} - set(names)  # none by the name that it has in code
    assert all(ask.pick in ("", "units", "pos", "segment", "layer", "head", "pair") for ask in view.asks)
    assert all((known | drawn)[ask.name].default not in (None, "") or ask.empty for ask in view.asks)
    if kind_of(view.analysis) == "study" and known:
        assert view.asks
        said = view.plan(view.analysis())
        assert said[0].isupper() and said.endswith(".") and "None" not in said and "  " not in said
    shown = controls(param_form(view, {}, TOKENS, ["L1H2"]))
    assert set(shown) == {name for name in known if name not in view.follows}  # none is lost under "more"


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("training-timeline", {"checkpoints": "a/step-1; a/step-9", "seeds": 5},
         "Follow the toy's task, or induction heads along a/step-1; a/step-9."),
        ("head-survey", {"on": "prompts", "n_prompts": 40}, "Remove each head in turn by zero on prompts."),
        ("token-erasure-accuracy", {"kind": "imported", "epochs": 7}, "Measure probes of the kind imported."),
    ],
)  # fmt: skip
def test_what_is_planned_names_nothing_that_is_not_used(name, given, said):
    assert CATALOG.view(name).plan(CATALOG.get(name)(**given)) == said


def test_a_token_is_picked_from_the_prompt_and_a_unit_from_the_selection():
    knockout, check = CATALOG.view("attention-knockout"), CATALOG.view("causal-check")
    shown = controls(param_form(knockout, {"query": 2, "subject": "1,2"}, TOKENS))
    assert shown["query"].value == "2" and [one["label"] for one in shown["query"].data] == [
        "0 <s>",
        "1 ·one",
        "2 ·two",
    ]
    assert shown["subject"].value == ["1", "2"]
    shown = controls(param_form(knockout, {"query": -2, "subject": " two"}, TOKENS))  # of a link: typed as they are
    assert shown["query"].value == -2 and shown["subject"].value == " two"
    assert controls(param_form(knockout, {}, TOKENS))["query"].placeholder == "the last token"
    units = nameable({"layer": 2, "head": 3, "query": 2, "key": 1, "depth": 3}, SIZES)
    assert units == ["L2H3", "L2 MLP", "L2 attention", "L2H3:2<-1", "L2H3 key 1", "L3 pos 2"]
    assert controls(param_form(check, {}, TOKENS, units))["units"].data == units
    assert nameable({}, SIZES) == [] == nameable({"query": 2, "depth": 4}, SIZES)  # behind the last block
    assert nameable({"query": 2, "depth": 0}, SIZES) == ["L0 pos 2"]
    for unit in units:  # each is one that the check takes
        CATALOG.get("causal-check")(units=unit)


def test_what_nobody_set_is_filled_in_from_the_selection():
    check, part = CATALOG.view("causal-check"), CATALOG.view("flow-route-part")
    assert filled(check, {}, {"layer": 1, "head": 0}, ["L1H0"]) == {"units": "L1H0"}
    assert filled(check, {"units": "L3H3"}, {"layer": 1, "head": 0}, ["L1H0"]) == {}  # somebody did
    patching = CATALOG.view("activation-patching")
    assert filled(patching, {}, {}, [], " one three") == {"corrupt": " one three"}
    assert filled(patching, {"corrupt": "a b"}, {}, [], " one three") == {} == filled(check, {}, {}, [], " one three")
    assert filled(part, {}, {"layer": 1, "head": 0}, []) == {"layer": 1, "head": 0}
    assert filled(part, {}, {"layer": 1}, []) == {} == filled(check, {}, {}, [])


@pytest.mark.parametrize(
    ("ask", "value", "said"),
    [
        (Ask("where", "Hide", pick="pos", empty="the last token"), -1, "Hide the last token"),
        (Ask("where", "Hide", pick="pos"), 0, "Hide token 0"),
        (Ask("where", "Hide", pick="segment", empty="all"), "", "Hide all"),
        (Ask("where", "Hide", pick="segment"), "7", "Hide token 7"),
        (Ask("where", "Hide", pick="segment"), "3,4", "Hide tokens 3,4"),
        (Ask("where", "Hide", pick="segment"), "the name", "Hide the name"),
        (Ask("where", "with", unit="draws"), 4, "with 4 draws"),
    ],
)
def test_what_is_asked_says_its_value(ask, value, said):
    assert ask.said(value) == said


class Run:
    """A request of five tokens."""

    tokens = range(5)

    def __init__(self, **analyses):
        self.analyses = {name.replace("_", "-"): analysis for name, analysis in analyses.items()}


def test_start_says_what_it_will_do_on_what_and_for_how_long():
    check, circuit = CATALOG.view("causal-check"), CATALOG.view("circuit")
    run = Run(causal_check=check.analysis(units="L2H1 L3H0", method="mean"), circuit=circuit.analysis())
    assert planned(check, run, 12.2) == (
        "Remove L2H1 L3H0 by mean and measure log-probability. On this prompt, 5 tokens: about 12\u00a0s."
    )
    assert planned(circuit, run, 600).endswith("On texts of its own: about 10 min.")
    assert planned(circuit, run, 0.2).endswith("about a second.") and planned(circuit, run, 9000).endswith("about 2 h.")
