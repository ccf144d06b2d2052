"""Words that a tokenizer cuts into several tokens, found in the tokens of a running text.

A multi-token word is a stretch between white space whose middle, once punctuation and digits at its edges are taken
off, is letters only and is exactly covered by two or more tokens (the first may bring the white space before it).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.models.spans import Spans

__all__ = ["Word", "letter_runs", "multi_token_words", "place_masks"]

_STRETCH = re.compile(r"\S+")
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Word:
    """Tokens start ... end (inclusive) of a word of k = end - start + 1 tokens."""

    start: int
    end: int

    @property
    def k(self) -> int:
        """Number of tokens."""
        return self.end - self.start + 1


def multi_token_words(spans: Spans, first: int = 0) -> list[Word]:
    """Multi-token words among tokens `first` ... of a piece."""
    return [word for word in _words(spans, first) if word.k > 1]


def _words(spans: Spans, first: int) -> list[Word]:
    starts, ends, begin = _characters(spans, first)
    found = []
    for stretch in _STRETCH.finditer(spans.text, begin):
        letters = [i for i, c in enumerate(stretch.group()) if c.isalpha()]
        if not letters or not stretch.group()[letters[0] : letters[-1] + 1].isalpha():
            continue
        head, tail = stretch.start() + letters[0], stretch.start() + letters[-1] + 1
        word = _touching(starts, ends, head, tail, first)
        exact = ends[word.end - first] == tail and not spans.text[starts[word.start - first] : head].strip()
        if exact:
            found.append(word)
    return found


def letter_runs(spans: Spans, first: int = 0) -> list[Word]:
    """Runs of letters that two or more tokens share, also inside identifiers: what a strict control stays away from."""
    starts, ends, begin = _characters(spans, first)
    runs = _LETTERS.finditer(spans.text, begin)
    words = [_touching(starts, ends, run.start(), run.end(), first) for run in runs]
    return [word for word in words if word.k > 1]


def _characters(spans: Spans, first: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Where tokens `first` ... start and end in the text, and where the first of them starts."""
    ends = np.array(spans.ends[first:], dtype=np.int64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1], int(ends[0, 0]) if len(ends) else len(spans.text)


def _touching(starts: np.ndarray, ends: np.ndarray, head: int, tail: int, first: int) -> Word:
    """The tokens that hold a part of characters head ... tail-1; several may hold one character."""
    return Word(
        int(np.searchsorted(ends, head, "right")) + first, int(np.searchsorted(starts, tail, "left")) - 1 + first
    )


def place_masks(pieces: Sequence[Spans], offset: int, first: int) -> dict[str, np.ndarray]:
    """Where in the words every token stands, over the tokens of all pieces laid end to end (booleans `[token]`).

    "last": the last token of a word with at least |offset| + 1 tokens; "mid": the second token of one with three or
    more; "run": in a letter run of several tokens.
    """
    total = sum(len(spans.ends) for spans in pieces)
    masks = {name: np.zeros(total, dtype=bool) for name in ("last", "mid", "run")}
    base = 0
    for spans in pieces:
        for word in multi_token_words(spans, first):
            masks["last"][base + word.end] |= word.k >= abs(offset) + 1
            masks["mid"][base + word.start + 1] |= word.k >= 3
        for run in letter_runs(spans, first):
            masks["run"][base + run.start : base + run.end + 1] = True
        base += len(spans.ends)
    return masks
