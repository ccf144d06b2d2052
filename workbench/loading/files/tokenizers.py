"""Reading the tokenizer that was saved beside a model: what its tokenizer.json says.

transformers 5 chooses a class by the model's architecture or by a name in the config, and some classes keep only the
vocabulary of the file: how it cuts a text, and even its algorithm, become those of Qwen's or GPT-2's tokenizer. A
Qwen2 with a tokenizer of its own is then run on ids that it was never trained on, without a word.
"""

from collections.abc import Mapping
from typing import Any

from workbench.errors import ModelError

__all__ = ["tokenizer_of"]

_PROBE = (
    "The capital of France is Paris. It's 1234, don't\n\n  ABC_def(x+1);\tDvo\u0159\u00e1k cafe\u0301 \u6771\u4eac "
    "\u0627\u0644\u0639 \u0e44\u0e17\u0e22 \U0001f44d"
)


def tokenizer_of(source: Mapping[str, Any]) -> tuple[Any, str]:
    """The tokenizer of a directory or a hub name, and what is to be said of it with every number, most often nothing.

    Raises ModelError for one without a vocabulary.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import cached_file

    found, said = AutoTokenizer.from_pretrained(**source), ""
    if isinstance(found, PreTrainedTokenizerFast):
        try:
            cached_file(source["pretrained_model_name_or_path"], "tokenizer.json", **_where(source))
            written = PreTrainedTokenizerFast.from_pretrained(**source)
        except Exception:  # libraries raise what they like. Without a tokenizer.json nothing can be read in another way
            written = found
        if _differ(found, written):
            found, said = written, "tokenised as its tokenizer.json says"
    if not found.encode("The", add_special_tokens=False):
        raise ModelError("a tokenizer without a vocabulary", "tokenizer.json or its like", "Save the tokenizer too")
    return found, said


def _where(source: Mapping[str, Any]) -> dict[str, Any]:
    """What of a source says where its files are looked for."""
    return {name: source[name] for name in ("revision", "local_files_only") if name in source}


def _differ(one: Any, other: Any) -> bool:
    """Whether two tokenizers cut a text in different ways, also where a space is in front: a setting of the config may
    put one there, which the file need not know of."""
    ids = lambda tokenizer, text: list(tokenizer.encode(text, add_special_tokens=False))
    return all(ids(one, text) != ids(other, text) for text in (_PROBE, f" {_PROBE}"))
