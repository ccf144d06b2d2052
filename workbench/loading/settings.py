"""What decides a model's numbers beside its weights: configuration, buffers, and plain settings of its modules.

The same weights with another base of rotations, number of heads or activation are another model: its keys are others.
Whoever holds a model may change these in place, too.
"""

import functools
import hashlib
import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from torch import nn

from workbench.loading.own import LIBRARIES, aside, content, is_own
from workbench.loading.rotations import by_length

__all__ = ["held_settings", "settings_hash"]

_PLAIN = (bool, int, float, str, type(None))
# Of a configuration and of modules: what says nothing of numbers, or changes with how a model was loaded.
_ASIDE = {
    "architectures", "dtype", "torch_dtype", "transformers_version", "name_or_path", "use_cache", "training",
    "is_quantized", "gradient_checkpointing", "output_attentions", "output_hidden_states", "return_dict", "return_type",
}  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")

Setting = tuple[Any, ...]


def settings_hash(module: nn.Module) -> str:
    """sha256 over what `held_settings` tells, by content: the same however the model was loaded. Functions that the
    model's user has hooked on are told by their names and code."""
    found = hashlib.sha256()
    for setting in _settings(module, _bytes):
        found.update(repr(setting).encode())
    for name, kind, _, hook in _hooks(module):
        found.update(f"{kind} {name} {_named(hook)}".encode())
    return found.hexdigest()


def held_settings(module: nn.Module) -> tuple[Setting, ...]:
    """The same for a look before each pass: equal as long as nothing of it changed (some milliseconds)."""
    hooks = (("hooked", name, kind, number) for name, kind, number, _ in _hooks(module))
    return (*_settings(module, lambda buffer: (id(buffer), _version(buffer), _bytes(buffer, 4096))), *hooks)


def _hooks(module: nn.Module) -> Iterator[tuple[str, str, int, Any]]:
    """Functions that the model's user has hooked on: name of the module, kind, number (never given twice), function.

    Those of transformers read only: it puts them there once it is asked for attentions or states, and leaves them.
    """
    for name, part in module.named_modules():
        for kind in _HOOKS:
            for number, hook in part.__dict__.get(kind, {}).items():
                if str(getattr(hook, "__module__", "")).partition(".")[0] != "transformers":
                    yield name, kind, number, hook


def _settings(module: nn.Module, told: Callable[[torch.Tensor], Any]) -> Iterator[Setting]:
    config = getattr(module, "config", None)
    yield ("config", _of_config(config))
    own = config is not None and hasattr(config, "to_dict") and by_length(config)
    for name, part in module.named_modules():
        if own and any(buffer.endswith("inv_freq") for buffer in part._buffers):
            continue  # it writes into these in each pass, by the length of the input
        yield (name, type(part).__qualname__, *_plain(part, told))
        for at, buffer in part._buffers.items():
            if buffer is not None and not buffer.is_meta:
                yield (name, at, told(buffer))


def _plain(part: nn.Module, told: Callable[[torch.Tensor], Any]) -> list[Setting]:
    """Numbers, switches and names among the attributes of a module, and the functions that it calls; whatever a module
    of a user's own holds."""
    found: list[Setting] = []
    own = is_own(part)
    passed_over = _ASIDE | aside(part) if own else _ASIDE
    for name, value in sorted(part.__dict__.items()):
        if (name.startswith("_") and not own) or name in passed_over:
            continue
        if "_hf_hook" in part.__dict__ and hasattr(nn.Module, name):  # put there to move what a module is given
            value = part.__dict__["_old_forward"] if name == "forward" else None
            if getattr(value, "__func__", None) in (None, type(part).forward):
                continue
        if isinstance(value, _PLAIN):
            found.append((name, value))
        elif isinstance(value, tuple | list) and all(isinstance(one, _PLAIN) for one in value):
            found.append((name, tuple(value)))
        elif callable(value) and not isinstance(value, type):
            found.append((name, _named(value)))
        elif own:
            found.append((name, content(value, told)))
    return found


def _of_config(config: Any) -> str:
    if hasattr(config, "to_dict"):
        told = _said(config.to_dict())
    elif is_dataclass(config) and not isinstance(config, type):
        told = asdict(config)
    else:
        return ""
    return json.dumps(told, sort_keys=True, default=repr)


def _said(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {str(key): inner for key, inner in value.items() if key not in _ASIDE and not str(key).startswith("_")}
        return {key: _said(inner) for key, inner in kept.items()}
    return value


def _named(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}{_content(value)}"


def _content(value: Any) -> str:
    """What a function of the user's does, as far as it can be read: two of one name may be different ones.

    Its code, and plain values and tensors that it holds. Of a library's the name says enough.
    """
    if isinstance(value, functools.partial):
        return f" of {_named(value.func)} {[_held(one) for one in (*value.args, *sorted(value.keywords.items()))]}"
    function = getattr(value, "__func__", value)
    if str(getattr(function, "__module__", "")).partition(".")[0] in LIBRARIES or not hasattr(function, "__code__"):
        return ""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    held = [_held(one) for one in (*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())]
    return " " + hashlib.sha256(repr((_read(function.__code__), held)).encode()).hexdigest()


def _read(code: types.CodeType) -> tuple[Any, ...]:
    consts = [_read(one) if isinstance(one, types.CodeType) else repr(one) for one in code.co_consts]
    return code.co_code, code.co_names, consts


def _held(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _bytes(value)
    if isinstance(value, tuple | list):
        return [_held(one) for one in value]
    return value if isinstance(value, _PLAIN) else type(value).__qualname__


def _version(buffer: torch.Tensor) -> int:
    return -1 if buffer.is_inference() else buffer._version


def _bytes(buffer: torch.Tensor, most: int | None = None) -> str:
    """A digest of a buffer's content; most: of a longer one, so many of its numbers, evenly spread."""
    flat = buffer.detach().reshape(-1)
    if most is not None and flat.numel() > most:
        flat = flat[:: flat.numel() // most]
    raw = flat.contiguous().view(torch.uint8).cpu().numpy().tobytes()
    return f"{tuple(buffer.shape)} {buffer.dtype} {hashlib.sha256(raw).hexdigest()}"
