"""`workbench compare BEFORE.nc AFTER.nc`: one saved result subtracted from another of the same analysis."""

import argparse

from apps.cli.options import add_files
from apps.cli.parser import Parser
from apps.cli.report.places import Places
from probes import CATALOG
from workbench.errors import InputError

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """Two files, and where their difference is saved."""
    parser.add_argument("before", metavar="BEFORE.nc", help="saved by `workbench run --out`")
    parser.add_argument("after", metavar="AFTER.nc", help="the same analysis of another prompt or model")
    add_files(parser, "the difference")


def command(arguments: argparse.Namespace) -> int:
    """Subtract, print and save."""
    places = Places(arguments.out, arguments.figure)
    places.need_writable((arguments.before, arguments.after))
    from apps.cli.report.delivery import deliver
    from workbench.analysis.compare import difference, of_differences
    from workbench.analysis.results import open_result
    from workbench.storage.record import record_of

    before, after = open_result(arguments.before), open_result(arguments.after)
    name = record_of(after)["analysis"]
    if name is None:
        raise InputError(f"no analysis in {arguments.after}", "a result of `workbench run`", "Compute it again")
    view = of_differences(CATALOG.with_plugins().view(name))
    change = difference(before, after)
    deliver(view, change, view.shown(), places, arguments.json)
    return 0
