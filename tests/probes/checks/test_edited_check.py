"""Interventions given to a causal check reach its claim, its controls, its means and the prompts it makes itself."""

import json

import numpy as np
import pytest

from probes.checks.causal_check import CausalCheck
from probes.checks.matched_controls import matched_controls
from probes.checks.norms import output_norms
from tests.tiny_models import tiny_hf, tiny_hf_without_head, tiny_model, tiny_model_without_head
from tests.tiny_probes import speller
from workbench.intervene import MLP, Ablate, Attention, AttentionEdge, AttentionKey, Head, Neurons, Residual
from workbench.loading.pretrained import wrap
from workbench.models.prompt import Prompt
from workbench.observation import observe

PROMPT = Prompt.ids(list(range(3, 23)))
EDIT = Ablate(Head(1, 2))
ASKED = {"metric": "logit difference", "target": "#31"}
NUMBERS = ("effect", "effect_by_prompt", "control_effect", "control_norm", "p", "louder", "peer_effect", "relation_p")
CHECKS = [
    CausalCheck(units="L1N5", **ASKED),
    CausalCheck(units="L2H1", **ASKED),
    CausalCheck(units="L2H1", method="mean", **ASKED),
    CausalCheck(units="L1H1:19<-3", **ASKED),
    CausalCheck(units="L1H1 key 4", **ASKED),
    CausalCheck(units="L1 mlp", **ASKED),
    CausalCheck(units="L2 pos 4", **ASKED),
    CausalCheck(units="L2N5", on="repeated tokens", metric="repetition"),
]


@pytest.fixture(scope="module")
def both():
    """A model of four layers, and one without a head."""
    return tiny_model("llama", n_layers=4), tiny_model_without_head("llama", 1, 2, n_layers=4)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.units} {check.method} {check.on}")
def test_a_check_of_an_edited_run_is_one_of_edited_weights(both, check):
    model, without = both
    plain, edited, by_hand = (
        check.run(model, PROMPT),
        check.run(model, PROMPT, interventions=[EDIT]),
        check.run(without, PROMPT),
    )
    for name in NUMBERS:
        np.testing.assert_allclose(edited[name], by_hand[name], atol=1e-4, err_msg=name)
    assert np.abs(edited["control_effect"] - plain["control_effect"]).max() > 1e-3
    assert edited.attrs["summary"] == by_hand.attrs["summary"] != plain.attrs["summary"]
    assert json.loads(edited.attrs["provenance"])["interventions"] == [str(EDIT)]
    assert edited.attrs["spec_key"] != plain.attrs["spec_key"]


@pytest.mark.parametrize("method", ["zero", "mean"])
def test_a_unit_that_is_already_gone_does_nothing_more(both, method):
    result = CausalCheck(units="L1H2", method=method, **ASKED).run(both[0], PROMPT, interventions=[EDIT])
    assert abs(float(result["effect"])) < 1e-6 and np.isfinite(result["control_effect"]).all()
    edge = CausalCheck(units="L1H2:19<-3", **ASKED).run(both[0], PROMPT, interventions=[EDIT])
    assert abs(float(edge["effect"])) < 1e-6


def test_resampling_takes_from_the_edited_run(both):
    """tiny models have no tokenizer, so the corrupt prompt is a text of one that has."""
    tokenizer = speller().tokenizer
    model = wrap(tiny_hf("llama", n_layers=3), tokenizer, name="speller")
    without = wrap(tiny_hf_without_head("llama", 1, 2, n_layers=3), tokenizer, name="speller without")
    resample = CausalCheck(units="L0N5", method="resample", corrupt="the dog sat", metric="KL")
    others = CausalCheck(units="L0N5", others="a dog ran | one cat slept")
    for check in (resample, others):
        edited = check.run(model, "the cat sat", interventions=[EDIT])
        by_hand, plain = check.run(without, "the cat sat"), check.run(model, "the cat sat")
        np.testing.assert_allclose(edited["effect_by_prompt"], by_hand["effect_by_prompt"], atol=1e-5)
        np.testing.assert_allclose(edited["control_effect"], by_hand["control_effect"], atol=1e-5)
        assert np.abs(edited["control_effect"] - plain["control_effect"]).max() > 1e-5
    assert edited.sizes["prompt"] == 2


def test_units_are_as_loud_as_the_edit_leaves_them(both):
    model, without = both
    edited = model.edited([EDIT])
    for kind in (Head, Neurons, Attention, MLP, AttentionKey, Residual, AttentionEdge):
        queries = (19, 7) if kind is AttentionEdge else ()
        found, expected = (output_norms(one, [PROMPT], kind, queries) for one in (edited, without))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=kind.__name__)
    loud = output_norms(model.edited([Ablate(MLP(1))]), [PROMPT], Neurons)
    assert (loud[1] < -30).all() and (loud[2] > -30).all()
    sets = matched_controls(edited, [PROMPT], [AttentionEdge(1, 1, 19, 3)]).sets
    assert len(sets) >= 19 and not any((one.layer, one.head) == (1, 2) for (one,) in sets)


def test_the_claim_is_measured_on_the_edited_run(both):
    """Against two plain passes with both edits."""
    result = CausalCheck(units="L1N5", **ASKED).run(both[0], PROMPT, interventions=[EDIT])
    removed = Ablate(Neurons(1, (5,)))
    with_it, without_it = (
        observe(both[0], PROMPT, interventions=edits).logits[0][0, 31] for edits in ([EDIT], [EDIT, removed])
    )
    assert float(result["effect"]) == pytest.approx(float(without_it - with_it), abs=1e-5)


def test_on_repeated_tokens_the_prompt_does_not_enter():
    """Neither its key nor its provenance; without it a check of a prompt is refused."""
    model, check = tiny_model("llama"), CausalCheck(units="L1N5", on="repeated tokens", metric="repetition")
    one, other = check.run(model), check.run(model, PROMPT)
    assert one.attrs["spec_key"] == other.attrs["spec_key"] and one.attrs["provenance"] == other.attrs["provenance"]
    assert not check.reads_prompt() and CausalCheck().reads_prompt()
