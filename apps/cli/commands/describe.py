"""`workbench describe ANALYSIS`: what an analysis computes, before it is run."""

import argparse

from apps.cli.parser import Parser
from apps.cli.report.kept_text import described
from probes import CATALOG

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """The analyses."""
    parser.add_argument("analyses", metavar="ANALYSIS", nargs="+", help="a name from `workbench list`")


def command(arguments: argparse.Namespace) -> int:
    """Print one description after the other."""
    catalog = CATALOG.with_plugins()
    print("\n\n".join(described(name, catalog.module(name)) for name in arguments.analyses))
    return 0
