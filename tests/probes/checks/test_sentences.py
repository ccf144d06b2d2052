"""Every word of a check's sentence follows from its numbers: random results, read back by another way."""

import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.checks.figures import controls_figure
from probes.checks.sentences import sentence
from workbench.statistics import monte_carlo_p

# A grid of halves, so that ties are common: "as much" must count them.
EFFECT = st.integers(-6, 6).map(lambda n: n / 2)
SIDES = ("lowers", "raises", "changes")
KINDS = ("matched units", "random directions", "none")


@st.composite
def results(draw):
    side, kind = draw(st.sampled_from(SIDES)), draw(st.sampled_from(KINDS))
    effect = draw(EFFECT)
    controls = np.array(draw(st.lists(EFFECT, min_size=19, max_size=40)) if kind != "none" else [])
    peers = np.array(draw(st.lists(EFFECT, max_size=30)))
    extreme = np.abs if side == "changes" else (lambda x: x)
    p = float(monte_carlo_p(extreme(effect), extreme(controls), "less" if side == "lowers" else "greater"))
    n = draw(st.sampled_from([1, 8, 16]))
    known = n >= 16
    has_relation = draw(st.booleans())
    data = {
        "effect": ((), effect, {"units": "nats"}),
        "effect_low": ((), effect - 1 if known else np.nan),
        "effect_high": ((), effect + 1 if known else np.nan),
        "effect_by_prompt": ("prompt", np.full(n, effect)),
        "control_effect": ("draw", controls),
        "p": ((), p),
        "relation_p": ((), draw(st.sampled_from([0.01, 0.2, 0.9])) if has_relation else np.nan),
        "relation_test_p": ((), draw(st.sampled_from([0.001, 0.3]))),
        "control_norm_low": ((), 0.7),
        "control_norm_high": ((), 1.4),
    }
    if len(peers):
        data["peer_effect"] = ("component", peers)
    attrs = {
        "side": side,
        "controls": kind,
        "called": "L3H1",
        "nouns": "heads",
        "metric": "loss",
        "method": "zero",
        "window": draw(st.integers(0, 5)),
        "caliper": 1.5,
        "within_caliper": 7,
        "scarce": "L3H1",
        "n_others": len(peers) + draw(st.sampled_from([0, 9])),
        "n_beyond": draw(st.integers(0, 3)),
    }
    return xr.Dataset(data, attrs=attrs)


def as_much(effects: np.ndarray, own: float, side: str) -> int:
    return sum(
        (abs(one) >= abs(own)) if side == "changes" else (one <= own) if side == "lowers" else (one >= own)
        for one in effects.tolist()
    )


def counted(text: str, pattern: str) -> int | None:
    found = re.search(pattern, text)
    return None if found is None else 0 if found[1] == "none" else int(found[1])


@given(results())
@settings(max_examples=300, deadline=None)
def test_every_word_follows_from_the_numbers(result):
    said, side, kind = sentence(result), result.attrs["side"], result.attrs["controls"]
    effect, controls, p = float(result["effect"]), result["control_effect"].values, float(result["p"])
    other = {"lowers": "raises?", "raises": "lowers?"}.get(side)
    astray = (side == "lowers" and effect >= 0) or (side == "raises" and effect <= 0)
    does = rf"{side}?" + (rf" it, or {other} it by no more" if astray else " it as much")
    if kind == "none":
        assert "No test beside its like" in said and "it more than" not in said and "on average" not in said
    else:
        assert counted(said, rf"and (\d+|none) of them {does} \(p") == as_much(controls, effect, side)
        verb_of_all, mean = re.search(r"they (change|move) it by (\S+) ", said).groups()
        signed, mean = mean[0] in "+-", float(mean)
        compared = np.abs(controls) if side == "changes" else controls
        assert mean == pytest.approx(compared.mean(), rel=0.01, abs=0.005)
        assert ("in absolute size" in said) == (side == "changes") == (verb_of_all == "change") == (not signed)
        assert (f"it {side} it more than" in said) != astray == (f": it does not {side[:-1]} it" in said)
        assert ("it is not shown that" in said) == (p > 0.05 and not astray)
        assert ("it less than" in said) == (p <= 0.05 and astray)
        assert ("the smallest that so many can give" in said) == (p == pytest.approx(1 / (1 + len(controls))))
    assert ("its like." in said) == (kind == "matched units" and not (astray and p > 0.05))
    assert ("random direction" in said) == (kind == "random directions")
    assert ("0.70 to 1.40 times it" in said) == (kind == "matched units")
    interval = re.search(r"interval (\S+) to (\S+), n = (\d+)\)", said)
    assert (interval is not None) == bool(np.isfinite(result["effect_low"]))
    assert interval is None or int(interval[3]) == result.sizes["prompt"]
    peers = result["peer_effect"].values if "peer_effect" in result else np.zeros(0)
    if kind != "matched units" and len(peers) == 1:
        assert ("There is one other of the heads" in said) == (result.attrs["n_others"] == 1)
        one = re.search("removed, whatever its norm, it ([^.]*)", said)[1]
        assert bool(re.fullmatch(does, one)) == (as_much(peers, effect, side) == 1)
        assert re.fullmatch(
            rf"{does}|" + (f"{other} it by more" if astray else f"does not {side[:-1]} it as much"), one
        )
    elif kind != "matched units" and len(peers):
        assert counted(said, rf"one by one, (\d+|none) {does}") == as_much(peers, effect, side)
        assert ("a sample over all norms" in said) == (len(peers) < result.attrs["n_others"])
    if kind == "random directions" and len(peers):
        assert re.search("whatever|one by one", said).start() < said.index("random directions")
    holds = float(result["relation_test_p"]) >= 0.01
    has = bool(np.isfinite(result["relation_p"]))
    far = {"lowers": "low", "raises": "high", "changes": "far out"}[side]
    assert bool(re.search(f"lies? as {far} as it", said)) == (has and holds)
    assert ("does not hold here" in said) == (has and not holds)
    if has and holds:
        assert counted(said, rf"(\d+|none) lies? as {far} as it") == result.attrs["n_beyond"]


@pytest.mark.parametrize("as_large, p, said", [(0, 0.025, True), (1, 0.05, True), (2, 0.075, False), (3, 0.1, False)])
def test_more_than_its_like_is_said_up_to_five_in_a_hundred(as_large, p, said):
    controls = np.array([3.0] * as_large + [0.5] * (39 - as_large))
    result = given_result(2.0, controls, p)
    assert ("it is not shown that it changes it more than its like" in sentence(result)) is not said
    assert "it changes it more than its like" in sentence(result)


def given_result(effect: float, controls: np.ndarray, p: float) -> xr.Dataset:
    unknown = ((), np.nan)
    data = {
        "effect": ((), effect, {"units": "nats"}),
        "effect_low": unknown,
        "effect_high": unknown,
        "effect_by_prompt": ("prompt", [effect]),
        "control_effect": ("draw", controls),
        "p": ((), p),
        "relation_p": unknown,
        "relation_test_p": unknown,
        "control_norm_low": ((), 0.7),
        "control_norm_high": ((), 1.4),
    }
    attrs = {
        "side": "changes",
        "controls": "matched units",
        "called": "L3H1",
        "nouns": "heads",
        "metric": "loss",
        "method": "zero",
        "window": 2,
        "caliper": 1.5,
        "within_caliper": 39,
        "scarce": "L3H1",
        "n_others": 39,
        "n_beyond": 0,
    }
    return xr.Dataset(data, attrs=attrs)


def test_the_few_controls_that_do_as_much_are_named_with_what_they_do():
    result = given_result(2.0, np.array([3.0] + [0.5] * 39), 0.05)
    result.attrs["rivals"] = "L16H0 by +3"
    assert "1 of them changes it as much (L16H0 by +3; p = 0.05)" in sentence(result)


def unheld(*peers: float) -> xr.Dataset:
    """A check without controls, beside these others."""
    result = given_result(2.0, np.zeros(0), np.nan).assign_attrs(controls="none", within_caliper=0)
    return result.assign(peer_effect=("component", list(peers))) if peers else result


def test_the_few_others_that_do_as_much_are_named_too():
    result = unheld(3.0, 0.5, 0.25).assign_attrs(peer_rivals="L16H0 by +3")
    assert "removed one by one, 1 changes it as much (L16H0 by +3)." in sentence(result)
    assert "removed one by one, none change it as much." in sentence(unheld(0.5, 0.25))


def test_a_title_names_nothing_beside_where_nothing_is_drawn():
    """It read `effect beside that of the others` over a single line."""
    title = lambda result: controls_figure(result).layout.title.text.replace("<br>", " ")
    assert title(unheld()) == "L3H1: effect, with too few as loud to hold it against"
    beside = unheld(3.0, 0.5).assign_coords(label=("component", ["L1H0", "L1H1"]))
    assert "beside that of the others" in title(beside)
