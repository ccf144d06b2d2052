"""What wrap() cannot take is one sentence that says what it is."""

import types

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPTNeoXConfig,
    MambaConfig,
    RwkvConfig,
    T5Config,
    T5ForConditionalGeneration,
)  # fmt: skip

from tests.beside import Beside
from tests.tiny_models import spelling, tiny_hf
from workbench import Prompt, load, observe, wrap
from workbench.errors import InputError, ModelError, RefusedError
from workbench.loading.given import need_causal
from workbench.loading.toys.families import FAMILIES


def test_a_tokenizer_by_its_name():
    with pytest.raises(InputError, match=r"'gpt2' as the tokenizer.*AutoTokenizer"):
        wrap(tiny_hf("gpt2"), "gpt2")
    with pytest.raises(InputError, match="a dict as one"):
        wrap(tiny_hf("gpt2"), {})


@pytest.mark.parametrize("model", ["gpt2", None, nn.Linear(2, 2), types.SimpleNamespace(config=1, generate=1)])
def test_what_is_no_language_model(model):
    with pytest.raises(InputError, match="a Hugging Face causal language model"):
        wrap(model, None)


def test_a_layer_of_another_type_is_named():
    hf = tiny_hf("gpt2")
    hf.transformer.h[1].double()
    with pytest.raises(InputError, match=r"transformer\.h\.1 in float64 and the rest in float32.*to\(torch\.float32\)"):
        wrap(hf, None)


def test_a_compiled_model():
    with pytest.raises(InputError, match=r"a compiled model .*Give its _orig_mod"):
        wrap(torch.compile(tiny_hf("llama"), backend="eager"), None)


def test_an_unmerged_adapter():
    hf = tiny_hf("llama")
    hf.peft_config = {"default": object()}  # what peft leaves on a model, and on its own class of one
    with pytest.raises(InputError, match="merge_and_unload"):
        wrap(hf, None)


def test_an_adapter_that_was_put_on_a_wrapped_model():
    """Its switches (`disable_adapter`, `set_adapter`) are no weights: what it was set to once went on in our passes."""
    hf = tiny_hf("qwen2")
    model = wrap(hf, None)
    prompt = Prompt.ids([3, 9, 4])
    before = observe(model, prompt).logits[0]
    projection = hf.model.layers[1].self_attn.v_proj
    hf.peft_config = {"default": object()}
    hf.model.layers[1].self_attn.v_proj = Beside(projection)
    with pytest.raises(InputError, match="merge_and_unload"):
        observe(model, prompt)
    del hf.peft_config
    hf.model.layers[1].self_attn.v_proj = projection
    assert torch.equal(observe(model, prompt).logits[0], before)


def test_an_encoder_and_decoder():
    hf = T5ForConditionalGeneration(T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=32))
    with pytest.raises(InputError, match="reads with an encoder"):
        wrap(hf, None)


def test_layers_that_are_elsewhere_are_named():
    hf = tiny_hf("qwen2", n_layers=6)
    for layer in hf.model.layers[1:]:
        layer.to("meta")
    with pytest.raises(InputError, match=r"model\.layers\.1, .* model\.layers\.4 and 1 others are offloaded"):
        wrap(hf, None)


def test_packed_weights_are_named():
    hf = tiny_hf("llama")
    packed = nn.Parameter(torch.zeros(16, 16, dtype=torch.uint8), requires_grad=False)
    hf.model.layers[1].mlp.up_proj.weight = packed
    with pytest.raises(InputError, match=r"quantised weights \(model\.layers\.1\.mlp\.up_proj\.weight\)"):
        wrap(hf, None)


def encoder():
    """BERT as it is published: no decoder, so that each token sees all others."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    sizes["initializer_range"] = 0.3  # a trained one's tokens change each other by as much
    return AutoModelForCausalLM.from_config(BertConfig(vocab_size=96, max_position_embeddings=128, **sizes))


OBSERVED_NOT = {
    "bert": encoder,
    "mamba": lambda: AutoModelForCausalLM.from_config(MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=96)),
    "rwkv": lambda: AutoModelForCausalLM.from_config(
        RwkvConfig(hidden_size=16, num_hidden_layers=2, vocab_size=96, attention_hidden_size=16)
    ),
}


@pytest.mark.parametrize("kind", OBSERVED_NOT)
def test_architectures_that_cannot_be_observed_are_one_sentence(kind):
    hf = OBSERVED_NOT[kind]().eval()
    with pytest.raises(InputError) as caught:
        wrap(hf, None)
    assert type(hf).__name__ in str(caught.value) and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_encoder_is_refused_as_one(dtype, tmp_path):
    encoder().save_pretrained(tmp_path)
    spelling().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a BertLMHeadModel whose tokens see those behind them, as in an encoder"):
        load(str(tmp_path), dtype=dtype)


@pytest.mark.parametrize("d_vocab", [2, 4, 5, 96])
def test_an_encoder_of_few_tokens_is_one_too(d_vocab):
    """The token at the end is another one, whatever the vocabulary: of five it was the first once more."""
    mean = lambda ids: nn.functional.one_hot(ids, d_vocab).float().mean(1, keepdim=True).expand(-1, ids.shape[1], -1)
    with pytest.raises(RefusedError, match="as in an encoder"):
        need_causal("Mean", mean, torch.arange(6)[None] % d_vocab, torch.float32)


def test_a_model_that_draws_in_every_pass_is_refused_as_one():
    """It was called an encoder: `F.dropout` without `training=` drops out in evaluation mode, too."""

    class Noisy(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return nn.functional.dropout(self.inner(x), 0.3)

    hf = tiny_hf("qwen2")
    hf.model.layers[1].mlp.down_proj = Noisy(hf.model.layers[1].mlp.down_proj)
    with pytest.raises(InputError, match="a Qwen2ForCausalLM that answers the same tokens otherwise at every call"):
        wrap(hf, None)


def test_an_error_while_it_is_built_names_architecture_and_versions(monkeypatch):
    def broken(*_):
        raise AttributeError("uses_weight_offset")

    monkeypatch.setattr("workbench.loading.pretrained.boot", broken)
    with pytest.raises(
        InputError, match=r"Qwen2ForCausalLM.*uses_weight_offset; transformer-lens 4\..*, transformers 5"
    ):
        wrap(tiny_hf("qwen2"), None)


@pytest.mark.parametrize("kind", ["gpt2", "neox"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_blocks_that_are_other_than_the_configuration_says_are_one_sentence(kind, when):
    """Cut by their holder: libraries go by the configuration, and run out of blocks."""
    hf = tiny_hf(kind, n_layers=4)
    model = wrap(hf, None) if when == "after" else None
    if kind == "gpt2":
        hf.transformer.h = hf.transformer.h[:3]
        said = r"3 blocks in transformer\.h whose configuration says 4.*model\.config\.n_layer = 3"
    else:
        del hf.gpt_neox.layers[1:3]
        said = r"2 blocks in gpt_neox\.layers whose configuration says 4.*num_hidden_layers = 2"
    with pytest.raises(InputError, match=said):
        wrap(hf, None) if model is None else model.identity
    hf.config.num_hidden_layers = 3 if kind == "gpt2" else 2
    cut = wrap(hf, None) if model is None else model
    assert cut.identity.key and cut.sizes.n_layers == hf.config.num_hidden_layers and cut.selfcheck.passed


@pytest.mark.parametrize("form", ["to_sparse", "to_sparse_csr"])
def test_sparse_weights_are_named_also_where_they_became_so(form):
    hf, held = tiny_hf("qwen2"), tiny_hf("qwen2")
    model = wrap(held, None)
    for one in (hf, held):
        mlp = one.model.layers[1].mlp
        mlp.down_proj.weight = nn.Parameter(getattr(mlp.down_proj.weight.detach(), form)())
    with pytest.raises(InputError, match=r"sparse weights \(model\.layers\.1\.mlp\.down_proj\.weight\).*to_dense"):
        wrap(hf, None)
    with pytest.raises(InputError, match="sparse weights"):
        model.identity  # noqa: B018


def test_a_library_that_says_nothing_is_quoted_by_its_line():
    """TransformerLens asserts that GPT-NeoX's projections have biases, without a word."""
    options = {**FAMILIES["neox"][1], "attention_bias": False}
    model = AutoModelForCausalLM.from_config(GPTNeoXConfig(**options, num_hidden_layers=2)).eval()
    with pytest.raises(ModelError, match=r"AssertionError at `assert .*bias.*` in neox\.py"):
        wrap(model, None)
