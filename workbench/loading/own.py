"""Modules of a user's own: an adapter or a steering vector written by hand, which decides numbers by what it holds.

Library modules keep what decides numbers in weights, buffers and plain public settings. People keep it anywhere: a
private switch, a dictionary of scales, a tensor that is no buffer. All of that is looked at, but what a pass itself
writes there (the last activation, a count of calls) is no setting.
"""

import dis
import functools
import hashlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["aside", "content", "is_own"]

LIBRARIES = ("torch", "transformers", "transformer_lens", "builtins")
_OTHERS = ("workbench", "accelerate", "peft", "transformers_modules")  # they keep to what library modules do
_BASE = {*vars(nn.Module()), "_compiled_call_impl", "_hf_hook", "_old_forward", "_is_hf_initialized"}
_CHANGING = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "clear", "remove"}
_SINGLE = (bool, int, float, complex, str, bytes, type(None), np.generic, torch.dtype, torch.device, torch.Size)


def is_own(part: nn.Module) -> bool:
    """Whether a module's class is no library's. One made of a whole model of transformers has its private parts,
    such as the warnings that it gave."""
    whole = any(base.__name__ == "PreTrainedModel" for base in type(part).__mro__)
    return not whole and _root(type(part)) not in (*LIBRARIES, *_OTHERS)


def aside(part: nn.Module) -> set[str]:
    """Attributes of a module of somebody's own that are no settings: PyTorch's, and what its pass writes."""
    kind: Any = type(part)
    names, changes = _written(kind)
    filled = {name for name, value in part.__dict__.items() if changes and isinstance(value, list | dict | set)}
    return _BASE | names | filled


def content(value: Any, told: Callable[[torch.Tensor], Any], seen: tuple[int, ...] = ()) -> Any:
    """What an attribute holds, so that it can be compared: equal as long as nothing in it changed. told: of a tensor.

    Of what cannot be looked into, the name of its kind.
    """
    kind = type(value).__qualname__
    if isinstance(value, _SINGLE):
        return kind, repr(value)
    if isinstance(value, torch.Tensor):
        return kind, told(value) if value.layout is torch.strided and not value.is_meta else str(value.layout)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        raw = np.ascontiguousarray(value).tobytes()
        return kind, value.shape, str(value.dtype), hashlib.sha256(raw).hexdigest()
    if id(value) in seen or isinstance(value, nn.Module):
        return kind
    inner = lambda one: content(one, told, (*seen, id(value)))
    if isinstance(value, Mapping):
        return kind, sorted((repr(key), inner(one)) for key, one in value.items())
    if isinstance(value, tuple | list):
        return kind, [inner(one) for one in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(inner(one)) for one in value)
    if _root(type(value)) not in (*LIBRARIES, *_OTHERS) and hasattr(value, "__dict__"):
        return kind, [(name, inner(one)) for name, one in sorted(vars(value).items())]
    return kind


def _root(kind: type) -> str:
    return kind.__module__.partition(".")[0]


@functools.lru_cache(maxsize=256)
def _written(kind: type) -> tuple[frozenset[str], bool]:
    """Names of the attributes that a class's `forward` writes, with the methods it calls, and whether it puts something
    into lists or dictionaries, of which its code does not say whose they are."""
    names: set[str] = set()
    changes = False
    for code in _codes(kind, "forward", set()):
        steps = list(dis.get_instructions(code))
        names |= {str(step.argval) for step in steps if step.opname in ("STORE_ATTR", "DELETE_ATTR")}
        changes = changes or any(step.opname == "STORE_SUBSCR" for step in steps) or bool(_CHANGING & {*code.co_names})
    return frozenset(names), changes


def _codes(kind: type, name: str, seen: set[str]) -> Iterator[types.CodeType]:
    """The code of a method, also of the classes that this one is made of, and of those that it names."""
    if name in seen:
        return
    seen.add(name)
    found = [vars(base)[name] for base in kind.__mro__ if name in vars(base) and _root(base) not in LIBRARIES]
    for code in (function.__code__ for function in found if hasattr(function, "__code__")):
        yield code
        for other in code.co_names:
            yield from _codes(kind, other, seen)
