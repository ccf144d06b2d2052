"""How rows are measured.

Rows of one size run in turn, in an order that rotates from round to round, so that whatever else the machine does falls
on all of them alike. Times are medians over rounds; a ratio is the median of the ratios within each round. Peak memory
is how far the process's resident set rose during one more run, by the kernel's own high-water mark (Linux; elsewhere it
is left out), after giving back what the allocator held.
"""

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps.bench.rows import Row
from apps.bench.subject import Subject

__all__ = ["measure", "peak_megabytes", "ratio", "size_of"]


def measure(
    subject: Subject, rows: Sequence[Row], rounds: tuple[int, int], progress: Callable[[float], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Measure rows on one size. rounds: of light and of heavy rows.

    Returns one record per row: `wall_ms`, `cpu_ms` (medians), `wall_ms_runs`, `cpu_ms_runs` by round, `peak_mb`.
    """
    rows = [row for row in rows if row.fits(subject)]
    calls = {row.name: row.prepare(subject) for row in rows}
    peaks = {row.name: _peak(row, calls[row.name]) for row in rows}
    wall: dict[str, list[float]] = {row.name: [] for row in rows}
    cpu: dict[str, list[float]] = {row.name: [] for row in rows}
    for i in range(rounds[0]):
        for row in [*rows[i % len(rows) :], *rows[: i % len(rows)]]:
            if i >= (1 if row.at else rounds[1] if row.heavy else rounds[0]):
                continue
            seconds = _timed(calls[row.name])
            wall[row.name].append(1e3 * seconds[0])
            cpu[row.name].append(1e3 * seconds[1])
        progress((i + 1) / rounds[0])
    return [
        {
            "row": row.name,
            "batch": len(subject.tokens),
            "length": len(subject.tokens[0]),
            "wall_ms": statistics.median(wall[row.name]),
            "cpu_ms": statistics.median(cpu[row.name]),
            "peak_mb": peaks[row.name],
            "wall_ms_runs": wall[row.name],
            "cpu_ms_runs": cpu[row.name],
        }
        for row in rows
    ]


def _peak(row: Row, call: Callable[[], Any]) -> float | None:
    """The peak of a row, whose run for it is a warm-up too; None for a study, which runs once."""
    if row.at is not None:
        return None
    if not row.heavy:
        call()  # a heavy row's run for its peak is warm-up enough
    return peak_megabytes(call)


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call; what it returns is let go inside, as a user's loop would."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    call()
    return time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """Of this process and of those that it started and waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def ratio(records: Sequence[dict[str, Any]], row: dict[str, Any], against: str, what: str = "wall_ms") -> float | None:
    """Median over rounds of a row against another of the same size; None where that was not measured."""
    other = next((r for r in records if r["row"] == against and size_of(r) == size_of(row)), None)
    if other is None:
        return None
    pairs = zip(row[f"{what}_runs"], other[f"{what}_runs"], strict=False)  # heavy rows run in the first rounds only
    return float(statistics.median(mine / theirs for mine, theirs in pairs))


def size_of(record: dict[str, Any]) -> tuple[int, int]:
    return record["batch"], record["length"]


def peak_megabytes(call: Callable[[], Any]) -> float | None:
    """How far the resident set rises above its level during one call, in MB; None where the kernel does not tell."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only: elsewhere the level holds what the allocator kept
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the high-water mark
        level = _status("VmRSS")
        call()
        return (_status("VmHWM") - level) / 1e6
    except OSError:
        return None


def _status(name: str) -> int:
    """A memory figure of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
