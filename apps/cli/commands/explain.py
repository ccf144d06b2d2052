"""`workbench explain`: from a prompt with a contrast, or a task, to an explanation and a file to show."""

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.options import add_json, add_model, print_json
from apps.cli.parser import Parser
from apps.cli.progress import loading, progress, say, warnings_as_notes
from apps.cli.report.places import need_apart
from apps.cli.signals import STOPS, stop_code, terminable
from workbench.errors import InputError, WorkbenchError
from workbench.files import need_writable, write_whole
from workbench.storage.endings import ENDINGS, need_ending

if TYPE_CHECKING:
    import xarray as xr

    from workbench.models.model import Model
    from workbench.models.prompt import Prompt

__all__ = ["arguments", "command"]

_REPORTS = {"html": "", "ipynb": ""}
_GIVEN = {"corrupt": "corrupt", "answer": "target", "wrong": "against", "task": "task"}


def arguments(parser: Parser) -> None:
    """The prompt, what it is compared with, files and the model."""
    from apps.cli.parameters import add_parameters
    from probes.explain.explain import VIEW

    parser.epilog = "Its other parameters are options too: `workbench describe explain` lists them."
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="raw text, up to what is asked")
    prompt.add_argument("--chat", metavar="FILE.json", help='[{"role": "user", "content": "..."}, ...]')
    prompt.add_argument("--ids", metavar="ID", nargs="+", help="token ids, taken as they are")
    parser.add_argument("--corrupt", metavar="TEXT", help="counterfactual of equal length; without one it is made")
    parser.add_argument("--answer", metavar="TEXT", help="the answer, a token or a set; without one the model's own")
    parser.add_argument("--wrong", metavar="TEXT", help="what it is compared with; without one made like the answer")
    parser.add_argument("--task", metavar="NAME", help="a task, or a file of pairs, in place of a prompt")
    parser.add_argument("--param", metavar="NAME=VALUE", action="append", default=[], help="a parameter of explain")
    endings = ", ".join(f".{ending}" for ending in (*_REPORTS, *ENDINGS))
    parser.add_argument(
        "--out", metavar="FILE.html", action="append", default=[],
        help=f"save the report, the notebook that recomputes it, or the result, as the name ends ({endings}); "
        "may be repeated",
    )  # fmt: skip
    add_json(parser)
    add_model(parser)
    parser.set_defaults(bos=None)
    add_parameters(parser, [VIEW])


def command(arguments: argparse.Namespace) -> int:
    """Check what was typed, load the model, say what each step will cost, and go the whole way."""
    from apps.cli import parameters
    from apps.cli.prompt import prompt_of
    from probes.explain.explain import VIEW

    given = [f"{name}={value}" for option, name in _GIVEN.items() if (value := getattr(arguments, option)) is not None]
    asked = parameters.asked([VIEW], [*given, *arguments.param])[0]
    prompt = prompt_of(arguments)
    _need_one(prompt, asked.analysis)
    need_apart(arguments.out)
    for path in arguments.out:
        need_writable(path)
        need_ending(path, _REPORTS | ENDINGS)
    with loading(arguments.model) as report:
        from apps.cli.model import load

        model = load(arguments, report)
    say(_costs(model, prompt, asked.analysis))
    code, result = _run(model, prompt, asked.analysis, arguments)
    saved, lost = _saved(asked.view.name, result, arguments)
    _print(asked, result, saved, as_json=arguments.json)
    if lost is not None:
        raise lost
    return code


def _need_one(prompt: "Prompt | None", analysis: Any) -> None:
    if prompt is None and analysis.reads_prompt():
        raise InputError(
            "explain without a prompt or a task", "one", 'Give one, such as --prompt "The capital of France is"'
        )
    if not analysis.reads_prompt():
        from probes.circuits.edge_rankings import need_task

        need_task(analysis.task)
    if prompt is not None and not analysis.reads_prompt():
        raise InputError(
            f"a prompt and the task {analysis.task!r}", "one of them: a task has its own pairs", "Leave one out"
        )


def _costs(model: "Model", prompt: "Prompt | None", analysis: Any) -> str:
    """The steps and about how long each will take here: passes are timed now."""
    from probes.explain.explain import TASK_TOKENS
    from workbench.analysis.pace import measured_pace
    from workbench.models.prompt import tokenise

    n = TASK_TOKENS if prompt is None else len(tokenise(model, prompt))
    pace, steps = measured_pace(model), analysis.steps(model.sizes, n)
    said = ", ".join(f"{name} {pace.seconds(n, passes):.0f} s" for name, passes in steps.items())
    return f"About {pace.seconds(n, sum(steps.values())):.0f} s if no step ends it: {said}. Ctrl+C keeps what is done."


def _run(
    model: "Model", prompt: "Prompt | None", analysis: Any, arguments: argparse.Namespace
) -> "tuple[int, xr.Dataset]":
    """The result and the exit code; of one that is stopped, what was found until then."""
    from workbench.analysis.run import Failure, outcomes

    result, start, told = None, time.perf_counter(), ""
    try:
        with progress() as report, warnings_as_notes(report), terminable():
            tell = lambda share: report("explain", share, f"explain: {told}")
            found: Any = outcomes(model, prompt, [analysis], progress=tell, allow_network=arguments.allow_network)
            with contextlib.closing(found):
                for outcome in found:
                    report.clear()
                    if isinstance(outcome.result, Failure):
                        raise outcome.result.error
                    result = outcome.result
                    if not outcome.complete and (now := _done(result)) != told:
                        told = now
                        say(f"{time.perf_counter() - start:4.0f} s  {told}")
    except STOPS as stop:
        if result is None:
            raise
        say("workbench: stopped before the end; this is what was found until then")
        return stop_code(stop), result.assign_attrs(partial=1)
    assert result is not None, "a study yields"
    return 0, result


def _done(result: "xr.Dataset") -> str:
    """The last step that is done; before the first, what the contrast is: an answer that was typed in another form than
    the model says it is told before minutes are spent on it."""
    done = [one["what"] for one in json.loads(result.attrs["steps"]) if one["done"]]
    contrast = f"{result.attrs['target']!r} rather than {result.attrs['against']!r}"
    return done[-1] if done else ". ".join(filter(None, (contrast, result.attrs.get("noted", ""))))


def _saved(name: str, result: "xr.Dataset", arguments: argparse.Namespace) -> tuple[list[str], WorkbenchError | None]:
    """The files that were written, and why one could not be, with where the result of all that work is kept instead."""
    from apps.cli.mistakes import said_of
    from apps.cli.report.delivery import kept_elsewhere

    saved: list[str] = []
    lost: WorkbenchError | None = None
    for path in arguments.out:
        try:
            saved += [str(file) for file in _write(result, Path(path), arguments)]
        except Exception as error:  # of whatever kind: the work of an hour is not lost to a report
            lost = lost or kept_elsewhere(name, result, said_of(error))
    return saved, lost


def _write(result: "xr.Dataset", path: Path, arguments: argparse.Namespace) -> tuple[Path, ...]:
    ending = path.suffix.lower().removeprefix(".")
    if ending == "html":
        from apps.cli.report.explanation import explanation

        return (write_whole(path, explanation(result).encode()),)
    if ending == "ipynb":
        from apps.cli.report.notebook import notebook

        return (write_whole(path, notebook(result, _loaded(arguments)).encode()),)
    from workbench.analysis.results import saved

    return saved(result, path)


def _loaded(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load` that give this model; its number format stands in the result."""
    device = None if arguments.device == "auto" else arguments.device
    more = {"device": device, "revision": arguments.revision, "allow_network": arguments.allow_network}
    return {"name": arguments.model} | {name: value for name, value in more.items() if value}


def _print(asked: Any, result: "xr.Dataset", saved: list[str], *, as_json: bool) -> None:
    from apps.cli.report.summary import summary
    from probes.explain.sentences import unexplained
    from workbench.errors import visible
    from workbench.storage.json_text import brief

    left_out = unexplained(result)
    if as_json:
        said = brief(result) | {"unexplained": left_out, "steps": json.loads(result.attrs["steps"]), "saved": saved}
        print_json(said)
        return
    lines = [summary(asked.view, result, asked.display), "Not explained: " + " ".join(left_out)]
    lines += [f"Saved in {', '.join(saved)}"] if saved else []
    print(visible("\n".join(lines)), flush=True)
