"""The views by the question they answer: that of the room in which their analysis lives."""

import sys
from collections.abc import Mapping
from typing import NamedTuple

from workbench.analysis.view import View

__all__ = ["Room", "room_of", "rooms"]

_OURS = "probes"
_ELSEWHERE = "Analyses from elsewhere"


class Room(NamedTuple):
    """A group of views. label: a word for it."""

    name: str
    label: str
    question: str


def room_of(view: View) -> Room:
    """A room of `probes`, which says its QUESTION; for analyses from elsewhere the package that brought them."""
    top, _, inside = view.analysis.__module__.partition(".")
    name = f"{top}.{inside.partition('.')[0]}" if top == _OURS and inside else top
    question = getattr(sys.modules.get(name), "QUESTION", _ELSEWHERE)
    return Room(name, name.rpartition(".")[2].strip("_").capitalize(), question)


def rooms(views: Mapping[str, View]) -> dict[Room, dict[str, View]]:
    """The views of each room, rooms and views in the order of the catalog."""
    found: dict[Room, dict[str, View]] = {}
    for name, view in views.items():
        found.setdefault(room_of(view), {})[name] = view
    return found
