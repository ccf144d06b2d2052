"""`workbench describe ANALYSIS`: what an analysis computes, before it is run."""

import argparse

from apps.cli.options import add_json, print_json
from apps.cli.parser import Parser
from apps.cli.report.kept_text import described
from probes import CATALOG

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """The analyses."""
    parser.add_argument("analyses", metavar="ANALYSIS", nargs="+", help="a name from `workbench list`")
    add_json(parser)


def command(arguments: argparse.Namespace) -> int:
    """Print one description after the other."""
    catalog = CATALOG.with_plugins()
    if arguments.json:
        from apps.agents.descriptions import described_analysis

        print_json({"analyses": [described_analysis(catalog.view(name)) for name in arguments.analyses]})
        return 0
    print("\n\n".join(described(name, catalog.module(name)) for name in arguments.analyses))
    return 0
