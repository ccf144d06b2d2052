"""Words that a tokenizer cuts into several tokens, found in the tokens of a running text.

A multi-token word is a stretch between white space whose middle, once punctuation and digits at its edges are taken
off, is letters only and is exactly covered by two or more tokens (the first may bring the white space before it).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def _ends(strings: Sequence[str]) -> np.ndarray:
    """Character positions between the tokens, `[token + 1]`."""
    return np.concatenate([[0], np.cumsum([len(s) for s in strings])])


def _cover(ends: np.ndarray, strings: Sequence[str], first: int, last: int) -> Word | None:
    """The tokens that cover characters first ... last-1 exactly, white space in front of them aside."""
    start, end = int(np.searchsorted(ends, first, "right")) - 1, int(np.searchsorted(ends, last, "left")) - 1
    front = strings[start][: first - ends[start]]
    return Word(start, end) if ends[end + 1] == last and not front.strip() else None


def multi_token_words(strings: Sequence[str], first: int = 0) -> list[Word]:
    """Multi-token words among tokens `first` ... of a piece; strings: the text of each token."""
    return [word for word in _words(strings, first) if word.k > 1]


def _words(strings: Sequence[str], first: int) -> list[Word]:
    text, ends = "".join(strings[first:]), _ends(strings[first:])
    found = []
    for stretch in _STRETCH.finditer(text):
        letters = [i for i, c in enumerate(stretch.group()) if c.isalpha()]
        if not letters or not stretch.group()[letters[0] : letters[-1] + 1].isalpha():
            continue
        cover = _cover(ends, strings[first:], stretch.start() + letters[0], stretch.start() + letters[-1] + 1)
        if cover is not None:
            found.append(Word(cover.start + first, cover.end + first))
    return found


def letter_runs(strings: Sequence[str], first: int = 0) -> list[Word]:
    """Runs of letters that two or more tokens share, also inside identifiers: what a strict control stays away from."""
    text, ends = "".join(strings[first:]), _ends(strings[first:])
    found = []
    for run in _LETTERS.finditer(text):
        start = int(np.searchsorted(ends, run.start(), "right")) - 1 + first
        end = int(np.searchsorted(ends, run.end(), "left")) - 1 + first
        if end > start:
            found.append(Word(start, end))
    return found


def place_masks(pieces: Sequence[Sequence[str]], offset: int, first: int) -> dict[str, np.ndarray]:
    """Where in the words every token stands, over the tokens of all pieces laid end to end (booleans `[token]`).

    "last": the last token of a word with at least |offset| + 1 tokens; "mid": the second token of one with three or
    more; "run": in a letter run of several tokens.
    """
    total = sum(map(len, pieces))
    masks = {name: np.zeros(total, dtype=bool) for name in ("last", "mid", "run")}
    base = 0
    for strings in pieces:
        for word in multi_token_words(strings, first):
            masks["last"][base + word.end] |= word.k >= abs(offset) + 1
            masks["mid"][base + word.start + 1] |= word.k >= 3
        for run in letter_runs(strings, first):
            masks["run"][base + run.start : base + run.end + 1] = True
        base += len(strings)
    return masks
