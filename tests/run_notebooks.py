"""Execute the notebooks as a reader would, in memory: nothing is saved back.

    python tests/run_notebooks.py [--full] [--cap SECONDS] [--jobs N] [NOTEBOOK ...]

Every notebook says `QUICK = True` on a line of its own in a code cell; `--full` runs it with `QUICK = False`. One line
per notebook, with its seconds; the exit code is 1 if any failed. As many run at once as there are cores, up to four; in
full they run one after the other. How long one takes says more of the processor than of the notebook, so nothing fails
for being slow: the cap only ends a quick form that hangs.
"""

import argparse
import asyncio
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

ROOT = Path(__file__).resolve().parents[1]
QUICK = re.compile(r"^QUICK *= *True\b", re.MULTILINE)
CAP_SECONDS = 3600.0  # some thirty times what the slowest takes on two cores


def cores() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(notebook: nbformat.NotebookNode, full: bool) -> None:
    """Set QUICK in the first code cell that names it; raises ValueError where none does."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and QUICK.search(cell.source):
            if full:
                cell.source = QUICK.sub("QUICK = False", cell.source, count=1)
            return
    raise ValueError("no code cell has a line `QUICK = True`")


async def execute(path: Path, notebook: nbformat.NotebookNode, cap: float | None, jobs: int) -> None:
    """Run all cells in a fresh kernel beside the notebook; ended after `cap` seconds for the whole of it.

    jobs: with how many others it shares the cores.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--IPKernelApp.log_level=50"],  # the kernel's own remarks; errors of cells come back to us
    )
    await asyncio.wait_for(client.async_execute(env=environment), cap)


def run(path: Path, full: bool, cap: float | None, jobs: int) -> tuple[float, str | None]:
    """Execute one notebook; its seconds, and the reason of its failure or None."""
    start = time.perf_counter()
    reason = failure(path, full, cap, jobs)
    return time.perf_counter() - start, reason


def failure(path: Path, full: bool, cap: float | None, jobs: int) -> str | None:
    """Why a notebook failed, or None."""
    start = time.perf_counter()
    try:
        notebook = nbformat.read(path, as_version=4)
        prepare(notebook, full)
        asyncio.run(execute(path, notebook, cap, jobs))
    except (CellExecutionError, DeadKernelError, TimeoutError, ValueError, OSError) as error:
        # ending a kernel at the cap may come back as TimeoutError or as a dead kernel
        late = cap is not None and time.perf_counter() - start >= cap
        return f"not done after {cap:.0f} s" if late else str(error).strip()
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run the named notebooks, or all of notebooks/; returns the exit code."""
    parser = argparse.ArgumentParser(description="execute the notebooks")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: notebooks/*.ipynb")
    parser.add_argument("--full", action="store_true", help="run with QUICK = False and without a cap")
    parser.add_argument("--cap", type=float, default=CAP_SECONDS, help="seconds until a quick form is taken to hang")
    parser.add_argument("--jobs", type=int, help="how many run at once")
    options = parser.parse_args(arguments)
    jobs = options.jobs or (1 if options.full else min(4, cores()))
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        cap = None if options.full else options.cap
        begun = {pool.submit(run, path, options.full, cap, jobs): path for path in paths}
        for future in as_completed(begun):
            seconds, reason = future.result()
            print(f"{begun[future].name:40} {seconds:7.1f} s  {'ok' if reason is None else 'FAILED'}", flush=True)
            if reason is not None:
                failed += 1
                print(reason, flush=True)
    print(f"{len(paths)} notebooks, {failed} failed", flush=True)
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
