"""Rotations whose frequencies depend on how long the input is (rope types longrope and dynamic).

Such a model rotates every prompt of a padded batch as the longest one asks for, and one of them remembers the longest
input that it has seen. A prompt's numbers are its own: batches hold one length (see `observation.run`), and what was
remembered is forgotten before each pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

__all__ = ["by_length", "forget", "own"]

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
