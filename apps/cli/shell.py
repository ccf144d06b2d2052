"""main(): finds the command, carries it out, and turns what goes wrong into one sentence and an exit code.

Every error that a user can act on is one line on stderr; the exit code is 2 for bad input, 130 after Ctrl+C (143 after
SIGTERM, 129 where the terminal went away), 1 for the rest.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from apps.cli.mistakes import said_of
from apps.cli.parser import Parser
from apps.cli.progress import say
from apps.cli.signals import STOPS, stop_code
from apps.cli.startup import let_go_at_exit, need_folder, need_surroundings, thawed, uncollected, wait_asleep
from workbench import __version__
from workbench.errors import InputError, WorkbenchError

__all__ = ["COMMANDS", "main"]

# What `workbench --help` lists, in this order; each lies in the file of its name in `commands/`.
COMMANDS = {
    "load": "load a model and show what it is and how its self-check came out",
    "models": "list the models that load by name, show all that is known of one; fetch or verify the default one",
    "cache": "show what is kept between runs, by kind, and empty it",
    "list": "list the analyses, by room",
    "describe": "say what an analysis computes, its limits and its parameters",
    "run": "run analyses, print what came out, and save it where asked",
    "explain": "go from a prompt to a tested circuit and a report: what computes this, and how sure that is",
    "batch": "run analyses over many prompts and models, without losing a result",
    "compare": "subtract one saved result from another of the same analysis",
    "train": "train what an analysis must learn from data, or a toy",
    "import": "take up what somebody else trained",
    "bench": "measure our passes against a bare forward; print a table, save JSON",
    "mcp": "answer an agent over standard input and output (Model Context Protocol)",
    "app": "start the explorer in this process and print its address",
}
_FILES = {"import": "import_"}  # a word of Python's own
_LIGHT = ("cache", "list", "describe")  # that answer without the libraries, or ask when they need them
_SIGPIPE = 141  # what a shell reports for a program that wrote into a closed pipe


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. argv: the words after `workbench` (default: the process's own)."""
    _open_streams()
    wait_asleep()
    let_go_at_exit()
    try:
        need_folder()  # options of `run` are those of analyses, which import the libraries
        with thawed():
            with uncollected():
                arguments = _parser().parse_args(argv)
            code = arguments.command(arguments)
        sys.stdout.flush()
        return code or 0
    except WorkbenchError as error:
        return _refused(error)
    except STOPS as stop:
        say("workbench: stopped")
        return stop_code(stop)
    except BrokenPipeError:
        # The reader has what it wanted. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGPIPE
    except Exception as error:
        return _refused(said_of(error))


def _refused(error: WorkbenchError) -> int:
    say(f"workbench: {' '.join(str(error).split())}")
    return 2 if isinstance(error, InputError) else 1


def _open_streams() -> None:
    """Streams that a script closed (`<&- >&- 2>&-`) lead nowhere, so that no file we open takes their place; and a
    token that the terminal's encoding does not have is printed as its code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for the whole process)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a notebook or a test puts there may not have it
            stream.reconfigure(errors="backslashreplace")


def _parser() -> Parser:
    parser = Parser(prog="workbench", description="Look inside transformer language models.")
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        said = f"{about[0].upper()}{about[1:]}."
        own_help = name == "run"
        commands.add_parser(name, help=about, description=said, fill=partial(_fill, name), add_help=not own_help)
    return parser


def _fill(name: str, parser: Parser) -> None:
    """Import the file of a command, for what it takes and does; libraries with it, but for the lightest."""
    if name not in _LIGHT:
        need_surroundings()
    command = import_module(f"apps.cli.commands.{_FILES.get(name, name)}")
    parser.set_defaults(command=command.command)
    command.arguments(parser)
