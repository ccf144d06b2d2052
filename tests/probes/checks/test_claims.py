"""Claims: what views say of a selection, as params of a check that measures what the view is about."""

import numpy as np
import pytest

from probes.attention.induction.induction_heads import InductionHeads
from probes.attention.induction.induction_on_prompt import InductionOnPrompt
from probes.attention.sinks.attention_sinks import AttentionSinks, sink_claim
from probes.checks import claims
from probes.circuits.activation_patching import ActivationPatching, site_claim
from probes.circuits.direct_logit_attribution import DirectLogitAttribution, component_claim
from probes.lens.logit_lens import LogitLens
from probes.routes.extraction import extract
from probes.routes.flow_routes import VIEW, FlowRoutes
from tests.tiny_models import sinking_toy, tiny_model
from workbench.intervene import units_of
from workbench.loading.pretrained import wrap
from workbench.models.prompt import Prompt
from workbench.observation import observe

PROMPT = Prompt.ids([0, *[7, 31, 64, 12, 90, 45, 7, 31, 64, 12, 90, 45, 3, 18, 77, 3, 18, 52]])


@pytest.fixture(scope="module")
def model():
    """Four layers of four heads."""
    return tiny_model("llama", n_layers=4)


def test_a_route_claims_its_strongest_edges_between_tokens(model):
    result = FlowRoutes().run(model, PROMPT)
    graph = extract(result, start=12)
    (claim,) = [c for c in VIEW.claimed(result, {}, {"start": 12})]
    units = units_of(claim.params["units"])
    assert claim.params["pos"] == 12 and claim.params["side"] == "lowers" and len(units) == 24
    weight = {
        tuple(int(e[f"edge_{name}"]) for name in ("layer", "head", "query", "key")): float(e["weight"])
        for e in (graph.isel(edge=i) for i in range(graph.sizes["edge"]))
        if e["kind"] == "attention" and e["edge_query"] > 0
    }
    chosen = [weight.pop((u.layer, u.head, u.query, u.key)) for u in units]
    assert min(chosen) >= max(weight.values())


def test_an_edge_claims_all_its_heads(model):
    result = FlowRoutes().run(model, PROMPT)
    selection = {"layer": 2, "query": 9, "key": int(result["edge_key"].values[(result["edge_query"] == 9).values][0])}
    claim = next(c for c in VIEW.claimed(result, selection) if "the edge" in c.title)
    assert {(u.layer, u.query, u.key) for u in units_of(claim.params["units"])} == {(2, 9, selection["key"])}


def test_a_sink_is_claimed_where_a_head_sinks():
    model = wrap(sinking_toy(), None, name="toy")  # L1H0 puts all attention on position 0
    result = AttentionSinks().run(model, Prompt.ids(list(range(31)) * 2))
    layer, head = (int(i) for i in np.argwhere(result["sink"].values == 1)[0])
    claim = sink_claim(result, {"layer": layer, "head": head})
    key = int(result["attention_received"].sel(layer=layer, head=head).argmax())
    unit = f"L{layer}H{head} key {key}"
    assert claim.params == {"units": unit, "metric": "KL", "side": "raises", "pos": -1}
    later = sink_claim(result, {"layer": layer, "head": head, "query": key + 3, "pos": key + 3})
    assert later.params["pos"] == key + 3  # the prediction at the selected token, if it can see the key
    assert sink_claim(result, {"layer": layer, "head": head, "pos": key}).params["pos"] == -1
    assert sink_claim(result, {"layer": 0, "head": 0}) is None  # uniform attention is no sink


def test_a_part_claims_the_side_of_its_share(model):
    result = DirectLogitAttribution(target="#31", against="#7", pos=11).run(model, PROMPT)
    for at, label in enumerate(result["label"].values):
        claim = component_claim(result, {"component": at})
        if result["kind"].values[at] not in ("head", "mlp"):
            assert claim is None
            continue
        (unit,) = units_of(claim.params["units"])
        assert str(unit) == label and claim.params["side"] == ("lowers" if result["attribution"][at] > 0 else "raises")
        assert (claim.params["target"], claim.params["against"], claim.params["pos"]) == ("#31", "#7", 11)
    ends = DirectLogitAttribution().run(model, PROMPT)
    claim = next(filter(None, (component_claim(ends, {"component": at}) for at in range(ends.sizes["component"]))))
    assert claim.params["pos"] == -1  # in the next prompt its last token, too


@pytest.mark.parametrize(
    ("site", "units"),
    [
        ("z", "L1H2"),
        ("mlp_out", "L1 mlp"),
        ("attn_out", "L1 attention"),
        ("resid_pre", "L1 pos 3"),
        ("resid_post", "L2 pos 3"),
    ],
)
def test_a_patched_site_claims_what_was_patched(model, site, units):
    result = ActivationPatching(site=site, target="#31").run(model, PROMPT)
    claim = site_claim(result, {"layer": 1, "head": 2, "pos": 3})
    assert claim.params["units"] == units and claim.params["target"] == "#31" and claim.params["pos"] == -1
    assert claim.params["metric"] == "logit difference" and "against" not in claim.params


def test_the_tokens_that_a_study_chose_are_the_ones_that_are_checked(model):
    result = ActivationPatching(site="z").run(model, PROMPT)
    claim = claims.head(result, {"layer": 1, "head": 2, "pos": 3})
    names = {name: token for name, token in claims.asked(result, {}).items() if name in ("target", "against")}
    logits = observe(model, PROMPT).logits[0][0]
    assert names["target"] == f"#{int(logits.argmax())}" and names.items() <= claim.params.items()
    metric = " minus ".join(f"'{name}'" for name in names.values())
    assert result.attrs["metric"] == f"logit of {metric}"


def test_a_head_is_checked_on_the_prediction_at_the_selected_token(model):
    result = AttentionSinks().run(model, PROMPT)
    claim = claims.head(result, {"layer": 1, "head": 2, "pos": 7, "query": 7})
    assert claim.params == {"units": "L1H2", "metric": "log-probability", "pos": 7}
    assert claims.head(result, {"layer": 1, "head": 2}).params["pos"] == -1
    last = len(PROMPT.token_ids) - 1
    assert claims.head(result, {"layer": 1, "head": 2, "query": last}).params["pos"] == -1  # of the next prompt, too
    edge = claims.edge(result, {"layer": 1, "head": 2, "query": 7, "key": 4})
    assert edge.params == {"units": "L1H2:7<-4", "metric": "log-probability", "pos": 7}


def test_an_induction_score_claims_what_came_next_the_last_time(model):
    on_prompt = InductionOnPrompt()
    claim = claims.repetition(on_prompt.run(model, PROMPT), {"layer": 1, "head": 2})
    assert claim.params == {"units": "L1H2", "metric": "repetition", "pos": -1, "side": "lowers", "on": "prompt"}
    assert claims.repetition(on_prompt.run(model, Prompt.ids(range(1, 20))), {"layer": 1, "head": 2}) is None
    own = InductionHeads(n_sequences=16, length=24).run(model)
    claim = claims.repetition(own, {"layer": 1, "head": 2})
    assert claim.params["on"] == "repeated tokens" and "random tokens" in claim.title


def test_states_claim_nothing_at_position_0_and_behind_the_last_block(model):
    result = LogitLens().run(model, PROMPT)
    assert claims.state(result, {"depth": 2, "pos": 5}).params["units"] == "L2 pos 5"
    for selection in ({"depth": 4, "pos": 5}, {"depth": 2, "pos": 0}, {"depth": 2.5, "pos": 5}, {"pos": 5}):
        assert claims.state(result, selection) is None


@pytest.mark.parametrize(
    "asked", [{"target": "#7 #31"}, {"target": "#9", "against": "#7 #31"}], ids=["target", "against"]
)
def test_nothing_is_claimed_of_a_token_of_the_target(model, asked):
    """A target of several tokens stands behind the prompt, in the view's own run: a check on the prompt refuses it."""
    study = ActivationPatching(site="resid_pre", metric="log-probability", **asked)
    result, last = study.run(model, PROMPT), len(PROMPT.token_ids) - 1
    assert last + 1 in result["pos"].values
    assert site_claim(result, {"layer": 1, "pos": last}).params["units"] == f"L1 pos {last}"
    assert site_claim(result, {"layer": 1, "pos": last + 1}) is None
