"""Self-checks that were passed, kept for the next load of the same weights, with what was measured for them.

A check answers for everything that it measured: weights and configuration, number format, device and attention, the
versions of the libraries, the kind of processor, and our own code. Where any of these is another, it is made again. One
that was not passed is never kept, nor is that of a model that was handed to `wrap()`, which may carry anything.
"""

from dataclasses import asdict, fields
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from platform import machine
from typing import Any, NamedTuple

import torch

import workbench
from workbench import memo, sources
from workbench.files import cache_dir
from workbench.loading.bridge import Measured
from workbench.loading.selfcheck import check_ids
from workbench.loading.windows import reference_length
from workbench.models.model import Identity
from workbench.models.selfcheck import Item, SelfCheck
from workbench.processor import this_processor

__all__ = ["Passed", "circumstances", "forget", "keep", "kept"]

_LIBRARIES = ("torch", "transformers", "transformer-lens", "numpy", "einops")
_TYPES = {"name": str, "measured": float, "tolerance": float, "passed": bool, "note": str}


class Passed(NamedTuple):
    """A check that was passed, and what had been measured of the model before, which the check holds against passes."""

    check: SelfCheck
    measured: Measured


def circumstances(identity: Identity, model: Any, tokenizer: Any) -> dict[str, str]:
    """Everything that the outcome of a self-check depends on. model: of Hugging Face, with no bridge around it."""
    config = model.config.get_text_config()
    told = {k: v for k, v in config.to_dict().items() if not k.startswith("_")}
    embedding = model.get_input_embeddings().weight
    ids, _ = check_ids(tokenizer, embedding.shape[0], reference_length(config))
    return {
        "weights": identity.weights_hash,
        "config": memo.digest(told),
        "settings": identity.settings_hash,
        "ids": memo.digest(ids.tolist()),
        "places": str(getattr(model, "hf_device_map", "")),
        **{
            name: str(getattr(identity, name))
            for name in ("dtype", "device", "attention", "architecture", "processing")
        },
        "processor": f"{machine()} {this_processor()}, {_accelerator(embedding.device)}",
        **{library: version(library) for library in _LIBRARIES},
        "workbench": f"{workbench.__version__} {_code()}",
    }


def kept(here: dict[str, str]) -> Passed | None:
    """What was passed in the same circumstances; None where there is nothing, or nothing that can be read whole."""
    record = memo.read(_place(here))
    try:
        if record is None or record["circumstances"] != here:
            return None
        when = datetime.fromisoformat(record["when"]).isoformat()
        found = SelfCheck(tuple(map(_item, record["items"])), _typed(record["about"], str), when)
        measured = Measured(**{field.name: _numbers(record["measured"][field.name]) for field in fields(Measured)})
    except (ValueError, LookupError, TypeError):
        return None
    return Passed(found, measured) if found.items and found.passed else None


def keep(here: dict[str, str], check: SelfCheck, measured: Measured) -> None:
    """Keep a check that was passed, and what was measured for it."""
    if check.passed:
        items = [asdict(item) for item in check.items]
        told = {"items": items, "about": check.about, "when": check.when, "measured": asdict(measured)}
        memo.write(_place(here), {"circumstances": here, **told})


def forget(here: dict[str, str]) -> None:
    """What was passed in these circumstances is no longer said: it was made again, and was not."""
    _place(here).unlink(missing_ok=True)


def _item(record: Any) -> Item:
    return Item(**{name: _typed(record[name], kind) for name, kind in _TYPES.items()})


def _numbers(record: Any) -> tuple[int, ...]:
    return tuple(_typed(number, int) for number in _typed(record, list))


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
    """Of our own sources: much of them is run through."""
    return sources.digest_of((workbench,))[:16]


assert {field.name for field in fields(Item)} == set(_TYPES)  # a field of an item is kept, or the check is not whole
