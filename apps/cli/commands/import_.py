"""`workbench import erasure-probes FILE`: what somebody else trained, held against the model and kept."""

import argparse
import os

from apps.cli.options import add_json, add_model, print_json
from apps.cli.parser import Parser
from apps.cli.progress import loading
from workbench.errors import FileError

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """What is taken up."""
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    about = "hold a readout probe against the model and keep it"
    what.add_parser("erasure-probes", help=about, description=f"{about.capitalize()}.", fill=_erasure_probes)


def _erasure_probes(parser: Parser) -> None:
    from probes.erasure.trained.command import add_import_arguments

    add_import_arguments(parser)
    add_model(parser)
    add_json(parser)


def command(arguments: argparse.Namespace) -> int:
    """Import one file."""
    if not os.path.isfile(arguments.file):  # before a model is loaded for nothing
        raise FileError(f"no file at {arguments.file}", "a probe file", "Check the path")
    from probes.erasure.trained.command import import_cli

    with loading(arguments.model) as report:
        from apps.cli.model import load

        model = load(arguments, report)
    return import_cli(arguments, model, print_json if arguments.json else None)
