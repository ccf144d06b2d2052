"""`workbench mcp`: the workbench as tools for an agent, over standard input and output."""

import argparse
from importlib.util import find_spec

from apps.cli.options import add_model, print_json
from apps.cli.parser import Parser
from apps.cli.progress import loading, say
from workbench.errors import UnavailableError

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """The model, and how it is loaded."""
    parser.add_argument("--json", action="store_true", help="print the schemas of the tools as strict JSON, and leave")
    add_model(parser)


def command(arguments: argparse.Namespace) -> int:
    """Serve until the client is gone."""
    if arguments.json:
        from apps.agents.tools import TOOLS

        listed = [{"name": one.name, "description": one.about, "input_schema": one.schema} for one in TOOLS]
        print_json({"tools": listed})
        return 0
    if find_spec("mcp") is None:
        raise UnavailableError(
            "no installed SDK of the Model Context Protocol",
            "the library mcp",
            "Install it: pip install 'interp-workbench[agents]'",
        )
    from apps.agents.desk import Desk
    from apps.agents.server import serve
    from apps.cli.model import load
    from probes import CATALOG

    def loader() -> object:
        with loading(arguments.model) as report:
            return load(arguments, report)

    say(f"workbench mcp: serving {arguments.model} on standard input and output")
    serve(Desk(loader, CATALOG.with_plugins()))  # type: ignore[arg-type]  # of a Model
    return 0
