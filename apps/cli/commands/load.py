"""`workbench load MODEL`: what a model is, and how its self-check came out."""

import argparse

from apps.cli.options import MODEL_HELP, add_json, add_loading, print_json
from apps.cli.parser import Parser
from apps.cli.progress import loading
from workbench.errors import visible
from workbench.loading import bundled

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """The model, and how it is loaded."""
    parser.add_argument("model", metavar="MODEL", nargs="?", default=bundled.NAME, help=MODEL_HELP)
    add_loading(parser)
    add_json(parser)


def command(arguments: argparse.Namespace) -> int:
    """Print its card; 1 where its self-check did not pass."""
    with loading(arguments.model) as report:
        from apps.cli.model import load
        from apps.cli.report.card import identity_text

        model = load(arguments, report)
    if arguments.json:
        from apps.agents.descriptions import described_model

        print_json(described_model(model))
    else:
        print(visible(identity_text(model)))
    return 0 if model.selfcheck is None or model.selfcheck.passed else 1
