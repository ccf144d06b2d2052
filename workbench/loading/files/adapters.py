"""Adapters (LoRA and its like) beside base weights: merged by peft where it is installed, refused else.

transformers leaves an adapter out without a word where peft is missing, and takes one of which nothing fits. Here every
weight of the file must find its place, every place its weight, and the merged model must compute what the unmerged did.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from workbench.errors import ModelError
from workbench.files import at_home
from workbench.loading.files.checkpoint import Read, first_line, named

__all__ = ["CONFIG", "base_of", "merged", "need_peft", "without"]

CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_NAME = "default"  # what peft calls the one adapter of a model


def need_peft(directory: Path) -> None:
    """ModelError without peft, or without weights that we read; asked before the base is read."""
    if find_spec("peft") is None:
        raise ModelError(
            f"an adapter ({CONFIG}) in {directory}, and no peft to merge it",
            "weights with the adapter merged: without it the numbers would be the base model's",
            f"Install peft, save the model merged, or take {CONFIG} away to look at the base model",
        )
    if not (directory / _WEIGHTS).is_file():
        raise ModelError(f"an adapter without {_WEIGHTS} in {directory}", "weights as safetensors", "Save it again")


def base_of(directory: Path) -> str:
    """What an adapter without base weights beside it was trained on: a directory that is there, or a hub name."""
    try:
        said = json.loads((directory / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(
            f"an adapter in {directory} that does not name its base ({first_line(error)})",
            "base_model_name_or_path", "Write it into adapter_config.json",
        ) from error  # fmt: skip
    for place in (at_home(str(said)), directory / str(said)):
        if (place / "config.json").is_file():
            return str(place)
    return str(said)


@contextmanager
def without(directory: Path) -> Iterator[Path]:
    """The same directory without its adapter, which the library would load in its own way."""
    with tempfile.TemporaryDirectory() as bare:
        for file in directory.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(bare) / file.name).symlink_to(file.resolve())
        yield Path(bare)


def merged(read: Read, directory: Path, base: str) -> Read:
    """A base with the adapter of a directory in its weights; ModelError where it does not fit whole. base: its name."""
    import peft
    from safetensors.torch import load_file

    weights = load_file(directory / _WEIGHTS)
    try:
        adapted = peft.get_peft_model(read.model, peft.PeftConfig.from_pretrained(str(directory)))
        taken = peft.set_peft_model_state_dict(adapted, dict(weights), adapter_name=_NAME)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        raise _misfit(directory, f"that does not fit {base} ({first_line(error)})") from error
    left = sorted(taken.unexpected_keys)
    if left:
        raise _misfit(directory, f"of whose {len(weights)} weights {len(left)} fit nothing in {base}: {named(left)}")
    lacking = sorted(key for key in taken.missing_keys if f".{_NAME}." in key or key.endswith(f".{_NAME}"))
    if lacking:
        raise _misfit(directory, f"that lacks {len(lacking)} weights which its config asks for: {named(lacking)}")
    ids = torch.arange(8)[None] * 7 % read.model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        apart = adapted.eval()(ids).logits.float()
        model: Any = adapted.merge_and_unload(safe_merge=True)
        gap = float((model(ids).logits.float() - apart).abs().max() / apart.abs().max().clamp(min=1.0))
    # Sums in another order, or half precision rounded once more; a part that is not merged does more than both.
    if not gap <= (1e-4 if model.dtype == torch.float32 else 5e-2):
        raise _misfit(directory, f"that is another model when it is merged into {base} (logits differ by {gap:.2g})")
    said = f"{base} with the adapter {directory.name} merged ({len(weights)} of {len(weights)} weights)"
    return Read(model, read.tokenizer, f"{read.badge}; {said}" if read.badge else said)


def _misfit(directory: Path, what: str) -> ModelError:
    return ModelError(
        f"an adapter in {directory} {what}",
        "one that was trained on this base",
        "Check base_model_name_or_path and keys",
    )
