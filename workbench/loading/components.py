"""What single modules of a bridge hold: gains, biases, scales and weights, of whatever family."""

from typing import Any

import torch

__all__ = ["bias_of", "eps_of", "gain_of", "logit_scale_of", "mlp_of", "scale_of", "scaled", "sinks_of"]


def eps_of(norm: Any, cfg: Any) -> float:
    """What a norm adds to the mean square."""
    return float(getattr(norm, "variance_epsilon", None) or getattr(norm, "eps", None) or cfg.eps)


def logit_scale_of(config: Any) -> float:
    """Cohere multiplies logits, Granite divides them."""
    if getattr(config, "logits_scaling", None):
        return 1.0 / float(config.logits_scaling)
    return float(getattr(config, "logit_scale", None) or 1.0)


def bias_of(module: Any, name: str, absent: torch.Tensor) -> torch.Tensor:
    """A bias, or zeros: bridges raise different errors where a layer has none."""
    try:
        value = getattr(module, name)
    except AttributeError:
        value = None
    return absent if value is None else value.detach()


def gain_of(norm: Any) -> torch.Tensor | None:
    """What a norm multiplies by after dividing by its scale (Gemma stores it as an offset from 1)."""
    weight = getattr(getattr(norm, "original_component", None), "weight", None)
    if weight is None:
        return None
    return (1.0 + weight if norm.uses_weight_offset else weight).detach()


def sinks_of(attn: Any) -> torch.Tensor | None:
    """Scores of GPT-OSS's learned sink."""
    sinks = getattr(attn.original_component, "sinks", None)
    return sinks.detach() if isinstance(sinks, torch.Tensor) else None


def scale_of(block: Any) -> float:
    """By which a block multiplies what its sublayers add."""
    return float(getattr(block, "residual_contribution_scale", None) or 1.0)


def scaled(weight: torch.Tensor, scale: float) -> torch.Tensor:
    """What arrives in the residual stream: Granite multiplies what each sublayer adds."""
    return weight if scale == 1.0 else weight * scale


def mlp_of(block: Any, scale: float) -> dict[str, torch.Tensor | None]:
    """MLP weights under standard names, or nothing where the MLP is of another kind (experts)."""
    mlp = getattr(block, "mlp", None)
    found: dict[str, torch.Tensor | None] = {}
    for name in ("W_in", "W_gate", "W_out"):
        value = getattr(mlp, name, None) if mlp is not None and hasattr(mlp, "out") else None
        found[name] = None if value is None else value.detach()
    if found["W_out"] is not None:
        found["b_out"] = scaled(bias_of(mlp, "b_out", found["W_out"].new_zeros(found["W_out"].shape[-1])), scale)
        found["W_out"] = scaled(found["W_out"], scale)
    return found
