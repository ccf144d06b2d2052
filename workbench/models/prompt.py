"""Prompt: the one path from what a user typed to token ids.

Raw text gets in front what the model's tokenizer itself puts there, most often a BOS token or nothing at all: a model
that was trained without BOS is another one behind it. `bos=` overrides; what a text begins with already is not put
there twice; what it was is shown wherever tokens are. A chat's template writes its own special tokens, so nothing is
added. Token ids are taken as they are. What counts as a prompt is said in `inputs.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, runtime_checkable

from workbench.arguments import argument
from workbench.errors import InputError
from workbench.models.inputs import MARK, Messages, as_ids, as_messages, as_text, kinds_of
from workbench.models.spans import Spans, spans_of
from workbench.models.vocabulary import Vocabulary, left_out
from workbench.words import counted

__all__ = ["Prompt", "Tokens", "ids_of", "place", "prompts_of", "tokenise"]

_ANY_TEXT, _A_TOKEN = 1_000_000, 256  # characters of a text; of a token, some of which are runs of spaces


@dataclass(frozen=True)
class Prompt:
    """What to run a model on: `Prompt("text")`, `Prompt.chat([...])` or `Prompt.ids([...])`.

    bos: True or False to force or forbid a BOS token in front of raw text; None does what the tokenizer does.
    """

    text: str | None = None
    messages: Messages | None = None
    token_ids: tuple[int, ...] | None = None
    bos: bool | None = None

    def __post_init__(self) -> None:
        checks = {"text": as_text, "messages": as_messages, "token_ids": as_ids}
        given = {name: getattr(self, name) for name in checks if getattr(self, name) is not None}
        if len(given) != 1:
            raise InputError(f"{len(given)} kinds of prompt at once", "one of text, messages, token ids", "Give one")
        for name, value in given.items():
            object.__setattr__(self, name, checks[name](value))

    @classmethod
    def chat(cls, messages: Sequence[Any]) -> "Prompt":
        """messages: [{"role": "user", "content": "..."}, ...]; rendered with the model's own chat template.

        Content may be parts, [{"type": "text", "text": "..."}]. A last message of the role "assistant" is continued:
        the model goes on in it; behind any other one the assistant's turn is opened.
        """
        return cls(messages=as_messages(messages))

    @classmethod
    def ids(cls, token_ids: Any) -> "Prompt":
        """token_ids: integers in the model's vocabulary in a list, an array or a tensor, also of one row; taken as they
        are (no BOS is added)."""
        return cls(token_ids=as_ids(token_ids))


@dataclass(frozen=True)
class Tokens:
    """A tokenised prompt.

    ids: what it is. strings: each token for people (`Vocabulary.string`). bos: whether position 0 is a BOS token.
    notes: soft warnings. spans: its text, and the characters that each token holds a part of. vocabulary: of the model
    that it was tokenised for.
    """

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    bos: bool
    source: Prompt
    notes: tuple[str, ...] = field(default=(), compare=False)
    spans: Spans = field(default=Spans(), compare=False, repr=False)
    vocabulary: Vocabulary | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def text(self) -> str:
        """The text that was tokenised; of ids, their text (U+FFFD for bytes that are none)."""
        return self.spans.text

    def touching(self, text: str) -> tuple[int, ...]:
        """Positions of the tokens that a piece of the text touches, as `Spans.touching` finds it; none where it is not
        in it."""
        return self.spans.touching(text)

    def place(self, position: int) -> int:
        """A position from 0 on, of one that may be counted from the end (-1). InputError outside the prompt."""
        return place(position, len(self))

    @property
    def start(self) -> str:
        """What the tokens begin with, as a reader should see it: "the first is BOS '<s>'" or "without BOS"."""
        return f"the first is BOS {self.strings[0]!r}" if self.bos else "without BOS"


@runtime_checkable
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
    def vocabulary(self) -> Vocabulary:
        """How its tokens are written."""


def place(position: int, n: int) -> int:
    """A position from 0 on in `n` tokens, of one that may be counted from the end (-1). InputError outside them."""
    if not -n <= position < n:
        raise InputError(f"position {position}", f"positions from 0 to {n - 1}", "Choose one inside the prompt")
    return position % n


def prompts_of(given: Any) -> "list[Prompt | Tokens]":
    """The prompts that a value stands for (see `inputs.kinds_of`); InputError for what is none."""
    return [value if kind == "known" else Prompt(**{kind: value}) for kind, value in kinds_of(given, (Prompt, Tokens))]


def tokenise(model: _Reads, prompt: Any) -> Tokens:
    """The tokens of one prompt for a model: a text, `Prompt`, chat, ids, what a tokenizer returns, or `Tokens`.

    Raises InputError for what is no prompt, for several, for an empty prompt, one longer than the model's n_ctx (a
    bridge would truncate text and run over-long ids without a word), ids outside the vocabulary, and `Tokens` of
    another tokenizer.
    """
    argument("model", model, Annotated[_Reads, "a model of load() or wrap(model, tokenizer)"], "tokenise()")
    if not isinstance(prompt, Prompt | Tokens):
        prompt = _one(prompt)
    if isinstance(prompt, Tokens):
        _need_own(model, prompt)
        return prompt
    text, ids = _read(model, prompt)
    _check(model, prompt, ids)
    strings = tuple(model.vocabulary.string(i) for i in ids)
    bos = ids[0] == getattr(model.tokenizer, "bos_token_id", None) or ids[:1] == model.vocabulary.prefix[:1]
    spans = spans_of(model.vocabulary, ids, text)
    notes = (*_notes(model, prompt, text or ""), *(() if text is None else _unread(model, ids, strings, spans)))
    return Tokens(ids, strings, bos, prompt, notes, spans, model.vocabulary)


def _need_own(model: _Reads, tokens: Tokens) -> None:
    """InputError for tokens of another model, whose ids mean something else here or nothing at all."""
    if tokens.vocabulary is model.vocabulary:
        return
    _check(model, tokens.source, tokens.ids)
    if tuple(model.vocabulary.string(i) for i in tokens.ids) != tokens.strings:
        raise InputError(
            f"tokens of another tokenizer than {model.name}'s", "a prompt of this model", "Give its text, or its ids"
        )


def ids_of(model: _Reads, prompt: Prompt) -> tuple[int, ...]:
    """The token ids of a prompt, without anything that is said of them to people. Raises as `tokenise`."""
    _, ids = _read(model, prompt)
    _check(model, prompt, ids)
    return ids


def _one(given: Any) -> "Prompt | Tokens":
    prompts = [Prompt.ids([])] if isinstance(given, list | tuple) and not given else prompts_of(given)
    if len(prompts) != 1:
        raise InputError(f"{len(prompts)} prompts", "one", "Give one, or call observe() for several at once")
    return prompts[0]


def _read(model: _Reads, prompt: Prompt) -> tuple[str | None, tuple[int, ...]]:
    """The text that is tokenised, None for ids, and the ids."""
    if prompt.token_ids is not None:
        return None, prompt.token_ids
    if model.tokenizer is None:
        raise InputError("text", f"token ids, since {model.name} has no tokenizer", "Use Prompt.ids([...])")
    text = prompt.text if prompt.messages is None else _render(model, prompt.messages)
    assert text is not None, "a prompt is one of three"
    most = max(_ANY_TEXT, _A_TOKEN * model.sizes.n_ctx)
    if len(text) > most:  # a tokenizer takes many times its memory, and ends the process where there is none
        raise InputError(
            f"a prompt of {len(text):,} characters", f"at most {most:,} for {model.name}", "Shorten the prompt"
        )
    return text, _ids(model, prompt, text)


def _ids(model: _Reads, prompt: Prompt, text: str) -> tuple[int, ...]:
    if prompt.messages is not None:
        return _encoded(model, text)
    if text == "":
        raise InputError(
            "an empty prompt", "at least one character", "Type a text, for example: The capital of France is"
        )
    ids = _encoded(model, text)
    front = _front(model, prompt.bos)
    return ids if ids[: len(front)] == front else (*front, *ids)


def _encoded(model: _Reads, text: str) -> tuple[int, ...]:
    """The ids of a text. InputError for a word that the tokenizer would take for another one without a word."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    kinds = tuple(type(getattr(backend, part, None)).__name__ for part in ("model", "pre_tokenizer"))
    if backend is not None and kinds == ("WordLevel", "WhitespaceSplit") and model.tokenizer.unk_token is None:
        known = backend.get_vocab()
        unknown = next((word for word in text.split() if word not in known), None)
        if unknown is not None:
            raise InputError(
                f"the word {unknown!r}, which {model.name} does not know",
                f"its words, such as {', '.join(map(repr, list(known)[:3]))}",
                "Type one of these, or give token ids",
            )
    return tuple(model.tokenizer.encode(text, add_special_tokens=False))


def _front(model: _Reads, bos: bool | None) -> tuple[int, ...]:
    """What belongs in front of raw text; InputError where a BOS token is asked for that there is not."""
    if bos is False:
        return ()
    front = model.vocabulary.front if bos else model.vocabulary.prefix
    if bos and not front:
        raise InputError("bos=True", f"bos=False, since {model.name}'s tokenizer has no BOS token", "Leave bos out")
    return front


def _render(model: _Reads, messages: tuple[tuple[str, str], ...]) -> str:
    if not getattr(model.tokenizer, "chat_template", None):
        raise InputError("a chat", f"raw text, since {model.name} has no chat template", "Use Prompt(text)")
    chat = [{"role": role, "content": content} for role, content in messages]
    goes_on = messages[-1][0] == "assistant"
    write = lambda **turn: model.tokenizer.apply_chat_template(chat, tokenize=False, **turn)
    try:
        text = write(**({"continue_final_message": True} if goes_on else {"add_generation_prompt": True}))
        if goes_on and not messages[-1][1].strip():
            text = _opened(model, chat[:-1], text)
    except Exception as error:  # jinja templates raise what they like; the user needs to know which rule they broke
        refused = _refusal(write) if goes_on else error
        if refused is None:
            raise InputError(
                f"a last message of the assistant that {model.name}'s chat template does not write as it is",
                "one that can be continued", "End with another role, or write the text out yourself",
            ) from error  # fmt: skip
        why = " ".join(str(refused).split())
        raise InputError(f"messages that the chat template refuses ({why})", "roles it knows", "Check roles") from error
    return as_text(text)


def _opened(model: _Reads, chat: list[dict[str, str]], text: str) -> str:
    """A chat that goes on with an empty message. Where a template trims what it writes, the lines between the head of
    the turn and that message are cut off with it: then the turn is opened as for any answer."""
    try:
        opened = model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template may want a message before the answer: then what it wrote stays
        return text
    return str(opened) if opened.rstrip() == text.rstrip() else text


def _refusal(write: Callable[[], str]) -> Exception | None:
    """Why a template does not take messages, where none is gone on with; None where it does."""
    try:
        write()
    except Exception as error:  # as above
        return error
    return None


def _check(model: _Reads, prompt: Prompt, ids: tuple[int, ...]) -> None:
    if not ids:
        raise InputError("a prompt of no tokens", "at least one token", "Type a text")
    if len(ids) > model.sizes.n_ctx:
        raise InputError(
            f"a prompt of {counted(len(ids), 'token')}",
            f"at most {model.sizes.n_ctx} for {model.name}",
            "Shorten the prompt",
        )
    outside = [i for i in ids if not 0 <= i < model.sizes.d_vocab]
    if outside:
        raise InputError(f"token id {outside[0]}", f"ids from 0 to {model.sizes.d_vocab - 1}", "Correct the ids")


def _notes(model: _Reads, prompt: Prompt, written: str) -> Iterator[str]:
    """What to know of a prompt before its numbers are believed. written: the text that was tokenised, "" for ids."""
    if "\r" in written:  # which nobody sees, and which changes every prediction behind it
        yield "The prompt holds a carriage return, with which Windows ends lines: most tokenizers make a token of it."
    if prompt.text is not None:
        yield from _soft_warnings(prompt.text)
        if not prompt.text.startswith(tuple(_specials(model))):  # a template that somebody wrote out
            yield from _as_special(model, "The prompt", prompt.text)
    if prompt.token_ids is not None:
        yield from _padding(model, prompt.token_ids)
    for at, (role, content) in enumerate(prompt.messages or ()):
        yield from _as_special(model, f"Message {at} ({role})", content)
        if content.strip() not in written:
            yield f"Message {at} ({role}) is left out or changed by the model's chat template: see the tokens."
        elif at == len(prompt.messages or ()) - 1 and role == "assistant" and not written.endswith(content):
            yield f"Message {at} ({role}) goes on without the white space at its end: the chat template cuts it off."


def _padding(model: _Reads, ids: Sequence[int]) -> Iterator[str]:
    """What stands at an end of ids as if to fill them up. Where the token has another meaning, one of it is that."""
    pad = getattr(model.tokenizer, "pad_token_id", None)
    if pad is None or set(ids) == {pad}:
        return
    other = {getattr(model.tokenizer, name, None) for name in ("bos_token_id", "eos_token_id", "unk_token_id")}
    for end, row in (("begin", ids), ("end", ids[::-1])):
        n = next(at for at, one in enumerate(row) if one != pad)
        if n > (pad in other):
            tokens = f"{counted(n, 'padding token')} ({model.vocabulary.string(pad)!r})"
            yield f"The ids {end} with {tokens}, read like any others: give the mask."


def _specials(model: _Reads) -> dict[str, int]:
    """Ids of the special tokens by the names that a tokenizer takes out of a text."""
    added = getattr(model.tokenizer, "added_tokens_decoder", {})
    return {one.content: i for i, one in added.items() if one.special and one.content}


def _as_special(model: _Reads, what: str, text: str) -> Iterator[str]:
    """What of a text a tokenizer takes for its special tokens: it may end a turn that people believe to go on."""
    held = {name: i for name, i in _specials(model).items() if name in text}
    taken = {*model.tokenizer.encode(text, add_special_tokens=False)} if held else ()
    named = [name for name, i in held.items() if i in taken]
    if named:
        yield f"{what} holds {named[0]!r}, which is read as the special token of that name and not as its letters."


def _unread(model: _Reads, ids: tuple[int, ...], strings: tuple[str, ...], spans: Spans) -> Iterator[str]:
    """What of a text the model does not get to see: its tokenizer has no token for it."""
    unknown = model.vocabulary.unknown
    pieces = [spans.piece(pos) for pos in range(len(ids))]
    taken = [pos for pos, i in enumerate(ids) if i in unknown and pieces[pos].strip() not in ("", strings[pos].strip())]
    if taken:
        named = ", ".join(repr(pieces[pos]) for pos in taken[:3]) + (", ..." if len(taken) > 3 else "")
        yield (
            f"The tokenizer has no token for {named}: {len(taken)} of {len(ids)} tokens stand for anything unknown "
            f"({strings[taken[0]]!r}), whatever was typed."
        )
    written = b"".join(
        model.vocabulary.bytes_of(i) or string.encode()
        for i, string, (start, end) in zip(ids, strings, spans.ends, strict=True)
        if start < end  # not what was put around the text
    )
    lost = left_out(spans.text, written.decode(errors="replace"))
    if lost:
        what = f"{counted(len(lost), 'character')}, such as {lost[:3]!r}" if len(lost) > 1 else f"{lost!r}"
        yield f"The tokenizer leaves out {what}: the model does not see {'them' if len(lost) > 1 else 'it'}."


def _soft_warnings(text: str) -> Iterator[str]:
    if text != text.rstrip(" "):
        yield "The prompt ends in a space: most tokenizers put the space into the next word, so predictions change."
    if "\\n" in text:
        yield "The prompt holds \\n as two characters, a backslash and an n, which is no line break."
    if text.startswith(MARK):
        yield "The prompt begins with a byte order mark (U+FEFF), which is read as a token of its own."
