"""`workbench batch plan | run | status | resume | cancel | report | export | worker`: experiments over many prompts."""

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.options import NETWORK_HELP, add_json, print_json
from apps.cli.parser import Parser
from apps.cli.progress import Progress, progress, say, warnings_as_notes
from apps.cli.signals import STOPS, stop_code, terminable
from workbench.errors import InputError
from workbench.words import counted

if TYPE_CHECKING:
    from workbench import batch
    from workbench.batch.engine import Status

__all__ = ["arguments", "command"]

_VERBS = {
    "plan": "say what a spec asks for and what it will take, and compute nothing",
    "run": "run a spec; the same command again goes on where it was",
    "status": "say how far a run is, and what failed",
    "resume": "go on with a run, by its folder or its spec",
    "cancel": "ask whoever runs it to stop; what is finished is kept",
    "worker": "take shards of a planned run, beside any number of other workers",
    "report": "write one HTML page of tables, figures, spec and failures",
    "export": "write aggregates and the table of prompts as files of other programs",
}
_OF_SPECS = ("plan", "run")
_COMPUTE = ("plan", "run", "resume", "worker")


def arguments(parser: Parser) -> None:
    """What is done with which spec or run."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for verb, about in _VERBS.items():
        _add(verbs.add_parser(verb, help=about, description=f"{about[0].upper()}{about[1:]}."), verb)


def _add(parser: argparse.ArgumentParser, verb: str) -> None:
    spec = "a TOML file" if verb in _OF_SPECS else "the spec of a run, its folder, or its address"
    parser.add_argument("spec", metavar="SPEC", help=spec)
    add_json(parser)
    parser.add_argument("--folder", metavar="FOLDER", help="where the run is kept, s3://... too; default runs/NAME")
    if verb in _COMPUTE:
        parser.add_argument("--allow-network", action="store_true", help=NETWORK_HELP)
    if verb in ("plan", "run", "resume"):
        parser.add_argument("--retry-failed", action="store_true", help="compute again what failed")
    if verb == "plan":
        parser.add_argument("--write", action="store_true", help="make it the run's plan, so that workers can start")
    if verb in ("run", "resume", "worker"):
        parser.add_argument("--max-failures", metavar="N", type=int, help="stop after more than N failures")
    if verb in ("run", "resume"):
        parser.add_argument("--ray", action="store_true", help="compute on a Ray cluster, started on this machine")
        parser.add_argument("--ray-address", metavar="A", help="compute on the Ray cluster at A, such as auto")
        parser.add_argument("--workers", metavar="N", type=int, help="actors of the cluster; default one a device")
        parser.add_argument("--gpus", metavar="N", type=int, help="GPUs of an actor, for a spec with a device_map")
    if verb == "report":
        parser.add_argument("--out", metavar="FILE.html", help="default report.html beside the run")
    if verb == "export":
        parser.add_argument("--format", choices=("netcdf", "csv", "parquet", "zarr"), default="netcdf")
        parser.add_argument("--out", metavar="FOLDER", help="default export/ in the folder of the run")


def command(arguments: argparse.Namespace) -> int:
    """Do it."""
    return _DO[arguments.verb](arguments)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    from probes import CATALOG

    return {"catalog": CATALOG.with_plugins(), "allow_network": arguments.allow_network}


def _place(arguments: argparse.Namespace) -> str:
    """Of a run that is there already, named by its folder, its address or its spec."""
    from workbench.batch.spec import read_spec

    given = arguments.spec
    if "://" in given or Path(given).is_dir():
        return _lasting(given)
    return _lasting(arguments.folder) or str(Path("runs") / read_spec(given).spec.name)


def _lasting(place: str | None) -> str:
    """Where a run is kept; "" where nothing is said. A command ends, and with it what only its process sees."""
    if place and place.lower().startswith("memory:"):
        raise InputError(f"{place}, which ends with this command", "a folder, or an object store", "Name another")
    return place or ""


def _open(arguments: argparse.Namespace) -> "batch.Batch":
    from workbench import batch

    return batch.open(_place(arguments))


def _plan(arguments: argparse.Namespace) -> int:
    with _loading() as report:
        from workbench import batch

        report("load", 0.0, "loading models and reading prompts")
        options = _options(arguments) | {"retry_failed": arguments.retry_failed}
        made = batch.plan(arguments.spec, _lasting(arguments.folder) or None, **options)
    if arguments.json:
        print_json(_planned(made))
    else:
        print(made)
    if arguments.write:
        made.write()
        made.store.go_on()
        if not arguments.json:
            print(f"in {made.store.title}")
    return 0


def _planned(made: "batch.Plan") -> dict[str, Any]:
    """A plan as data."""
    planned, estimate = made.planned, made.estimate
    return {
        "name": planned.spec.name, "folder": made.store.title, "prompts": planned.n_prompts,
        "results": planned.n_cells, "results_done": planned.n_done, "shards_left": made.shards,
        "unused": list(planned.unused),
        "targets_without_space": dict(zip(("at_least", "first"), planned.unspaced, strict=True)),
        "notes": dict(zip(("at_least", "first"), planned.noted, strict=True)),
        "refused": [{"where": one.where, "why": one.reason} for one in planned.refused],
        "seconds": estimate.seconds, "memory_bytes": estimate.memory, "disk_bytes": estimate.disk,
    }  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    return _compute(arguments, arguments.spec, _lasting(arguments.folder) or None, None)


def _resume(arguments: argparse.Namespace) -> int:
    found = _open(arguments)
    return _compute(arguments, found.spec, found.address, Path(found.record["folder"]))


def _compute(arguments: argparse.Namespace, spec: Any, folder: Any, base: Path | None) -> int:
    from workbench import batch

    cluster = _cluster(arguments)
    try:
        with _loading() as report, terminable():
            report("load", 0.0, "loading models and reading prompts")

            def said(plan: "batch.Plan") -> None:
                report.clear()
                if arguments.json:
                    say(f"{plan}\nin {plan.store.title}")
                else:
                    print(f"{plan}\nin {plan.store.title}", flush=True)

            found = batch.run(
                spec, folder, base=base, progress=_Bar(report), said=said, max_failures=arguments.max_failures,
                retry_failed=arguments.retry_failed, cluster=cluster, **_options(arguments),
            )  # fmt: skip
    except STOPS as stop:
        say("workbench: stopped; finished shards are kept, and the same command goes on")
        return stop_code(stop)
    return _tell(found, as_json=arguments.json)


def _cluster(arguments: argparse.Namespace) -> "batch.Cluster | None":
    from workbench.batch.cluster import Cluster

    if arguments.ray or arguments.ray_address:
        return Cluster(arguments.ray_address, arguments.workers, 1 if arguments.gpus is None else arguments.gpus)
    if arguments.workers is not None or arguments.gpus is not None:
        raise InputError(
            "--workers or --gpus without --ray", "a cluster", "Add --ray, or start `workbench batch worker` N times"
        )
    return None


def _worker(arguments: argparse.Namespace) -> int:
    from workbench import batch

    try:
        with _loading() as report, terminable():
            options = _options(arguments)
            status = batch.worker(
                _place(arguments), progress=_Bar(report), max_failures=arguments.max_failures, **options
            )
    except STOPS as stop:
        say("workbench: stopped; the shard that was under way is left to the other workers")
        return stop_code(stop)
    if arguments.json:
        print_json({"shards": status.shards, "shards_done": status.done, "failures": dict(status.failed)})
    else:
        print(f"{status.done} of {status.shards} shards are done.")
    return 0


class _Bar:
    """A status as one line: share, rate, time left, memory. Where there is no terminal, a line every minute."""

    def __init__(self, report: Progress):
        self._report, self._told = report, time.monotonic()

    def __call__(self, status: "Status") -> None:
        text = f"{status.done}/{status.shards} shards, {status.rate:,.0f} tokens/s"
        if status.time_left is not None:
            text += f", {_time(status.time_left)} left"
        memory = _memory()
        text += f", {memory:.1f} GB" if memory else ""
        text += f", {counted(len(status.failed), 'failure')}" if status.failed else ""
        self._report("batch", status.share, text)
        if not self._report.drawn and time.monotonic() - self._told > 60:
            self._told = time.monotonic()
            say(f"{status.share:.0%}: {text}")


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def _memory() -> float | None:
    """Peak of this process in GB; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@contextlib.contextmanager
def _loading() -> Iterator[Progress]:
    with progress() as report, warnings_as_notes(report):
        yield report


def _status(arguments: argparse.Namespace) -> int:
    return _tell(_open(arguments), as_json=arguments.json)


def _tell(found: "batch.Batch", *, as_json: bool) -> int:
    """How far a run is; the exit code is 1 where something failed."""
    from workbench.batch.values import tables
    from workbench.batch.values.places import Cells

    cells = Cells(found.store)  # once: every byte of the run is held to its checksum for it
    failed, summaries, done = tables.failures(cells), tables.summaries(cells), len(cells.entries)
    if as_json:
        print_json({
            "name": found.spec.name, "folder": found.store.title, "shards": found.n_shards, "shards_done": done,
            "failures": failed, "summaries": summaries,
        })  # fmt: skip
        return 1 if failed else 0
    print(f"{found.spec.name}: {done} of {counted(found.n_shards, 'shard')} done, {counted(len(failed), 'failure')}.")
    for name, summary in summaries.items():
        print(f"  {name}: {summary}")
    for one in failed[:10]:
        print(f"  failed: {one['group']} {one['where']} {one['analysis']}: {' '.join(one['why'].split())}")
    if len(failed) > 10:
        print(f"  and {len(failed) - 10} more; the report lists them")
    return 1 if failed else 0


def _cancel(arguments: argparse.Namespace) -> int:
    found = _open(arguments)
    found.cancel()
    if arguments.json:
        print_json({"cancelled": found.store.title})
    else:
        print("Whoever runs it stops after the pass that is under way.")
    return 0


def _report_page(arguments: argparse.Namespace) -> int:
    from apps.batches.report import keep_report, write_report
    from apps.cli.report.places import need_apart
    from workbench.files import need_writable

    found = _open(arguments)
    if arguments.out:
        need_writable(arguments.out)
        need_apart([arguments.out], [arguments.spec])
    place = str(write_report(found, Path(arguments.out))) if arguments.out else keep_report(found)
    if arguments.json:
        print_json({"saved": [place]})
    else:
        print(place)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from workbench.batch.values.export import export

    found = _open(arguments)
    if not arguments.out and not found.store.is_local:
        raise InputError(f"an export of {found.store.title}", "a folder of this machine for it", "Add --out FOLDER")
    place = Path(arguments.out) if arguments.out else found.store.path("export")
    if place.is_file():
        raise InputError(f"--out {place}, which is a file", "a folder", "Choose another")
    paths = export(found, place, arguments.format)
    if arguments.json:
        print_json({"saved": [str(path) for path in paths]})
    for path in () if arguments.json else paths:
        print(path)
    return 0


_DO = {
    "plan": _plan,
    "run": _run,
    "status": _status,
    "resume": _resume,
    "cancel": _cancel,
    "worker": _worker,
    "report": _report_page,
    "export": _export,
}
