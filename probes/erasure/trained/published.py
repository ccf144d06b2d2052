"""Take up readout probes that somebody else trained, as published ones are kept: one linear map to a file.

Such a file holds a weight `[d_vocab, d_model]` (rows are tokens) and perhaps a bias, for states of the residual stream
as they are: the form of the probes of Feucht et al. 2024. It is a safetensors file, or one of PyTorch's own, of which
tensors alone are read. Nothing in it says which model it was trained on, so its shapes are all that can be held against
the model, and how well it reads is unknown until `token-erasure-accuracy` measures it; the card says both. A file that
was made here carries the key of its model and its own card, and is taken as it is.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from probes.erasure.trained.artifact import (
    ReadoutProbes,
    about,
    default_path,
    find,
    joining,
    load_probes,
    save_probes,
)
from workbench.errors import FileError, InputError, RefusedError, of_the_machine
from workbench.models.model import Model

__all__ = ["UNMEASURED", "import_probes"]

UNMEASURED = "unmeasured: run token-erasure-accuracy with kind=imported"
_MEASURED = ("accuracy", "low", "high", "nll", "last_accuracy")
_NUMBERS = [f"{part}_{name}" for part in ("val", "test") for name in _MEASURED]
_COMPUTED = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_FORM = "one weight [token, d_model] and at most a bias [token]"


def import_probes(
    model: Model, file: str | Path, depth: int | None = None, offset: int | None = None, replacing: bool = False
) -> ReadoutProbes:
    """Read a file, hold it against the model, and keep it in the user's cache; returns all probes kept with it.

    depth (0 the embedding, d the output of block d-1) and offset (0 or below): what a plain file's map reads and names;
    not given for a file that was made here. replacing: also where the cache has other probes in its place.

    Raises UnavailableError for a missing or damaged file, RefusedError for one that does not fit the model or holds
    more than tensors, InputError for a place that is taken or does not exist.
    """
    file = Path(file)
    if not os.path.isfile(file):
        raise FileError(f"no file at {file}", "a probe file", "Check the path")
    if _made_here(file):
        return _take(load_probes(file, model.identity.key), replacing, model)
    if depth is None or offset is None:
        raise InputError(f"{file.name} without a layer and an offset", "both", "Say what it reads and what it names")
    if not 0 <= depth <= model.sizes.n_layers:
        raise InputError(
            f"layer {depth - 1}", f"-1 (the embedding) to {model.sizes.n_layers - 1} on {model.name}", "Correct it"
        )
    if not -8 <= offset <= 0:
        raise InputError(f"offset {offset}", "an offset from 0 down to -8", "Probes of later tokens are not used here")
    weight, bias = _fitting(_tensors(file), model, file.name)
    path = default_path(model.identity.key, "imported")
    with joining(path):
        before = find(model.identity.key, kind="imported")
        if before is not None and (depth, offset) in before.maps and not replacing:
            raise InputError(
                f"a probe for layer {depth - 1}, offset {offset}, which is imported already", "another place",
                "Say --replace to put this one there",
            )  # fmt: skip
        return save_probes(_joined(before, model, (depth, offset), (weight.T.contiguous(), bias), file), path)


def _made_here(file: Path) -> bool:
    if file.suffix.lower() != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as opened:
            return "card" in (opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise FileError(f"a damaged file at {file} ({error})", "a probe file", "Fetch it again") from error


def _take(probes: ReadoutProbes, replacing: bool, model: Model) -> ReadoutProbes:
    """Keep a file that was made here where analyses look."""
    path = default_path(model.identity.key, probes.kind)
    with joining(path):
        before = find(model.identity.key, kind=probes.kind)
        if before is not None and before.digest != probes.digest and not replacing:
            raise InputError(
                f"{probes.kind} probes, of which {path} has others", "a free place", "Say --replace to lose those"
            )
        return save_probes(probes, path)


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a plain file by name; nothing else in it is run or read."""
    held: Any
    try:
        if file.suffix.lower() == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what it is about to refuse
                held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file, or one that wants more than tensors: torch raises of many kinds, and
        if (machine := of_the_machine(error)) is not None:  # says how such a one may be run all the same
            raise machine from error
        raise FileError(
            f"{file.name}, which could not be read as tensors alone ({type(error).__name__})",
            _FORM, "Save the probe's state_dict()",
        ) from error  # fmt: skip
    held = {"weight": held} if isinstance(held, torch.Tensor) else held
    if not isinstance(held, Mapping) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise RefusedError(f"{file.name}, which is no table of tensors", _FORM, "Save its state_dict()")
    odd = [str(name) for name, value in held.items() if not _is_plain(value)]
    if odd:
        raise RefusedError(
            f"{file.name} with {odd[0]} in a form that is no array of numbers (sparse, of 8 bits, without values)",
            _FORM, "Save it as plain float32",
        )  # fmt: skip
    return {str(name): value.detach() for name, value in held.items()}


def _is_plain(value: torch.Tensor) -> bool:
    """Whether a tensor's numbers lie in memory one by one, in a format that can be computed with."""
    is_array = value.layout is torch.strided and not (value.is_meta or value.is_nested or value.is_quantized)
    return is_array and (value.dtype in _COMPUTED or not value.is_floating_point())


def _fitting(tensors: Mapping[str, torch.Tensor], model: Model, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight `[d_vocab, d_model]` and bias `[d_vocab]` (zeros where there is none), or the reason why not."""
    sizes = model.sizes
    weights = [t for t in tensors.values() if t.ndim == 2 and t.is_floating_point()]
    biases = [t for t in tensors.values() if t.ndim == 1 and t.is_floating_point()]
    if len(weights) != 1 or len(weights) + len(biases) != len(tensors) or len(biases) > 1:
        had = ", ".join(f"{key} {list(t.shape)}" for key, t in list(tensors.items())[:6]) or "nothing"
        raise RefusedError(f"{name} with {had}", _FORM, "Take the probe's own state_dict()")
    (weight,), n_tokens = weights, weights[0].shape[0]
    if weight.shape[1] != sizes.d_model:
        raise RefusedError(
            f"{name}, a probe of states with {weight.shape[1]} dimensions",
            f"{sizes.d_model}, the width of {model.name}", "Take probes of this model",
        )  # fmt: skip
    if n_tokens != sizes.d_vocab or any(len(bias) != n_tokens for bias in biases):
        raise RefusedError(
            f"{name}, a probe over {n_tokens} tokens" + "".join(f" with {len(b)} biases" for b in biases),
            f"{sizes.d_vocab}, the vocabulary of {model.name}", "Take probes of this model",
        )  # fmt: skip
    bias = biases[0] if biases else torch.zeros(n_tokens, dtype=weight.dtype)
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise RefusedError(f"{name} with weights that are not finite", "finite weights", "Fetch it again")
    return weight, bias


def _joined(
    before: ReadoutProbes | None,
    model: Model,
    key: tuple[int, int],
    map_: tuple[torch.Tensor, torch.Tensor],
    file: Path,
) -> ReadoutProbes:
    """What was imported before and this, with a card that claims no quality."""
    identity, d_vocab = model.identity, model.sizes.d_vocab
    depth, offset = key
    row = {"depth": depth, "offset": offset, **dict.fromkeys(_NUMBERS)}
    source = {"depth": depth, "offset": offset, "file": file.name, "sha256": sha256(file.read_bytes()).hexdigest()}
    scale = (
        torch.zeros(model.sizes.d_model, dtype=torch.float32),
        torch.ones(model.sizes.d_model, dtype=torch.float32),
    )
    if before is None:
        card: dict[str, Any] = {
            "kind": "imported linear probes of states as they are",
            "model": about(identity),
            "trained_on": "unknown: the file does not say; only its shapes were held against the model",
            "corpus": {"name": "unknown", "digest": ""},
            "recipe": {"kind": "imported"},
            "probes": [],
        }
        before = ReadoutProbes(card, torch.arange(d_vocab), torch.zeros(d_vocab, dtype=torch.long), {}, {}, {})
    rows = {**before.numbers, key: row}
    sources = [s for s in before.card.get("imported", ()) if (s["depth"], s["offset"]) != key] + [source]
    card = {k: v for k, v in before.card.items() if k != "accuracy"}
    card |= {"probes": [rows[k] for k in sorted(rows)], "imported": sources, "quality": UNMEASURED}
    return replace(before, card=card, scales={**before.scales, depth: scale}, maps={**before.maps, key: map_})
