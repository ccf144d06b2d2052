"""Tiny models with random weights from real configs: one per way of being built that our code must get right."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen2Config,
)

from workbench.loading.pretrained import wrap
from workbench.loading.toys.circuits import induction_circuit
from workbench.loading.toys.families import random_model
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer

KINDS = ("gpt2", "llama", "neox", "gemma3", "qwen2")

_COMMON = dict(
    num_attention_heads=4, hidden_size=32, intermediate_size=64, max_position_embeddings=128, vocab_size=96
)  # fmt: skip


def tiny_config(kind: str, n_layers: int):
    """gpt2: LayerNorm, learned positions. llama: grouped queries. neox: parallel blocks. gemma3: sandwich norms, one
    key/value head, a sliding window. qwen2: biases."""
    common = {**_COMMON, "num_hidden_layers": n_layers}
    if kind == "gpt2":
        return GPT2Config(n_layer=n_layers, n_head=4, n_embd=32, n_positions=128, vocab_size=96)
    if kind == "llama":
        return LlamaConfig(**common, num_key_value_heads=2)
    if kind == "neox":
        return GPTNeoXConfig(**common, use_parallel_residual=True)
    if kind == "gemma3":
        kinds = ["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(n_layers)]
        return Gemma3TextConfig(**common, num_key_value_heads=1, head_dim=8, sliding_window=8, layer_types=kinds)
    if kind == "qwen2":
        return Qwen2Config(**common, num_key_value_heads=2)
    raise ValueError(kind)


def tiny_hf(kind: str, n_layers: int = 2, seed: int = 0):
    """A Hugging Face model with random weights; biases and gains are random too, so that a dropped one shows.

    Beside KINDS, any family of `workbench.loading.toys.families`.
    """
    if kind not in KINDS:
        return random_model(kind, n_layers, seed)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, n_layers)).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "embed" not in name and "wte" not in name and "wpe" not in name:
                parameter.mul_(5.0)  # patterns and contributions that are not all alike
    return model


def tiny_model(kind: str, n_layers: int = 2, seed: int = 0):
    """The same, wrapped."""
    return wrap(tiny_hf(kind, n_layers, seed), None, name=f"tiny-{kind}")


def spelling(adds_bos: bool = True):
    """A tokenizer whose tokens are the printable characters of ASCII, with a BOS token: 96 in all. adds_bos: whether it
    puts that token in front of a text; Qwen2's has one and does not."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, **{chr(32 + i): i + 1 for i in range(94)}, "\n": 95}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    letters.decoder = decoders.Fuse()
    if adds_bos:
        letters.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<s>")


def tiny_words(tokenizer, name: str):
    """A model of many heads that reads whatever a tokenizer writes, up to 2,048 tokens of it."""
    more = {"num_hidden_layers": 12, "vocab_size": len(tokenizer), "max_position_embeddings": 2048}
    torch.manual_seed(0)
    config = LlamaConfig(**{**_COMMON, **more}, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.mul_(5.0 if parameter.ndim == 2 else 1.0)  # patterns that are not all alike
    return wrap(model, tokenizer, name=name)


def tiny_hf_without_head(kind: str, layer: int, head: int, n_layers: int = 2, seed: int = 0):
    """A Hugging Face model whose weights read nothing of one head: an ablation by other means than hooks."""
    model = tiny_hf(kind, n_layers, seed)
    columns = slice(8 * head, 8 * (head + 1))  # d_head is 8
    with torch.no_grad():
        if kind == "gpt2":
            model.transformer.h[layer].attn.c_proj.weight[columns] = 0
        else:
            model.model.layers[layer].self_attn.o_proj.weight[:, columns] = 0
    return model


def tiny_model_without_head(kind: str, layer: int, head: int, n_layers: int = 2, seed: int = 0):
    """The same, wrapped."""
    return wrap(tiny_hf_without_head(kind, layer, head, n_layers, seed), None, name=f"tiny-{kind}-without")


INDUCTION = (3, 7, 11, 20, 5, 7)  # a prompt of the toy below, which says 11


def induction_toy():
    """A hand-made induction circuit: what followed the current token the last time, by L0H0 and L1H0."""
    return wrap(induction_circuit(d_vocab=32, n_ctx=16, sharpness=40.0), None, name="induction-by-hand")


def sinking_toy() -> ToyTransformer:
    """Two layers; L1H0 puts all attention on position 0, the other heads attend uniformly."""
    model = ToyTransformer(ToyConfig(n_layers=2, n_heads=2, d_model=68, d_head=8, d_vocab=32, n_ctx=64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.positions.weight[:, :64] = torch.eye(64)
        model.blocks[1].W_Q[0, :64, 0] = 1
        model.blocks[1].W_K[0, 0, 0] = 600
        model.unembed.weight.normal_(generator=torch.Generator().manual_seed(0))
    return model
