"""Prompts as people type them: a text, or ids of tokens, as every view names them."""

import re
from typing import Any

from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise

__all__ = ["ids_of", "is_ids", "typed"]

_DIGITS = 9  # of a token id that is typed; no vocabulary has more


def typed(model: Model, prompt: Any) -> Tokens:
    """The tokens of what was typed: of ids separated by spaces where the model has no tokenizer, of ids written as
    `#0 #504 #28` on any model, else of the text; and of any prompt that is no text. InputError as of `tokenise`."""
    is_typed = isinstance(prompt, str) and (model.tokenizer is None or is_ids(prompt))
    return tokenise(model, ids_of(prompt) if is_typed else prompt)


def ids_of(text: str) -> Prompt:
    """The prompt of a model without a tokenizer: token ids separated by spaces. InputError for anything else."""
    parts = text.replace(",", " ").replace("#", " ").split()
    if not parts or not all(part.isascii() and part.isdigit() and len(part) <= _DIGITS for part in parts):
        raise InputError(
            "a text, for a model without a tokenizer", "token ids separated by spaces", "For example: 0 5 9 5"
        )
    return Prompt.ids([int(part) for part in parts])


def is_ids(text: str) -> bool:
    """Whether a text is nothing but token ids, as every view names tokens: `#0 #504 #28`."""
    parts = text.split()
    return bool(parts) and all(re.fullmatch(r"#[0-9]{1,9}", part) for part in parts)
