"""Surprisal: known distributions, laws, the loss of another library, an edit, random weights, the default model."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.lens.surprisal import VIEW, Surprisal, next_figure, next_tokens
from tests.tiny_models import tiny_hf, tiny_model
from workbench.errors import InputError
from workbench.intervene import Ablate, Head
from workbench.loading.pretrained import load, wrap
from workbench.models.prompt import Prompt
from workbench.observation import Site, observe

IDS = Prompt.ids([5, 9, 17, 33, 2, 9, 17])


def site(tokens: torch.Tensor) -> Site:
    """A site without a model, for hand-made logits."""
    lengths = torch.full((len(tokens),), tokens.shape[1])
    return Site(None, tokens, torch.ones_like(tokens, dtype=torch.bool), lengths, {}, None)


# planted


def test_a_uniform_distribution_and_one_that_is_sure():
    tokens = torch.tensor([[3, 1, 2]])
    logits = torch.zeros(1, 3, 8)
    logits[0, 1, 2] = 40.0  # behind token 1, token 2 is certain; behind token 0, nothing is
    found = next_tokens(logits, site(tokens), 2)[0]
    assert torch.isnan(found[0, 0])
    np.testing.assert_allclose(found[1:, 0], [np.log(8), 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], [np.log(8), 0, np.log(8)], atol=1e-6)
    assert found[1, 2:].tolist()[:2] == pytest.approx([1, 0], abs=1e-6) and found[1, 4] == 2


def test_a_circuit_that_repeats_is_surprised_only_once():
    """The hand-made induction circuit puts a logit of 10 on what followed the last time, 0 on the other 63."""
    result = Surprisal().run(load("toy-induction"), Prompt.ids([0, 5, 6, 7, 8, 5, 6, 7, 8]))
    np.testing.assert_allclose(result["surprisal"][6:], np.log(np.exp(10) + 63) - 10, atol=1e-4)
    assert float(result["surprisal"][5]) > 2  # nothing announces the repeat but that 5 was seen
    assert result["next_token"].values[5:8, 0].tolist() == [6, 7, 8]


# laws


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 70), shift=st.floats(-50, 50))
def test_probabilities_are_ordered_and_a_common_offset_changes_nothing(seed, n, shift):
    random = torch.Generator().manual_seed(seed)
    logits, tokens = torch.randn(1, n, 12, generator=random), torch.randint(0, 12, (1, n), generator=random)
    found = next_tokens(logits, site(tokens), 12)[0]
    probs = found[:, 2:14]
    torch.testing.assert_close(probs.sum(-1), torch.ones(n))
    assert (probs[:, 1:] <= probs[:, :-1]).all()
    assert (found[:, 1] >= 0).all() and (found[:, 1] <= np.log(12) + 1e-5).all()
    assert (found[1:, 0] >= 0).all() and torch.isnan(found[0, 0])
    moved = next_tokens(logits + shift, site(tokens), 12)[0]
    torch.testing.assert_close(moved[:, :2], found[:, :2], atol=1e-4, rtol=1e-4, equal_nan=True)
    fewer = next_tokens(logits, site(tokens), 3)[0]
    assert torch.equal(fewer[:, 2:5], probs[:, :3]) and torch.equal(fewer[:, 5:], found[:, 14:17])


# an independent route


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3"])
def test_against_hugging_face(kind):
    """The mean is its loss; every token and the whole distribution come from its logits."""
    hf, ids = tiny_hf(kind), torch.tensor([[3, *range(40), 7]])
    with torch.no_grad():
        out = hf(ids, labels=ids)
    result = Surprisal(top_k=96).run(wrap(hf, None, name="tiny"), Prompt.ids(ids[0].tolist()))
    assert float(result["surprisal"].mean()) == pytest.approx(float(out.loss), abs=1e-5)
    for pos in range(1, ids.shape[1]):
        nats = -float(out.logits[0, pos - 1].double().log_softmax(-1)[ids[0, pos]])
        assert float(result["surprisal"][pos]) == pytest.approx(nats, abs=1e-4)
    probs = out.logits[0].double().softmax(-1)
    np.testing.assert_allclose(result["entropy"], torch.special.entr(probs).sum(-1), atol=1e-4)
    np.testing.assert_allclose(result["next_prob"], probs.sort(-1, descending=True).values, atol=1e-5)


# a cause


def test_an_edit_of_the_run_enters_the_numbers_the_key_and_the_provenance():
    model, edits = tiny_model("llama"), [Ablate(Head(0, 1))]
    plain, edited = Surprisal().run(model, IDS), Surprisal().run(model, IDS, interventions=edits)
    by_hand = observe(model, IDS, positions="all", interventions=edits).log_probs[0]
    expected = [-float(by_hand[pos - 1, token]) for pos, token in enumerate(IDS.token_ids) if pos]
    np.testing.assert_allclose(edited["surprisal"][1:], expected, atol=1e-6)
    assert abs(edited["surprisal"] - plain["surprisal"]).max() > 1e-3
    assert json.loads(edited.attrs["provenance"])["interventions"] == [str(edits[0])]
    assert edited.attrs["spec_key"] != plain.attrs["spec_key"]


def test_repeats_surprise_less_only_with_the_head_that_finds_them():
    toy, prompt = load("toy-induction"), Prompt.ids([0, 5, 6, 7, 8, 5, 6, 7, 8])
    without = Surprisal().run(toy, prompt, interventions=[Ablate(Head(1, 0))])
    assert float(without["surprisal"][6:].min()) > 4


# control, borders, the default model


def test_random_weights_expect_nothing_in_particular():
    ids = torch.randint(0, 96, (100,), generator=torch.Generator().manual_seed(0))
    hf = tiny_hf("gpt2")
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if parameter.ndim > 1 and "wte" not in name and "wpe" not in name:
                parameter.div_(5.0)  # as initialised
    result = Surprisal().run(wrap(hf, None, name="random"), Prompt.ids(ids))
    # logits of a tied embedding of sd 0.02 on a normalised state of 32 dimensions: sd 0.11, so within 0.1 of uniform
    assert abs(float(result["surprisal"].mean()) - np.log(96)) < 0.1


def test_one_token_has_a_next_one_and_no_surprisal():
    result = Surprisal(top_k=100).run(tiny_model("llama"), Prompt.ids([5]))
    assert np.isnan(result["surprisal"]).all() and result.sizes["rank"] == 96
    assert result.attrs["summary"].startswith("Next: ") and "surprising" not in result.attrs["summary"]
    with pytest.raises(InputError, match="top_k"):
        Surprisal(top_k=0)


def test_the_capital_of_france(default_model):
    """Golden (2026-11, bundled weights): what the lens reads at its last depth."""
    result = Surprisal(top_k=5).run(default_model, "The capital of France is")
    assert str(result["next_text"].values[-1, 0]) == " Paris"
    assert float(result["next_prob"][-1, 0]) == pytest.approx(0.7491, abs=2e-3)
    assert result.attrs["summary"].startswith("Next: ' Paris' (p = 0.75). Most surprising: token ")
    for figure in VIEW.figures:
        assert figure(result).data
    assert "Paris" in next_figure(result, {"pos": 5}).to_json() and next_figure(result, {}) is None
