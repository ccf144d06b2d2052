"""`workbench train erasure-probes` and `workbench import erasure-probes`: the words they take, and what they do.

`apps/cli/commands` gives them a place.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.erasure.trained.recipe import KINDS, OFFSETS, Recipe
from workbench.corpora import Corpus, hub_corpus, text_corpus
from workbench.errors import InputError, visible
from workbench.files import need_writable
from workbench.storage.endings import need_ending

__all__ = ["Asked", "add_arguments", "add_import_arguments", "asked", "cli", "import_cli", "summary"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command, beside those that choose the model."""
    parser.add_argument(
        "--corpus", metavar="PATH", nargs="+", help="text files or folders (default: Python's own docs)"
    )
    parser.add_argument("--hub-corpus", metavar="NAME", help="a data set of the hub, with --allow-network")
    parser.add_argument("--depths", metavar="D", type=int, nargs="+", help="0 the embedding, d the output of block d-1")
    parser.add_argument("--layers", metavar="L", type=int, nargs="+", help="the same by layer: the output of block L")
    parser.add_argument(
        "--offsets", metavar="I", type=int, nargs="+", default=list(OFFSETS),
        help=f"default: {' '.join(map(str, OFFSETS))}",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=KINDS, default=Recipe.kind,
        help="factored through the unembedding (default, small), or the paper's plain softmax",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="of the split and of the order of training")
    parser.add_argument("--control", action="store_true", help="also measure the recipe on random weights")
    parser.add_argument("--again", action="store_true", help="also what is there already, of the same text and recipe")
    parser.add_argument("--out", metavar="FILE.safetensors", help="default: where analyses look, in the user's cache")


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of importing, beside those that choose the model."""
    parser.add_argument("file", metavar="FILE", help="safetensors, or a PyTorch file of tensors (nothing in it is run)")
    parser.add_argument("--layer", metavar="L", type=int, help="it reads the output of block L; -1 is the embedding")
    parser.add_argument("--offset", metavar="I", type=int, help="it names the token at t + I: 0, -1, -2, -3")
    parser.add_argument("--replace", action="store_true", help="also where another one has that place")


def import_cli(arguments: argparse.Namespace, model: Any, tell: Callable[[dict[str, Any]], None] | None = None) -> int:
    """Import one file, print what is there now, or give its card to `tell`; returns the exit code."""
    from probes.erasure.trained.artifact import default_path
    from probes.erasure.trained.published import import_probes

    depth = None if arguments.layer is None else arguments.layer + 1
    probes = import_probes(model, arguments.file, depth, arguments.offset, replacing=arguments.replace)
    if tell is not None:
        tell({"card": probes.card, "saved": [str(default_path(model.identity.key, probes.kind))]})
        return 0
    print(summary(probes))
    if "quality" in probes.card:
        print(visible(f"Imported; trained on: {probes.card['trained_on']}. Quality {probes.card['quality']}."))
    print(visible(str(default_path(model.identity.key, probes.kind))))
    return 0


@dataclass(frozen=True)
class Asked:
    """What is trained, as far as it can be said without a model."""

    corpus: Corpus | None
    depths: list[int] | None
    offsets: list[int]
    recipe: Recipe
    out: str | None
    control: bool
    again: bool


def asked(arguments: argparse.Namespace) -> Asked:
    """What the words of the command ask for; the text is read. Raises InputError."""
    if arguments.depths and arguments.layers:
        raise InputError("--depths and --layers", "one of them", "Leave one out")
    if arguments.epochs < 1:
        raise InputError(f"--epochs {arguments.epochs}", "at least 1", "Give more")
    if arguments.out is not None:
        need_ending(arguments.out, {"safetensors": ""})
        need_writable(arguments.out)
    corpus = _corpus(arguments)
    if corpus is not None:
        corpus.split(arguments.seed)  # too few documents are said before a model is loaded
    return Asked(
        corpus=corpus,
        depths=arguments.depths or [layer + 1 for layer in arguments.layers or ()] or None,
        offsets=arguments.offsets,
        recipe=Recipe.of(arguments.kind, epochs=arguments.epochs, seed=arguments.seed),
        out=arguments.out,
        control=arguments.control,
        again=arguments.again,
    )


def cli(wanted: Asked, model: Any, tell: Callable[[dict[str, Any]], None] | None = None) -> int:
    """Train as asked, print the card's numbers, or give the card to `tell`; returns the exit code."""
    from probes.erasure.trained.artifact import default_path
    from probes.erasure.trained.trainer import train

    started = time.perf_counter()
    probes = train(
        model,
        wanted.corpus,
        depths=wanted.depths,
        offsets=wanted.offsets,
        recipe=wanted.recipe,
        path=wanted.out,
        control=wanted.control,
        again=wanted.again,
        progress=_reporter(),
    )
    if tell is None:
        print(summary(probes))
    where = Path(wanted.out) if wanted.out else default_path(model.identity.key, wanted.recipe.kind)
    if tell is not None:
        tell({"card": probes.card, "saved": [str(where)]})
        return 0
    print(visible(str(where)) + f", {where.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - started:.0f} s")
    return 0


def _corpus(arguments: argparse.Namespace) -> Corpus | None:
    if arguments.corpus and arguments.hub_corpus:
        raise InputError("--corpus and --hub-corpus", "one of them", "Leave one out")
    if arguments.hub_corpus:
        return hub_corpus(arguments.hub_corpus, allow_network=arguments.allow_network)
    return text_corpus(arguments.corpus) if arguments.corpus else None


def _reporter() -> Callable[[float, str], None]:
    """One line that is rewritten on a terminal; elsewhere a line whenever the text changes."""
    last = [""]

    def report(share: float, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{share:5.0%} {text}", end="\n" if share >= 1 else "", file=sys.stderr, flush=True)
        elif text != last[0]:
            last[0] = text
            print(f"{share:5.0%} {text}", file=sys.stderr, flush=True)

    return report


def summary(probes: Any) -> str:
    """The card as a table: accuracy on held-out documents with its interval, and the control's where it was run."""
    control = {(row["depth"], row["offset"]): row for row in probes.card.get("control", {}).get("probes", ())}
    lines = ["depth offset  accuracy [95 % over documents]  last tokens  random weights"]
    for row in probes.card["probes"]:
        twin = control.get((row["depth"], row["offset"]))
        last = "-" if row["test_last_accuracy"] is None else f"{row['test_last_accuracy']:.3f}"
        if row["test_accuracy"] is None:
            lines.append(f"{row['depth']:5} {row['offset']:6}  not measured")
            continue
        low, high = row["test_low"], row["test_high"]
        span = " (too few documents)" if low is None else f" [{low:.3f}, {high:.3f}]"
        lines.append(
            f"{row['depth']:5} {row['offset']:6}  {row['test_accuracy']:.3f}{span}"
            f"{last:>18}{'not run' if twin is None else format(twin['test_accuracy'], '.3f'):>15}"
        )
    return "\n".join(lines)
