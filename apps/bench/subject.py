"""What one size is measured on: the default model twice, and natural text that every machine has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from workbench.loading import bundled
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise

__all__ = ["Prepare", "Subject", "Timed", "models", "rows_of_text"]


@dataclass(frozen=True, eq=False)
class Subject:
    """What one size is measured on: our model, a bare Hugging Face one of the same weights, and the same tokens."""

    model: Model
    bare: Any
    tokens: tuple[Tokens, ...]

    @property
    def ids(self) -> torch.Tensor:
        """`[batch, pos]`."""
        return torch.tensor([t.ids for t in self.tokens])


Timed = Callable[[], Any]  # what is timed
Prepare = Callable[[Subject], Timed]  # makes it, before the clock runs


def text() -> str:
    """Natural text that every machine has: the topics of Python's `help()`, in alphabetical order."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def rows_of_text(model: Model, batch: int, length: int) -> tuple[Tokens, ...]:
    """`batch` prompts of `length` tokens: BOS where there is one, then consecutive pieces of the text."""
    if model.tokenizer is None:
        ids, first = [i % model.sizes.d_vocab for i in range(batch * length)], []
    else:
        characters = 12 * batch * length  # far more than the tokens need: words are shorter than that
        ids = model.tokenizer.encode(text()[:characters], add_special_tokens=False)
        first = list(model.vocabulary.prefix)
    step = length - len(first)
    return tuple(tokenise(model, Prompt.ids([*first, *ids[i * step : (i + 1) * step]])) for i in range(batch))


def models() -> tuple[Model, Any]:
    """Our model, and a bare Hugging Face one of the same weights."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from workbench.loading.pretrained import load

    logging.disable_progress_bar()
    model = load(bundled.NAME, device="cpu")
    where = bundled.path()
    other = AutoModelForCausalLM.from_pretrained(
        where, attn_implementation="sdpa", dtype=torch.float32, local_files_only=True
    )
    return model, other.eval()
