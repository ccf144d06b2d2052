"""A GGUF file of a tiny Llama, written here: whole, or with what a reader may drop."""

from pathlib import Path

import numpy as np

_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_INSIDE = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def write_gguf(path: Path, hf, keys=(), tensors=(), without=()) -> Path:
    """hf: a Llama of `tests.tiny_models`. keys: calls of the writer, `("add_key_length", 8)`. tensors: further ones, by
    name. without: names of tensors that are left out."""
    import gguf

    config, writer = hf.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<s>", "Ġ", *(chr(33 + i) for i in range(92)), "ab", "Ċ"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    for name, *arguments in keys:
        getattr(writer, name)(*arguments)
    for name, weight in hf.state_dict().items():
        name, weight = _ggml(name.removesuffix(".weight"), weight.numpy(), config)
        if name not in without:
            writer.add_tensor(f"{name}.weight", np.ascontiguousarray(weight))
    for name, values in tensors:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _ggml(name, weight, config):
    """Its name there, and its rows in the order there: halves of each head that rotate together are neighbours."""
    if name in _OUTSIDE:
        return _OUTSIDE[name], weight
    _, _, layer, inside = name.split(".", 3)
    if inside.endswith(("q_proj", "k_proj")):
        heads = config.num_attention_heads if "q_proj" in inside else config.num_key_value_heads
        rows, columns = weight.shape
        weight = weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return f"blk.{layer}.{_INSIDE[inside]}", weight
