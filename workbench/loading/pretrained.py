"""load() and wrap(): the one place that makes a Model.

Weights stay raw (as published) and attention is eager, since patterns must be seen. Only safetensors and GGUF are read,
and remote code is never run. A bridge is put around a twin of the model, whose own logits are computed before, so that
the self-check can hold the bridge against them.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from workbench.errors import InputError, RefusedError, SlowWarning, UnavailableError
from workbench.loading import bundled
from workbench.loading.bridge import boot
from workbench.loading.selfcheck import check_ids, selfcheck
from workbench.loading.toys.circuits import induction_circuit
from workbench.loading.toys.transformer import ToyAdapter, ToyTransformer
from workbench.loading.twin import twin
from workbench.loading.windows import reference_length
from workbench.models.model import Adapter, Identity, Model
from workbench.processor import slow_format

__all__ = ["TOYS", "load", "wrap"]

# Toys that load by name: circuits written into weights by hand.
TOYS = {"toy-induction": induction_circuit}

Progress = Callable[[str, float, str], None]


def load(
    name: str = bundled.NAME,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "auto",
    revision: str | None = None,
    allow_network: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Load a model and check how it behaves.

    name: `smollm2-135m` (the default, fetched and converted on first use), a toy such as `toy-induction`, a local
    directory in Hugging Face format (safetensors), a `.gguf` file, or a hub name with `allow_network=True`. device:
    "auto" takes CUDA where there is one. progress: `(stage, share, text)`.

    Raises InputError for an unknown name, UnavailableError where files or the network are missing, RefusedError for an
    architecture that cannot be instrumented. Warns (SlowWarning) of a dtype that the processor has no instructions for.
    """
    device = _device(device)
    if name in TOYS:
        return wrap(TOYS[name](), None, name=name)
    if name == bundled.NAME:
        directory = bundled.ensure(progress=progress)
        model = _pretrained(name, {"pretrained_model_name_or_path": str(directory)}, dtype, device, badge=bundled.BADGE)
        # Its file does not say. Its own chats begin with the token, and its attention sink stands on it.
        model.tokenizer.add_bos_token = True
        return model
    path = Path(name).expanduser()
    if os.path.isdir(path):  # false, and no error, for what is too long for a path
        return _pretrained(name, _directory(path), dtype, device)
    if path.suffix.lower() == ".gguf":
        if not os.path.isfile(path):
            raise UnavailableError(f"no file at {path}", "a GGUF file", "Check the path")
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        return _pretrained(path.stem, source, dtype, device, badge=f"dequantised from {path.name}")
    if not allow_network:
        known = ", ".join((bundled.NAME, *TOYS))
        raise InputError(
            f"the model {name!r}", f"{known}, a local directory, a .gguf file, or a hub name with the network allowed",
            "Correct the name, or allow the network (allow_network=True, on the command line --allow-network)",
        )  # fmt: skip
    found = {"pretrained_model_name_or_path": name, "revision": revision}
    return _pretrained(name, found, dtype, device, revision=revision, network=True)


def wrap(model: Any, tokenizer: Any, *, name: str | None = None, badge: str = "", revision: str | None = None) -> Model:
    """Instrument a model that is in memory: a Hugging Face causal language model, or one of our small modules.

    The model stays as it is, and yours to call, save, train and generate with in any thread: what is instrumented is a
    twin that shares its weights (see `workbench.loading.twin`), with attention made eager.
    """
    adapter: Adapter
    reference: torch.Tensor | None
    if isinstance(model, ToyTransformer):
        adapter, reference, architecture = ToyAdapter(twin(model)), None, "toy"
    else:
        adapter, reference, architecture = _bridged(model, tokenizer)
    parameter = adapter.parameters()[0][1]
    identity = Identity(
        name=name or getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__,
        weights_hash=_weights_hash(adapter.parameters()),
        revision=revision,
        dtype=str(parameter.dtype).removeprefix("torch."),
        device=parameter.device.type,
        architecture=architecture,
        badge=badge,
    )
    wrapped = Model(identity, adapter, tokenizer)
    wrapped.selfcheck = selfcheck(wrapped, reference)
    return wrapped


def _bridged(held: Any, tokenizer: Any) -> tuple[Adapter, torch.Tensor, str]:
    if not hasattr(held, "config") or not hasattr(held, "generate"):
        raise InputError(f"a {type(held).__name__}", "a Hugging Face causal language model", "Pass one to wrap()")
    if getattr(held.config, "is_encoder_decoder", False):
        raise RefusedError(
            f"a {type(held).__name__}, which has an encoder", "a causal language model", "Pick a decoder-only model"
        )
    model = twin(held).eval()
    try:
        model.set_attn_implementation("eager")
    except ValueError as error:
        raise RefusedError(
            f"a model without eager attention ({error})", "attention patterns that can be seen", "Use another model"
        ) from error
    with torch.no_grad():
        n_vocab = model.get_input_embeddings().weight.shape[0]
        length = reference_length(model.config.get_text_config())
        ids = check_ids(tokenizer, n_vocab, length)[0].to(model.device)
        reference = model(ids, use_cache=False).logits.clone()
    return boot(model, held), reference, type(model).__name__


def _pretrained(
    name: str,
    source: Mapping[str, Any],
    dtype: torch.dtype,
    device: Any,
    *,
    badge: str = "",
    revision: str | None = None,
    network: bool = False,
) -> Model:
    from safetensors import SafetensorError

    if (said := slow_format(dtype, device)) is not None:  # before anything slow is done
        warnings.warn(said, SlowWarning, stacklevel=3)  # at the caller of load()
    options = {**source, "local_files_only": not network, "trust_remote_code": False}
    try:
        with _quiet():
            model, tokenizer = _read(options, dtype)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UnavailableError(
            f"no usable model at {name} ({_first_line(error)})",
            "config.json, *.safetensors and a tokenizer, or a hub name that is public or that you are logged in for",
            "Check the name and the files",
        ) from error
    return wrap(model.to(device), tokenizer, name=name, badge=badge, revision=revision)


def _read(options: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any]:
    """The Hugging Face model and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if "gguf_file" in options:
        model = AutoModelForCausalLM.from_pretrained(**options, dtype=dtype)
        model.config.architectures = [type(model).__name__]  # a GGUF file does not say, and a bridge asks
    else:
        safe: dict[str, Any] = {"use_safetensors": True, "attn_implementation": "eager"}
        model = AutoModelForCausalLM.from_pretrained(**options, **safe, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(**options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars: ours tell the user what is going on."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _directory(path: Path) -> dict[str, str]:
    if not (path / "config.json").is_file():
        raise UnavailableError(f"no config.json in {path}", "a directory in Hugging Face format", "Check the path")
    if not list(path.glob("*.safetensors")):
        raise UnavailableError(
            f"no *.safetensors in {path}",
            "weights as safetensors",
            "Save the model with save_pretrained() and try again",
        )
    return {"pretrained_model_name_or_path": str(path)}


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device={device!r}", "a device this PyTorch can use", "Use device='cpu'")
    return device


def _weights_hash(parameters: list[tuple[str, torch.Tensor]]) -> str:
    """sha256 over names, shapes, dtypes and bytes, sorted by name: the same however the model was loaded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters, key=lambda item: item[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


# A hub client that may not reach the network must not try: without this, a missing file costs minutes of retries.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
