"""One small model of every family that the installed transformers builds: random weights from its own config class.

They are what `workbench models check` runs on: an architecture's wiring can be wrong in ways that no size changes.
Biases and gains are random, too, so that a dropped one shows, and matrices are large enough for patterns that are not
all alike.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from workbench.errors import InputError, UnavailableError

__all__ = ["FAMILIES", "random_model"]

_PLAIN: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
_GROUPED: dict[str, Any] = {**_PLAIN, "num_key_value_heads": 2}
_GPT: dict[str, Any] = {"vocab_size": 96, "n_embd": 32, "n_head": 4, "n_positions": 128}
_GEMMA: dict[str, Any] = {**_PLAIN, "num_key_value_heads": 1, "head_dim": 8}
_EXPERTS = {"num_experts_per_tok": 2}
_COMPRESSED = {
    "num_key_value_heads": 4, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "n_routed_experts": 4, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip

_SLIDING, _FULL = "sliding_attention", "full_attention"
_LAYERED = "layer_types"  # a pair of kinds that alternate

# Family -> config class, its options. Layers are set by whichever name the class has for them.
FAMILIES: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType({
    "gpt2": ("GPT2Config", _GPT),
    "gpt_bigcode": ("GPTBigCodeConfig", _GPT),
    "gptj": ("GPTJConfig", {**_GPT, "rotary_dim": 4}),
    "codegen": ("CodeGenConfig", {**_GPT, "rotary_dim": 4}),
    "gpt_neo": (
        "GPTNeoConfig",
        {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "max_position_embeddings": 128,
         "window_size": 8, "attention_types": [[["global", "local"], 1]]},
    ),
    "neox": ("GPTNeoXConfig", {**_PLAIN, "use_parallel_residual": True}),
    "opt": (
        "OPTConfig",
        {"vocab_size": 96, "hidden_size": 32, "ffn_dim": 64, "num_attention_heads": 4, "max_position_embeddings": 128,
         "word_embed_proj_dim": 32},
    ),
    "xglm": (
        "XGLMConfig",
        {"vocab_size": 96, "d_model": 32, "ffn_dim": 64, "attention_heads": 4, "max_position_embeddings": 128},
    ),
    "bloom": ("BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_head": 4}),
    "mpt": ("MptConfig", {"vocab_size": 96, "d_model": 32, "n_heads": 4, "max_seq_len": 128}),
    "falcon": ("FalconConfig", {"vocab_size": 96, "hidden_size": 32, "num_attention_heads": 4}),
    "llama": ("LlamaConfig", _GROUPED),
    "llama4": (
        "Llama4TextConfig",
        {**_GROUPED, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 4, "num_experts_per_tok": 1,
         "attention_chunk_size": 8, "interleave_moe_layer_step": 1},
    ),
    "mistral": ("MistralConfig", {**_GROUPED, "sliding_window": 6}),
    "starcoder2": ("Starcoder2Config", {**_GROUPED, "sliding_window": 6}),
    "phi": ("PhiConfig", {**_PLAIN, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3Config", {**_GROUPED, "sliding_window": 6, "pad_token_id": 0}),
    "stablelm": ("StableLmConfig", _GROUPED),
    "smollm3": ("SmolLM3Config", {**_GROUPED, "pad_token_id": 0}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 8}),
    "gemma": ("GemmaConfig", _GEMMA),
    "gemma2": ("Gemma2Config", {**_GEMMA, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {**_GEMMA, "sliding_window": 8, _LAYERED: (_SLIDING, _FULL)}),
    "olmo": ("OlmoConfig", _GROUPED),
    "olmo2": ("Olmo2Config", _GROUPED),
    "cohere": ("CohereConfig", _GROUPED),
    "exaone4": ("Exaone4Config", {**_GROUPED, "sliding_window": 8, _LAYERED: (_SLIDING, _FULL)}),
    "glm4": ("Glm4Config", {**_GROUPED, "head_dim": 8, "pad_token_id": 0}),
    "nemotron": ("NemotronConfig", _GROUPED),
    "nanochat": ("NanoChatConfig", _GROUPED),
    "granite": (
        "GraniteConfig",
        {**_GROUPED, "residual_multiplier": 0.22, "attention_multiplier": 0.3, "embedding_multiplier": 2.0,
         "logits_scaling": 3.0},
    ),
    "granitemoe": ("GraniteMoeConfig", {**_GROUPED, **_EXPERTS, "num_local_experts": 4, "residual_multiplier": 0.22}),
    "gpt_oss": ("GptOssConfig", {**_GROUPED, **_EXPERTS, "head_dim": 8, "num_local_experts": 4, "sliding_window": 8}),
    "mixtral": ("MixtralConfig", {**_GROUPED, **_EXPERTS, "num_local_experts": 4}),
    "olmoe": ("OlmoeConfig", {**_GROUPED, **_EXPERTS, "num_experts": 4}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**_GROUPED, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_GROUPED, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
    ),
    "phimoe": ("PhimoeConfig", {**_GROUPED, "num_local_experts": 4}),
    "qwen3_next": (
        "Qwen3NextConfig",
        {**_GROUPED, **_EXPERTS, "head_dim": 8, "num_experts": 4, "moe_intermediate_size": 16,
         "shared_expert_intermediate_size": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
         "linear_num_key_heads": 2, "linear_num_value_heads": 4, _LAYERED: ("linear_attention", _FULL)},
    ),
    "deepseek_v2": ("DeepseekV2Config", {**_PLAIN, **_EXPERTS, **_COMPRESSED, "q_lora_rank": None}),
    "deepseek_v3": ("DeepseekV3Config", {**_PLAIN, **_EXPERTS, **_COMPRESSED, "q_lora_rank": 8}),
    "mamba": ("MambaConfig", {"vocab_size": 96, "hidden_size": 32, "state_size": 4}),
    "mamba2": (
        "Mamba2Config",
        {"vocab_size": 96, "hidden_size": 32, "state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    ),
    "rwkv": ("RwkvConfig", {"vocab_size": 96, "hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 64}),
    "openai-gpt": ("OpenAIGPTConfig", _GPT),
    "bert": ("BertConfig", {**_PLAIN, "is_decoder": True}),
    "t5": ("T5Config", {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4}),
})  # fmt: skip


def random_model(family: str, n_layers: int = 2, seed: int = 0) -> Any:
    """A Hugging Face model of a family with random weights, in float32 and eval mode.

    InputError for an unknown family, UnavailableError where the installed transformers has no such config.
    """
    import transformers

    if family not in FAMILIES:
        raise InputError(f"the family {family!r}", f"one of {', '.join(FAMILIES)}", "Choose one of these")
    name, options = FAMILIES[family]
    if not hasattr(transformers, name):
        raise UnavailableError(f"no {name} in transformers {transformers.__version__}", "its config", "Update it")
    config = _config(getattr(transformers, name), dict(options), n_layers)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _perturbed(kind.from_config(config).eval().float())


def _config(made_by: Any, options: dict[str, Any], n_layers: int) -> Any:
    if _LAYERED in options:
        options[_LAYERED] = [options[_LAYERED][layer % 2] for layer in range(n_layers)]
    if "attention_types" in options:
        options["attention_types"] = [[[("global", "local")[layer % 2] for layer in range(n_layers)], 1]]
    default = made_by()
    named = next(n for n in ("num_hidden_layers", "n_layers", "n_layer", "num_layers") if hasattr(default, n))
    named = getattr(made_by, "attribute_map", {}).get(named, named)
    end = {"bos_token_id": 0, "eos_token_id": 1}  # the classes' own lie beyond so small a vocabulary
    return made_by(**{**end, **options, named: n_layers})


def _perturbed(model: Any) -> Any:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif not any(word in name for word in ("embed", "wte", "wpe", "shared.weight")):
                parameter.mul_(5.0)
    return model
