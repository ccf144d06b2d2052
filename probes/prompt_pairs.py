"""Pairs of prompts for patching: equal length, and which tokens differ."""

from dataclasses import dataclass
from typing import Any

from workbench.errors import InputError
from workbench.models.model import Model
from workbench.prompt import Prompt, Tokens, tokenise

__all__ = ["PromptPair", "prompt_pair", "segment"]


@dataclass(frozen=True)
class PromptPair:
    """A clean and a corrupt prompt of equal length; differing: positions where their tokens differ."""

    clean: Tokens
    corrupt: Tokens
    differing: tuple[int, ...]

    def describe(self) -> str:
        """The differing tokens, such as `4 ' France' / ' Italy'`."""
        return "; ".join(f"{p} {self.clean.strings[p]!r} / {self.corrupt.strings[p]!r}" for p in self.differing)


def prompt_pair(model: Model, clean: Any, corrupt: Any = "") -> PromptPair:
    """Tokenise and check a pair. An empty corrupt prompt is the clean one with its inner tokens moved half way round.

    Raises InputError for unequal lengths, showing both token by token, and for prompts that do not differ.
    """
    first = tokenise(model, clean)
    second = tokenise(model, corrupt) if corrupt not in ("", None) else _rotated(model, first)
    if len(first) != len(second):
        raise InputError(
            f"a clean prompt of {len(first)} tokens ({_shown(first)}) "
            f"and a corrupt one of {len(second)} ({_shown(second)})",
            "equal lengths",
            "Swap words for others of as many tokens",
        )
    differing = tuple(p for p, (a, b) in enumerate(zip(first.ids, second.ids, strict=True)) if a != b)
    if not differing:
        raise InputError("a corrupt prompt equal to the clean one", "at least one token that differs", "Change a word")
    return PromptPair(first, second, differing)


def _shown(tokens: Tokens) -> str:
    return "|".join(tokens.strings[:24]) + ("|..." if len(tokens) > 24 else "")


def _rotated(model: Model, tokens: Tokens) -> Tokens:
    inner = tokens.ids[1:-1]
    half = len(inner) // 2
    moved = (*inner[half:], *inner[:half])
    if moved == inner:
        raise InputError("no corrupt prompt", "one, since this prompt is too short to be shuffled", "Give one")
    return tokenise(model, Prompt.ids((tokens.ids[0], *moved, tokens.ids[-1])))


def segment(tokens: Tokens, text: str) -> tuple[int, ...]:
    """Positions of the tokens that a piece of the prompt's text touches; the last occurrence.

    Positions may be given instead, as `3,4`. Raises InputError where the text is not in the prompt.
    """
    if text and all(part.strip().lstrip("-").isdigit() for part in text.split(",")):
        positions = tuple(sorted({int(part) % len(tokens) for part in text.split(",")}))
        return positions
    joined = "".join(tokens.strings)
    at = joined.rfind(text) if text else -1
    if at < 0:
        raise InputError(
            f"the text {text!r}", f"a part of the prompt {joined!r}, or positions such as 3,4", "Correct it"
        )
    found, start = [], 0
    for position, string in enumerate(tokens.strings):
        if start < at + len(text) and start + len(string) > at:
            found.append(position)
        start += len(string)
    return tuple(found)
