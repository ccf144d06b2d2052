"""Spans: which characters of a prompt's text each token holds a part of.

One character may be several tokens (of bytes), so words are looked for in the text and found through spans, never in
token strings put together.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.models.vocabulary import Vocabulary

__all__ = ["Spans", "spans_of"]


@dataclass(frozen=True)
class Spans:
    """A text, and for each token the characters [start, end) that it holds a part of; (n, n) for a token without any,
    such as a BOS that was added."""

    text: str = ""
    ends: tuple[tuple[int, int], ...] = ()

    def touching(self, text: str) -> tuple[int, ...]:
        """Positions of the tokens that a piece of the text touches; none where it is not in it.

        Its last occurrence as whole words (`Ann` not in `Annabel`); where it is none, its last one. Accents are found
        whether they are written as characters of their own or not: nobody sees which.
        """
        forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))
        text = next((form for form in forms if form in self.text), text)
        places = [at for at in range(len(self.text)) if self.text.startswith(text, at)] if text else []
        if not places:
            return ()
        whole = [at for at in places if not _is_cut(self.text, at) and not _is_cut(self.text, at + len(text))]
        at = (whole or places)[-1]
        return tuple(pos for pos, (start, end) in enumerate(self.ends) if start < at + len(text) and end > at)

    @classmethod
    def laid(cls, pieces: Sequence[bytes]) -> "Spans":
        """Of tokens laid end to end, each by its bytes; a byte that is no text is one character, U+FFFD."""
        text = b"".join(pieces).decode(errors="surrogateescape")
        character = [i for i, c in enumerate(text) for _ in range(_width(c))]  # of each byte
        ends, at = [], 0
        for piece in pieces:
            last = at + len(piece)
            ends.append((character[at], character[last - 1] + 1) if piece else (len(text), len(text)))
            at = last
        return cls("".join("\ufffd" if _is_byte(c) else c for c in text), tuple(ends))

    def piece(self, pos: int) -> str:
        """The characters that one token holds a part of."""
        start, end = self.ends[pos]
        return self.text[start:end]


def spans_of(vocabulary: Vocabulary, ids: Sequence[int], text: str | None) -> Spans:
    """Spans of tokens in the text that they were made from, None for ids that came without one.

    By the bytes of the tokens where these make up the text; where a tokenizer changes it (case, accents, a space in
    front), by the tokenizer's own offsets, and where it has none, in the text of the tokens.
    """
    pieces = [vocabulary.bytes_of(token_id) or vocabulary.string(token_id).encode() for token_id in ids]
    whole = b"".join(pieces)
    if text is None or whole == text.encode():
        return Spans.laid(pieces)
    behind = _added(pieces, whole, text.encode())
    if behind:  # behind what was added: BOS
        return _after(Spans.laid(pieces[behind:]), len(ids))
    ends = _by_offsets(vocabulary.tokenizer, text, ids)
    return Spans.laid(pieces) if ends is None else _after(Spans(text, tuple(_joined(text, ends))), len(ids))


def _added(pieces: Sequence[bytes], whole: bytes, text: bytes) -> int:
    """How many tokens stand in front of those that make up a text; 0 where no tokens do."""
    more, n = len(whole) - len(text), 0
    while more > 0 and n < len(pieces):
        more -= len(pieces[n])
        n += 1
    return n if more == 0 and whole.endswith(text) else 0


def _is_cut(text: str, at: int) -> bool:
    """Whether a word goes on across a place between two characters."""
    return 0 < at < len(text) and all(map(_is_of_word, text[at - 1 : at + 1]))


def _is_of_word(character: str) -> bool:
    """A letter, a digit, an accent of its own, or what joins names in code."""
    return character.isalnum() or character == "_" or unicodedata.combining(character) > 0


def _is_byte(character: str) -> bool:
    return "\udc80" <= character <= "\udcff"


def _width(character: str) -> int:
    return 1 if _is_byte(character) else len(character.encode())


def _after(spans: Spans, n: int) -> Spans:
    """With tokens of no text in front, n in all."""
    return Spans(spans.text, ((0, 0),) * (n - len(spans.ends)) + spans.ends)


def _by_offsets(tokenizer: Any, text: str, ids: Sequence[int]) -> list[tuple[int, int]] | None:
    """The tokenizer's own offsets; None where it has none, or reads the text in another way."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    found = list(read["input_ids"])
    return [tuple(ends) for ends in read["offset_mapping"]] if found == list(ids)[len(ids) - len(found) :] else None


def _joined(text: str, ends: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """White space that offsets leave out belongs to the token behind it, as everywhere else."""
    last = 0
    for start, end in ends:
        if last < start and text[last:start].isspace():
            start = last
        last = max(last, end)
        yield start, end
