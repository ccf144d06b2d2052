"""The whole bench: every row at every size, the goals, the table and the file."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from apps.bench.goals import goals
from apps.bench.machine import machine
from apps.bench.measure import measure, ratio
from apps.bench.rows import BARE, BRIDGE, QUICK_SIZES, ROWS, SIZES, START_SIZE, STARTS, STUDY_SIZES
from apps.bench.subject import Subject, models, rows_of_text
from workbench.errors import visible
from workbench.files import write_whole

__all__ = ["bench", "default_out", "table"]

ROUNDS, FEW_ROUNDS = (11, 3), (5, 2)  # of light and of heavy rows; few where a pass takes seconds
START_ROUNDS = (5, 5)
_LONG = 1024  # tokens in all from which it does


def default_out() -> str:
    """bench-20260131-1200.json, in the current directory."""
    return f"bench-{datetime.now():%Y%m%d-%H%M}.json"


def bench(
    out: str | Path,
    *,
    quick: bool = False,
    progress: Callable[[str, float, str], None] = lambda *_: None,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Measure everything on the default model, show it (None: print the table) and save it; returns what was saved.

    It is shown first: minutes of work are not lost where a disk is full.
    """
    record = _measured(quick, progress)
    (show or _print)(record)
    write_whole(Path(out), (json.dumps(record, indent=1) + "\n").encode())
    if show is None:
        print(visible(f"Saved in {out}"))
    return record


def _print(record: dict[str, Any]) -> None:
    print(table(record), flush=True)


def _measured(quick: bool, progress: Callable[[str, float, str], None]) -> dict[str, Any]:
    progress("bench", 0.0, "loading the model twice")
    model, other = models()
    rows: list[dict[str, Any]] = []
    record = {"machine": machine(), "model": vars(model.identity), "quick": quick, "rows": rows}
    for batch, length in QUICK_SIZES if quick else (*SIZES, *STUDY_SIZES):
        rounds = FEW_ROUNDS if quick or batch * length >= _LONG else ROUNDS
        subject = Subject(model, other, rows_of_text(model, batch, length))
        report = partial(_report, progress, f"measuring {batch} x {length}")
        report(0.0)
        rows += measure(subject, ROWS, rounds, report)
    report = partial(_report, progress, "measuring whole processes")
    rows += measure(Subject(model, other, rows_of_text(model, *START_SIZE)), STARTS, START_ROUNDS, report)
    for row in rows:
        row["wall_ratio"] = ratio(rows, row, BARE)
        row["cpu_ratio"] = ratio(rows, row, BARE, "cpu_ms")
        row["wall_ratio_to_bridge"] = ratio(rows, row, BRIDGE)
    record["goals"] = goals(rows)
    record["load_average_at_the_end"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    return record


def _report(progress: Callable[[str, float, str], None], text: str, share: float) -> None:
    progress("bench", share, text)


def table(record: dict[str, Any]) -> str:
    """The table and the goals as text."""
    where = record["machine"]
    lines = [
        f"{record['model']['name']}, {where['cpu']} ({where['instructions']['text']}), {where['threads']} threads, "
        f"torch {where['torch']}, OMP_WAIT_POLICY={where['environment']['OMP_WAIT_POLICY']}",
        f"{'size':>9}  {'':<46}{'wall ms':>10}{'CPU ms':>10}{'x bare':>8}{'x bridge':>9}{'peak MB':>9}",
    ]
    for row in record["rows"]:
        size = f"{row['batch']} x {row['length']}"
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        lines.append(
            f"{size:>9}  {row['row']:<46}{row['wall_ms']:>10.1f}{row['cpu_ms']:>10.1f}"
            f"{row['wall_ratio']:>8.2f}{row['wall_ratio_to_bridge']:>9.2f}{peak:>9}"
        )
    if where["load_average"] and where["load_average"][0] > (where["cpu_count"] or 1):
        lines.append(
            f"Other work was running (load average {where['load_average'][0]:.1f}): wall times are not to be trusted."
        )
    lines.append("Goals:")
    lines += [
        f"  {'met   ' if g['met'] else 'missed'}  {g['size']:>9}  {g['goal']}: {g['measured']:.2f}"
        + (f" (CPU {g['measured_cpu']:.2f})" if g["measured_cpu"] is not None else "")
        for g in record["goals"]
    ]
    return "\n".join(lines)
