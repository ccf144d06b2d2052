"""Numbers that overflow: an error of the pass that names the place, on a model whose first token grows massive."""

import pytest
import torch

from probes import AttentionSinks
from tests.tiny_models import spelling, tiny_hf, tiny_model
from workbench.errors import InputError, RefusedError
from workbench.intervene import Add, Clamp, Neurons, Steer
from workbench.loading.pretrained import wrap
from workbench.models import selfcheck as sc
from workbench.models.hooks import ATTN_OUT, MLP_OUT, PATTERN, RESID_POST, SCORES
from workbench.models.prompt import Prompt
from workbench.observation import Need, keep, observe
from workbench.observation.finite import all_finite

WITH_BOS, WITHOUT = Prompt.ids([0, 33, 80, 12]), Prompt.ids([33, 80, 12, 7])


def massive(dtype):
    """A neuron of layer 1 that only BOS drives writes about 125,000 into one dimension: more than float16 holds."""
    hf = tiny_hf("llama", n_layers=3)
    with torch.no_grad():
        embedding, first, second = hf.model.embed_tokens.weight, hf.model.layers[0], hf.model.layers[1]
        embedding[:, 3] = 0
        embedding[0] = torch.eye(32)[3]
        for writes in (first.self_attn.o_proj, first.mlp.down_proj, second.self_attn.o_proj):
            writes.weight[3] = 0  # dimension 3 stays BOS's
        second.post_attention_layernorm.weight.fill_(1.0)
        for reads in (second.mlp.gate_proj, second.mlp.up_proj):
            reads.weight[0] = 100 * torch.eye(32)[3]
        second.mlp.down_proj.weight[:, 0] = 0
        state = hf.model(torch.tensor([[0, 33]]), output_hidden_states=True).hidden_states[1]
        norm = state[0, 0, 3] / state[0, 0].pow(2).mean().sqrt()
        second.mlp.down_proj.weight[5, 0] = 125_000 / (100 * norm) ** 2
    return wrap(hf.to(dtype), spelling(), name="massive")


@pytest.fixture(scope="module")
def half():
    return massive(torch.float16)


def test_the_model_is_massive_by_construction():
    model = massive(torch.float32)
    need = Need((RESID_POST,), keep, dims="pos d_model", layers=(1,))
    sizes = observe(model, WITH_BOS, [need])[need][0, 0].abs().amax(-1)
    assert sizes[0] > 65_504 > 100 * sizes[1:].max()
    assert model.selfcheck.passed


def test_an_overflow_is_an_error_with_its_place(half):
    with pytest.raises(RefusedError, match=r"mlp_out of layer 1.*float16.*bfloat16"):
        observe(half, WITH_BOS)
    with pytest.raises(RefusedError, match="mlp_out of layer 1"):
        AttentionSinks().run(half, WITH_BOS)
    with pytest.raises(RefusedError, match="mlp_out of layer 1"):  # beside a prompt without it, and where a pass stops
        observe(half, [WITHOUT, WITH_BOS], [Need((PATTERN,), keep, dims="head query key")], stop=2)
    assert observe(half, WITHOUT).logits[0].isfinite().all()
    assert observe(half, WITH_BOS, stop=1).ran == range(1)


def test_the_self_check_sees_it_behind_bos(half):
    failed = {item.name: item for item in half.selfcheck.items if not item.passed}
    assert sc.FINITE in failed and "layer 1" in failed[sc.FINITE].note
    assert "behind BOS" in half.selfcheck.about and "float16" in half.selfcheck.about
    assert massive(torch.bfloat16).selfcheck.failed((sc.FINITE,)) == []


def test_an_edit_that_overflows_is_named():
    model = tiny_model("llama", n_layers=3)
    above = [Steer(0, torch.full((32,), 3e38), hook=hook) for hook in (RESID_POST, MLP_OUT)]
    with pytest.raises(RefusedError, match=r"not finite in resid_post of layer 0.*Take interventions back"):
        observe(model, WITHOUT, interventions=above)
    with pytest.raises(InputError, match="numbers that are not finite"):
        observe(model, WITHOUT, interventions=[Steer(1, torch.full((32,), 3e38), 10.0)])
    observe(model, WITHOUT)


@pytest.mark.parametrize("kind", ["gemma3", "gpt2"])
@pytest.mark.parametrize("size", [4e17, 7e21])
def test_a_finite_state_of_which_a_norm_makes_zeros_is_refused(kind, size):
    """Its square is none any more in float32: logits of nothing came out, in which every token is as likely."""
    model = tiny_model(kind)
    direction = torch.linspace(-1, 1, 32)
    for edit in (Steer(0, direction, size, hook=ATTN_OUT), Clamp(Neurons(1, (5,)), size)):
        with pytest.raises(RefusedError, match=r"norm"):
            observe(model, WITHOUT, interventions=[edit])
    far = observe(model, WITHOUT, interventions=[Steer(1, direction, 1e9)]).logits[0]
    plain = model.readout.logits(1e9 * direction[None].repeat(len(far), 1))
    assert (far - plain).abs().max() <= 1e-4 * plain.abs().max()  # of so large a state the rest is 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_an_addition_that_is_lost_in_what_it_is_added_to_is_refused(dtype):
    model = wrap(tiny_hf("llama").to(dtype), None)
    with pytest.raises(RefusedError, match=rf"lost when it is added to mlp_post of layer 1 in {str(dtype)[6:]}"):
        observe(model, WITHOUT, interventions=[Add(Neurons(1, (0, 7)), 1e-30)])
    with pytest.raises(RefusedError, match="lost"):
        observe(model, WITHOUT, interventions=[Steer(0, torch.ones(32), 1e-13)])
    with pytest.raises(InputError, match="not finite"):
        observe(model, WITHOUT, interventions=[Add(Neurons(1, (0,)), float("nan"))])
    same = observe(model, WITHOUT, interventions=[Steer(0, torch.ones(32), 0.0)])  # the zero of a series
    assert torch.equal(same.logits[0], observe(model, WITHOUT).logits[0])


def test_a_state_that_overflows_without_an_edit_is_refused():
    """Weights alone: an embedding of 1e20, which is finite and whose norm gives zeros."""
    hf = tiny_hf("qwen2")
    with torch.no_grad():
        hf.model.embed_tokens.weight[80] = 1e20
    model = wrap(hf, None)
    with pytest.raises(RefusedError, match=r"states beyond 1e\+18.*resid_pre of layer 0"):
        observe(model, WITHOUT)
    observe(model, Prompt.ids([33, 12, 7]))


def test_looking_changes_nothing():
    model = tiny_model("qwen2")
    with torch.no_grad():
        bare = model.adapter.forward(torch.tensor([WITH_BOS.token_ids]))
    assert torch.equal(observe(model, WITH_BOS, positions="all").logits[0], bare[0])


def test_masks_and_padding_are_no_overflow():
    scores = torch.zeros(1, 2, 3, 3)
    scores[..., 0, 1:] = -torch.inf
    mask = torch.tensor([[True, True, False]])
    assert all_finite(scores, mask, SCORES) and not all_finite(scores, mask, PATTERN)
    state = torch.zeros(1, 3, 4)
    state[0, 2] = torch.nan
    assert all_finite(state, mask) and not all_finite(state, None)
