"""Reading a model in Hugging Face format, from a directory or by its name on the hub.

Only safetensors are read and remote code is never run. What a file lacks, what it has and the model does not take, and
what is of another kind is refused by name: the library would fill in random numbers, or drop it, and go on.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.errors import ModelError, WorkbenchError, of_the_machine
from workbench.loading.files.masks import masks_among
from workbench.loading.files.shards import check_shards, check_taken
from workbench.loading.files.tokenizers import tokenizer_of

__all__ = ["INFORMED", "Read", "check_directory", "first_line", "named", "need_content", "read", "readable", "whole"]

_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json", "vocab.tiktoken",
)  # fmt: skip

_READ = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")

_POINTER, _POINTER_BYTES = b"version https://git-lfs", 1024

# What does not fit is listed, for `whole` to refuse by name: without the second the library only points to its log.
INFORMED: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}


@dataclass
class Read:
    """A Hugging Face model as it was read, with its tokenizer. badge: what is to be said with every number."""

    model: Any
    tokenizer: Any
    badge: str = ""


def check_directory(path: Path) -> None:
    """ModelError for a directory that is none of ours, or has no weights, or nothing that tokenises."""
    if not (path / "config.json").is_file():
        raise ModelError(f"no config.json in {path}", "a directory in Hugging Face format", "Check the path")
    odd = [one.name for one in path.iterdir() if not one.is_file() and one.name.endswith(_READ)]
    if odd:  # a pipe would be waited for without end
        raise ModelError(f"{odd[0]!r} in {path}, which is no file", "the files of a model", "Check the path")
    if not list(path.glob("*.safetensors")):
        raise ModelError(
            f"no *.safetensors in {path}",
            "weights as safetensors",
            "Save the model with save_pretrained() and try again",
        )
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise ModelError(
            f"no tokenizer in {path}",
            f"one of {', '.join(_TOKENIZERS[:4])}",
            "Save the tokenizer there too, or give the model to wrap() with tokenizer None and prompts as token ids",
        )
    for file in (*path.glob("*.safetensors"), *(path / name for name in _TOKENIZERS)):
        need_content(file)


def need_content(file: Path) -> None:
    """ModelError for what git leaves in the place of a large file where Git LFS is not installed; of which a reader
    says that its header is too large."""
    if file.is_file() and file.stat().st_size < _POINTER_BYTES and file.read_bytes().startswith(_POINTER):
        raise ModelError(
            f"{file}, which only says where Git LFS keeps the file",
            "the file itself", "Install Git LFS and run `git lfs pull` in its folder, or download it",
        )  # fmt: skip


def read(source: dict[str, Any], dtype: torch.dtype, device_map: Any = None) -> Read:
    """The model and the tokenizer of a directory or a hub name; ModelError where it is not whole. device_map: where its
    weights go as they are read, as transformers takes it."""
    from transformers import AutoModelForCausalLM

    config = _check_config(source)
    kinds: dict[str, str] = {}
    place = Path(source["pretrained_model_name_or_path"])
    if place.is_dir():
        n_layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
        kinds = check_shards(place, n_layers if isinstance(n_layers, int) else 0)
    safe: dict[str, Any] = {"use_safetensors": True, "attn_implementation": "eager", **INFORMED}
    spread = {} if device_map is None else {"device_map": device_map}
    loaded: Any = AutoModelForCausalLM.from_pretrained(**source, **safe, **spread, dtype=dtype)
    model, info = loaded
    left = info.get("unexpected_keys", ())
    info["unexpected_keys"] = set(left) - masks_among(left, source, model)
    whole(source["pretrained_model_name_or_path"], info)
    check_taken(place, kinds, model)
    _own(model)
    tokenizer, said = tokenizer_of(source)
    method = (getattr(model.config, "quantization_config", None) or {}) and model.config.quantization_config
    badge = f"from {_method(method)} weights" if method else ""
    return Read(model, tokenizer, "; ".join(filter(None, (badge, said))))


def _own(model: Any) -> None:
    """Take weights that are pages of a file into memory: whoever wrote over the file would change them without a word,
    and end the process where the file gets shorter."""
    for tensor in (*model.parameters(), *model.buffers()):
        plain = type(tensor.data) is torch.Tensor and tensor.layout is torch.strided and tensor.device.type == "cpu"
        if plain and not tensor.untyped_storage().resizable():  # not PyTorch's own
            tensor.data = tensor.data.clone()


def _check_config(source: dict[str, Any]) -> Any:
    """The config; ModelError for that of no causal language model: said before gigabytes are read."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = AutoConfig.from_pretrained(**source)
    kind = (getattr(config, "architectures", None) or [type(config).__name__])[0]
    if getattr(config, "is_encoder_decoder", False):
        reason = "which reads with an encoder and writes with a decoder"
    elif config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        reason = "which transformers has no causal language model of"
    else:
        return config
    raise ModelError(f"a model of architecture {kind}, {reason}", "a decoder-only language model", "Use another model")


def whole(name: str, info: dict[str, Any]) -> None:
    """ModelError, with names, where weights are missing, left over, or of another shape. info: of the library."""
    mismatched = [key[0] if isinstance(key, tuple) else key for key in info.get("mismatched_keys", ())]
    for keys, what in (
        (info.get("missing_keys", ()), "which lacks {}"),
        (mismatched, "where the shape is another than the config says of {}"),
        (info.get("unexpected_keys", ()), "with {}, which the model of its config does not have"),
    ):
        if keys:
            raise ModelError(
                f"a checkpoint at {name} {what.format(named(sorted(keys)))}",
                "all weights of the model that config.json describes, and no others",
                "Get the files again; anything else would be another model's numbers",
            )
    for error in info.get("error_msgs", ()):
        raise ModelError(f"a checkpoint at {name} that does not fit ({error})", "a whole one", "Get the files again")


def named(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 5 others`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} others"


def _method(config: Any) -> str:
    value = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
    return str(getattr(value, "value", value) or "quantised")


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Whatever a library raises while a model is read becomes one sentence; ours go through.

    Damaged and odd files make libraries raise what they like: struct.error, KeyError, TypeError, errors of Rust.
    """
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:
        if (machine := of_the_machine(error)) is not None:  # memory that ran out says nothing of the files
            raise machine from error
        expected = (
            "config.json, *.safetensors and a tokenizer, or a hub name that is public or that you are logged in for"
        )
        if name.lower().endswith(".gguf"):
            expected = "a whole GGUF file of an architecture that transformers reads"
        raise ModelError(f"no usable model at {name} ({first_line(error)})", expected, _remedy(name, error)) from error


def _remedy(name: str, error: Exception) -> str:
    """Install what is missing, where that is it."""
    try:
        config = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        method = config["quantization_config"]["quant_method"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "Check the name and the files"
    if not isinstance(error, ImportError):
        return f"Check the files, or take weights that are not quantised with {method}"
    return f"Install the library that reads {method}, or take weights that are not quantised"


def first_line(error: BaseException) -> str:
    """What an error says in its first line, and the next where that only announces it; else its kind."""
    first, *more = str(error).strip().split("\n")
    said = f"{first} {more[0].strip()}" if more and first.rstrip().endswith(":") else first
    return said[:200].strip() or type(error).__name__
