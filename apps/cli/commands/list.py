"""`workbench list`: the analyses by room. Names cost nothing; --long imports each for its question."""

import argparse
import ast
from importlib.util import find_spec
from pathlib import Path

from apps.cli.options import add_json, print_json
from apps.cli.parser import Parser
from probes import CATALOG
from workbench.syntax import parse

__all__ = ["arguments", "by_room", "command"]

_OURS = "probes"


def arguments(parser: Parser) -> None:
    """How much is said of each."""
    parser.add_argument("--long", action="store_true", help="with the question that each answers")
    add_json(parser)


def command(arguments: argparse.Namespace) -> int:
    """Print them."""
    catalog = CATALOG.with_plugins()
    rooms = by_room({name: catalog.module(name) for name in catalog.names})
    if arguments.json:
        said = [{"name": name, "room": room.rpartition(".")[2]} for room, names in rooms.items() for name in names]
        for one in said if arguments.long else ():
            one["question"] = catalog.view(one["name"]).question
        print_json({"analyses": said})
        return 0
    width = max(map(len, catalog.names))
    blocks = []
    for room, names in rooms.items():
        lines = [f"  {name:<{width}}  {catalog.view(name).question}" for name in names] if arguments.long else []
        blocks.append("\n".join([_heading(room), *(lines or [f"  {name}" for name in names])]))
    print("\n\n".join(blocks))
    return 0


def by_room(modules: dict[str, str]) -> dict[str, list[str]]:
    """Names of analyses by room, in the order of the first of each; what others installed is a room of its own."""
    rooms: dict[str, list[str]] = {}
    for name, module in modules.items():
        top, *inside = module.split(".")
        rooms.setdefault(".".join([top, *inside[:1]]) if top == _OURS else top, []).append(name)
    return rooms


def _heading(room: str) -> str:
    """`attention: Where heads look, and what kind of head each is.`: the first words of the room's docstring."""
    spec = find_spec(room) if room.startswith(f"{_OURS}.") else None  # others' packages are not imported for a list
    if spec is None or spec.origin is None:
        return room
    said = ast.get_docstring(parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    first = " ".join(said.partition("\n\n")[0].split())
    return ": ".join(filter(None, [room.partition(".")[2], first]))
