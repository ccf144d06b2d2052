"""A GGUF file: what of it is used and what is not, and its conversion, which is made once and kept.

Reading one takes a hundred times as long as reading safetensors, so a file is dequantised once to float32 and kept in
the cache under the sha256 of the file, with a manifest of checksums, as the default model is. transformers reads a
part of what such a file may say, and drops the rest: what it drops is compared with the model that came out of it. What
would change its numbers is refused by name, what says nothing of them is not mentioned, and the rest is noted.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from workbench.errors import ModelError
from workbench.files import cache_dir
from workbench.loading.files import digests, kept
from workbench.loading.files.bars import bars
from workbench.loading.files.checkpoint import INFORMED, Read, named, whole
from workbench.loading.files.gguf_texts import KEYS, cut_as_written, puts_bos

__all__ = ["conversions", "converted", "unread"]

Progress = Callable[[str, float, str], None]

_FORMAT = 4  # raise it when the conversion writes something else: older ones are then made again
# Keys that transformers drops, and where the model that it makes holds the same.
_SAME = {
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "logit_scale": "logit_scale",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "expert_used_count": "num_experts_per_tok",
    "expert_count": "num_experts",
    "vocab_size": "vocab_size",
}  # fmt: skip
# Of these a value says that nothing is done.
_NEUTRAL = {
    "rope.scaling.type": ("none", ""),
    "rope.scaling.factor": (0.0, 1.0),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.finetuned": (False,),
    "attention.causal": (True,),
}
# Keys that say nothing of the numbers of a pass.
_SAY_NOTHING = ("rope.scaling.original_context_length", "tensor_data_layout", "quantization_version", "block_count")
# Keys under these names change the numbers; what is dropped elsewhere is noted.
_CHANGE = ("rope.", "attention.", "expert_", "ssm.", "logit_scale", "embedding_scale", "residual_scale")
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping", "router_logit_softcapping")


def converted(path: Path, progress: Progress | None = None) -> tuple[Path, str]:
    """The directory that a GGUF file was converted into, and what is to be said of it; converts it where there is none.

    A conversion whose files are not as they were written is made again, with a note. Raises ModelError for a file that
    is not whole or that says what would be dropped.
    """
    report = progress or (lambda stage, done, text: None)
    digest = digests.sha256(path, cache_dir() / "digests")
    place = cache_dir() / "models" / f"gguf-{digest[:24]}-{_FORMAT}"
    if os.path.exists(place) and kept.alteration(place) is None:  # also in a cache that we may only read
        return place, _said(path, place)
    needed = 8 * path.stat().st_size  # four bits a weight become thirty-two
    with kept.storage_errors(needed, f"the conversion of {path.name}"), kept.alone(report, place):
        if os.path.exists(place):
            altered = kept.alteration(place)
            if altered is None:
                return place, _said(path, place)
            kept.tell_damage(f"The conversion of {path.name} was damaged ({altered})", progress)
        return place, _convert(path, place, digest, report)


def conversions() -> list[tuple[Path, dict[str, Any]]]:
    """Folders of files that were converted, with what their manifests say; a folder may be deleted at any time."""
    places = sorted((cache_dir() / "models").glob("gguf-*"))
    return [(place, record) for place in places if (record := kept.manifest(place)) is not None]


def _convert(path: Path, place: Path, digest: str, report: Progress) -> str:
    contents = _contents(path)  # a damaged file is found here, before anything is announced
    report("convert", 0.0, f"reading {path.name}; this takes long, once")
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        made = work / "made"
        with bars(report):
            read, noted = _read(path, *contents)
            read.model.save_pretrained(made)
            read.tokenizer.save_pretrained(made)
        if digests.of_bytes(path) != digest:  # it would be kept under the name of another file, for good
            raise ModelError(f"{path.name}, which was written while it was read", "a whole file", "Load it again")
        source = {"file": str(path), "sha256": digest}
        kept.seal(made, {"format": _FORMAT, "name": path.name, "not_read": noted, "source": source})
        if place.exists():
            place.rename(work / "replaced")
        made.rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report("convert", 1.0, f"{path.name} is converted")
    return _badge(path, noted)


def _said(path: Path, place: Path) -> str:
    return _badge(path, str((kept.manifest(place) or {}).get("not_read", "")))


def _badge(path: Path, noted: str) -> str:
    return f"dequantised from {path.name}" + (f"; not read of it: {noted}" if noted else "")


def _read(path: Path, keys: Mapping[str, Any], tensors: list[str]) -> tuple[Read, str]:
    """The dequantised model and the tokenizer of a file, and what of it was not read and does not matter."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    source |= {"local_files_only": True, "trust_remote_code": False}
    loaded: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, **INFORMED)
    model, info = loaded
    # Dequantised now: transformers refuses to save a model that it still takes for a quantised one.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]  # a GGUF file does not say, and a bridge asks
    whole(path.name, info)
    tokenizer: Any = AutoTokenizer.from_pretrained(**source)
    dropped = unread(keys, model.config)
    if what := sorted([*dropped.changing, *_unread_tensors(tensors, model)]):
        raise ModelError(
            f"{path.name}, of which the reader of transformers drops {named(what, 6)}",
            "a file that is read whole",
            "Take the model in Hugging Face format: without that its numbers would be another model's",
        )
    if (adds := puts_bos(keys)) is not None and tokenizer.bos_token_id is not None:
        tokenizer.add_bos_token = adds
    noted = (cut_as_written(tokenizer, keys), named(sorted(dropped.noted), 6))
    return Read(model, tokenizer), ", ".join(filter(None, noted))


class Dropped:
    """Keys that were not read: those that would change the numbers, with their values, and the others."""

    def __init__(self) -> None:
        self.changing: list[str] = []
        self.noted: list[str] = []


def unread(keys: Mapping[str, Any], config: Any) -> Dropped:
    """What of a file's keys about its architecture has no counterpart in the model that was made of it."""
    from transformers.integrations import ggml

    mapping: Any = ggml.GGUF_CONFIG_MAPPING
    architecture = str(keys.get("general.architecture", ""))
    taken = {
        key
        for kind in {architecture, config.model_type, config.model_type.removesuffix("_text"), _alias(architecture)}
        for key, name in mapping.get(kind, {}).items()
        if name is not None
    }
    found = Dropped()
    for full, value in keys.items():
        prefix, _, key = full.partition(".")
        if prefix != architecture or key in taken or key in _SAY_NOTHING or value in _NEUTRAL.get(key, ()):
            continue
        if _holds(config, key, value):
            continue
        changes = key.startswith(_CHANGE) or key in _CAPS
        (found.changing if changes else found.noted).append(f"{full} = {value}" if changes else full)
    # No file holds by what Gemma scales attention. Its reader takes one number for all, which is right where heads are
    # as wide as that: not in the models of 27 billion weights, nor in others of another width.
    scale = getattr(config, "query_pre_attn_scalar", None)
    if scale is not None and scale != config.head_dim:
        assumed = f"it takes that of heads of {scale} numbers, not {config.head_dim}"
        found.changing.append(f"the scale of attention ({assumed})")
    return found


def _alias(architecture: str) -> str:
    """transformers writes an underscore where GGUF has none or a hyphen: qwen2moe, gpt-oss."""
    return architecture.replace("moe", "_moe").replace("-", "_")


def _holds(config: Any, key: str, value: Any) -> bool:
    """Whether the model was made with the same value, by its own name for it."""
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    if key == "rope.dimension_count":
        d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(value) == int(d_head * float(rope.get("partial_rotary_factor", 1.0)))
    if key.startswith("rope.scaling."):
        name = {"type": "rope_type", "factor": "factor"}.get(key.removeprefix("rope.scaling."), "")
        return _alike(rope.get(name), value)
    if key == "rope.freq_base":
        return _alike(rope.get("rope_theta"), value)
    if key in ("attention.key_length", "attention.value_length"):
        d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return _alike(d_head, value)
    return key in _SAME and _alike(getattr(config, _SAME[key], None), value)


def _alike(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return abs(float(ours) - float(theirs)) <= 1e-6 * max(1.0, abs(float(theirs)))
    return bool(ours == theirs)


def _contents(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Keys with their values (without the vocabulary), and names of tensors."""
    from gguf import GGUFReader

    reader = GGUFReader(str(path))
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.ggml.")}
    said = lambda name: name in KEYS or name.startswith("tokenizer.ggml.add_")
    keys |= {name: field.contents() for name, field in reader.fields.items() if said(name)}
    names = [tensor.name for tensor in reader.tensors]
    blocks = keys.get(f"{keys.get('general.architecture')}.block_count", 0)
    if isinstance(blocks, int) and blocks > len(names):  # so many layers would take all memory before any is refused
        raise ModelError(
            f"{path.name} with {blocks:,} blocks, and {len(names):,} tensors", "a whole file", "Get it again"
        )
    return keys, names


def _unread_tensors(tensors: list[str], model: Any) -> list[str]:
    """Names of tensors that went into no weight. Experts are stacked by the reader, under names of its own."""
    from transformers import modeling_gguf_pytorch_utils as reader

    kind = model.config.model_type.removesuffix("_text").replace("_moe", "moe").replace("_", "-")
    processor = reader.TENSOR_PROCESSORS.get(kind, reader.TensorProcessor)(config=model.config.to_dict())
    known = reader.get_gguf_hf_weights_map(model, processor)
    return [f"the tensor {name}" for name in tensors if name not in known and "_exps" not in name]
