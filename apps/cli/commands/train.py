"""`workbench train erasure-probes`: what an analysis must learn from data; `workbench train toy:NAME`: a toy."""

import argparse
import json
from typing import TYPE_CHECKING

from apps.cli.options import add_json, add_model, print_json
from apps.cli.parser import Parser
from apps.cli.progress import loading, say
from apps.cli.signals import STOPS, stop_code, terminable
from workbench.errors import visible

if TYPE_CHECKING:
    from workbench.loading.toys.training import Evaluated

__all__ = ["arguments", "command"]

_TOY = "toy:"
_BAR = 24  # characters of a bar of the loss


def arguments(parser: Parser) -> None:
    """What is trained."""
    if any(word.startswith(_TOY) for word in parser.words):  # a name with settings is no word of a list
        _toy(parser)
        return
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    about = "train the readout probes of token-erasure"
    what.add_parser("erasure-probes", help=about, description=f"{about.capitalize()}.", fill=_erasure_probes)
    about = "train a toy, such as toy:induction or toy:induction,n_heads=4,seed=1, and show how its loss falls"
    what.add_parser(f"{_TOY}NAME", help=about, description=f"{about.capitalize()}.")


def _erasure_probes(parser: Parser) -> None:
    from probes.erasure.trained.command import add_arguments

    add_arguments(parser)
    add_model(parser)
    add_json(parser)


def _toy(parser: Parser) -> None:
    parser.add_argument("toy", metavar="toy:NAME[,SETTING=VALUE...]", help="a task, and what differs from its recipe")
    parser.add_argument("--seed", metavar="S", type=int, nargs="+", help="seeds, one run each (default: 0)")
    parser.add_argument("--step", metavar="N", type=int, help="the last step (default: the recipe's)")
    parser.add_argument("--json", action="store_true", help="print a line of strict JSON for each kept step")
    parser.set_defaults(command=_train_toy)


def _train_toy(arguments: argparse.Namespace) -> int:
    """Train as asked, and print the loss of every kept step as it comes."""
    with loading(arguments.toy) as report:
        from workbench.loading.toys.checkpoints import Kept
        from workbench.loading.toys.recipes import asked, name_of

        wanted = [asked(arguments.toy, arguments.step, seed) for seed in arguments.seed or [None]]
        try:
            with terminable():
                for recipe, step in wanted:
                    name, kept = name_of(recipe, step), Kept(recipe)

                    def show(at: int, module: object, found: "Evaluated", name: str = name) -> None:
                        report.clear()
                        print(_line(name, at, found, arguments.json), flush=True)

                    kept.ensure(step, report, seen=show)
                    report.clear()
                    if not arguments.json:
                        print(visible(f"{name} is kept in {kept.folder}"))
        except STOPS as stop:
            report.clear()
            say("workbench: stopped; what was trained is kept, and the same command goes on from there")
            return stop_code(stop)
    return 0


def _line(name: str, step: int, found: "Evaluated", as_json: bool) -> str:
    """One kept step: its loss as a bar and a number, and what was measured of the first kind of sequences."""
    loss, measures = found
    if as_json:
        return json.dumps({"toy": name, "step": step, "loss": loss, **measures}, allow_nan=False)
    bar = "#" * min(_BAR, round(4 * loss))
    said = "  ".join(f"{measure} {value:.3f}" for measure, value in list(measures.items())[:3])
    return f"step {step:>5}  loss {loss:6.3f}  {bar:<{_BAR}}  {said}"


def command(arguments: argparse.Namespace) -> int:
    """Train as asked."""
    from probes.erasure.trained.command import asked, cli

    wanted = asked(arguments)  # what it is trained on, before a model is loaded for nothing
    with loading(arguments.model) as report:
        from apps.cli.model import load

        model = load(arguments, report)
    try:
        with terminable():
            return cli(wanted, model, print_json if arguments.json else None)
    except STOPS as stop:
        say("workbench: stopped; the probes that are done are kept, and the same command goes on with the others")
        return stop_code(stop)
