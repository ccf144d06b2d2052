"""Prompt: the one path from what a user typed to token ids.

Raw text gets in front what the model's tokenizer itself puts there, most often a BOS token or nothing at all: a model
that was trained without BOS is another one behind it. `bos=` overrides; what a text begins with already is not put
there twice; what it was is shown wherever tokens are. A chat's template writes its own special tokens, so nothing is
added. Token ids are taken as they are.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from workbench.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["Prompt", "Tokens", "Vocabulary", "tokenise"]


@dataclass(frozen=True)
class Prompt:
    """What to run a model on: `Prompt("text")`, `Prompt.chat([...])` or `Prompt.ids([...])`.

    bos: True or False to force or forbid a BOS token in front of raw text; None does what the tokenizer does.
    """

    text: str | None = None
    messages: tuple[tuple[str, str], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    bos: bool | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.text, self.messages, self.token_ids) if value is not None]
        if len(given) != 1:
            raise InputError(f"{len(given)} kinds of prompt at once", "one of text, messages, token ids", "Give one")

    @classmethod
    def chat(cls, messages: Sequence[Mapping[str, str]]) -> "Prompt":
        """messages: [{"role": "user", "content": "..."}, ...]; rendered with the model's own chat template."""
        try:
            pairs = tuple((str(message["role"]), str(message["content"])) for message in messages)
        except (TypeError, KeyError) as error:
            raise InputError(
                f"messages without {error}",
                "a list of {'role': ..., 'content': ...}",
                "Give both keys in every message",
            ) from error
        return cls(messages=pairs)

    @classmethod
    def ids(cls, token_ids: "Sequence[int] | torch.Tensor") -> "Prompt":
        """token_ids: integers in the model's vocabulary, taken as they are (no BOS is added)."""
        values = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise InputError(f"token ids {values[:5]}", "a flat list of integers", "Give one prompt's ids")
        return cls(token_ids=tuple(values))


@dataclass(frozen=True)
class Tokens:
    """A tokenised prompt: ids, the string of each token, whether position 0 is a BOS token, and soft warnings."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    bos: bool
    source: Prompt
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def start(self) -> str:
        """What the tokens begin with, as a reader should see it: "behind BOS '<s>'" or "without BOS"."""
        return f"behind BOS {self.strings[0]!r}" if self.bos else "without BOS"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Strings of token ids and ids of strings, without the model. Models without a tokenizer print ids as `#17`."""

    tokenizer: Any
    size: int

    def string(self, token_id: int) -> str:
        """The text of one token; bytes that are no text of their own decode to U+FFFD."""
        if self.tokenizer is None:
            return f"#{int(token_id)}"
        return self.tokenizer.decode([int(token_id)], skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @property
    def prefix(self) -> tuple[int, ...]:
        """What the tokenizer itself puts in front of a text: its BOS token, another special token, or nothing.

        Asked each time and not read off a setting: settings go by many names, and a held tokenizer may be changed.
        """
        if not hasattr(self.tokenizer, "encode"):
            return ()
        plain = list(self.tokenizer.encode("a", add_special_tokens=False))
        whole = list(self.tokenizer.encode("a", add_special_tokens=True))
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return tuple(int(i) for i in whole[:start])
        return ()

    def token(self, text: str) -> int:
        """The id of a text that is exactly one token; `#17` names an id.

        Raises InputError where the text is several tokens, and offers the first.
        """
        if re.fullmatch(r"#\d+", text) and int(text[1:]) < self.size:
            return int(text[1:])
        if self.tokenizer is None:
            raise InputError(
                f"the token {text!r}", f"an id such as #17, below {self.size}", "This model has no tokenizer"
            )
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            offer = f"use its first token {self.string(ids[0])!r}" if ids else "type a text"
            raise InputError(
                f"the target {text!r}, which is {len(ids)} tokens",
                "a text that is one token",
                f"Mind the space, or {offer}",
            )
        return ids[0]


class _Reads(Protocol):
    """What tokenising asks of a `Model`, which is made of this file's parts."""

    tokenizer: Any

    @property
    def name(self) -> str:
        """The name it was loaded by."""

    @property
    def sizes(self) -> Any:
        """n_ctx and d_vocab."""

    @property
    def vocabulary(self) -> "Vocabulary":
        """How its tokens are written."""


def tokenise(model: _Reads, prompt: "str | Prompt | Tokens | Sequence[int]") -> Tokens:
    """The tokens of a prompt for a model.

    Raises InputError for an empty prompt, one longer than the model's n_ctx (a bridge would truncate text and run
    over-long ids without a word), and ids outside the vocabulary.
    """
    if isinstance(prompt, Tokens):
        return prompt
    if not isinstance(prompt, Prompt):
        prompt = Prompt(prompt) if isinstance(prompt, str) else Prompt.ids(prompt)
    ids = _ids(model, prompt)
    _check(model, prompt, ids)
    notes = _notes(prompt)
    strings = tuple(model.vocabulary.string(i) for i in ids)
    bos = ids[0] == getattr(model.tokenizer, "bos_token_id", None) or ids[:1] == model.vocabulary.prefix[:1]
    return Tokens(ids, strings, bos, prompt, notes)


def _ids(model: _Reads, prompt: Prompt) -> tuple[int, ...]:
    if prompt.token_ids is not None:
        return prompt.token_ids
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise InputError("text", f"token ids, since {model.name} has no tokenizer", "Use Prompt.ids([...])")
    if prompt.messages is not None:
        return tuple(tokenizer.encode(_render(model, prompt.messages), add_special_tokens=False))
    if prompt.text == "":
        raise InputError(
            "an empty prompt", "at least one character", "Type a text, for example: The capital of France is"
        )
    ids = tuple(tokenizer.encode(prompt.text, add_special_tokens=False))
    front = _front(model, prompt.bos)
    return ids if ids[: len(front)] == front else (*front, *ids)


def _front(model: _Reads, bos: bool | None) -> tuple[int, ...]:
    """What belongs in front of raw text; InputError where a BOS token is asked for that there is not."""
    if bos is False:
        return ()
    front = model.vocabulary.prefix
    if bos is None or front:
        return front
    if model.tokenizer.bos_token_id is None:
        raise InputError("bos=True", f"bos=False, since {model.name}'s tokenizer has no BOS token", "Leave bos out")
    return (model.tokenizer.bos_token_id,)


def _render(model: _Reads, messages: tuple[tuple[str, str], ...]) -> str:
    if not getattr(model.tokenizer, "chat_template", None):
        raise InputError("a chat", f"raw text, since {model.name} has no chat template", "Use Prompt(text)")
    chat = [{"role": role, "content": content} for role, content in messages]
    try:
        return model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja templates raise what they like; the user needs to know which rule they broke
        raise InputError(
            f"messages that the chat template refuses ({error})", "roles it knows", "Check roles"
        ) from error


def _check(model: _Reads, prompt: Prompt, ids: tuple[int, ...]) -> None:
    if not ids:
        raise InputError("a prompt of no tokens", "at least one token", "Type a text")
    if len(ids) > model.sizes.n_ctx:
        raise InputError(
            f"a prompt of {len(ids)} tokens", f"at most {model.sizes.n_ctx} for {model.name}", "Shorten the prompt"
        )
    outside = [i for i in ids if not 0 <= i < model.sizes.d_vocab]
    if outside:
        raise InputError(f"token id {outside[0]}", f"ids from 0 to {model.sizes.d_vocab - 1}", "Correct the ids")


def _notes(prompt: Prompt) -> tuple[str, ...]:
    if prompt.text is not None and prompt.text != prompt.text.rstrip(" "):
        return ("The prompt ends in a space: most tokenizers put the space into the next word, so predictions change.",)
    return ()
