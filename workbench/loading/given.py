"""What may be given to wrap(), and what building an instrument around it may raise."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.errors import InputError, ModelError, RefusedError, WorkbenchError
from workbench.loading.files.checkpoint import first_line, named
from workbench.pauses import pause

__all__ = ["buildable", "check_model", "check_tokenizer", "check_weights", "need_causal"]


def check_tokenizer(tokenizer: Any) -> None:
    """InputError for what is no tokenizer."""
    if tokenizer is not None and not hasattr(tokenizer, "decode"):
        raise InputError(
            f"{tokenizer!r} as the tokenizer" if isinstance(tokenizer, str) else f"a {type(tokenizer).__name__} as one",
            "a tokenizer object, or None where prompts are token ids",
            "Load it first, with AutoTokenizer.from_pretrained(...)",
        )


def check_model(model: Any) -> None:
    """InputError or ModelError, with the reason, for what is no causal language model with its weights in memory."""
    kind = type(model).__name__
    if isinstance(model, nn.Module) and isinstance(getattr(model, "_orig_mod", None), nn.Module):
        raise InputError(f"a compiled model ({kind})", "one whose modules can be watched", "Give its _orig_mod")
    if not isinstance(model, nn.Module) or not hasattr(model, "config") or not hasattr(model, "generate"):
        raise InputError(f"a {kind}", "a Hugging Face causal language model", "Pass one to wrap()")
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"a {kind} with an adapter beside its weights",
            "a model whose weights hold the adapter: head weights would be the base model's",
            "Give what merge_and_unload() returns",
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"a {kind}, which reads with an encoder and writes with a decoder",
            "a decoder-only language model", "Use another model",
        )  # fmt: skip
    check_weights(model)


def check_weights(model: nn.Module) -> None:
    """ModelError, by name, where weights are elsewhere or are no numbers that we could read."""
    kind = type(model).__name__
    away = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if away:
        raise ModelError(
            f"a {kind} whose layers {named(_layers(away), 4)} are offloaded (to disk, or not loaded yet)",
            "all weights in memory, since a hash, head norms and edits read them",
            "Load it without a device_map that offloads, in a smaller dtype, or take a smaller model",
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ModelError(
            f"a {kind} that was made under torch.inference_mode",
            "weights that can be differentiated and followed", "Make it outside of that mode",
        )  # fmt: skip
    packed = [name for name, parameter in model.named_parameters() if not parameter.is_floating_point()]
    sparse = [name for name, parameter in model.named_parameters() if parameter.layout is not torch.strided]
    if sparse:
        raise ModelError(
            f"a {kind} with sparse weights ({named(sparse)})",
            "weights as plain arrays", "Put tensor.to_dense() in their place",
        )  # fmt: skip
    if packed:
        raise ModelError(
            f"a {kind} with quantised weights ({named(packed)})",
            "weights as floating-point numbers", "Load it without quantisation, or dequantise it",
        )  # fmt: skip


def need_causal(
    kind: str, forward: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor, dtype: torch.dtype
) -> None:
    """RefusedError for an encoder, whose tokens see those behind them: no view here is made for it. So for what answers
    otherwise at every call.

    forward: `[batch, pos]` ids to logits. ids: some to try.
    """
    other = torch.cat((ids[:, :-1], ids[:, -2:-1]), dim=1)  # another id at the end, of whatever vocabulary
    found = []
    for given in (ids, ids, other):
        pause()
        with torch.no_grad():
            found.append(forward(given)[0, :-1].float())
    plain, again, changed = found
    # equal to the bit where nobody looks ahead, but for a mixture's sums; an encoder is a tenth and more off
    most = (1e-5 if dtype == torch.float32 else 1e-2) * float(plain.abs().max())
    if float((plain - again).abs().max()) > most:
        raise RefusedError(
            f"a {kind} that answers the same tokens otherwise at every call",
            "one that draws nothing in evaluation mode, or whose weights stay as they are",
            "Give what it draws a switch, such as F.dropout(x, p, training=self.training)",
        )
    if float((plain - changed).abs().max()) > most:
        raise RefusedError(
            f"a {kind} whose tokens see those behind them, as in an encoder",
            "a decoder, whose tokens see themselves and those before them", "Pick another model",
        )  # fmt: skip


def _layers(names: list[str]) -> list[str]:
    """The modules that parameters belong to, down to the number of a layer: `model.layers.3`."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 2)
        found[".".join(parts[: number + 1])] = None
    return list(found)


@contextmanager
def buildable(model: Any) -> Iterator[None]:
    """Whatever is raised while the instrument is built becomes one sentence with architecture and versions.

    The libraries below raise what they like where an architecture is not as they assume; ours go through.
    """
    try:
        yield
    except RefusedError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(error.got, error.expected, error.remedy) from error  # what was named does not fit: bad input
    except WorkbenchError:
        raise
    except Exception as error:
        if (other := _disagreement(model) or _mixture(model, error)) is not None:
            raise other from error
        architecture = (getattr(model.config, "architectures", None) or [type(model).__name__])[0]
        with_ = ", ".join(f"{name} {_version(name)}" for name in ("transformer-lens", "transformers", "torch"))
        raise ModelError(
            f"a model of architecture {architecture}, which cannot be instrumented ({_cause(error)}; {with_})",
            "a decoder with attention in every layer that TransformerLens's TransformerBridge supports",
            "Use another model, or other versions of these libraries",
        ) from error


def _cause(error: Exception) -> str:
    """What a library says of it; where that is nothing (a bare assert), the line that it says nothing in."""
    if str(error).strip():
        return f"{type(error).__name__}: {first_line(error)}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at `{frames[-1].line}` in {Path(frames[-1].filename).name}" if frames else ""
    return f"{type(error).__name__}{where}"


def _disagreement(model: Any) -> ModelError | None:
    """Where the blocks of a model are other ones than its configuration says, which is what libraries go by."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    said = getattr(config, "num_hidden_layers", None)
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    counts = {name: len(model.get_submodule(name)) for name in outer}
    if not isinstance(said, int) or not counts:
        return None
    # the blocks are the list that most weights are in: Gemma 3n has short lists of matrices besides
    name = max(counts, key=lambda name: sum(x.numel() for x in model.get_submodule(name).parameters()))
    if counts[name] == said:
        return None
    return ModelError(
        f"a {type(model).__name__} with {counts[name]} blocks in {name} whose configuration says {said}",
        "as many blocks as it says",
        f"Set model.config.{config.attribute_map.get('num_hidden_layers', 'num_hidden_layers')} = {counts[name]}",
    )


def _mixture(model: Any, error: Exception) -> ModelError | None:
    """Which weights are of another dtype than the rest, where it is types that did not go together."""
    if not any(word in str(error).lower() for word in ("dtype", "scalar type")):
        return None
    names: dict[torch.dtype, list[str]] = {}
    for name, parameter in model.named_parameters():
        names.setdefault(parameter.dtype, []).append(name)
    most, *others = sorted(names, key=lambda dtype: -len(names[dtype]))
    if not others:
        return None
    kinds = [f"{named(_layers(names[dtype]), 4)} in {str(dtype).removeprefix('torch.')}" for dtype in others]
    rest = str(most).removeprefix("torch.")
    return ModelError(
        f"a {type(model).__name__} with {' and '.join(kinds)} and the rest in {rest}, which do not go together",
        "weights of dtypes that the model computes with", f"Make them one, with model.to(torch.{rest})",
    )  # fmt: skip


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
