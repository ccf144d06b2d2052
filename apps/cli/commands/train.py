"""`workbench train erasure-probes`: what an analysis must learn from data."""

import argparse

from apps.cli.options import add_model
from apps.cli.parser import Parser
from apps.cli.progress import loading, say
from apps.cli.signals import STOPS, stop_code, terminable

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """What is trained."""
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    about = "train the readout probes of token-erasure"
    what.add_parser("erasure-probes", help=about, description=f"{about.capitalize()}.", fill=_erasure_probes)


def _erasure_probes(parser: Parser) -> None:
    from probes.erasure.trained.command import add_arguments

    add_arguments(parser)
    add_model(parser)


def command(arguments: argparse.Namespace) -> int:
    """Train as asked."""
    from probes.erasure.trained.command import asked, cli

    wanted = asked(arguments)  # what it is trained on, before a model is loaded for nothing
    with loading(arguments.model) as report:
        from apps.cli.model import load

        model = load(arguments, report)
    try:
        with terminable():
            return cli(wanted, model)
    except STOPS as stop:
        say("workbench: stopped; the probes that are done are kept, and the same command goes on with the others")
        return stop_code(stop)
