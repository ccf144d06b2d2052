"""How a Hugging Face model is built, beside its sizes: how positions enter, and whether its embeddings are tied."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from workbench.errors import RefusedError

__all__ = ["is_tied", "need_heads", "numbers_of", "positions_of"]

_LEARNED = ("wpe", "embed_positions", "position_embeddings", "positions_embed")  # as families call their table


def positions_of(hf_model: Any) -> str:
    """How a token's position enters, in words, by the modules that there are.

    Such as "learned, a vector for each", "rotary, base 10,000", "ALiBi" or "none".
    """
    config = hf_model.config.get_text_config()
    modules = dict(hf_model.named_modules())
    kinds = " ".join({type(module).__name__ for module in modules.values()})
    if config.model_type == "bloom" or any(getattr(of, "alibi", False) for of in (config, _attention_of(config))):
        return "ALiBi: scores fall with the distance"
    if any(name.rpartition(".")[2] in _LEARNED and isinstance(one, nn.Embedding) for name, one in modules.items()):
        return "learned, a vector for each"
    if "Sinusoidal" in kinds:
        return "sinusoidal, a fixed vector for each"
    if "Rotary" in kinds:
        return f"rotary{_rotations(config)}"
    if getattr(config, "rotary_dim", None):
        return f"rotary, of the first {config.rotary_dim} numbers of each head"
    biased = any(name.endswith("relative_attention_bias") for name in modules)
    return "a learned bias of scores by the distance" if biased else "none"


def _attention_of(config: Any) -> Any:
    """MPT keeps what is about attention in a config of its own."""
    return getattr(config, "attn_config", None)


def _rotations(config: Any) -> str:
    """`, base 10,000`; by kind of layer where these differ, and which layers have none."""
    given: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    by_kind = {kind: one for kind, one in given.items() if isinstance(one, Mapping)}
    said = [f"{_rotation(one)} ({kind.replace('_', ' ')})" for kind, one in by_kind.items()]
    if not by_kind and given:
        said = [_rotation(given)]
    without = [str(layer) for layer, has in enumerate(getattr(config, "no_rope_layers", None) or ()) if not has]
    said += [f"none in layers {','.join(without)}"] if without else []
    return "".join(f", {one}" for one in said if one)


def _rotation(given: Mapping[str, Any]) -> str:
    said = []
    if (base := given.get("rope_theta")) is not None:
        said.append(f"base {base:,.10g}")
    if (share := given.get("partial_rotary_factor")) not in (None, 1, 1.0):
        said.append(f"of {share:.0%} of each head")
    if (kind := given.get("rope_type", "default")) != "default":
        said.append(f"{kind} scaling" + (f" by {given['factor']:g}" if given.get("factor") else ""))
    return " ".join(said)


def numbers_of(module: nn.Module) -> tuple[int, int]:
    """How many numbers a model's weights are, tied ones once, and their bytes."""
    weights = list(module.parameters())
    return sum(one.numel() for one in weights), sum(one.numel() * one.element_size() for one in weights)


def is_tied(hf_model: Any) -> bool:
    """Whether embedding and unembedding are one matrix."""
    inner, outer = hf_model.get_input_embeddings(), hf_model.get_output_embeddings()
    return outer is not None and bool(outer.weight.data_ptr() == inner.weight.data_ptr())


def need_heads(bridge: Any, architecture: str) -> None:
    """RefusedError, with the reason, for what has no attention of heads in every block: its views would not apply."""
    blocks = list(getattr(bridge, "blocks", None) or ())
    without = [i for i, block in enumerate(blocks) if not isinstance(getattr(block, "attn", None), nn.Module)]
    reason = ""
    if not blocks:
        reason = "the bridge shows no decoder blocks of it"
    elif without:
        reason = f"layer {without[0]} has no attention" + (" and others have" if len(without) < len(blocks) else "")
    else:
        try:
            for name in ("W_Q", "W_K", "W_V", "W_O"):
                getattr(blocks[0].attn, name)
        except (NotImplementedError, AttributeError, RuntimeError, ValueError) as error:
            said = str(error).split(". ")[0].split("\n")[0]
            reason = f"its heads have no query, key and value weights of their own: {said}"
    if reason:
        raise RefusedError(
            f"a model of architecture {architecture}, where {reason}",
            "attention of heads in every block",
            "Pick another model",
        )
