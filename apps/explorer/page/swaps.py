"""A state of the prompt that is compared, in the place of one of the shown prompt: the study that a drag asks for."""

from collections.abc import Mapping
from typing import Any

from apps.explorer.engine.engine import Engine
from apps.explorer.page.news import request_of
from apps.explorer.page.state import Shown, Swapped
from workbench.analysis.compare import align
from workbench.analysis.view import Claim
from workbench.errors import InputError, WorkbenchError

__all__ = ["STUDY", "can_give", "is_of_both", "offered", "pair_of", "swap"]

STUDY = "change-and-see"


def can_give(engine: Engine, shown: Shown | None, other: Shown | None) -> bool:
    """Whether the other run has states that the shown one could take: those of another text, on the same model as it
    is. A message of a chat is no text that a study could be given."""
    if shown is None or other is None or STUDY not in engine.standing:
        return False
    alike = shown.model == other.model and not (shown.edits or other.edits or shown.chat)
    return alike and shown.text != other.text


def is_of_both(name: str, shown: Shown, other: Shown) -> bool:
    """Whether a study of the shown prompt takes from the other one already, so that it is not run on that, too."""
    given = shown.params.get(name, {})
    return other.text != shown.text and other.text in (given.get("giver"), given.get("corrupt"))


def pair_of(shown: Shown | None, other: Shown | None) -> str:
    """The text of the other run, where a study of a pair can hold the two against each other; "" where it cannot."""
    if shown is None or other is None or shown.model != other.model or shown.chat or other.chat or shown.edits:
        return ""
    return other.text if len(shown.tokens) == len(other.tokens) and shown.tokens != other.tokens else ""


def offered(engine: Engine, shown: Shown, other: Shown | None, selection: Mapping[str, Any]) -> list[Claim]:
    """The swap of the selected state for that of its counterpart; none where it has none."""
    pos, depth = selection.get("pos"), selection.get("depth")
    if other is None or pos is None or depth is None or not can_give(engine, shown, other):
        return []
    try:
        before, after = (request_of(engine, run).tokens.ids for run in (other, shown))
        origin = align(before, after)[pos] if pos < len(after) else -1
        return [swap(shown, other, Swapped(depth=depth, pos=pos, origin=origin))] if origin >= 0 else []
    except WorkbenchError:
        return []


def swap(shown: Shown, other: Shown, asked: Swapped) -> Claim:
    """What turns to the study. InputError where a state is asked for that no block reads, or a token that is not there.

    asked: where the state goes to, and the token of the other prompt that it comes from, at the same depth.
    """
    if not isinstance(asked.depth, int) or asked.depth >= shown.sizes.n_layers:
        raise InputError(
            f"the state at depth {asked.depth:g}",
            f"one in front of a block, at depth 0 to {shown.sizes.n_layers - 1}",
            "Take one further down",
        )
    if asked.pos >= len(shown.tokens) or asked.origin >= len(other.tokens):
        raise InputError(
            f"token {asked.origin} for token {asked.pos}",
            f"tokens of prompts of {len(other.tokens)} and {len(shown.tokens)}",
            "Choose one that is there",
        )
    params = {"units": f"L{asked.depth} pos {asked.pos}", "how": "swap", "giver": other.text, "origin": asked.origin}
    return Claim(f"Swap in the compared prompt's state of token {asked.origin} and see", params, study=STUDY)
