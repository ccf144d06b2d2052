"""`workbench run ANALYSIS ...`: what it takes, and what can be said before a model is loaded."""

import argparse
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from apps.cli.options import add_files, add_model, add_prompt
from apps.cli.parser import Parser
from apps.cli.progress import loading
from apps.cli.report.places import Places
from probes import CATALOG
from workbench.errors import InputError

__all__ = ["arguments", "command"]

_EPILOG = "Each parameter of an analysis is an option: `workbench run ANALYSIS --help` describes them."


def arguments(parser: Parser) -> None:
    """Analyses, their parameters, the prompt, interventions, files and the model."""
    parser.epilog, parser.anywhere = _EPILOG, "analyses"
    parser.add_argument("analyses", metavar="ANALYSIS", nargs="*", help="a name from `workbench list`; may be repeated")
    parser.add_argument("-h", "--help", nargs=0, action=_Help, help="show this, and describe each ANALYSIS")
    parser.add_argument("--list", action="store_true", help="list the analyses, one a line, and leave")
    add_prompt(parser)
    parser.add_argument(
        "--intervene", metavar="WHAT", action="append", default=[],
        help="change the model in every pass: L18H6, 'L18H6 mean', '9 cannot see 3'; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--param", metavar="NAME=VALUE", action="append", default=[],
        help="a parameter; ANALYSIS.NAME=VALUE gives it to one of several; may be repeated",
    )  # fmt: skip
    add_files(parser, "the result", several="; of several analyses: a folder")
    add_model(parser)
    if views := _named(parser.words):
        from apps.cli.parameters import add_parameters

        add_parameters(parser, views)


def _named(words: Sequence[str]) -> list[Any]:
    """The views of the analyses among the words of a command line; InputError where the first words name none."""
    catalog = CATALOG.with_plugins()
    first = list(takewhile(lambda word: not word.startswith("-"), words))
    return [catalog.view(name) for name in dict.fromkeys(words) if name in catalog.names or name in first]


class _Help(argparse.Action):
    """`workbench run --help`; with analyses, each of them and its parameters too."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        parser.print_help()
        for view in _named(parser.words):
            from apps.cli.report.description import description

            print("\n" + description(view))
        parser.exit()


def command(arguments: argparse.Namespace) -> int:
    """Check everything that was typed, load the model, and run."""
    catalog, names = CATALOG.with_plugins(), arguments.analyses
    if arguments.list:
        print("\n".join(catalog.names))
        return 0
    if not names:
        raise InputError("no analysis", f"one of {', '.join(catalog.names)}", "Name one after `workbench run`")
    views = [catalog.view(name) for name in names]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"{twice} twice", "each analysis once", "Leave one out")
    from apps.cli import execution, interventions, parameters
    from apps.cli.prompt import prompts_of

    given, of_file = prompts_of(arguments), bool(arguments.prompt_file or arguments.pair_file)
    places = Places(arguments.out, arguments.figure, names).of_prompts(len(given), of_file)
    works = [
        execution.Work(parameters.asked(views, arguments.param, one.parameters), one.prompt, place)
        for one, place in zip(given, places, strict=True)
    ]
    execution.need_prompt(works[0].asked, works[0].prompt)
    phrases = interventions.phrases_of(arguments)
    works[0].places.need_writable((arguments.prompt_file, arguments.pair_file, arguments.chat))
    with loading(arguments.model) as report:
        from apps.cli.model import load

        model = load(arguments, report)
        means = interventions.means_of(phrases, model, report)
    changes = lambda prompt: interventions.interventions_of(phrases, model, prompt, means)
    options = {"allow_network": arguments.allow_network}
    return execution.execute_all(works, model, changes, as_json=arguments.json, **options)
