"""Vocabulary: what the ids of tokens mean, for people.

A token is its id. Many ids hold bytes that are no text of their own (a part of a character), and text does not lead
back to them: 313 of the default model's 49,152. So ids travel, and text is shown: bytes without a text as `⟨E6 97⟩`.
Where a token is asked for in writing, `#17` names an id.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from itertools import islice
from typing import Any

from workbench.errors import InputError

__all__ = ["Vocabulary", "by_id", "left_out", "show_bytes"]

_NUL = b"\0"  # a character, but no file format that results are saved in takes it inside a text
_ID = re.compile(r"#(\d{1,9})")
_BYTES = re.compile(r"⟨([0-9A-F]{2}(?: [0-9A-F]{2})*)⟩")
_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how sentencepiece writes a byte
_SPACE = "▁"  # and a space
_TRIED = 20
_LEADS = ("\n", "|", "0", "a")  # what may stand in front of a text without being joined to it


def by_id(token_id: int) -> str:
    """How a token is asked for by its id: `#17`."""
    return f"#{int(token_id)}"


def show_bytes(raw: bytes) -> str:
    """Bytes as text; those that are no text (and NUL) as `⟨E6 97⟩`."""
    shown, rest, pending = "", raw, b""
    while rest:
        good, bad, rest = _split(rest)
        if good and pending:
            shown, pending = shown + _bracketed(pending), b""
        shown, pending = shown + good, pending + bad
    return shown + (_bracketed(pending) if pending else "")


def _split(raw: bytes) -> tuple[str, bytes, bytes]:
    """Text that bytes begin with, the bytes behind it that are none, and the rest."""
    end = raw.find(_NUL) if _NUL in raw else len(raw)
    try:
        return raw[:end].decode(), raw[end : end + 1], raw[end + 1 :]
    except UnicodeDecodeError as error:
        return raw[: error.start].decode(), raw[error.start : error.end], raw[error.end :]


def _bracketed(raw: bytes) -> str:
    return f"⟨{raw.hex(' ').upper()}⟩"


def left_out(text: str, written: str) -> str:
    """Visible characters of a text that its tokens leave out, where these are otherwise the text as it was typed.

    A tokenizer's own offsets do not say it: they close up over what was left out.
    """
    wanted, lost = iter("".join(written.split())), []
    following = next(wanted, None)
    for character in text:
        if character == following:
            following = next(wanted, None)
        elif not character.isspace() and character.isprintable():
            lost.append(character)
    return "" if following is not None else "".join(lost)  # rewritten: lower case, without accents


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What token ids mean, without the model. Ids without a text (no tokenizer, a padded vocabulary) print as `#17`."""

    tokenizer: Any
    size: int

    def string(self, token_id: int) -> str:
        """One token for people: its text, with bytes that are no text of their own as `⟨E6 97⟩`."""
        return show_bytes(self.bytes_of(token_id)) or by_id(token_id)

    def text(self, token_ids: Iterable[int]) -> str:
        """Several tokens for people, characters put together from their bytes."""
        return show_bytes(b"".join(self.bytes_of(token_id) or by_id(token_id).encode() for token_id in token_ids))

    def bytes_of(self, token_id: int) -> bytes:
        """What one token stands for, UTF-8; empty where there is no such token or no tokenizer."""
        if self.tokenizer is None:
            return b""
        decode = lambda: self.tokenizer.decode(
            [int(token_id)], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if not hasattr(self.tokenizer, "convert_ids_to_tokens"):  # a small one of somebody's own
            return decode().encode()
        piece = self.tokenizer.convert_ids_to_tokens(int(token_id))
        if piece is None:
            return b""
        text = decode()
        if piece.startswith(_SPACE):  # which decoding one token would cut off
            return piece.replace(_SPACE, " ").encode()
        if text and "\ufffd" not in text:
            return text.encode()
        if fallback := _FALLBACK.fullmatch(piece):
            return bytes.fromhex(fallback[1])
        if not text and len(piece) == 1 and ord(piece) < 256:  # ByT5's bytes: their decoder drops what is no text
            return bytes([ord(piece)])
        known = _byte_of_character()
        return bytes(known[c] for c in piece) if all(c in known for c in piece) else piece.encode()

    @property
    def digest(self) -> str:
        """64 hex digits of how the tokenizer makes tokens of text: what is asked for in text depends on it."""
        return sha256(f"{self._pieces} {self.prefix}".encode()).hexdigest()

    @property
    def _pieces(self) -> str:
        """Of its pieces and rules, but how it pads and cuts, which each call sets anew."""
        stamp = self._stamp
        if stamp not in self._told:
            self._told.clear()
            self._told[stamp] = sha256(self._rules().encode(errors="surrogatepass")).hexdigest()
        return self._told[stamp]

    @cached_property
    def _told(self) -> dict[str, str]:
        """The hash of its rules by their stamp: to write them all out takes a tenth of a second."""
        return {}

    @property
    def _stamp(self) -> str:
        """What a held tokenizer is changed by: tokens that are added, and the parts that its backend is put together
        of."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        parts = [getattr(backend, part, None) for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")]
        n = len(self.tokenizer) if hasattr(self.tokenizer, "__len__") else 0
        return f"{n} {parts}"

    def _rules(self) -> str:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            return str(backend.to_str().partition('"added_tokens"')[2])
        own: dict[str, int] = getattr(self.tokenizer, "get_vocab", dict)()
        return json.dumps([type(self.tokenizer).__qualname__, sorted(own.items(), key=repr)], default=repr)

    @property
    def prefix(self) -> tuple[int, ...]:
        """What the tokenizer itself puts in front of a text: its BOS token, another special token, or nothing.

        Asked each time and not read off a setting: settings go by many names, and a held tokenizer may be changed.
        """
        if not hasattr(self.tokenizer, "encode"):
            return ()
        for text in self._plain_texts():
            plain = list(self.tokenizer.encode(text, add_special_tokens=False))
            whole = list(self.tokenizer.encode(text, add_special_tokens=True))
            for start in range(len(whole) - len(plain) + 1 if plain else 0):
                if whole[start : start + len(plain)] == plain:
                    return tuple(int(i) for i in whole[:start])
        return ()

    def _plain_texts(self) -> Iterator[str]:
        """Texts to ask a tokenizer of. One of digits, or of moves in a game, knows no "a": then names of its tokens."""
        yield "a"
        special = {*getattr(self.tokenizer, "all_special_tokens", ())}
        names = (name for name in self._by_name if name not in special and name.isascii() and name.isprintable())
        yield from islice(names, _TRIED)

    @property
    def front(self) -> tuple[int, ...]:
        """What stands in front of a text that is to begin with a BOS token: what the tokenizer itself puts there, else
        its BOS token; nothing where it has none."""
        own = getattr(self.tokenizer, "bos_token_id", None)
        return self.prefix or (() if own is None else (int(own),))

    def token(self, text: str) -> int:
        """The id of a text that is exactly one token; `#17` names an id, `⟨E6 97⟩` bytes.

        Raises InputError where the text is several tokens, and offers the first.
        """
        ids = self.tokens(text)
        if len(ids) != 1:
            raise InputError(
                f"the target {text!r}, which is {len(ids)} tokens",
                "a text that is one token",
                f"Mind the space, or use its first token {self.string(ids[0])!r}",
            )
        return ids[0]

    def tokens(self, text: str) -> tuple[int, ...]:
        """The ids of a text: `#17` names an id, `#17 #18` two, `⟨E6 97⟩` the token of these bytes.

        Raises InputError for an empty text, an id outside the vocabulary, and text where there is no tokenizer.
        """
        words = text.split()
        if words and all(_ID.fullmatch(word) for word in words):
            return self.known([int(word[1:]) for word in words])
        if self.tokenizer is None:
            raise InputError(
                f"the token {text!r}", f"an id such as #17, below {self.size}", "This model has no tokenizer"
            )
        if _BYTES.search(text) and (found := self._of_bytes(_unbracketed(text))) is not None:
            return (found,)
        try:
            ids = self._following(text)
        except (UnicodeError, TypeError) as error:  # a lone surrogate is no text
            raise InputError(f"the target {text!r}", "text, or an id such as #17", "Correct it") from error
        if not ids:
            raise InputError("an empty target", "at least one token", "Type a text, or an id such as #17")
        return ids

    @property
    def unknown(self) -> set[int]:
        """Ids that stand for anything unknown: the one that a tokenizer names, and the one that its model takes."""
        named = {getattr(self.tokenizer, "unk_token_id", None)}
        token = getattr(getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None), "unk_token", None)
        if token is not None:
            named.add(self.tokenizer.convert_tokens_to_ids(token))
        return {i for i in named if i is not None}

    def reads(self, text: str) -> bool:
        """Whether the tokens of a text stand for all of it, though perhaps in lower case or without accents; true of
        what is written by ids or bytes."""
        if self.tokenizer is None or _BYTES.search(text) or all(_ID.fullmatch(word) for word in text.split()):
            return True
        ids = self._following(text)
        if any(ids.count(i) > text.count(self.string(i)) for i in self.unknown):
            return False
        return not left_out(text, self._bytes(ids).decode(errors="replace"))

    def _following(self, text: str) -> tuple[int, ...]:
        """The ids of a text that goes on behind another one.

        Many tokenizers (Llama 2's, Mistral's) put a space in front of whatever they read, so that " Paris" alone comes
        out as a space and " Paris". What they put there is cut off with something that stands in front; that it is the
        text and nothing else is seen from the tokens' own bytes.
        """
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        if self._bytes(ids) != b" " + text.encode():
            return ids
        for lead in _LEADS:
            before = tuple(self.tokenizer.encode(lead, add_special_tokens=False))
            whole = tuple(self.tokenizer.encode(lead + text, add_special_tokens=False))
            behind = whole[len(before) :]
            if whole[: len(before)] == before and self._bytes(behind) == text.encode():
                return behind
        return ids

    def _bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join(self.bytes_of(token_id) for token_id in ids)

    def known(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The ids; InputError for one outside the vocabulary."""
        outside = [i for i in token_ids if not 0 <= i < self.size]
        if outside:
            raise InputError(f"token id {outside[0]}", f"ids from 0 to {self.size - 1}", "Correct the ids")
        return tuple(token_ids)

    @cached_property
    def _by_name(self) -> dict[str, int]:
        """Ids by the names that the tokenizer has for them; to ask it takes a tenth of a second."""
        return dict(getattr(self.tokenizer, "get_vocab", dict)())

    def _of_bytes(self, raw: bytes) -> int | None:
        """The id of the token of these bytes. Where a byte is written `<0xE9>`, "é" is the name of a letter."""
        character = {byte: c for c, byte in _byte_of_character().items()}
        names = ["".join(character[byte] for byte in raw)]
        names += [f"<0x{raw[0]:02X}>", chr(raw[0])] if len(raw) == 1 else []
        found = (self._by_name[name] for name in names if name in self._by_name)
        return next((token_id for token_id in found if self.bytes_of(token_id) == raw), None)


def _unbracketed(text: str) -> bytes:
    """What `show_bytes` made a text of."""
    parts = _BYTES.split(text)  # text and hex digits by turns
    return b"".join(bytes.fromhex(part) if i % 2 else part.encode(errors="replace") for i, part in enumerate(parts))


@cache
def _byte_of_character() -> dict[str, int]:
    """The printable characters by which byte-level tokenizers write bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}
