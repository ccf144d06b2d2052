"""`python -m apps.circuits`: measure the table of circuits from where it was left, and write its page."""

import argparse
import sys
import time
from pathlib import Path

from apps.circuits.pieces import ROWS, TASKS, measure
from apps.circuits.table import write
from workbench import load

PIECES, PAGE = Path("docs/circuits.jsonl"), Path("docs/pages/circuits.md")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m apps.circuits", description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="only these")
    parser.add_argument("--rows", type=int, default=len(ROWS), help="only the first rows of the table")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no piece after these")
    parser.add_argument("--pieces", type=Path, default=PIECES, help="where pieces are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("--only-page", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    if not asked.only_page:
        end, model = time.monotonic() + 60 * asked.minutes, load()
        for name in asked.tasks:
            for said in measure(model, name, ROWS[: asked.rows], asked.pieces):
                print(said, file=sys.stderr, flush=True)
                if time.monotonic() > end:
                    break
            if time.monotonic() > end:
                break
    write(asked.pieces, asked.page)


if __name__ == "__main__":
    main()
