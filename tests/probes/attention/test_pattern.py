"""The attention of one head: planted circuits, laws, another library's pattern, a hidden key, what is drawn."""

import numpy as np
import pytest
import torch

from probes.attention.pattern import VIEW, Attention, _summary, row_figure
from tests.tiny_models import tiny_config, tiny_hf, tiny_model
from workbench.errors import InputError
from workbench.intervene import Ablate, Head, Knockout
from workbench.loading.pretrained import load, wrap
from workbench.models.prompt import Prompt
from workbench.observation import observe

REPEAT = Prompt.ids([0, 5, 6, 7, 8, 5, 6, 7, 8])
IDS = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31, 64, 12])


# planted


def test_the_hand_made_circuit_looks_where_it_was_built_to():
    """L0H0 at the token before; L1H0, in the second copy, at what followed the first."""
    toy = load("toy-induction")
    before = Attention(layer=0, head=0).run(toy, REPEAT)["pattern"].values
    np.testing.assert_allclose(before[1:, :-1].diagonal(), 1, atol=1e-5)
    after = Attention(layer=1, head=0).run(toy, REPEAT)["pattern"].values
    np.testing.assert_allclose([after[query, query - 3] for query in range(5, 9)], 1, atol=1e-5)


def test_the_key_that_gets_most_is_named_with_its_share_of_all_that_is_looked_at():
    """Of four rows from token 1 on: the first token gets 0.3, 0.2, 0.1, 0.1, themselves 0.7, 0.1, 0, 0.4."""
    rows = [[1, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0], [0.2, 0.7, 0.1, 0, 0], [0.1, 0.1, 0.8, 0, 0], [0.1, 0, 0.4, 0.1, 0.4]]
    said = _summary(torch.tensor(rows), 4, 7, ["<s>", "a", " the", "b", "c"])
    assert said == (
        "From token 1 on, L4H7 gives 18% of its attention to the first token and 30% to the token itself; of the "
        "others token 2 ·the gets most: 30%."
    )
    assert _summary(torch.eye(3), 0, 1, ["a"] * 3).endswith("0% of its attention to the first token and 100% to the "
                                                            "token itself.")  # fmt: skip
    assert _summary(torch.tensor([[1.0, 0], [0.5, 0.5]]), 0, 1, ["a", "b"]).endswith("50% to the token itself.")


# laws


def test_rows_are_shared_out_among_what_a_query_sees(tiny):
    for layer in range(2):
        pattern = Attention(layer=layer, head=3).run(tiny, IDS)["pattern"].values
        np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-5)
        assert pattern.min() >= 0 and (np.triu(pattern, 1) == 0).all()
        if layer in tiny.sizes.sliding:
            assert (np.tril(pattern, -tiny.sizes.window) == 0).all()


def test_later_tokens_change_no_row():
    model, short = tiny_model("llama"), Prompt.ids(IDS.token_ids[:6])
    whole, part = (Attention(layer=1, head=2).run(model, prompt)["pattern"].values for prompt in (IDS, short))
    np.testing.assert_allclose(whole[:6, :6], part, atol=1e-6)


# an independent route


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "qwen2"])
def test_against_hugging_face(kind):
    hf = tiny_hf(kind)
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        expected = hf(torch.tensor([IDS.token_ids]), output_attentions=True).attentions
    model = wrap(hf, None, name=f"tiny-{kind}")
    for layer in range(2):
        for head in range(4):
            result = Attention(layer=layer, head=head).run(model, IDS)
            np.testing.assert_allclose(result["pattern"], expected[layer][0, head], atol=1e-5)
    assert tiny_config(kind, 2).num_attention_heads == 4  # of all heads


# causes and a control


def test_a_hidden_key_receives_nothing():
    hidden = Knockout(tuple(range(4, 11)), (3,), (1,))
    model = tiny_model("llama")
    plain = Attention(layer=1, head=2).run(model, IDS)
    without = Attention(layer=1, head=2).run(model, IDS, interventions=[hidden])
    assert (without["pattern"].values[4:, 3] == 0).all() and (plain["pattern"].values[4:, 3] > 0).all()
    rest = plain["pattern"].values[4:].copy()
    rest[:, 3] = 0
    np.testing.assert_allclose(without["pattern"].values[4:], rest / rest.sum(-1, keepdims=True), atol=1e-5)
    assert without.attrs["spec_key"] != plain.attrs["spec_key"] and str(hidden) in without.attrs["provenance"]


def test_an_earlier_edit_reaches_it_as_by_hand():
    model, edit = tiny_model("llama"), [Ablate(Head(0, 1))]
    analysis = Attention(layer=1, head=2)
    (need,) = analysis.needs(model, IDS.token_ids)
    by_hand = observe(model, IDS, [need], interventions=edit)[need][0, 0]
    edited = analysis.run(model, IDS, interventions=edit)["pattern"].values
    np.testing.assert_array_equal(edited, by_hand)
    assert not np.allclose(edited, analysis.run(model, IDS)["pattern"], atol=1e-4)


def test_a_head_without_weights_looks_at_nothing_in_particular():
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.layers[1].self_attn.q_proj.weight.zero_()
    pattern = Attention(layer=1, head=1).run(wrap(hf, None, name="blind"), IDS)["pattern"].values
    np.testing.assert_allclose(pattern, np.tril(np.ones((11, 11))) / np.arange(1, 12)[:, None], atol=1e-6)


# what is said and drawn


def test_a_head_that_is_not_there_is_refused():
    for wrong in ({"layer": 2}, {"head": 4}):
        with pytest.raises(InputError, match="L0H0 to L1H3"):
            Attention(**wrong).run(tiny_model("llama"), IDS)
    with pytest.raises(InputError, match="layer=-1"):
        Attention(layer=-1)


def test_it_says_what_it_gives_to_the_first_token_and_to_itself():
    result = Attention(layer=1, head=2).run(tiny_model("llama"), IDS)
    rows = result["pattern"].values[1:]  # the first token sees nothing but itself, and would count on both sides
    first, own = rows[:, 0].mean(), rows.diagonal(1).mean()
    assert f"L1H2 gives {first:.0%} of its attention to the first token and {own:.0%} to" in result.attrs["summary"]
    alone = Attention(layer=1, head=1).run(load("toy-induction"), Prompt.ids([3]))
    assert "only the one token" in alone.attrs["summary"]


def test_it_follows_the_selection_and_is_drawn_and_claimed():
    assert VIEW.follows == ("layer", "head") and {p.name for p in Attention.parameters()} == set(VIEW.follows)
    result = Attention(layer=1, head=2).run(tiny_model("llama"), IDS)
    (figure,) = VIEW.figures
    assert "L1H2" in figure(result).layout.title.text
    row = row_figure(result, {"query": 4})
    assert sum(row.data[0].x) == pytest.approx(1, abs=1e-5) and "token 4" in row.layout.title.text
    assert row_figure(result, {}) is None and row_figure(result, {"query": 40}) is None
    claimed = VIEW.claimed(result, {"layer": 1, "head": 2, "query": 5, "key": 3})
    assert [claim.params["units"] for claim in claimed] == ["L1H2", "L1H2:5<-3"]


def test_the_default_models_induction_head_on_a_repeat(default_model):
    """Golden (2026-11, bundled weights): L18H6 looks at what followed the earlier occurrence."""
    text = "When Mary and John went to the store, John gave a drink to Mary. When Mary and"
    result = Attention(layer=18, head=6).run(default_model, text)
    words = [str(token).strip() for token in result["key_text"].values]
    last = len(words) - 1
    first = words.index("and")
    assert int(result["pattern"].values[last, 1:].argmax()) + 1 == first + 1 and words[first + 1] == "John"
