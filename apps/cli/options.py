"""Options that several commands share: the model, the prompt, and where results go."""

import argparse
import json
from typing import Any

from workbench.loading import bundled
from workbench.records import FORMATS
from workbench.storage.endings import ENDINGS, PICTURES

__all__ = [
    "CHECK_HELP",
    "JSON_HELP",
    "MODEL_HELP",
    "NETWORK_HELP",
    "add_files",
    "add_format",
    "add_json",
    "add_loading",
    "add_model",
    "add_prompt",
    "print_json",
]

NETWORK_HELP = "let models and texts be fetched by their names from the Hugging Face hub"
MODEL_HELP = (
    f"{bundled.NAME} (default), a toy (toy:induction,step=200), a directory in Hugging Face format, a .gguf file, "
    "or a hub name"
)
JSON_HELP = "print what was found as one line of strict JSON; docs/pages/agents.md says what is in it"
CHECK_HELP = "make the self-check again of a model that has passed it"
_DTYPES = ("float32", "bfloat16", "float16", "float64")


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model, and how it is loaded."""
    parser.add_argument("--model", metavar="M", default=bundled.NAME, help=MODEL_HELP)
    add_loading(parser)


def add_format(parser: argparse.ArgumentParser) -> None:
    """In which numbers a model computes, and where."""
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="number format of weights and activations")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, ...")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded."""
    add_format(parser)
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--allow-network", action="store_true", help=NETWORK_HELP)
    parser.add_argument("--check", action="store_true", help=CHECK_HELP)


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """The prompt, in one of its forms, or many of them from a file."""
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt",
        metavar="TEXT",
        help="raw text; in front goes what the tokenizer puts there, most often BOS or nothing",
    )
    prompt.add_argument(
        "--chat", metavar="FILE.json", help='[{"role": "user", "content": "..."}, ...]; a last "assistant" is continued'
    )
    prompt.add_argument("--ids", metavar="ID", nargs="+", help="token ids, taken as they are")
    prompt.add_argument(
        "--prompt-file",
        metavar="FILE",
        help="a prompt a line (.txt), or records (.jsonl, .json, .csv, .tsv, .parquet); - reads stdin",
    )
    prompt.add_argument(
        "--pair-file", metavar="FILE", help="records with clean, corrupt, answer and wrong, in a table or JSON"
    )
    parser.add_argument(
        "--column", metavar="NAME", action="append", default=[],
        help="column of --prompt-file that holds them; of --pair-file as answer=NAME, may be repeated",
    )  # fmt: skip
    parser.add_argument("--encoding", metavar="NAME", help="of the text of that file (default: utf-8)")
    parser.add_argument("--format", choices=FORMATS, help="format of the file, where no ending says it")
    bos = parser.add_mutually_exclusive_group()
    bos.add_argument("--bos", action="store_true", default=None, help="a BOS token in front of --prompt")
    bos.add_argument(
        "--no-bos", action="store_false", dest="bos", default=None, help="none, whatever the tokenizer does"
    )


def add_files(parser: argparse.ArgumentParser, what: str, several: str = "") -> None:
    """Where `what` and its figures are saved. several: what the options name where there are several."""
    endings = ", ".join(f".{ending}" for ending in ENDINGS)
    parser.add_argument("--out", metavar="FILE.nc", help=f"save {what}, as the name ends ({endings}){several}")
    pictures = ", ".join(f".{ending}" for ending in PICTURES if ending != "html")
    parser.add_argument(
        "--figure",
        metavar="FILE.html",
        help=f"save its figures as one page that needs no network, or as the name ends ({pictures}){several}",
    )
    parser.add_argument(
        "--json", action="store_true", help="print what was found as strict JSON, a line for each result"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json, for a program that reads the answer."""
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def print_json(said: Any) -> None:
    """One line of strict JSON on standard output."""
    from workbench.storage.json_text import strict  # which needs xarray, and help does not

    print(json.dumps(strict(said), allow_nan=False, ensure_ascii=False), flush=True)
