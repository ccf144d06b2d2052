"""`workbench cache`: what is kept between runs, and how large it is; `cache empty KIND` deletes what is of a kind."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from apps.cli.options import add_json, print_json
from apps.cli.parser import Parser
from workbench.cache import KINDS, empty, kept
from workbench.errors import visible
from workbench.files import cache_dir

if TYPE_CHECKING:
    from workbench.cache import Kept

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """Nothing, or what to delete."""
    add_json(parser)
    actions = parser.add_subparsers(metavar="ACTION")
    about = "delete what is kept of some kinds; it is computed or fetched again when it is next asked for"
    action = actions.add_parser("empty", help=about, description=f"{about.capitalize()}.")
    action.add_argument("kinds", metavar="KIND", nargs="+", help=", ".join(KINDS))
    action.set_defaults(command=_empty)
    add_json(action)


def command(arguments: argparse.Namespace) -> int:
    """Print it."""
    found = kept()
    if arguments.json:
        print_json({"folder": str(cache_dir()), "kept": [asdict(one) for one in found]})
        return 0
    print(visible(f"In {cache_dir()}:" if found else f"Nothing is kept in {cache_dir()}."))
    _print(found)
    print("`workbench cache empty KIND` deletes a kind; `workbench app --disk GIB` bounds what the page keeps.")
    return 0


def _empty(arguments: argparse.Namespace) -> int:
    gone = empty(arguments.kinds)
    if arguments.json:
        print_json({"folder": str(cache_dir()), "deleted": [asdict(one) for one in gone]})
        return 0
    print("Deleted:" if gone else "There was nothing to delete.")
    _print(gone)
    return 0


def _print(found: "Sequence[Kept]") -> None:
    for one in found:
        files = "1 file " if one.files == 1 else f"{one.files:,} files"
        print(f"  {one.kind:<12} {one.nbytes / 1e6:>9,.1f} MB  {files:<13}  {one.about}")
