"""Which files the weights of a directory lie in: all of them in it, each tensor in one of them.

The library reads whatever an index or a config names, files elsewhere too, and of a tensor that is in two files the
last. Hashes of the directory would know nothing of the first, and nobody of the second.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import ModelError

__all__ = ["check_shards", "check_taken"]

_WHOLE_NUMBERS = ("I", "U", "BOOL")  # as safetensors names them: I8, U8, I64
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def check_shards(directory: Path, n_layers: int = 0) -> dict[str, str]:
    """The kind of number of each tensor; ModelError for weights that are named elsewhere than in the directory, are not
    there, or are there twice.

    n_layers: of the config. A model of more layers than there are tensors would take all memory before it is refused.
    """
    kinds = _kinds(directory)
    if n_layers > len(kinds) > 0:
        raise ModelError(
            f"a config.json in {directory} with {n_layers:,} layers, and {len(kinds):,} weights",
            "the config of these weights", "Get the files again",
        )  # fmt: skip
    return kinds


def check_taken(directory: Path, kinds: Mapping[str, str], model: Any) -> None:
    """ModelError for what a model was read from in a way that nobody can know of: one weight under two names, whole
    numbers that do not say how they were quantised. kinds: of `check_shards`."""
    bare = lambda name: name.removeprefix(f"{model.base_model_prefix}.")
    names: dict[str, str] = {}
    for name in kinds:
        if (other := names.setdefault(bare(name), name)) != name:
            raise _wrong(directory, f"with one weight as {other} and as {name}")
    floating = {bare(name) for name, weight in model.named_parameters() if weight.is_floating_point()}
    whole = [name for name, kind in kinds.items() if kind.startswith(_WHOLE_NUMBERS) and bare(name) in floating]
    if whole and getattr(model.config, "quantization_config", None) is None:
        raise ModelError(
            f"{directory} with {whole[0]} in whole numbers ({kinds[whole[0]]})",
            "floating-point weights, or a quantization_config that says what the numbers mean",
            "Get the files again",
        )


def _kinds(directory: Path) -> dict[str, str]:
    """The kind of number of every tensor, such as "F32"."""
    chosen = _settings(directory / "config.json").get("transformers_weights")
    if chosen is not None:
        _need_name(chosen, directory / "config.json")
    index = directory / (chosen or (_INDEX if not (directory / _WHOLE).is_file() else _WHOLE))
    if not index.name.endswith(".index.json") or not index.is_file():
        return _tensors(index) if index.is_file() else {}
    said = _settings(index)
    if not isinstance(said.get("weight_map"), dict) or not isinstance(said.setdefault("metadata", {}), dict):
        raise _wrong(index, "without a table of tensors and files")
    where: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in sorted({_need_name(file, index) for file in said["weight_map"].values()}):
        if not (directory / name).is_file():
            raise _wrong(index, f"that names {name}, which is not there")
        for tensor, kind in _tensors(directory / name).items():
            if tensor in where:
                raise _wrong(index, f"with {tensor} in two files, {where[tensor]} and {name}")
            where[tensor], kinds[tensor] = name, kind
    return kinds


def _settings(file: Path) -> dict[str, Any]:
    """A file of settings as far as it is one; what is damaged is said where it is read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _need_name(given: Any, said_in: Path) -> str:
    if not isinstance(given, str) or Path(given).name != given:
        raise _wrong(said_in, f"that names weights {str(given)[:80]!r}, which is no file beside it")
    return given


def _tensors(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return {name: str(opened.get_slice(name).get_dtype()) for name in opened.keys()}  # noqa: SIM118 - not a dict


def _wrong(file: Path, what: str) -> ModelError:
    return ModelError(f"{file} {what}", "all weights in this directory, each once", "Get the files again")
