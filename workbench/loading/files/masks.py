"""Masks that older checkpoints hold beside their weights: which keys a query may see, as transformers once saved it.

Published files of GPT-Neo, GPT-J, CodeGen and of older relatives of GPT-2 have one in every layer. Models make their
own today, and the library lists those in the files as left over. That each is the mask that the model makes is seen
here: what is another one would be another model.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

__all__ = ["masks_among"]

_NAME = re.compile(r"(?:^|\.)(?:attn|attention)\.(?:attention\.)?(?:bias|masked_bias|causal_mask)$")
_HIDDEN = "masked_bias"  # what was once written where a key is hidden: one number


def masks_among(names: Iterable[str], source: dict[str, Any], model: Any) -> set[str]:
    """Those of the weights left over that are masks which the model makes by itself. source: where it was read from."""
    asked = {_bare(name, model): name for name in names if _NAME.search(name)}
    if not asked:
        return set()
    windows = {getattr(model.config, name, None) for name in ("window_size", "sliding_window")}
    held = _tensors(_directory(source), asked, model)
    return {asked[name] for name, tensor in held if _is_mask(name, tensor, windows)}


def _bare(name: str, model: Any) -> str:
    """A name as files have it that were saved without the head."""
    return name.removeprefix(f"{model.base_model_prefix}.")


def _directory(source: dict[str, Any]) -> Path:
    """Where the files are: the directory itself, or that of what was fetched under a name."""
    place = Path(source["pretrained_model_name_or_path"])
    if place.is_dir():
        return place
    from transformers.utils.hub import cached_file

    found = cached_file(str(place), "config.json", revision=source.get("revision"), local_files_only=True)
    return Path(str(found)).parent


def _tensors(directory: Path, asked: Collection[str], model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                if _bare(name, model) in asked:
                    yield _bare(name, model), opened.get_tensor(name)


def _is_mask(name: str, tensor: torch.Tensor, windows: Collection[int | None]) -> bool:
    """Whether every query sees itself and all before it, or as many as a window of the config."""
    if name.endswith(_HIDDEN):
        return tensor.numel() == 1
    if tensor.ndim != 4 or tensor.shape[:2] != (1, 1) or tensor.shape[2] != tensor.shape[3]:
        return False
    seen = tensor[0, 0] != 0
    causal = torch.ones_like(seen).tril()
    bands = (causal.triu(1 - window) for window in windows if isinstance(window, int))
    return any(torch.equal(seen, one) for one in (causal, *bands))
