"""Head table: entropies with known answers, agreement with the analyses it joins, the table itself."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.attention.head_table import HeadTable, row_entropy, table
from probes.attention.induction.induction_heads import InductionHeads
from tests.tiny_models import tiny_hf, tiny_model
from workbench import Ablate, Attention, Need, Z, keep, observe
from workbench.loading.pretrained import wrap
from workbench.loading.toys.circuits import induction_circuit
from workbench.observation import Site


def site(n: int, length: int | None = None) -> Site:
    lengths = torch.tensor([length or n])
    mask, model = torch.arange(n)[None] < lengths[:, None], tiny_model("llama")  # its attention has no learned sink
    return Site(0, torch.zeros(1, n, dtype=torch.long), mask, lengths, {}, model)


def test_uniform_rows_have_entropy_one_and_one_hot_rows_zero():
    n = 20
    uniform = (torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None])[None, None]
    torch.testing.assert_close(row_entropy(uniform, site(n)), torch.ones(1, 1))
    assert row_entropy(torch.eye(n)[None, None], site(n)).item() == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(0, 999))
def test_entropy_is_a_share_and_does_not_see_padding_or_the_order_of_keys(n, seed):
    random = torch.Generator().manual_seed(seed)
    hidden = ~torch.ones(n, n, dtype=torch.bool).tril()
    pattern = torch.randn(1, 2, n, n, generator=random).masked_fill(hidden, -1e30).softmax(-1)
    value = row_entropy(pattern, site(n))
    assert (value >= 0).all() and (value <= 1 + 1e-5).all()
    shuffled = pattern[..., torch.randperm(n, generator=random)]
    torch.testing.assert_close(row_entropy(shuffled, site(n)), value)
    wide = torch.rand(1, 2, n + 2, n + 2)
    wide[..., :n, :n], wide[..., :n, n:] = pattern, 0
    torch.testing.assert_close(row_entropy(wide, site(n + 2, n)), value)


def test_it_says_what_the_analyses_it_joins_say(tiny):
    result = HeadTable(n_sequences=16, texts=3).run(tiny)
    own = InductionHeads(n_sequences=16).run(tiny)
    for name in ("induction_score", "previous_token_score", "duplicate_token_score"):
        np.testing.assert_allclose(result[name], own[name], atol=1e-5, equal_nan=True)
    stimulus = HeadTable(n_sequences=16, texts=3).stimulus(tiny)
    texts = [t for t, text in zip(stimulus.tokens, stimulus.fields["is_text"], strict=True) if text]
    need = Need((Z,), keep, dims="pos head d_head")
    z = observe(tiny, texts, [need], positions="none")[need].double()
    for layer, head in np.ndindex(*result["output_norm"].shape):
        out = z[layer, :, 1:, head] @ tiny.weights(layer).W_O[head].double()
        np.testing.assert_allclose(result["output_norm"].values[layer, head], out.norm(dim=-1).mean(), rtol=1e-4)
    np.testing.assert_allclose(result["output_share"].sum("head"), 1, rtol=1e-5)


def test_a_planted_induction_head_leads_its_column():
    result = HeadTable(n_sequences=16, texts=2).run(wrap(induction_circuit(), None, name="circuit"))
    frame = table(result).sort_values("induction_score", ascending=False)
    assert frame.index[0] == "L1H0" and frame["induction_score"].iloc[0] > 0.99
    assert table(result)["previous_token_score"].idxmax() == "L0H0"
    assert len(frame) == 4 and frame.to_csv().count("\n") == 5


def test_a_sliding_window_is_not_applicable():
    result = HeadTable(n_sequences=2, texts=2).run(tiny_model("gemma3"))
    for name in ("sink_rate", "first_received", "entropy"):
        assert np.isnan(result[name].values[0]).all() and not np.isnan(result[name].values[1]).any(), name


def test_a_head_whose_output_is_set_behind_it_adds_nothing():
    """Heads of a layer without attention were said to add as much as ever."""
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.layers[1].self_attn.o_proj.weight.zero_()
    asked, model = HeadTable(n_sequences=2, texts=2), tiny_model("llama")
    edited = asked.run(model, interventions=[Ablate(Attention(1))])
    by_hand = asked.run(wrap(hf, None, name="by hand"))
    np.testing.assert_allclose(edited["output_norm"], by_hand["output_norm"], atol=1e-5)
    assert not edited["output_norm"].sel(layer=1).any() and edited["output_norm"].sel(layer=0).all()
    np.testing.assert_allclose(edited["entropy"], by_hand["entropy"], atol=1e-5)


def test_the_sentence_names_the_bar_that_sinks_were_counted_by():
    """Of a small epsilon twice uniform attention is the bar, and 'alpha above 0.02' stood over what passed 0.11."""
    said = lambda epsilon: HeadTable(n_sequences=2, texts=3, epsilon=epsilon).run(tiny_model("llama")).attrs["summary"]
    uniform = float(np.mean(1 / np.arange(1, 98)))  # of 97 tokens
    assert f"in more than half (alpha above {2 * uniform:.2g}, twice that of uniform attention)" in said(0.02)
    assert "in more than half (alpha above 0.25)," in said(0.25)


def test_heads_whose_window_hides_the_first_token_are_counted():
    """`0 of 4 heads sink`, of a model of eight, and not a word of the others."""
    said = lambda kind: HeadTable(n_sequences=2, texts=3).run(tiny_model(kind)).attrs["summary"]
    left = "Of 4 heads neither sink nor entropy is told: where a window is shorter than the texts, their first token is"
    assert left in said("gemma3") and "of 4 heads sink" in said("gemma3") and "neither" not in said("llama")
