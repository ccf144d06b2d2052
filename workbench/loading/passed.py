"""Self-checks that were passed, kept for the next load of the same weights.

A check answers for everything that it measured: weights and configuration, number format, device and attention, the
versions of the libraries, the kind of processor, and our own code. Where any of these is another, it is made again. One
that was not passed is never kept, nor is that of a model that was handed to `wrap()`, which may carry anything.
"""

from dataclasses import asdict, fields
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from platform import machine
from typing import Any

import torch

import workbench
from workbench import memo
from workbench.loading.bundled import cache_dir
from workbench.models.model import Model
from workbench.models.selfcheck import Item, SelfCheck
from workbench.processor import this_processor

__all__ = ["circumstances", "keep", "kept"]

_LIBRARIES = ("torch", "transformers", "transformer-lens", "numpy", "einops")
_ROOMS = ("intervene", "loading", "models", "observation")  # what a self-check runs of ours
_TYPES = {"name": str, "measured": float, "tolerance": float, "passed": bool, "note": str}


def circumstances(model: Model, ids: torch.Tensor) -> dict[str, str]:
    """Everything that the outcome of a model's self-check on these ids depends on."""
    identity = model.identity
    config = getattr(model.adapter, "hf_config", None)
    told = {} if config is None else {k: v for k, v in config.to_dict().items() if not k.startswith("_")}
    return {
        "weights": identity.weights_hash,
        "config": memo.digest(told),
        "settings": identity.settings_hash,
        "ids": memo.digest(ids.tolist()),
        **{
            name: str(getattr(identity, name))
            for name in ("dtype", "device", "attention", "architecture", "processing")
        },
        "processor": f"{machine()} {this_processor()}, {_accelerator(model.adapter.device)}",
        **{library: version(library) for library in _LIBRARIES},
        "workbench": f"{workbench.__version__} {_code()}",
    }


def kept(here: dict[str, str]) -> SelfCheck | None:
    """The check that was passed in the same circumstances; None where there is none, or none that can be read whole."""
    record = memo.read(_place(here))
    try:
        if record is None or record["circumstances"] != here:
            return None
        when = datetime.fromisoformat(record["when"]).isoformat()
        found = SelfCheck(tuple(map(_item, record["items"])), _typed(record["about"], str), when)
    except (ValueError, LookupError, TypeError):
        return None
    return found if found.items and found.passed else None


def keep(here: dict[str, str], check: SelfCheck) -> None:
    """Keep a check that was passed."""
    if check.passed:
        items = [asdict(item) for item in check.items]
        memo.write(_place(here), {"circumstances": here, "items": items, "about": check.about, "when": check.when})


def _item(record: Any) -> Item:
    return Item(**{name: _typed(record[name], kind) for name, kind in _TYPES.items()})


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _place(here: dict[str, str]) -> Path:
    return cache_dir() / "selfchecks" / f"{memo.digest(here)}.json"


def _accelerator(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@cache
def _code() -> str:
    """Of the files of ours that a self-check runs through."""
    root = Path(workbench.__file__).parent
    files = sorted(file for room in _ROOMS for file in (root / room).rglob("*.py"))
    digest = sha256()
    for file in files:
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


assert {field.name for field in fields(Item)} == set(_TYPES)  # a field of an item is kept, or the check is not whole
