"""How a GGUF file cuts texts, where the reader of transformers passes over what it says.

Such a file names how texts are split before merges (`tokenizer.ggml.pre`) and whether a space stands in front of them
(`tokenizer.ggml.add_space_prefix`). transformers knows some of these names, splits as GPT-2 does for all
others, and puts a space in front whatever the file says. The model would be run on ids that it was never trained on,
without a word.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["KEYS", "cut_as_written", "puts_bos"]

KEYS = ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.add_space_prefix")

# Names that llama.cpp splits as GPT-2 does, as GPT-2 does but each digit by itself, and as Qwen 2 does.
_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "gigachat", "mellum", "modern-bert", "trillion")
_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
_QWEN2 = ("stablelm2", "hunyuan")
# Names of Llama 3's tokenizer and its like: a word that is a token is taken whole, also where no merges lead to it, and
# texts stand behind BOS. Most such files say neither, since llama.cpp knows it by the name.
_LLAMA3 = (
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "tekken",
)  # fmt: skip


def puts_bos(keys: Mapping[str, Any]) -> bool | None:
    """Whether a file puts BOS in front of texts: as it says, else as its split's name implies; None: neither does."""
    said = keys.get("tokenizer.ggml.add_bos_token")
    if isinstance(said, bool):
        return said
    return True if _of_llama3(keys) else None


def _of_llama3(keys: Mapping[str, Any]) -> bool:
    return keys.get("tokenizer.ggml.model") == "gpt2" and keys.get("tokenizer.ggml.pre") in _LLAMA3


def cut_as_written(tokenizer: Any, keys: Mapping[str, Any]) -> str:
    """Make a tokenizer cut texts as its file says; what is to be said where that is not known, else nothing."""
    kind = keys.get("tokenizer.ggml.model")
    if kind == "llama" and keys.get("tokenizer.ggml.add_space_prefix") is False:
        _without_space(tokenizer.backend_tokenizer)
    if _of_llama3(keys):
        tokenizer.backend_tokenizer.model.ignore_merges = True
    return _split_as_named(tokenizer.backend_tokenizer, keys.get("tokenizer.ggml.pre")) if kind == "gpt2" else ""


def _without_space(backend: Any) -> None:
    """No space in front of a text. Where a normaliser puts it there (Phi-3's), it is the architecture's and stays."""
    from tokenizers import decoders, pre_tokenizers

    splits = backend.pre_tokenizer
    if not isinstance(splits, pre_tokenizers.Metaspace) or splits.prepend_scheme == "never":
        return
    backend.pre_tokenizer = pre_tokenizers.Metaspace(splits.replacement, prepend_scheme="never", split=splits.split)
    # and none is cut off where ids become text
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _split_as_named(backend: Any, name: Any) -> str:
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf import gguf_tokenizer_mapping as reader
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    if name in reader.GGUF_PRE_TOKENIZER_SPLITS or name in _GPT2:
        return ""
    if name in _DIGITS:
        first: Any = pre_tokenizers.Digits(individual_digits=True)
    elif name in _QWEN2:
        first = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    else:
        named = f"tokenizer.ggml.pre = {name}" if name else "it has no tokenizer.ggml.pre"
        return f"how it splits texts ({named}; split as GPT-2 does)"
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name in _DIGITS)
    backend.pre_tokenizer = pre_tokenizers.Sequence([first, bytes_of])
    return ""
