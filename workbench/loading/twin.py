"""A twin of a module: the same weights in modules of its own, so that whoever holds the module keeps it as it is.

What instruments a model changes it: modules are replaced, hooks set, attention and modes switched. All of that happens
to the twin. A plain call of the held module meets none of it, at any time and in any thread, and the module can be
saved, copied, trained and generated with as before.
"""

import copy
from typing import Any

import torch

from workbench.errors import RefusedError

__all__ = ["twin"]

# Where a module keeps what its user has set on it: functions, which stay the same ones.
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def twin(module: Any) -> Any:
    """A copy of a module's structure that shares every tensor with it: parameters, buffers and other attributes.

    What is written into a shared tensor is seen by both; what is replaced, moved or hooked afterwards is not. The hooks
    that the module has now act in the twin, too. Takes milliseconds and no memory worth speaking of.

    Raises RefusedError for a module that cannot be copied.
    """
    shared: dict[int, Any] = {}
    for part in module.modules():
        kept = [*part._parameters.values(), *part._buffers.values(), *part.__dict__.values()]
        tensors = [tensor for tensor in kept if isinstance(tensor, torch.Tensor)]
        hooks = [hook for kind in _HOOKS for hook in part.__dict__.get(kind, {}).values()]
        shared |= {id(what): what for what in (*tensors, *hooks)}
    try:
        return copy.deepcopy(module, shared)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise RefusedError(
            f"a {type(module).__name__} that cannot be copied ({error})",
            "one whose structure can be copied while its weights are shared",
            "Take off what was put on it (locks, open files, tensors with a history), or load it anew",
        ) from error
