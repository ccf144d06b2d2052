"""`workbench bench`: what our passes cost."""

import argparse
from typing import Any

from apps.cli.options import add_json, print_json
from apps.cli.parser import Parser
from apps.cli.progress import progress
from workbench.errors import WorkbenchError
from workbench.files import need_writable
from workbench.storage.endings import need_ending

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """How much, and where it is saved."""
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--out", metavar="FILE.json", help="where to save (default: bench-DATE.json here)")
    add_json(parser)


def command(arguments: argparse.Namespace) -> int:
    """Measure, print and save."""
    if arguments.out is not None:  # before anything is imported, let alone measured
        need_ending(arguments.out, {"json": ""})
        need_writable(arguments.out)
    from apps.bench.table import bench, default_out

    out = arguments.out or default_out()
    need_writable(out)
    made: list[dict[str, Any]] = []
    try:
        with progress() as report:
            bench(out, quick=arguments.quick, progress=report, show=made.append if arguments.json else None)
    except WorkbenchError:
        if made:  # not saved, as on a full disk, and yet not lost
            print_json(made[0] | {"saved": []})
        raise
    if arguments.json:
        print_json(made[0] | {"saved": [str(out)]})
    return 0
