"""Rotations that need care: those whose frequencies depend on how long the input is (rope types longrope and dynamic),
and those in more digits than the model has.

A model of the first kind rotates every prompt of a padded batch as the longest one asks for, and one of them remembers
the longest input that it has seen. A prompt's numbers are its own: batches hold one length (see `observation.run`), and
what was remembered is forgotten before each pass.

OLMo rotates in float32 and rounds what comes out; the bridge takes the rotation of Llama, which leaves it as it is, and
in half precision its product with the values fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["by_length", "forget", "own", "rounded"]

_TYPES = ("longrope", "dynamic")


def by_length(config: Any) -> bool:
    """Whether a model of this config rotates by the length of its input."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [found, *(value for value in found.values() if isinstance(value, Mapping))]
    return any(kind.get("rope_type", kind.get("type")) in _TYPES for kind in kinds)


def own(module: nn.Module) -> list[nn.Module]:
    """The modules of a model that rotate, with frequencies of their own: they are written into in every pass, and the
    model that shares its tensors with this one must not meet that."""
    found = [part for part in module.modules() if any(name.endswith("inv_freq") for name in part._buffers)]
    for part in found:
        for name, buffer in list(part._buffers.items()):
            if name.endswith("inv_freq") and buffer is not None:
                part.register_buffer(name, buffer.clone(), persistent=False)
    return found


def forget(rotating: Sequence[nn.Module]) -> None:
    """Let modules of `own` begin anew with the frequencies of a short input."""
    for part in rotating:
        for name in [name for name in part.__dict__ if name.endswith("max_seq_len_cached")]:
            setattr(part, name, part.original_max_seq_len)
        for name, buffer in list(part._buffers.items()):
            first = getattr(part, f"{name.removesuffix('inv_freq')}original_inv_freq", None)
            if name.endswith("inv_freq") and "original" not in name and buffer is not None and first is not None:
                part.register_buffer(name, first.clone().to(buffer.device), persistent=False)


def rounded(attention: Any) -> None:
    """Let rotated queries and keys go on in the format of the weights that made them, as the model itself does. In
    front of whoever watches them."""
    dtype = next((one.dtype for one in attention.parameters() if one.ndim > 1), torch.float32)
    for name in ("hook_rot_q", "hook_rot_k"):
        point = getattr(attention, name, None)
        if dtype in (torch.bfloat16, torch.float16) and isinstance(point, nn.Module):
            point.register_forward_hook(lambda _, given, rotated: rotated.to(dtype))
