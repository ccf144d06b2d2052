"""Neurons that write most: planted ones, laws, a plain loop over hooked activations, an ablation, the default model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.neurons.neurons import VIEW, Neurons, tokens_figure, written
from tests.tiny_models import tiny_hf, tiny_model
from workbench.errors import InputError
from workbench.intervene import Ablate, Head, units_of
from workbench.loading.pretrained import load, wrap
from workbench.models.hooks import MLP_OUT
from workbench.models.prompt import Prompt
from workbench.observation import Need, Site, keep, observe

IDS = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7])


def site(W_out: torch.Tensor, gain: torch.Tensor | None = None) -> Site:
    """A site of nothing but weights."""
    return Site(0, None, None, None, {}, SimpleNamespace(weights=lambda layer: weights_of(W_out, gain)))


def weights_of(W_out, gain):
    return SimpleNamespace(W_out=W_out, post_mlp_gain=gain)


# planted


def test_a_write_is_the_activation_times_the_row():
    W_out = torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]])
    activation = torch.tensor([[[9.0, 9, 9], [2, -7, 0]]])
    assert written(activation, site(W_out), 1).tolist() == [[[2, -7, 0], [10, 7, 0]]]
    gained = written(activation, site(W_out, torch.tensor([0.0, 2.0])), 1)
    assert gained.tolist() == [[[2, -7, 0], [16, 14, 0]]]


def test_two_neurons_that_alone_write_are_found_with_the_tokens_they_point_at():
    """Neuron 5 writes along the unembedding of token 17, neuron 9 against that of token 40."""
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.norm.weight.fill_(1.0)
        down, rows = hf.model.layers[1].mlp.down_proj.weight, hf.lm_head.weight
        rows.div_(rows.norm(dim=-1, keepdim=True))  # no token is nearer to the direction of another than to its own
        down.zero_()
        down[:, 5], down[:, 9] = 100 * rows[17], -rows[40]
    result = Neurons(layer=1, pos=3, top_k=2).run(wrap(hf, None, name="planted"), IDS)
    assert sorted(result["neuron"].values.tolist()) == [5, 9] and float(result["share"]) == 1
    for neuron, token, size in ((5, 17, 100), (9, 40, -1)):
        row = result.sel(neuron=neuron)
        kind = "promoted" if float(row["activation"]) * size > 0 else "suppressed"
        assert str(row[f"{kind}_text"].values[0]) == model_text(token)
        assert float(row["contribution"]) == pytest.approx(abs(float(row["activation"]) * size), rel=1e-5)


def model_text(token: int) -> str:
    return tiny_model("llama").vocabulary.string(token)


# laws


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.floats(0.1, 10))
def test_sizes_grow_with_the_activation_and_know_no_sign(seed, scale):
    random = torch.Generator().manual_seed(seed)
    activation, W_out = torch.randn(2, 3, 6, generator=random), torch.randn(6, 5, generator=random)
    found = written(activation, site(W_out), 2)
    assert (found[:, 1] >= 0).all()
    torch.testing.assert_close(written(-scale * activation, site(W_out), 2)[:, 1], scale * found[:, 1])
    order = torch.randperm(6, generator=random)
    assert torch.equal(written(activation[..., order], site(W_out[order]), 2), found[..., order])


def test_the_largest_come_first_and_all_together_are_everything(tiny):
    every = Neurons(layer=1, pos=3, top_k=200).run(tiny, IDS)
    sizes = every["contribution"].values
    assert (sizes[1:] <= sizes[:-1]).all() and float(every["share"]) == pytest.approx(1, abs=1e-5)
    few = Neurons(layer=1, pos=3, top_k=4).run(tiny, IDS)
    np.testing.assert_array_equal(few["neuron"], every["neuron"][:4])
    assert float(few["share"]) == pytest.approx(float(sizes[:4].sum() / sizes.sum()), abs=1e-5)
    for name, sign in (("promoted_logit", -1), ("suppressed_logit", 1)):
        assert (np.diff(sign * every[name].values, axis=-1) >= -1e-6).all()


# independent routes


def test_writes_of_all_neurons_sum_to_the_mlp_without_its_bias(tiny):
    need = Need((MLP_OUT,), keep, dims="pos d_model", layers=(1,))
    out = observe(tiny, IDS, [need])[need][0, 0, 3]
    weights, result = tiny.weights(1), Neurons(layer=1, pos=3, top_k=200).run(tiny, IDS)
    rows = weights.W_out.detach()[result["neuron"].values.tolist()]
    total = (torch.tensor(result["activation"].values)[:, None] * rows).sum(0)
    if weights.post_mlp_gain is not None:  # gemma3 norms the sum, and the scale of that is left out
        total = total * weights.post_mlp_gain.detach()
        total *= out.norm() / total.norm()
    bias = 0 if weights.b_out is None else weights.b_out.detach()
    np.testing.assert_allclose(total, out - bias, atol=1e-4)


def test_against_a_plain_loop_over_hooked_activations():
    """Hugging Face's own module, its input, and the final norm and unembedding by hand."""
    hf, seen = tiny_hf("llama"), {}
    layer = hf.model.layers[1]
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda module, given: seen.update(post=given[0])),
        hf.model.norm.register_forward_pre_hook(lambda module, given: seen.update(state=given[0])),
    ]
    with torch.no_grad():
        hf(torch.tensor([IDS.token_ids]))
    for hook in hooks:
        hook.remove()
    post, state = seen["post"][0, 3].double(), seen["state"][0, 3].double()
    scale = (state.square().mean() + hf.config.rms_norm_eps).sqrt()
    result = Neurons(layer=1, pos=3, top_k=64).run(wrap(hf, None, name="tiny-llama"), IDS)
    for neuron in range(64):
        row = result.sel(neuron=neuron)
        write = post[neuron] * layer.mlp.down_proj.weight[:, neuron].double()
        assert float(row["activation"]) == pytest.approx(float(post[neuron]), abs=1e-5)
        assert float(row["contribution"]) == pytest.approx(write.norm().item(), abs=1e-4)
        logits = ((write / scale * hf.model.norm.weight.double()) @ hf.lm_head.weight.double().T).detach()
        np.testing.assert_allclose(row["promoted_logit"], logits.topk(8).values, atol=1e-4)
        np.testing.assert_allclose(row["suppressed_logit"], logits.topk(8, largest=False).values, atol=1e-4)


# causes


def test_a_removed_neuron_writes_nothing_and_the_others_as_before():
    model, analysis = tiny_model("llama"), Neurons(layer=1, pos=3, top_k=200)
    plain = analysis.run(model, IDS)
    first = int(plain["neuron"].values[0])
    without = analysis.run(model, IDS, interventions=[Ablate(unit) for unit in units_of(f"L1N{first}")])
    assert float(without["contribution"].sel(neuron=first)) == 0 and without["neuron"].values[-1] == first
    rest = plain["neuron"].values[1:]
    np.testing.assert_array_equal(without["activation"].sel(neuron=rest), plain["activation"].sel(neuron=rest))
    assert without.attrs["spec_key"] != plain.attrs["spec_key"] and f"L1N{first}" in without.attrs["provenance"]


def test_an_earlier_edit_reaches_it_as_by_hand():
    model, edit, analysis = tiny_model("llama"), [Ablate(Head(0, 1))], Neurons(layer=1, pos=3, top_k=200)
    needs = analysis.needs(model, IDS.token_ids)
    by_hand = observe(model, IDS, needs, interventions=edit)[needs[0]][0, 0]
    edited = analysis.run(model, IDS, interventions=edit)
    np.testing.assert_array_equal(edited["activation"], by_hand[0][edited["neuron"].values])
    plain = analysis.run(model, IDS)["activation"].sel(neuron=edited["neuron"].values)
    assert abs(edited["activation"] - plain).max() > 1e-3


# what is refused, said and drawn


def test_a_layer_or_a_position_that_is_not_there_is_refused():
    model = tiny_model("llama")
    for wrong, said in (({"layer": 2}, "0 to 1"), ({"pos": 8}, "0 to 7")):
        with pytest.raises(InputError, match=said):
            Neurons(**wrong).run(model, IDS)
    with pytest.raises(InputError, match="which has no MLP"):
        Neurons().run(load("toy-induction"), Prompt.ids([0, 5, 6]))
    with pytest.raises(InputError, match="top_k"):
        Neurons(top_k=0)


def test_it_follows_the_selection_and_is_drawn_and_claimed():
    assert VIEW.follows == ("layer", "pos") and set(VIEW.follows) < {p.name for p in Neurons.parameters()}
    result = Neurons(layer=1, pos=3, top_k=5).run(tiny_model("llama"), IDS)
    assert "5 of the 64 neurons" in result.attrs["summary"]
    assert f"carry {float(result['share']):.0%} of" in result.attrs["summary"]
    for figure in VIEW.figures:
        assert len(figure(result).data[0].x) == 5 and "layer 1" in figure(result).layout.title.text
    neurons = result["neuron"].values
    assert f"L1N{neurons[2]} " in tokens_figure(result, {"neuron": neurons[2]}).layout.title.text
    assert f"L1N{neurons[0]} " in tokens_figure(result, {}).layout.title.text  # the one that writes most
    assert tokens_figure(result, {"neuron": 1000}) is None
    assert VIEW.claimed(result, {"neuron": neurons[2]})[0].params["units"] == f"L1N{neurons[2]}"
    assert VIEW.claimed(result, {})[0].params["units"] == f"L1N{neurons[0]}"


def test_what_the_default_model_writes_before_paris(default_model):
    """Golden (2026-11, bundled weights); 1e-2 of norms of some 50: logits move by 1e-4 between thread counts."""
    result = Neurons(layer=27, pos=5, top_k=3).run(default_model, "The capital of France is")
    assert result["neuron"].values.tolist() == [1392, 612, 1453]
    np.testing.assert_allclose(result["contribution"], [94.46, 53.79, 46.05], atol=1e-2)
    np.testing.assert_allclose(result["activation"], [18.81, -10.50, 9.55], atol=1e-2)
    assert str(result["promoted_text"].values[0, 0]) == "hemical"


@pytest.mark.parametrize(
    ("units", "lost"), [("L1 mlp", True), ("L0 mlp", False), ("L1N5", False), ("L1 attention", False)]
)
def test_what_does_not_arrive_is_said(units, lost):
    """Neurons of an MLP that is taken away were said to write as ever."""
    edits = [Ablate(unit) for unit in units_of(units)]
    said = Neurons(layer=1, pos=3).run(tiny_model("llama"), IDS, interventions=edits).attrs["summary"]
    assert said.endswith("An intervention sets what they write into: nothing of it arrives.") == lost
