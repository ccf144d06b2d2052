"""Continuing a prompt by the model's own next tokens, so that they can be looked at like the rest."""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens
from workbench.observation import observe
from workbench.words import counted

__all__ = ["LONGEST", "WRITTEN_OUT", "Continued", "continuation", "continued", "continued_text", "other_tokens"]

LONGEST = 64
# Behind the user's message the answer would be read as a part of the question.
WRITTEN_OUT = "The chat is written out by its template, as a raw prompt: so the answer is not part of the message."
_SEEDS = 1 << 63


@dataclass(frozen=True)
class Continued:
    """Token ids that follow a prompt, and a sentence on why there are fewer than were asked for ("" where not)."""

    ids: list[int]
    ending: str


def continuation(model: Model, tokens: Tokens, n: int, *arguments: Any, **options: Any) -> list[int]:
    """The ids of `continued`."""
    return continued(model, tokens, n, *arguments, **options).ids


def continued(
    model: Model,
    tokens: Tokens,
    n: int,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    interventions: Sequence[Any] = (),
) -> Continued:
    """Up to n token ids that follow the prompt; fewer where the model ends the text or its context is full.

    It ends the text with any of the tokens that its generation config, its config or its tokenizer name; that one is
    not among the ids.

    temperature: 0 takes the most probable token each time, else tokens are sampled from softmax(logits / temperature)
    with this seed. interventions hold in every pass, one full pass per token. Raises InputError for values out of
    range.
    """
    if not 1 <= n <= LONGEST:
        raise InputError(f"{n} tokens to add", f"1 to {LONGEST}", "Choose a number in this range")
    if not 0 <= temperature <= 5:
        raise InputError(f"temperature {temperature}", "0 to 5", "Choose a number in this range")
    if not 0 <= seed < _SEEDS:
        raise InputError(f"the seed {seed}", f"0 to {_SEEDS - 1}", "Choose a number in this range")
    draw, ids = torch.Generator().manual_seed(seed), list(tokens.ids)
    ends = model.ends
    for step in range(n):
        if len(ids) >= model.sizes.n_ctx:
            return _continued(ids, tokens, f"It was cut: the context of {model.sizes.n_ctx} tokens is full.")
        if progress is not None:
            progress(step / n)
        logits = observe(model, Prompt.ids(ids), interventions=interventions).logits[0][-1].float().cpu()
        if temperature == 0:
            chosen = int(logits.argmax())
        else:
            chosen = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=draw))
        if chosen in ends:
            return _continued(ids, tokens, f"The model ended the text with {model.vocabulary.string(chosen)!r}.")
        ids.append(chosen)
    return _continued(ids, tokens, "")


def _continued(ids: list[int], tokens: Tokens, ending: str) -> Continued:
    return Continued(ids[len(tokens) :], ending)


def other_tokens(written: Sequence[int], read: Sequence[int]) -> str:
    """A sentence where a continued text, read again, makes other tokens than those that the model wrote; "" else.

    Two line breaks in a row become one token of two, say.
    """
    if tuple(written) == tuple(read):
        return ""
    n, m = len(written), len(read)
    how = f"{counted(m, 'token')} in place of {n}" if n != m else f"others of {counted(m, 'token')}"
    return f"Read as a prompt, the text has other tokens than the model wrote: {how}."


def continued_text(model: Model, text: str, added: list[int], as_ids: bool = False) -> str:
    """The prompt with the added tokens, as it stands in the prompt field, without a character that is not yet whole.

    as_ids: the prompt is written as ids of tokens, though the model has a tokenizer.
    """
    if model.tokenizer is None:
        return " ".join([text.strip(), *map(str, added)])
    if as_ids:
        return " ".join([text.strip(), *(f"#{token}" for token in added)])
    raw = b"".join(map(model.vocabulary.bytes_of, added))
    return text + codecs.getincrementaldecoder("utf-8")("replace").decode(raw)  # without half a character at its end
