"""A target of several tokens stands behind the prompt while it is measured: the prompt's last token stays its last."""

import numpy as np
import pytest
import torch

from probes.checks.causal_check import CausalCheck
from probes.circuits.activation_patching import ActivationPatching
from probes.circuits.attention_knockout import AttentionKnockout
from probes.circuits.attribution_patching import AttributionPatching
from probes.circuits.causal_tracing import CausalTracing
from tests.tiny_models import tiny_hf
from workbench.analysis.agreement import agreement
from workbench.batch.values.rows import Reduction
from workbench.errors import InputError
from workbench.intervene import Ablate, FreezePatterns, Head, Knockout, Patch, Scale, Steer
from workbench.intervene.units import Attention, AttentionEdge, AttentionKey, Residual
from workbench.loading.pretrained import wrap
from workbench.models.hooks import PATTERN, Z
from workbench.models.prompt import Prompt
from workbench.models.target import behind
from workbench.observation.recording import record

CLEAN, CORRUPT = (5, 17, 40, 23, 61, 8), "#5 #17 #44 #23 #61 #8"
ASKED = {"metric": "log-probability", "target": "#31 #7 #50"}
STUDIES = [
    ActivationPatching(corrupt=CORRUPT, **ASKED), AttributionPatching(corrupt=CORRUPT, checked=3, **ASKED),
    AttentionKnockout(**ASKED), CausalTracing(draws=1, **ASKED),
]  # fmt: skip


@pytest.fixture(scope="module")
def hf():
    return tiny_hf("llama")


@pytest.fixture(scope="module")
def model(hf):
    return wrap(hf, None, name="tiny-llama")


def summed(hf, ids, edit=None):
    """log p of the target behind a prompt, by Hugging Face; edit: of the input of o_proj in layer 1."""
    handle = hf.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, given: edit(given[0]))
    try:
        with torch.no_grad():
            logs = hf(torch.tensor([[*ids, 31, 7]]), use_cache=False).logits[0].double().log_softmax(-1)
    finally:
        handle.remove()
    at = len(ids) - 1
    return float(logs[at, 31] + logs[at + 1, 7] + logs[at + 2, 50])


def test_heads_are_patched_at_the_last_token_of_the_prompt(hf, model):
    """It was the target's: of a head that brings back 93 % of a fact, -1 % was told."""
    found = ActivationPatching(corrupt=CORRUPT, site="z", pos=-1, **ASKED).run(model, Prompt.ids(CLEAN))
    held = {}
    summed(hf, CLEAN, lambda z: held.update(z=z.clone()))
    corrupt = [int(word[1:]) for word in CORRUPT.split()]

    def patched(z):
        z = z.clone()
        z[0, 5, 16:24] = held["z"][0, 5, 16:24]
        return z

    effect = summed(hf, corrupt, patched) - summed(hf, corrupt, lambda z: z)
    np.testing.assert_allclose(found["effect"].sel(layer=1, head=2), effect, atol=2e-5)
    assert abs(effect) > 1e-3 and found.attrs["position"] == "5"
    assert found.attrs["corrupt_prompt"] == model.vocabulary.text(tuple(corrupt))
    with pytest.raises(InputError, match="from 0 to 5"):
        ActivationPatching(corrupt=CORRUPT, site="z", pos=6, **ASKED).run(model, Prompt.ids(CLEAN))


def test_the_last_token_of_the_prompt_is_not_all_that_is_said(model):
    said = ActivationPatching(corrupt=CORRUPT, site="resid_post", **ASKED).run(model, Prompt.ids(CLEAN)).attrs
    short = ActivationPatching(corrupt=CORRUPT, site="resid_post", metric="log-probability", target="#31")
    expected = "token 5" in short.run(model, Prompt.ids(CLEAN)).attrs["summary"]
    assert ("Before the last token" in said["summary"]) is ("token 5" in said["summary"]) is expected is True


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_interventions_counted_from_the_end_are_refused(model, study):
    """They acted on the target's token: -3.5 nats where -9.5 is right."""
    source = record(model, Prompt.ids([1, 2, 3, 4, 5, 6]), [Z])
    direction = torch.ones(32)
    for edit in (
        Steer(0, direction, positions=(2, -1)), Ablate(Head(1, 2), positions=(-1,)), Knockout((3,), (-5,), (0,)),
        Scale(Residual(1, -2), 2.0), Scale(Attention(0), 0.5, positions=(-2,)), Patch(Z, 0, source, positions=(-3,)),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"beside a target of several tokens.*Write \d for -\d"):
            study.run(model, Prompt.ids(CLEAN), interventions=[edit])
        one = {"target": "#31"} | ({"corrupt": CORRUPT} if "corrupt" in study.values() else {})
        study.replaced(**one).run(model, Prompt.ids(CLEAN), interventions=[edit])


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_interventions_behind_the_prompt_are_refused_as_beside_one_token(model, study):
    """They acted on the target's token, where counted from one the prompt's last is meant."""
    for edit in (
        Ablate(Head(1, 2), positions=(6,)), Ablate(AttentionKey(0, 1, 6)), Ablate(AttentionEdge(1, 1, 6, 2)),
        Knockout((6,), (2,), (0,)), Steer(0, torch.ones(32), positions=(1, 6)), Scale(Residual(1, 6), 2.0),
    ):  # fmt: skip
        for target in study.values()["target"], "#31":
            with pytest.raises(InputError, match=r"osition.* 0 to 5"):
                study.replaced(target=target).run(model, Prompt.ids(CLEAN), interventions=[edit])


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_recorded_run_is_of_the_prompt_with_the_target_behind_it(model, study):
    """ "A recorded run of 6 tokens for a prompt of 8; pad the text with words", of a prompt of 6."""
    short, longer = (record(model, Prompt.ids([1, 2, 3, 4, 5, 6, 31, 7][:n]), [PATTERN]) for n in (6, 8))
    with pytest.raises(InputError, match="a recorded run of 8 tokens, not 6: of a prompt with all but the target's"):
        study.run(model, Prompt.ids(CLEAN), interventions=[FreezePatterns(short, (0,))])
    study.run(model, Prompt.ids(CLEAN), interventions=[FreezePatterns(longer, (0,))])


def test_interventions_counted_from_the_start_are_not(hf, model):
    """And measure what plain hooks do."""
    edit = Ablate(Head(1, 2), positions=(5,))
    found = AttentionKnockout(**ASKED).run(model, Prompt.ids(CLEAN), interventions=[edit])

    def without(z):
        z = z.clone()
        z[0, 5, 16:24] = 0
        return z

    assert float(found["clean"]) == pytest.approx(summed(hf, CLEAN, without), abs=2e-5)


def test_a_head_is_resampled_from_another_prompt(hf, model):
    """It was refused: "a recorded run of 6 tokens for a prompt of 8", whose 6 tokens were those of both prompts."""
    ours = CausalCheck(units="L1H2", method="resample", corrupt=CORRUPT, peers=0, **ASKED).run(model, Prompt.ids(CLEAN))
    held, corrupt = {}, [int(word[1:]) for word in CORRUPT.split()]
    summed(hf, corrupt, lambda z: held.update(z=z.clone()))

    def resampled(z):
        z = z.clone()
        z[..., 16:24] = held["z"][..., 16:24]
        return z

    effect = summed(hf, CLEAN, resampled) - summed(hf, CLEAN, lambda z: z)
    assert float(ours["effect"]) == pytest.approx(effect, abs=2e-5) and abs(effect) > 1e-3


def test_of_many_prompts_the_last_token_is_the_prompts_too(model):
    """Batches and pins took the target's: patching its state did 0.045 where that of the prompt's last token did 0."""
    ends = CORRUPT, " ".join(f"#{token}" for token in CLEAN)
    both = [
        ActivationPatching(corrupt=other, metric="log-probability", target="#31 #7 #9").run(model, Prompt.ids(ids))
        for ids, other in ((CLEAN, ends[0]), ([int(word[1:]) for word in CORRUPT.split()], ends[1]))
    ]
    cut = [one.isel(pos=slice(None, len(CLEAN))).assign_attrs(target_ids="#31") for one in both]
    assert both[0].sizes["pos"] == len(CLEAN) + 2
    assert agreement(both) == agreement(cut)
    own = both[0]["effect"].values[:, : len(CLEAN)]
    for how, right in (("last", own[:, -1]), ("mean", own.mean(1))):
        np.testing.assert_allclose(Reduction(how).row(both[0])[0]["effect"], right, atol=1e-6)
    assert [behind({"target_ids": text}) for text in ("", "#4", "#4 #5", '["#4", "#5 #6 #7"]')] == [0, 0, 1, 2]
    assert behind({"target_ids": "#4", "against_ids": "#5 #6"}) == 1 and behind({}) == 0
