"""`workbench app`: the explorer, in this process."""

import argparse
from pathlib import Path

from apps.cli.options import CHECK_HELP, MODEL_HELP, NETWORK_HELP, add_format
from apps.cli.parser import Parser
from apps.cli.startup import need_surroundings
from workbench.errors import InputError
from workbench.loading import bundled

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """Where it listens, what it offers, and what a visitor may do."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8050)
    parser.add_argument(
        "--base-path", metavar="PATH", default="/", help="where a proxy puts the page, such as /workbench/ (default: /)"
    )
    parser.add_argument(
        "--host-name", metavar="NAME", action="append", default=[],
        help="a name that the page is reached by through a proxy; may be repeated",
    )  # fmt: skip
    parser.add_argument("--model", metavar="M", default=bundled.NAME, help=MODEL_HELP)
    parser.add_argument(
        "--also", metavar="M", action="append", default=[], help="a further model that the page offers; may be repeated"
    )
    add_format(parser)
    parser.add_argument("--any-model", action="store_true", help="let the page load any model by name or path")
    parser.add_argument("--no-token", action="store_true", help="serve without a token in the address")
    parser.add_argument("--allow-files", action="store_true", help="let the page read files and folders by name")
    parser.add_argument(
        "--memory", metavar="GIB", type=float, default=1.0, help="results kept in memory, in GiB (default: 1)"
    )
    parser.add_argument(
        "--disk", metavar="GIB", type=float, default=4.0, help="results kept between restarts, in GiB (default: 4)"
    )
    parser.add_argument(
        "--runs", metavar="FOLDER", default="runs", help="experiment batches that the page shows (default: runs)"
    )
    parser.add_argument("--allow-network", action="store_true", help=NETWORK_HELP)
    parser.add_argument("--check", action="store_true", help=CHECK_HELP)


def command(arguments: argparse.Namespace) -> int:
    """Serve until it is stopped."""
    if not 0 < arguments.port < 65536:
        raise InputError(f"--port {arguments.port}", "a port from 1 to 65535", "Choose another")
    for name in ("memory", "disk"):
        if not 0 <= getattr(arguments, name) <= 1e6:
            raise InputError(f"--{name} {getattr(arguments, name)}", "GiB, such as 0.5", "Choose a number")
    if "://" in arguments.runs:
        from workbench.batch.backing.secret import without_secrets

        raise InputError(
            f"--runs {without_secrets(arguments.runs)}",
            "a folder of this machine: the page looks at its runs every second",
            "Read such a run with `workbench batch status` and `report`",
        )  # fmt: skip
    need_surroundings()
    from apps.explorer import serve
    from workbench.loading.pretrained import usable_device

    usable_device(arguments.device)  # said now, and not by a page that never gets its model

    serve(
        model=arguments.model,
        host=arguments.host,
        port=arguments.port,
        token=not arguments.no_token,
        base_path=arguments.base_path,
        hosts=arguments.host_name,
        models=arguments.also,
        dtype=arguments.dtype,
        device=arguments.device,
        any_model=arguments.any_model,
        any_file=arguments.allow_files,
        allow_network=arguments.allow_network,
        check=arguments.check,
        memory=arguments.memory,
        disk=arguments.disk,
        runs=Path(arguments.runs),
    )
    return 0
