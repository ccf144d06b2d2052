"""What a user changes in the weights that they hold is taken up: by the hash, the keys, the weights and every pass."""

import copy
import gc
import weakref

import pytest
import torch
import xarray as xr
from torch import nn

from probes import (
    ActivationPatching,
    CausalTracing,
    DirectLogitAttribution,
    LogitLens,
    SinkConditions,
)
from tests.tiny_models import KINDS, tiny_hf
from workbench import Ablate, Head, Prompt, load, observe, wrap
from workbench.analysis.run import Failure, outcomes
from workbench.errors import InputError, RefusedError
from workbench.loading import pretrained
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.prompt import tokenise

IDS = [0, 40, 7, 9, 55]
PROMPT = Prompt.ids(IDS)


def projection(hf, kind):
    """The weight behind an MLP of layer 1, and behind its attention's values (joint with queries and keys in some)."""
    if kind == "gpt2":
        return hf.transformer.h[1].mlp.c_proj.weight, hf.transformer.h[1].attn.c_attn.weight
    if kind == "neox":
        layer = hf.gpt_neox.layers[1]
        return layer.mlp.dense_4h_to_h.weight, layer.attention.query_key_value.weight
    return hf.model.layers[1].mlp.down_proj.weight, hf.model.layers[1].self_attn.v_proj.weight


def step(hf, kind):
    """One step of an optimiser."""
    optimiser = torch.optim.SGD(hf.parameters(), lr=0.1)
    hf(torch.tensor([IDS]), labels=torch.tensor([IDS])).loss.backward()
    optimiser.step()
    hf.zero_grad()


def through_data(hf, kind):
    """One column, in a way that PyTorch does not count."""
    for weight in projection(hf, kind):
        weight.data[:, 3] = 0


def swapped(hf, kind):
    """An exchange of two rows that leaves every sum as it is."""
    weight = projection(hf, kind)[1].data
    weight[[0, 1]] = weight[[1, 0]].clone()


def replaced(hf, kind):
    """Another parameter in the place of one."""
    owner = hf.get_submodule(next(n for n, _ in hf.named_modules() if n.endswith(("lm_head", "embed_out"))))
    owner.weight = nn.Parameter(owner.weight.detach() * 2)


def plain(hf):
    with torch.no_grad():
        return hf(torch.tensor([IDS]), use_cache=False).logits[0]


@pytest.mark.parametrize("change", [step, through_data, swapped, replaced], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_hash_and_passes_follow_the_weights(kind, change):
    hf = tiny_hf(kind)
    hf.set_attn_implementation("eager")
    model = wrap(hf, None, name="mine")
    tokens, lens = tokenise(model, PROMPT), LogitLens(top_k=3)
    before, key = model.identity.weights_hash, lens.spec_key(model, tokens)
    change(hf, kind)
    fresh = wrap(copy.deepcopy(hf), None, name="mine")
    assert model.identity.weights_hash == fresh.identity.weights_hash != before
    assert lens.spec_key(model, tokens) != key
    logits = observe(model, PROMPT, positions="all").logits[0]
    assert (logits - plain(hf)).abs().max() <= 1e-5 * logits.abs().max()  # GPT-2's joint QKV is split
    assert torch.equal(model.weights(1).W_V, fresh.weights(1).W_V)
    assert model.selfcheck.passed


def test_an_edited_model_and_one_that_was_kept_follow_too():
    hf = tiny_hf("gemma3")  # its gains are stored as offsets: a readout copies them
    model = wrap(hf, None, name="mine")
    kept = model.edited([])
    edited = model.edited([Ablate(Head(0, 1))])
    hf.model.norm.weight.data += 0.5
    now = wrap(copy.deepcopy(hf), None)
    for one in (kept, edited, model):
        assert one.identity.weights_hash == now.identity.weights_hash
        assert torch.equal(one.readout.gain, now.readout.gain)
    assert edited.interventions


def test_a_run_is_of_the_weights_at_its_start():
    hf = tiny_hf("llama")
    model = wrap(hf, None)
    result = DirectLogitAttribution().run(model, PROMPT)
    hf.lm_head.weight.data *= 2
    assert DirectLogitAttribution().run(model, PROMPT).attrs["provenance"] != result.attrs["provenance"]


def test_weights_that_nobody_changed_are_not_made_anew(monkeypatch):
    model = wrap(tiny_hf("qwen2"), None)
    adapter = model.adapter
    LogitLens().run(model, PROMPT)
    plain(model.adapter.hf_model)
    assert model.identity and model.adapter is adapter


def test_weights_of_a_loaded_model_are_followed(tiny_dir):
    model = load(str(tiny_dir))
    before = model.identity.weights_hash
    with torch.no_grad():
        model.adapter.hf_model.model.norm.weight.mul_(2)
    assert model.identity.weights_hash != before


def test_layers_that_leave_memory_are_said():
    hf = tiny_hf("llama")
    model = wrap(hf, None)
    hf.model.layers[1].to("meta")
    with pytest.raises(InputError, match=r"model\.layers\.1 are offloaded"):
        observe(model, PROMPT)


def test_a_toy_follows_its_weights():
    toy = ToyTransformer(ToyConfig(n_layers=1, n_heads=2, d_vocab=64, n_ctx=32))
    model = wrap(toy, None)
    before = model.identity.weights_hash
    toy.blocks[0].W_O.data[0] = 0
    assert model.identity.weights_hash != before and model.selfcheck.passed


def test_a_model_that_nobody_holds_is_freed():
    hf = tiny_hf("llama")
    model = wrap(hf, None)
    LogitLens().run(model, PROMPT)
    DirectLogitAttribution().run(model, PROMPT)
    gone = weakref.ref(model.adapter), weakref.ref(hf.lm_head.weight), weakref.ref(model)
    del model, hf
    gc.collect()
    assert [one() for one in gone] == [None, None, None]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_wrapped_twice_saved_and_trained_it_is_the_users(kind, tmp_path):
    hf = tiny_hf(kind).train()
    first, second = wrap(hf, None), wrap(hf, None)
    assert first.identity.weights_hash == second.identity.weights_hash
    assert first.selfcheck.passed and second.selfcheck.passed and hf.training
    hf.save_pretrained(tmp_path / "saved")
    again = type(hf).from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(plain(again), plain(hf.eval()))
    for _ in range(2):  # dropout would draw anew: GPT-2's config has it
        hf.train()
        assert torch.equal(observe(wrap(hf, None), PROMPT).logits[0], observe(first, PROMPT).logits[0])


@pytest.mark.parametrize("study", [ActivationPatching, CausalTracing, SinkConditions])
def test_a_study_whose_weights_change_on_the_way_is_refused(study):
    """A base of the old weights and sweeps of the new ones were one result, under the old key."""
    hf = tiny_hf("llama", 3)
    model = wrap(hf, None, name="mine")
    found = outcomes(model, Prompt.ids(range(3, 40)), [study()])
    assert not next(found).complete
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight.mul_(2)
    last = list(found)[-1]
    assert isinstance(last.result, Failure) and "weights of mine that were changed while this" in str(last.result.error)
    assert all(isinstance(one.result, xr.Dataset) for one in outcomes(model, Prompt.ids(range(3, 40)), [study()]))


def test_a_pass_whose_weights_change_on_the_way_is_refused():
    hf = tiny_hf("llama", 3)
    model = wrap(hf, None, name="mine")

    def meanwhile(share):
        if 0.3 < share < 0.5:
            with torch.no_grad():
                hf.model.layers[1].mlp.down_proj.weight.mul_(2)

    with pytest.raises(RefusedError, match="weights of mine that were changed while this was computed"):
        observe(model, PROMPT, progress=meanwhile)


def test_weights_that_change_while_they_are_checked_are_said_to(monkeypatch):
    """The self-check saw two models in one, and said "tokens see those behind them, as in an encoder"."""
    hf = tiny_hf("llama")
    model, plain_check = wrap(hf, None, name="mine"), pretrained._checked

    def meanwhile(*given):
        found = plain_check(*given)
        louder()
        return found

    def louder():
        with torch.no_grad():
            hf.lm_head.weight.mul_(2)

    louder()
    monkeypatch.setattr(pretrained, "_checked", meanwhile)
    with pytest.raises(RefusedError, match="weights that were changed while they were looked at"):
        model.identity.key  # noqa: B018 - a look
    monkeypatch.setattr(pretrained, "_checked", plain_check)
    assert model.identity.key == wrap(copy.deepcopy(hf), None, name="mine").identity.key


@pytest.mark.parametrize("kind", ["qwen2", "neox"])
def test_an_embedding_that_was_resized_has_other_ids(kind):
    """New ids were refused as targets; of those that are gone an IndexError came."""
    hf = tiny_hf(kind)
    model = wrap(hf, None)
    before = tokenise(model, PROMPT)
    observe(model, before)
    hf.resize_token_embeddings(101)
    found = DirectLogitAttribution(target="#100").run(model, before)
    with torch.no_grad():
        plain = hf(torch.tensor([IDS])).logits[0, -1, 100]
    assert abs(float(found["total"]) - float(plain)) < 1e-4 and model.vocabulary.size == 101
    hf.resize_token_embeddings(60)
    for analysis in (DirectLogitAttribution, LogitLens):
        with pytest.raises(InputError, match="ids from 0 to 59"):
            analysis(target="#61").run(model, PROMPT)
