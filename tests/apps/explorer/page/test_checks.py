"""Check buttons: the claims of what is open, each once, and the params that a click sets."""

import xarray as xr

from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page import checks
from probes.attention.pattern import VIEW as ATTENTION
from probes.neurons.neurons import VIEW as NEURONS
from tests.tiny_analyses import tiny_study
from workbench.analysis.parameters import Values
from workbench.analysis.view import Claim


def claimed(result, selection, shade=0):
    return Claim("Check L1H2", {"units": f"L1H{shade}"})


def nothing(result, selection):
    return None


def unknown(result, selection):
    return Claim("Check elsewhere", {"units": "L1H2"}, study="no-such-study")


class Shade(Values):
    """What only the drawing knows."""

    shade: int = 0


def engine():
    view = tiny_study("mine", nothing, claims=(claimed, nothing, unknown), display=Shade)
    check = tiny_study("causal-check", nothing)
    made = Engine(Settings(("toy-induction",)), (view, check), load=lambda name, progress: None)
    made.close()
    return made


def test_claims_of_all_that_is_open_each_once_and_as_it_is_displayed():
    results = {"mine": xr.Dataset(), "attention": xr.Dataset()}
    found = checks.claims_of(engine(), results, {"layer": 1, "head": 2, "query": 5, "key": 3}, {"mine": {"shade": 7}})
    assert [claim.title for claim in found] == ["Check L1H2", "Check L1H2:5<-3"]
    assert found[0].params == {"units": "L1H7"}  # the view's own stands before the head's
    assert [button.children for button in checks.buttons(found)] == ["Check L1H2", "Check L1H2:5<-3"]


def test_a_click_turns_the_study_to_the_claim_and_to_nothing_else():
    claims = [Claim("Check A", {"units": "L1H2", "metric": "loss"})]
    before = {"causal-check": {"target": " Paris"}, "logit-lens": {"top_k": 5}}
    params, study = checks.params_for(claims, "Check A", before)
    assert study == "causal-check"
    assert params == {"causal-check": {"units": "L1H2", "metric": "loss"}, "logit-lens": {"top_k": 5}}
    assert checks.params_for(claims, "Check B", before) is None


def test_the_views_of_one_layer_claim_what_is_selected_in_them():
    attrs = {"layer": 3, "at": 6}
    result = xr.Dataset(coords={"neuron": [40, 7]}, attrs=attrs)
    measured = {"metric": "log-probability", "pos": 6}
    assert NEURONS.claimed(result, {"neuron": 7})[0].params == {"units": "L3N7", **measured}
    assert NEURONS.claimed(result, {})[0].params == {"units": "L3N40", **measured}
    assert [c.params["units"] for c in ATTENTION.claimed(xr.Dataset(), {"layer": 1, "head": 2})] == ["L1H2"]
