"""Two devices that are none: every tensor has a place, and no operation takes tensors of different places.

All is computed on the CPU. What real devices refuse is refused here, so that code which forgets to move something
fails; what they compute is not seen.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
_MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.copy_, torch.Tensor.numpy, torch.Tensor.type_as}
_GETTERS = {torch.Tensor.device.__get__}


def place_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor lies."""
    return tensor.__dict__.get("_place", CPU)


def put(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    """Say where it lies."""
    tensor.__dict__["_place"] = place
    return tensor


class TwoDevices(TorchFunctionMode):
    """While open, tensors know their place, and those of two places do not meet."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation: places compared, computed on the CPU, and what comes out put where what went in lay."""
        kwargs = dict(kwargs or {})
        with torch._C.DisableTorchFunction():
            return self._done(func, args, kwargs)

    def _done(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if func in _GETTERS:
            return place_of(args[0])
        if getattr(func, "__name__", "") == "__set__":
            return func(*args, **kwargs)
        asked = self._asked(func, args, kwargs)
        args, kwargs = tree_map(lambda x: CPU if isinstance(x, torch.device) else x, (args, kwargs))
        if asked is None and given:
            asked = self._shared(func, given)
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and not any(tensor is one for one in given):
                put(tensor, asked or CPU)
            elif (
                isinstance(tensor, torch.Tensor) and asked is not None and func in _MOVES and asked != place_of(tensor)
            ):
                return put(tensor.clone(), asked)  # `.to` another place gives a copy
        return out

    def _asked(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> torch.device | None:
        """The place that a call names, or takes from another tensor."""
        named = [x for x in tree_leaves((args[1:], kwargs)) if isinstance(x, torch.device)]
        if named:
            return named[0]
        if func is torch.Tensor.cpu:
            return CPU
        if func in (torch.Tensor.to, torch.Tensor.type_as) and len(args) > 1 and isinstance(args[1], torch.Tensor):
            return place_of(args[1])
        if func in _MOVES:
            return place_of(args[0])
        return None

    def _shared(self, func: Callable[..., Any], given: list[torch.Tensor]) -> torch.device:
        """The one place of tensors; single numbers and indices may come from the CPU."""
        whole = [x for x in given if x.ndim]
        places = {place_of(x) for x in whole}
        indexing = getattr(func, "__name__", "") in ("__getitem__", "__setitem__", "index_put", "index_put_")
        if indexing:
            places = {place_of(given[0])} | {p for p in places if p != CPU}
        if len(places) > 1:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two: {places}")
        return next(iter(places), place_of(given[0]))


def split(model: nn.Module, blocks: Any, last: list[nn.Module]) -> nn.Module:
    """A model whose second half of blocks, and what follows them, lies on the second device.

    As libraries do it: what a block there is given moves to it first.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        put(tensor, FIRST)

    def move(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return tree_map(lambda x: x.to(SECOND) if isinstance(x, torch.Tensor) else x, (args, kwargs))

    for part in (*list(blocks)[len(blocks) // 2 :], *last):
        for tensor in (*part.parameters(), *part.buffers()):
            put(tensor, SECOND)
        part.register_forward_pre_hook(move, with_kwargs=True)
    return model


def spread(model: nn.Module, blocks: Any, last: list[nn.Module]) -> nn.Module:
    """As `split`, by the hooks that a device_map puts on a model."""
    from accelerate.hooks import attach_align_device_hook_on_blocks

    far = [*list(blocks)[len(blocks) // 2 :], *last]
    whole = [*blocks, *last]
    inside = {inner for block in blocks for inner in block.modules()} - set(blocks)
    leaf = lambda part: part in whole or not list(part.children())
    names = [name for name, part in model.named_modules() if part not in inside and leaf(part)]
    attach_align_device_hook_on_blocks(
        model, execution_device=dict.fromkeys(names, "cpu"), offload=dict.fromkeys(names, False),
        skip_keys=getattr(model, "_skip_keys_device_placement", None),
    )  # fmt: skip
    second = {part for one in far for part in one.modules()}
    for part in model.modules():
        place = SECOND if part in second else FIRST
        if hasattr(part, "_hf_hook") and part._hf_hook.execution_device is not None:
            part._hf_hook.execution_device = place
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None:
                put(tensor, place)
    model.hf_device_map = {name: int(part in second) for name, part in model.named_modules() if name in names}
    return model
