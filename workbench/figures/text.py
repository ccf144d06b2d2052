"""Text that is safe to draw: tokens, head names, numbers, and tick labels over tokens.

A prompt is data. Plotly reads a small HTML in every label, hover text and title, so everything that came from a prompt
or a vocabulary passes through here before it is drawn.
"""

import re
import unicodedata
from collections.abc import Sequence
from textwrap import wrap

__all__ = [
    "escape", "head_name", "number", "pos_ticks", "shorten", "show_text", "show_token", "stretches", "thin", "wrapped",
]  # fmt: skip

_MARKS = (("\n", "↵"), ("\t", "→"), (" ", "·"))
_EMPTY = "∅"
# Characters that look like one of our marks, or like nothing at all although Unicode calls them letters or symbols.
_OUR_MARKS = frozenset("·↵→∅")
_LOOKALIKES = _OUR_MARKS | frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Marks that change or join their neighbours without a shape of their own: joiners and variation selectors.
_SHAPELESS = re.compile("[\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def show_token(text: str, html: bool = True) -> str:
    """A token as it can be shown: every character visible, nothing read as markup.

    A space prints as `·`, a newline as `↵`, a tab as `→`, an empty token as `∅`. Control and bidirectional characters,
    lone surrogates, other kinds of space and real occurrences of those four marks print as `\\uXXXX`. A leading
    combining mark stands on a dotted circle.

    html: escape for Plotly's pseudo-HTML (the default). With False the result is plain text, for Dash components and
    other places that escape by themselves.
    """
    shown = "".join(map(_visible, text)) or _EMPTY
    if unicodedata.combining(shown[0]):
        shown = "◌" + shown
    return escape(shown) if html else shown


def show_text(text: str) -> str:
    """A name or a title, escaped for Plotly's pseudo-HTML: as `show_token`, but spaces and our own marks stay."""
    return escape("".join(c if c == " " or c in _OUR_MARKS else _visible(c) for c in text))


def escape(text: str) -> str:
    """Plain text for Plotly's pseudo-HTML: no tag, no entity, no `%{...}` template and no `$...$` mathematics left."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;"), ("%{", "&#37;{")):
        text = text.replace(raw, safe)
    return text


def head_name(layer: int, head: int) -> str:
    """`L18H6`."""
    return f"L{int(layer)}H{int(head)}"


def stretches(numbers: Sequence[int]) -> str:
    """Rising numbers as the stretches that they make: `0 to 3, 5 and 9 to 11`."""
    ends: list[list[int]] = []
    for one in map(int, numbers):
        if ends and one == ends[-1][1] + 1:
            ends[-1][1] = one
        else:
            ends.append([one, one])
    said = [f"{first}" if first == last else f"{first} to {last}" for first, last in ends]
    return " and ".join(filter(None, [", ".join(said[:-1]), *said[-1:]]))


def number(value: float) -> str:
    """A number for people: three significant digits, thousands grouped; NaN reads "not applicable"."""
    if value != value:
        return "not applicable"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken at spaces, but not at one that a quoted token such as ' Mary' begins
    with."""
    held = re.sub(r"(?<![^\s(])' ", "'\uffff", text)  # a noncharacter, no text holds it
    return [line.replace("\uffff", " ") for line in wrap(held, width)] or [""]


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something is cut."""
    return text if len(text) <= limit else text[: max(1, limit - 1)] + "…"


def thin(count: int, limit: int) -> range:
    """Indices to label: all of them while they fit, else every 2nd, 5th, 10th, 20th, ..."""
    step, scale = 1, 1
    while -(-count // step) > limit:
        step = {1: 2, 2: 5, 5: 10}[step // scale] * scale
        scale = scale * 10 if step == 10 * scale else scale
    return range(0, count, step)


def pos_ticks(
    tokens: Sequence[str], positions: Sequence[int] | None = None, limit: int = 32, width: int = 10
) -> tuple[list[int], list[str]]:
    """Where to put tick labels over tokens, and what they say: ([0, 1], ["0 ⟨BOS⟩", "1 ·Peter"]).

    The first list indexes `tokens` (numeric axes keep equal tokens apart); the labels show `positions`, by default the
    same indices. At most `limit` labels, each token cut to `width` characters.
    """
    positions = range(len(tokens)) if positions is None else positions
    shown = thin(len(tokens), limit)
    labels = [f"{int(positions[i])} {escape(shorten(show_token(tokens[i], html=False), width))}" for i in shown]
    return list(shown), labels


def _visible(character: str) -> str:
    for raw, mark in _MARKS:
        if character == raw:
            return mark
    hidden = unicodedata.category(character)[0] in "CZ" or character in _LOOKALIKES or _SHAPELESS.match(character)
    if not hidden:
        return character
    point = ord(character)
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
