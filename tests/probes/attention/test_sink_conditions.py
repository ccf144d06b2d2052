"""Sinks in other conditions: a sink that belongs to a place, a mask that takes effect, cancelling, bad input."""

import numpy as np
import pytest
import torch
from tokenizers import processors

from probes.attention.sinks.attention_sinks import AttentionSinks
from probes.attention.sinks.sink_conditions import VIEW, SinkConditions, _conditions, _summary
from tests.tiny_models import spelling, tiny_hf, tiny_model
from workbench import Prompt
from workbench.errors import Cancelled, InputError, RefusedError
from workbench.intervene import Ablate, Attention, Head
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.prompt import tokenise


class Ids:
    """Just enough of a tokenizer to have a BOS token."""

    bos_token_id = 0

    def decode(self, ids, **options):
        return " ".join(map(str, ids))


def place_toy():
    """All heads of both layers put their attention on place 0, whatever token stands there."""
    model = ToyTransformer(ToyConfig(n_layers=2, n_heads=2, d_model=40, d_head=8, d_vocab=16, n_ctx=36))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.positions.weight[:, :36] = torch.eye(36)
        for block in model.blocks:
            block.W_Q[:, :36, 0] = 1
            block.W_K[:, 0, 0] = 600
        model.unembed.weight.normal_(generator=torch.Generator().manual_seed(0))
    return wrap(model, Ids(), name="place")


def test_a_sink_of_a_place_stays_without_BOS_and_goes_when_the_place_is_masked():
    model = place_toy()
    result = SinkConditions().run(model, Prompt.ids([0, *[5, 6, 7] * 10]))
    assert result["group"].values.tolist() == ["as given, with BOS", "BOS dropped", "position 0 masked"]
    np.testing.assert_array_equal(result["model_sink_rate"], [1, 1, 0])
    for figure in VIEW.figures:
        assert "T = 31" in figure(result).layout.title.text.replace("<br>", " ")


def test_a_prompt_that_fills_the_context_has_no_room_for_BOS_and_the_rest_is_told():
    """36 tokens of a context of 36; of 35 all three conditions fit."""
    model, ids = place_toy(), [5, 6, 7, 8] * 9
    full, shorter = SinkConditions().run(model, Prompt.ids(ids)), SinkConditions().run(model, Prompt.ids(ids[1:]))
    assert full["group"].values.tolist() == ["as given, no BOS", "position 0 masked"]
    assert full.attrs["summary"].endswith("Behind BOS it would be longer than the context, 36 tokens.")
    assert shorter["group"].values.tolist() == ["as given, no BOS", "BOS added", "position 0 masked"]
    assert "context" not in shorter.attrs["summary"]


def test_the_first_condition_is_the_analysis_itself_and_the_mask_changes_the_pass():
    model = tiny_model("llama")
    tokens = tokenise(model, Prompt.ids(range(1, 31)))
    result = SinkConditions(epsilon=0.2).run(model, tokens)
    plain = AttentionSinks(epsilon=0.2).run(model, tokens)
    np.testing.assert_array_equal(result["sink_rate"].values[0], plain["sink_rate"])
    assert result["group"].values.tolist() == ["as given, no BOS", "position 0 masked"]  # no tokenizer, no BOS to add
    recounted = AttentionSinks(epsilon=0.2, mask_first=True).run(model, tokens)
    assert not np.allclose(result["peak_ratio"].values[1], recounted["peak_ratio"])


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_position_0_is_masked_in_every_layer_as_a_mask_of_hugging_face_does(kind):
    """The states of every depth: a layer whose mask is left out, or another sign, shows in all behind it."""
    hf, ids = tiny_hf(kind, n_layers=4), torch.arange(1, 31)[None]
    hf.set_attn_implementation("eager")
    seen = torch.ones(30, 30).tril()
    seen[1:, 0] = 0
    mask = torch.where(seen > 0, 0.0, torch.finfo(torch.float32).min)[None, None]
    states = [hf.get_input_embeddings()(ids)]
    handles = [
        layer.register_forward_hook(
            lambda _, given, found: states.append(found[0] if found.__class__ is tuple else found)
        )
        for layer in hf.model.layers
    ]
    with torch.no_grad():
        hf(ids, attention_mask=mask)
    for handle in handles:
        handle.remove()
    norms = torch.stack(states).detach().norm(dim=-1)[:, 0].numpy()
    expected = norms[:, 1:].max(1) / np.median(norms[:, 2:], axis=1)
    result = SinkConditions().run(wrap(hf, None, name=kind), Prompt.ids(ids[0].tolist()))
    found = result["peak_ratio"].sel(group="position 0 masked").values
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # float32, sums in another order
    assert not np.allclose(found[1:], result["peak_ratio"].values[0, 1:], rtol=1e-3)


@pytest.mark.parametrize(("adds", "front"), [(False, (0,)), (True, (94, 0))])
def test_what_the_tokenizer_puts_in_front_is_dropped_and_added_whole(adds, front):
    """A tokenizer that adds two special tokens, and one that adds none and has a BOS token."""
    tokenizer = spelling(adds_bos=False)
    if adds:
        special = [("<s>", 0), ("}", 94)]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("} <s> $A", special_tokens=special)
    model, text = wrap(tiny_hf("llama"), tokenizer, name="tiny"), tuple(range(10, 40))
    given = {
        name: tokenise(model, prompt).ids for name, prompt, *_ in _conditions(model, tokenise(model, Prompt.ids(text)))
    }
    assert given["as given, no BOS"] == text and given["BOS added"] == (*front, *text)
    behind = tokenise(model, Prompt.ids((*front, *text)))
    given = {name: tokenise(model, prompt).ids for name, prompt, *_ in _conditions(model, behind)}
    assert given["as given, with BOS"] == (*front, *text) and given["BOS dropped"] == text


def test_what_cannot_be_told_is_no_share():
    """Of ten tokens; of nine, one of which is BOS, as given alone; of six none."""
    model = place_toy()
    said = lambda n: SinkConditions().run(model, Prompt.ids([0, *[5, 6, 7] * 4][:n])).attrs["summary"]
    assert said(11).endswith("position: 100% (as given, with BOS), 100% (BOS dropped), 0% (position 0 masked).")
    assert said(10).endswith("100% (as given, with BOS). Too short to tell: BOS dropped; position 0 masked.")
    assert said(6).startswith("In no condition a sink can be told: ") and "nan" not in said(6)


def test_layers_whose_window_hides_the_first_token_are_counted():
    """Of Gemma 3 at 600 tokens the share was of a sixth of the layers, without a word."""
    model = wrap(tiny_hf("gemma2"), spelling(), name="windows")  # one of two layers sees eight tokens
    result = SinkConditions().run(model, "the cat sat on the mat")
    assert result["sink_rate"].isnull().any("group").values.tolist() == [True, False]
    left = ". 1 layer left out: where a window is shorter than the prompt, it hides its start."
    assert result.attrs["summary"].endswith(left)
    rates, hidden = {"as given": 0.5, "BOS added": 0.25}, {"as given": 1, "BOS added": 2}
    assert " Up to 2 layers left out: " in _summary(rates, hidden, 2)
    rates, hidden = {"a": np.nan, "b": 0.25, "c": np.nan}, {"a": 2, "b": 0, "c": 1}
    said = "25% (b). Too short to tell: c. A window hides the first token: a."
    assert _summary(rates, hidden, 2).endswith(said)


def test_it_can_be_cancelled_and_keeps_what_is_done():
    model, kept = tiny_model("llama"), []

    def stop(share):
        if kept:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        for partial in SinkConditions().partials(model, tokenise(model, Prompt.ids(range(1, 9))), progress=stop):
            kept.append(partial)
    assert [p.sizes["group"] for p in kept] == [1]


def test_too_short_a_prompt_is_refused():
    with pytest.raises(InputError, match="3 tokens"):
        SinkConditions().run(tiny_model("llama"), Prompt.ids([1, 2, 3]))


@pytest.mark.parametrize("layers", [(1,), (0, 1)])
def test_position_0_is_hidden_where_attention_is_left(layers):
    """A layer whose attention is taken away sees nothing that could be hidden; that was called a contradiction."""
    hf = tiny_hf("llama")
    with torch.no_grad():
        for layer in layers:
            hf.model.layers[layer].self_attn.o_proj.weight.zero_()
    prompt, model = Prompt.ids([0, *range(5, 25)]), wrap(tiny_hf("llama"), spelling(), name="whole")
    edited = SinkConditions().run(model, prompt, interventions=[Ablate(Attention(layer)) for layer in layers])
    by_hand = SinkConditions().run(wrap(hf, spelling(), name="by hand"), prompt)
    for name in ("sink_rate", "peak_ratio", "peak_pos", "model_sink_rate"):
        np.testing.assert_allclose(edited[name], by_hand[name], atol=1e-4, err_msg=name)
    assert edited["group"].values.tolist()[-1] == "position 0 masked"


def test_an_intervention_at_the_last_token_has_no_such_token_without_BOS():
    """ "Got position 30; expected positions from 0 to 29", of a prompt that has a position 30."""
    model, prompt = place_toy(), Prompt.ids([0, *[5, 6, 7] * 10])
    with pytest.raises(RefusedError, match=r"its BOS dropped and Ablate\(L0H1 by zero at positions 30\).*from the end"):
        SinkConditions().run(model, prompt, interventions=[Ablate(Head(0, 1), positions=(30,))])
    found = SinkConditions().run(model, prompt, interventions=[Ablate(Head(0, 1), positions=(-1,))])
    assert found.sizes["group"] == 3
    with pytest.raises(InputError, match="position 31"):
        SinkConditions().run(model, prompt, interventions=[Ablate(Head(0, 1), positions=(31,))])
