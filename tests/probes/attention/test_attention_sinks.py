"""Attention sinks: planted answers, laws, a slow route, a forced sink, random weights, the default model."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import HeadTable
from probes.attention.sinks import measures
from probes.attention.sinks.attention_sinks import VIEW, AttentionSinks, _needs
from probes.attention.sinks.figures import convention
from tests.tiny_models import tiny_hf, tiny_model
from workbench import PATTERN, RESID_POST, SCORES, Need, Prompt, V, keep, observe, save
from workbench.errors import InputError
from workbench.intervene import Edit, Knockout, Where
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.observation import Site

T = 64
TEXT = (
    "The quick brown fox jumps over the lazy dog. In 1998 a team measured the distance to far supernovae, "
    "and found, to everyone's surprise, that the expansion of the universe is speeding up. The cause is called dark "
    "energy, and nobody knows what it is."
)


def site(pattern: torch.Tensor, lengths: list[int] | None = None) -> Site:
    """A site for hand-made activations whose query or pos axis is the last but one."""
    batch, n = pattern.shape[0], pattern.shape[-2]
    lengths = torch.tensor(lengths or [n] * batch)
    return Site(0, torch.zeros(batch, n, dtype=torch.long), torch.arange(n) < lengths[:, None], lengths, {}, None)


def uniform(n: int) -> torch.Tensor:
    """Uniform causal attention (1, 1, query, key)."""
    return (torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None])[None, None]


def toy(n_ctx: int = T, n_heads: int = 2) -> ToyTransformer:
    """Two attention-only layers of zeros; the residual stream is [position one-hot | 4 free dimensions]."""
    model = ToyTransformer(ToyConfig(n_layers=2, n_heads=n_heads, d_model=n_ctx + 4, d_head=8, d_vocab=32, n_ctx=n_ctx))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.positions.weight[:, :n_ctx] = torch.eye(n_ctx)
        model.unembed.weight.normal_(generator=torch.Generator().manual_seed(0))
    return model


def run_toy(model: ToyTransformer, n: int = T, **params):
    return AttentionSinks(**params).run(wrap(model, None, name="toy"), Prompt.ids([i % 32 for i in range(n)]))


# --- planted --------------------------------------------------------------------------------------------------------


def test_uniform_attention_gives_the_harmonic_number_over_T_and_no_sink():
    result = run_toy(toy())
    np.testing.assert_allclose(result["first_received"], 0.0741, atol=5e-5)
    np.testing.assert_allclose(result["first_received"], result["first_received_null"], rtol=1e-6)
    assert result["sink"].values.max() == 0
    assert result["sink_rate"].values.max() == 0
    np.testing.assert_allclose(result["sink_logit"], 0, atol=1e-6)


def test_a_hand_made_sink_gives_exactly_one_and_its_score_as_sink_logit():
    model = toy()
    with torch.no_grad():
        model.blocks[1].W_Q[0, :T, 0] = 1
        model.blocks[1].W_K[0, 0, 0] = 200 * 8**0.5  # every query scores 200 on key 0, 0 on the others
    result = run_toy(model)
    assert result["first_received"].values[1, 0] == 1
    np.testing.assert_array_equal(result["sink"], [[0, 0], [1, 0]])
    np.testing.assert_array_equal(result["sink_rate"], [0, 0.5])
    np.testing.assert_allclose(result["sink_logit"].values[1], [200, 0], rtol=1e-5)


def test_a_planted_drain_and_a_planted_massive_activation_are_found_where_they_are():
    model = toy()
    with torch.no_grad():
        model.blocks[0].W_V[1, :T, 3] = 1
        model.blocks[0].W_V[1, 0, 3] = 0.05
        model.blocks[0].W_O[1, 3, T + 1] = 2
        model.positions.weight[5, T + 2] = 1000
    result = run_toy(model)
    np.testing.assert_allclose(result["value_norm"].values[0, 1, :2], [0.1, 2], rtol=1e-5)
    np.testing.assert_allclose(result["value_drain"].values[0, 1], 0.05, rtol=1e-5)
    assert (result["peak_pos"].values == 5).all()
    assert (result["massive_dimension"].values[:, 0] == T + 2).all()
    np.testing.assert_allclose(result["massive_value"].values[:, 0], 1000)
    assert (result["massive_share"].values[:, 0] > 0.99).all()
    assert float(result["peak_appears"]) == 0
    assert np.isnan(result["peak_disappears"])


def test_a_peak_that_a_layer_writes_and_the_next_removes_has_both_ends():
    model = toy()
    with torch.no_grad():
        for block, sign in zip(model.blocks, (1, -1), strict=True):
            block.W_Q[0, :T, :8] = 0
            block.W_V[0, 0, 0] = 500  # only position 0 sees all of it: the others see a T-th
            block.W_O[0, 0, T] = sign
    result = run_toy(model)
    assert (float(result["peak_appears"]), float(result["peak_disappears"])) == (1, 2)
    assert result["peak_pos"].values[1] == 0


def test_a_late_key_cannot_qualify_by_itself_and_a_planted_delimiter_does():
    """Every query looks at itself: alpha_k is 1/(T-k), so the last keys pass epsilon unless the rule stops them."""
    own = torch.eye(T)[None, None]
    alpha = measures.received(own, site(own)).numpy()
    assert (alpha > 0.3).sum() == 3  # 1/3, 1/2 and 1
    strict = measures.received_by_others(alpha, measures.own_attention(own, site(own)).numpy())
    assert np.nanmax(strict) == pytest.approx(0, abs=1e-6)
    assert np.isnan(strict[..., 0]).all() and np.isnan(strict[..., -measures.MIN_QUERIES :]).all()
    assert not np.isnan(strict[..., -measures.MIN_QUERIES - 1]).any()
    delimiter = uniform(T)
    delimiter[..., 20:, :] = 0
    delimiter[..., 20:, 20] = 1
    alpha = measures.received(delimiter, site(delimiter)).numpy()
    strict = measures.received_by_others(alpha, measures.own_attention(delimiter, site(delimiter)).numpy())
    assert np.flatnonzero(strict[0, 0] > 0.3).tolist() == [20]
    assert strict[0, 0, 20] == pytest.approx(1)


# --- laws -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000), st.sampled_from([0, 1]))
def test_attention_is_shared_out_and_padding_enters_nothing(n, seed, first):
    """The mass that the keys receive is the number of queries, and a longer batch around the prompt changes nothing."""
    scores = torch.randn(1, 2, n, n, generator=torch.Generator().manual_seed(seed))
    scores = scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), torch.finfo(torch.float32).min)
    pattern = scores.softmax(-1)
    alpha = measures.received(pattern, site(pattern), first=first)
    mass = (alpha * (n - torch.arange(n)))[..., first:].sum(-1)
    torch.testing.assert_close(mass, torch.full_like(mass, n - first), rtol=1e-4, atol=1e-4)
    assert alpha[..., first:].min() >= 0 and alpha[..., first:].max() <= 1 + 1e-5
    wide = torch.rand(1, 2, n + 3, n + 3, generator=torch.Generator().manual_seed(seed))
    wide[..., :n, :n], wide[..., :n, n:] = pattern, 0
    torch.testing.assert_close(measures.received(wide, site(wide, [n]), first=first)[..., :n], alpha, equal_nan=True)
    padded = torch.randn(1, 2, n + 3, n + 3)
    padded[..., :n, :n] = scores
    expected = measures.sink_logit(scores, site(scores), first=first)
    torch.testing.assert_close(measures.sink_logit(padded, site(padded, [n]), first=first), expected, equal_nan=True)


def test_scores_masked_with_minus_infinity_give_the_same_sink_logit():
    scores = torch.randn(1, 2, 9, 9)
    hidden = ~torch.ones(9, 9, dtype=torch.bool).tril()
    finite = measures.sink_logit(scores.masked_fill(hidden, -3e38), site(scores))
    torch.testing.assert_close(measures.sink_logit(scores.masked_fill(hidden, -torch.inf), site(scores)), finite)


@pytest.mark.parametrize("key", [0, 3])
def test_a_key_that_an_intervention_hides_has_no_score(key):
    """`9 cannot see 3` gave heads a sink logit of 1e36: the mask's own number was averaged with the others."""
    model, prompt = tiny_model("llama"), Prompt.ids([0, *range(5, 17)])
    need = Need((SCORES,), keep, dims="head query key")
    scores = observe(model, prompt, [need])[need][0, 0].double().numpy()  # of layer 0, which no edit changes
    found = AttentionSinks().run(model, prompt, interventions=[Knockout((9,), (key,), (0, 1))])["sink_logit"]
    for head in range(4):
        gaps = []
        for query in range(2, 13):
            visible = [one for one in range(1, query) if (query, one) != (9, key)]
            if (query, 0) != (9, key):
                gaps.append(scores[head, query, 0] - np.mean([scores[head, query, one] for one in visible]))
        assert float(found.sel(layer=0, head=head)) == pytest.approx(np.mean(gaps), abs=1e-5)
    assert np.abs(found).max() < 100


# --- a slow route ---------------------------------------------------------------------------------------------------


def test_reductions_equal_plain_loops_over_kept_activations(tiny):
    """Kept patterns, scores and values, and loops in float64; mask_first too."""
    prompts = [Prompt.ids(range(1, 25)), Prompt.ids(range(30, 48))]
    kept = {hook: Need((hook,), keep, dims=dims) for hook, dims in _KEPT.items()}
    wanted = {first: _needs(bool(first)) for first in (0, 1)}
    needs = [*kept.values(), *wanted[0].values(), *wanted[1].values()]
    observation = observe(tiny, prompts, needs, positions="none")
    for row, prompt in enumerate(prompts):
        n = len(prompt.token_ids)
        seen = {hook: observation[need][:, row].double().numpy() for hook, need in kept.items()}
        for layer in range(tiny.sizes.n_layers):
            for first in (0, 1):
                _compare(tiny, observation, wanted[first], seen, row, layer, first, n)


_KEPT = {PATTERN: "head query key", SCORES: "head query key", V: "pos key_value_head d_head", RESID_POST: "pos d_model"}


def _compare(model, observation, wanted, seen, row, layer, first, n):
    got = {name: observation[need] for name, need in wanted.items()}
    W_O = model.weights(layer).W_O.double().numpy()
    group = model.sizes.n_heads // model.sizes.n_key_value_heads
    for head in range(model.sizes.n_heads):
        rows = seen[PATTERN][layer, head, :n, :n].copy()
        rows[:, :first] = 0
        rows[first:] /= rows[first:].sum(-1, keepdims=True)
        rows[:first] = 0
        alpha = [sum(rows[i, k] for i in range(k, n)) / (n - k) for k in range(first, n)]
        np.testing.assert_allclose(got["received"][layer, row, head, first:n], alpha, rtol=1e-4, atol=1e-6)
        if layer not in model.sizes.sliding:
            scores = seen[SCORES][layer, head]
            gaps = [scores[q, first] - scores[q, first + 1 : q].mean() for q in range(first + 2, n)]
            np.testing.assert_allclose(got["logit"][layer, row, head], np.mean(gaps), rtol=1e-3, atol=1e-4)
        values = seen[V][layer, :n, head // group]
        np.testing.assert_allclose(
            got["value"][layer, row, head, :n], np.linalg.norm(values @ W_O[head], axis=-1), rtol=1e-4
        )
        np.testing.assert_allclose(got["v"][layer, row, head, :n], np.linalg.norm(values, axis=-1), rtol=1e-5)
    states = seen[RESID_POST][layer, :n]
    norms = np.linalg.norm(states, axis=-1)
    np.testing.assert_allclose(got["resid"][layer, row, :n], norms, rtol=1e-5)
    np.testing.assert_allclose(got["state"][layer, row], states[first + norms[first:].argmax()], rtol=1e-5)


# --- causes and controls --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnFirst:
    """Forces every row of a layer's pattern onto key 0."""

    layer: int
    rows = None

    def edits(self, model):
        def force(pattern, mesh, rows):
            pattern.zero_()
            pattern[..., 0] = 1

        return [Edit(Where(PATTERN, self.layer), force)]


def test_forcing_a_pattern_onto_the_first_key_makes_every_head_of_the_layer_sink():
    model = tiny_model("llama")
    prompt = Prompt.ids(range(1, 65))
    before = AttentionSinks().run(model, prompt)
    after = AttentionSinks().run(model, prompt, interventions=[OnFirst(1)])
    assert before["sink_rate"].values[1] < 1
    np.testing.assert_array_equal(after["sink"].values[1], 1)
    np.testing.assert_array_equal(after["attention_received"].values[1, :, 1:], 0)
    np.testing.assert_array_equal(after["attention_received"].values[0], before["attention_received"].values[0])


def test_random_weights_show_no_sink_no_drain_and_no_peak():
    model = wrap(_small_random(), None, name="random")
    ids = torch.randint(0, 96, (T,), generator=torch.Generator().manual_seed(1))
    result = AttentionSinks().run(model, Prompt.ids(ids))
    assert result["sink"].values.max() == 0
    assert result["value_drain"].values.min() > 0.3
    assert np.isnan(result["peak_appears"])


def _small_random():
    """As initialised: the fixture's weights are five times that, to make patterns that are not all alike."""
    model = tiny_hf("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.div_(5.0)
    return model


# --- borders --------------------------------------------------------------------------------------------------------


def test_sliding_window_layers_are_not_applicable():
    model = tiny_model("gemma3")
    result = AttentionSinks().run(model, Prompt.ids(range(1, 41)))
    for name in ("sink", "sink_rate", "sink_logit", "attention_received", "other_sinks", "sink_share"):
        assert np.isnan(result[name].values[0]).all(), name
    assert not np.isnan(result["sink"].values[1]).any()
    assert not np.isnan(result["value_norm"].values).any()
    fits = AttentionSinks().run(model, Prompt.ids(range(1, model.sizes.window + 1)))
    assert "left out" not in fits.attrs["summary"]
    assert not np.isnan(fits["first_received"].values).any()
    assert np.isnan(fits["sink"].values).all()  # eight tokens are too few to tell a sink from uniform attention


@pytest.mark.parametrize("n", [5, 9, 10, 26, 60])
@pytest.mark.parametrize("mask_first", [False, True])
def test_uniform_attention_is_no_sink_at_any_length(n, mask_first):
    """Before, every head of up to nine tokens of uniform attention was one: 1/T sum of 1/i passes 0.3."""
    model = ToyTransformer(ToyConfig(n_layers=2, n_heads=2, d_model=16, d_head=8, d_vocab=64, n_ctx=64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    result = AttentionSinks(mask_first=mask_first).run(wrap(model, None, name="uniform"), Prompt.ids(range(1, n + 1)))
    visible = n - mask_first
    expected = sum(1 / i for i in range(1, visible + 1)) / visible
    np.testing.assert_allclose(result["first_received_null"], expected)
    np.testing.assert_allclose(result["first_received"], expected, atol=1e-5)
    said = result.attrs["summary"]
    if visible < 10:
        assert np.isnan(result["sink"].values).all() and "too short to tell a sink" in said and "is a sink" not in said
    else:
        assert (
            result["sink"].values == 0
        ).all() and "is a sink of 0 of 4 heads (uniform attention would give it " in said
        bar = f"more than {0.3:g})" if expected <= 0.15 else f"more than twice that, {2 * expected:.2f})"
        assert f"{expected:.2f}, and a sink gets {bar}" in said


@pytest.mark.parametrize("mask_first", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_shortest_prompts_have_a_result_that_can_be_drawn_and_saved(n, mask_first, tmp_path):
    result = AttentionSinks(mask_first=mask_first).run(tiny_model("llama"), Prompt.ids(range(1, n + 1)))
    assert np.isnan(result["sink_logit"].values).all() == (n < 3 + mask_first)
    save(result, tmp_path / "result.nc")
    for figure in (*VIEW.figures, *(lambda r, d=d: d(r, {"layer": 1, "head": 2}) for d in VIEW.details)):
        assert figure(result).data


def test_every_figure_states_T_epsilon_and_the_BOS_convention():
    result = AttentionSinks(epsilon=0.4).run(tiny_model("llama"), Prompt.ids(range(1, 33)))
    figures = [figure(result) for figure in VIEW.figures]
    figures += [detail(result, {"layer": 0, "head": 1, "depth": 1}) for detail in VIEW.details]
    for figure in figures:
        title = figure.layout.title.text.replace("<br>", " ")
        assert "T = 32" in title and "no BOS" in title and "epsilon = 0.4" in title, title


def test_bad_params_are_refused():
    with pytest.raises(InputError, match="epsilon"):
        AttentionSinks(epsilon=1.5).run(tiny_model("llama"), Prompt.ids([1, 2]))


# --- the default model ----------------------------------------------------------------------------------------------


def test_the_default_model_sinks_drains_and_peaks_from_depth_12_with_or_without_BOS(default_model):
    """Values of SmolLM2-135M-Instruct (Q4_1, dequantised) on one text, measured when this test was written."""
    result = AttentionSinks().run(default_model, TEXT)
    assert convention(result) == "T = 59, BOS at position 0, epsilon = 0.3"
    assert result["sink_rate"].values[12:28].mean() > 0.9
    assert result["sink_rate"].values[:10].mean() < 0.15
    assert float(result["peak_appears"]) == 12
    assert float(result["peak_disappears"]) == 30
    assert (result["peak_pos"].values[12:30] == 0).all()
    assert (result["massive_dimension"].values[12:25, 0] == 507).all()
    np.testing.assert_allclose(result["massive_value"].values[15, 0], 24891, rtol=1e-3)
    assert result["layer_drain"].values[20:29].max() < 0.35
    assert result["sink_logit"].values[12:].mean() > 4
    without = AttentionSinks().run(default_model, Prompt(TEXT, bos=False))
    assert without["peak_pos"].values[15] == 0
    assert without["key_text"].values[0] == "The"  # the sink is the place, not the token
    assert abs(without["sink_rate"].values.mean() - result["sink_rate"].values.mean()) > 0.03
    masked = AttentionSinks(mask_first=True).run(default_model, TEXT)
    assert masked["sink_rate"].values.mean() < 0.02
    assert np.isnan(masked["peak_appears"])


@pytest.mark.parametrize(("kind", "units"), [("gemma3", "units before the post-norm"), ("llama", "residual units")])
def test_norms_before_a_post_norm_say_so(kind, units):
    """Gemma's post-norm still rescales what z W_O gives: its size is none of the residual stream's."""
    model = tiny_model(kind)
    prompt = Prompt.ids([0, 5, 9, 17, 33, 80])
    assert AttentionSinks().run(model, prompt)["value_norm"].attrs["units"] == units
    assert HeadTable(n_sequences=4, texts=4).run(model)["output_norm"].attrs["units"] == units


def test_the_drain_is_said_of_its_position_also_where_no_sink_is_told():
    """A prompt that is too short for a sink, and a model whose window leaves position 0 out of sight of every head."""
    short = AttentionSinks().run(tiny_model("llama"), Prompt.ids([3, 4, 5])).attrs["summary"]
    assert short.startswith("The prompt is too short") and " The v W_O of position 0 has " in short
    windowed = AttentionSinks().run(tiny_model("phi3"), Prompt.ids(range(3, 23))).attrs["summary"]
    hidden = "2 layers left out: where a window is shorter than the prompt, it hides its start."
    assert windowed.startswith(f"{hidden} The v W_O of position 0 has ")  # before, nothing told why no sink was
    some = AttentionSinks().run(tiny_model("gemma3"), Prompt.ids(range(1, 41))).attrs["summary"]
    assert "is a sink of" in some and hidden.replace("2 layers", "1 layer") in some


def test_of_a_prompt_of_one_token_there_is_a_sentence_too():
    """Also where that token is left out."""
    said = lambda masked: AttentionSinks(mask_first=masked).run(tiny_model("llama"), Prompt.ids([5])).attrs["summary"]
    assert said(False) == "The prompt is too short to tell a sink from uniform attention."
    assert said(True) == "Of so short a prompt neither a sink nor a drain nor a peak can be told."
