"""Where a model's weights lie: on one device, or spread over several by a device map of Hugging Face's accelerate.

A block that lies on another device than the one before it is given its inputs there; what is seen of a layer is reduced
where the layer lies. Numbers depend on it no more than on a device, so no key does.
"""

from collections.abc import Mapping
from typing import Any

import torch

from workbench.errors import InputError
from workbench.loading.files.checkpoint import Read, read
from workbench.loading.given import check_weights

__all__ = ["Map", "Place", "placed", "usable_device", "usable_place"]

Map = str | Mapping[str, int | str]
Place = str | dict[str, int | str]  # a device; a strategy is written as {"": "auto"}
_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")


def usable_device(device: str) -> str:
    """The device that a name stands for ("auto": CUDA where there is one); InputError where PyTorch cannot use it."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(device).type != "meta":
            torch.empty(1, device=device, dtype=torch.float32)
            return device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):  # what builds without that device raise
        pass
    raise InputError(f"device={device!r}", "a device this PyTorch can use", "Use device='cpu'")


def usable_place(device: str, device_map: Map | None) -> Place:
    """The device, or the map; InputError for both, for a map that is none, and for devices that cannot be used."""
    if device_map is None:
        return usable_device(device)
    if device != "auto":
        raise InputError(f"device={device!r} and a device_map", "one of them", "Leave one out")
    if isinstance(device_map, str):
        if device_map not in _STRATEGIES:
            raise InputError(
                f"device_map={device_map!r}", f"one of {', '.join(_STRATEGIES)}, or a table of modules and devices",
                'Write "auto"',
            )  # fmt: skip
        return {"": device_map}
    for module, where in device_map.items():
        _need_device(module, where)
    if not device_map:
        raise InputError("an empty device_map", 'devices by modules, such as {"": 0}', 'Write "auto", or leave it out')
    return dict(device_map)


def _need_device(module: str, where: int | str) -> None:
    name = f"cuda:{where}" if isinstance(where, int) and not isinstance(where, bool) else str(where)
    try:
        usable_device(name if name != "auto" else "no device")
    except InputError as error:
        raise InputError(
            f"device_map with {module!r} on {where!r}", "a device that this PyTorch can use, such as 0 or \"cpu\"",
            'Write "auto": it uses the devices that are there',
        ) from error  # fmt: skip


def placed(source: dict[str, Any], dtype: torch.dtype, place: Place) -> Read:
    """A model that is read and lies where it should. Raises ModelError where a map leaves weights out of memory."""
    if isinstance(place, str):
        found = read(source, dtype)
        found.model = found.model.to(place)
        return found
    found = read(source, dtype, place[""] if place.keys() == {""} else place)
    check_weights(found.model)
    return found
