"""Reading the tokenizer that was saved beside a model: what its tokenizer.json says.

transformers 5 chooses a class by the model's architecture or by a name in the config, and some classes keep only the
vocabulary of the file: how it cuts a text, and even its algorithm, become those of Qwen's or GPT-2's tokenizer. A
Qwen2 with a tokenizer of its own is then run on ids that it was never trained on, without a word.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import ModelError

__all__ = ["tokenizer_of"]

_AS_WRITTEN = "tokenised as its tokenizer.json says"
_PROBE = (
    "The capital of France is Paris. It's 1234, don't\n\n  ABC_def(x+1);\tDvo\u0159\u00e1k cafe\u0301 \u6771\u4eac "
    "\u0627\u0644\u0639 \u0e44\u0e17\u0e22 \U0001f44d"
)


def tokenizer_of(source: Mapping[str, Any]) -> tuple[Any, str]:
    """The tokenizer of a directory or a hub name, and what is to be said of it with every number, most often nothing.

    Raises ModelError for one without a vocabulary.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        found, said = AutoTokenizer.from_pretrained(**source), ""
        found.encode(_PROBE, add_special_tokens=False)
    except Exception:  # libraries raise what they like: the class that was chosen may not do with such a file
        found, said = _written(source), _AS_WRITTEN
        if found is None:
            raise
    if not said and isinstance(found, PreTrainedTokenizerFast):
        written = _written(source)
        if written is not None and _differ(found, written, _says_space(source)):
            found, said = written, _AS_WRITTEN
    if not found.encode("The", add_special_tokens=False):
        raise ModelError("a tokenizer without a vocabulary", "tokenizer.json or its like", "Save the tokenizer too")
    return found, said


def _written(source: Mapping[str, Any]) -> Any:
    """The tokenizer as tokenizer.json has it; None without one that can be read."""
    from transformers import PreTrainedTokenizerFast

    try:
        _file(source, "tokenizer.json")
        return PreTrainedTokenizerFast.from_pretrained(**source)
    except Exception:  # libraries raise what they like
        return None


def _says_space(source: Mapping[str, Any]) -> bool:
    """Whether the config says if a space stands in front of texts."""
    try:
        said = json.loads(Path(_file(source, "tokenizer_config.json")).read_text(encoding="utf-8"))
        return said.get("add_prefix_space") is not None
    except Exception:  # no such file, or none that can be read: it says nothing
        return False


def _file(source: Mapping[str, Any], name: str) -> str:
    from transformers.utils import cached_file

    return str(cached_file(source["pretrained_model_name_or_path"], name, **_where(source)))


def _where(source: Mapping[str, Any]) -> dict[str, Any]:
    """What of a source says where its files are looked for."""
    return {name: source[name] for name in ("revision", "local_files_only") if name in source}


def _differ(one: Any, other: Any, says_space: bool) -> bool:
    """Whether two tokenizers cut a text in different ways. says_space: a setting may put a space in front of a text,
    which the file need not know of: then they must differ also where one stands there."""
    ids = lambda tokenizer, text: list(tokenizer.encode(text, add_special_tokens=False))
    texts = (_PROBE, f" {_PROBE}") if says_space else (_PROBE,)
    return all(ids(one, text) != ids(other, text) for text in texts)
