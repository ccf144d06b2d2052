"""What decides numbers beside the weights: it enters every key, and what its holder changes of it is taken up."""

import json
import shutil
from functools import partial

import pytest
import torch
from torch import nn

from probes import AttentionKnockout, AttentionSinks, FlowRoutes, InductionHeads, LogitLens
from tests.tiny_models import spelling, tiny_hf
from workbench import Patch, Prompt, load, observe, record, run, wrap
from workbench.errors import InputError
from workbench.loading.settings import held_settings, settings_hash
from workbench.loading.toys.families import FAMILIES, random_model
from workbench.models.hooks import RESID_PRE
from workbench.models.prompt import tokenise

IDS = [0, 40, 7, 9, 55, 3, 3, 81, 20, 5]
PROMPT = Prompt.ids(IDS)
BESIDE = ("rwkv", "mamba", "mamba2")  # refused, and they count as they go


def plain(hf):
    with torch.no_grad():
        return hf(torch.tensor([IDS]), use_cache=False).logits[0]


def key(model):
    return LogitLens().spec_key(model, tokenise(model, PROMPT))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("gpt2", {"activation_function": "relu"}),
        ("gpt2", {"layer_norm_epsilon": 0.5}),
        ("neox", {"use_parallel_residual": False}),
        ("gemma3", {"sliding_window": 3}),
        ("qwen2", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
        ("llama", {"num_key_value_heads": 1, "num_attention_heads": 2, "head_dim": 16}),
    ],
)
def test_the_same_weights_with_another_configuration_are_another_model(kind, change, tmp_path):
    tiny_hf(kind).save_pretrained(tmp_path / "one")
    spelling().save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    said = tmp_path / "other" / "config.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | change))
    one, other, same = (load(str(tmp_path / name)) for name in ("one", "other", "same"))
    assert one.identity.weights_hash == other.identity.weights_hash
    assert not torch.equal(*(observe(model, PROMPT).logits[0] for model in (one, other)))
    assert key(one) == key(same) != key(other)
    assert one.identity.key == same.identity.key != other.identity.key
    assert key(wrap(type(one.adapter.hf_model).from_pretrained(tmp_path / "one"), one.tokenizer)) == key(one)


def buffer(hf):
    hf.gpt_neox.rotary_emb.inv_freq.mul_(0.25)


def epsilon(hf):
    hf.gpt_neox.final_layer_norm.eps = 0.7


def module(hf):
    hf.gpt_neox.layers[1].mlp.act = nn.Tanh()


@pytest.mark.parametrize("change", [buffer, epsilon, module], ids=lambda f: f.__name__)
def test_what_a_holder_changes_beside_weights_is_taken_up(change):
    hf = tiny_hf("neox")
    hf.set_attn_implementation("eager")
    model = wrap(hf, None)
    before, was = key(model), plain(hf)
    change(hf)
    assert not torch.allclose(plain(hf), was)
    seen = observe(model, PROMPT, positions="all").logits[0]
    assert (seen - plain(hf)).abs().max() <= 1e-5 * seen.abs().max()  # the joint QKV is split
    assert key(model) != before and model.selfcheck.passed


def test_a_number_that_scales_attention_is_taken_up():
    hf = tiny_hf("llama")
    hf.set_attn_implementation("eager")
    model = wrap(hf, None)
    for layer in hf.model.layers:
        layer.self_attn.scaling *= 3
    assert torch.equal(observe(model, PROMPT, positions="all").logits[0], plain(hf))


def test_a_model_whose_passes_are_not_its_own_is_refused_with_a_warning():
    """TransformerLens scales the attention of GPT-NeoX by its config, whatever stands in the module."""
    hf = tiny_hf("neox")
    model = wrap(hf, None, name="mine")
    for layer in hf.gpt_neox.layers:
        layer.attention.scaling *= 3
    with pytest.warns(UserWarning, match="Passes on mine are not those of the model"):
        found = run(model, PROMPT, [LogitLens(), AttentionSinks(), FlowRoutes(), AttentionKnockout()])
    assert all("logits equal" in failure.sentence for failure in found.values())


def test_what_is_written_into_a_configuration_is_taken_up():
    hf = random_model("gemma2")  # asks its configuration for the cap in every pass
    hf.set_attn_implementation("eager")
    model = wrap(hf, None)
    before, was = key(model), plain(hf)
    hf.config.final_logit_softcapping = 0.5
    assert not torch.allclose(plain(hf), was)
    assert torch.allclose(observe(model, PROMPT, positions="all").logits[0], plain(hf), atol=1e-5)
    assert key(model) != before


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in (*BESIDE, "t5")])
def test_calls_and_modes_are_no_change(family):
    hf = random_model(family).eval()
    before, digest = held_settings(hf), settings_hash(hf)
    with torch.no_grad():
        for n in (5, 40):
            hf(torch.arange(n)[None])
    hf.train().eval()
    assert held_settings(hf) == before and settings_hash(hf) == digest


def test_two_hooks_of_one_name_that_do_other_things_are_told_apart():
    """In a notebook each is `<lambda>`; what one gave would be shown for the other."""

    def louder(by):
        return lambda module, args, output: by * output

    made = (
        louder(2.0),
        louder(3.0),
        lambda m, a, out: out + 1,
        lambda m, a, out: out + 2,
        partial(max, 1),
        partial(max, 2),
    )
    found, hf = [], tiny_hf("qwen2")
    for hook in made:
        handle = hf.model.layers[0].mlp.register_forward_hook(hook)
        found.append(settings_hash(hf))
        handle.remove()
    assert len(set(found)) == len(made)
    hf.model.layers[0].mlp.register_forward_hook(louder(2.0))
    assert settings_hash(hf) == found[0]  # the same one, made again


def test_a_users_hooks_are_told_by_their_names():
    hf = tiny_hf("qwen2")
    before = settings_hash(hf)
    hook = hf.model.layers[0].register_forward_hook(lambda module, args, output: output)
    assert settings_hash(hf) != before
    hook.remove()
    assert settings_hash(hf) == before


def test_another_tokenizer_is_another_key():
    hf, induction = tiny_hf("llama"), InductionHeads()
    first, second = wrap(hf, spelling(True)), wrap(hf, spelling(False))
    assert induction.spec_key(first, None) != induction.spec_key(second, None)
    third = wrap(hf, spelling(True))
    third.tokenizer.pad_token = "<s>"
    third.tokenizer(["a", "longer"], padding=True, truncation=True, max_length=3)  # which it remembers
    assert induction.spec_key(first, None) == induction.spec_key(wrap(hf, spelling(True)), None)
    assert third.vocabulary.digest == third.vocabulary.__class__(third.tokenizer, 96).digest


def test_a_recording_from_before_a_setting_changed_is_of_another_model():
    hf = tiny_hf("gpt2")
    model = wrap(hf, None)
    recorded = record(model, PROMPT, (RESID_PRE,))
    patch = Patch(RESID_PRE, 1, recorded)
    observe(model, PROMPT, interventions=[patch])
    hf.transformer.h[0].mlp.act = nn.Tanh()
    with pytest.raises(InputError, match="of another model"):
        observe(model, PROMPT, interventions=[patch])
