"""What we set out to reach, held against what was measured."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from apps.bench.measure import ratio, size_of
from apps.bench.rows import (
    ABLATIONS,
    ANSWER,
    BARE,
    BATCH,
    BATCH_NEEDS,
    BATCH_RESUMES,
    BATCH_ROUTES,
    BATCH_WRITES,
    BRIDGE,
    CHECK,
    DESCRIBE,
    EDGES,
    FULL_ABLATIONS,
    FULL_PATCHES,
    HELP,
    INDUCTION,
    LENS_ALL,
    LIST,
    LOOK,
    PATCHES,
    PLAIN_ANSWER,
    PLAIN_TOY,
    PRODUCTS_ALL,
    SIZES,
    START_SIZE,
    STUDY_SIZES,
    TOY,
)
from apps.bench.studies import FULL_PASSES
from apps.bench.toys import STEPS

__all__ = ["GOALS", "Goal", "goals"]


class Goal(NamedTuple):
    """What we set out to reach: a row against another one, at most `limit` (a ratio of wall time, or MB above it).

    against: "" where the limit is one of seconds. faster: at least `limit` times as fast instead. passes: how many runs
    of the other row it is held against.
    """

    row: str
    against: str
    limit: float
    megabytes: bool = False
    sizes: tuple[tuple[int, int], ...] = SIZES
    faster: bool = False
    passes: float = 1

    def __str__(self) -> str:
        against = self.against if self.passes == 1 else f"{self.passes:g} x {self.against}"
        if not self.against:
            return f"{self.row}, at most {self.limit:g} s"
        limit = f"at least {self.limit:g} times as fast" if self.faster else f"at most {self.limit:g}"
        return f"{self.row} against {against}, {limit}" + (" MB above it" if self.megabytes else "")

    def of(self, ratio: float | None) -> float | None:
        """What is held against the limit, from the ratio of the two rows' times."""
        if ratio is None:
            return None
        return self.passes / ratio if self.faster else ratio / self.passes

    def met(self, measured: float) -> bool:
        """Whether it is reached."""
        return measured >= self.limit if self.faster else measured <= self.limit


GOALS = (
    Goal(INDUCTION, BRIDGE, 1.12),
    Goal(INDUCTION, BRIDGE, 600.0, megabytes=True, sizes=((1, 1024),)),
    Goal(LENS_ALL, PRODUCTS_ALL, 1.3),
    Goal(ABLATIONS, FULL_ABLATIONS, 1.4, faster=True, passes=30 / FULL_PASSES),
    Goal(PATCHES, FULL_PATCHES, 6, sizes=STUDY_SIZES, faster=True, passes=270 / FULL_PASSES),
    Goal(CHECK, BARE, 6, sizes=STUDY_SIZES, passes=50 / 10),
    Goal(EDGES, BARE, 4, sizes=STUDY_SIZES),
    Goal(BATCH, BARE, 1 / 0.6),  # throughput at least 0.6 of a bare pass's
    Goal(BATCH_ROUTES, BARE, 1 / 0.4),
    Goal(BATCH, BATCH_NEEDS, 1 / 0.9),  # what is done for each prompt takes at most a tenth
    Goal(BATCH_WRITES, BATCH, 0.05),
    Goal(BATCH_RESUMES, BATCH, 0.02),
    Goal(TOY, PLAIN_TOY, 1.3, sizes=STUDY_SIZES),
    Goal(LOOK, TOY, 3, sizes=STUDY_SIZES, passes=1 / STEPS),
    Goal(ANSWER, PLAIN_ANSWER, 1.25, sizes=(START_SIZE,)),
    *(Goal(row, "", 0.5, sizes=(START_SIZE,)) for row in (HELP, LIST, DESCRIBE)),
)


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each goal at each size where both its rows were measured."""
    found = []
    for goal in GOALS:
        for row in rows:
            if row["row"] != goal.row or size_of(row) not in goal.sizes:
                continue
            measured: float | None
            cpu: float | None
            if not goal.against:
                measured, cpu = row["wall_ms"] / 1e3, row["cpu_ms"] / 1e3
            elif goal.megabytes:
                measured, cpu = _above(rows, row, goal.against), None
            else:
                measured, cpu = (goal.of(ratio(rows, row, goal.against, f"{kind}_ms")) for kind in ("wall", "cpu"))
            if measured is not None:
                found.append(
                    {
                        "goal": str(goal),
                        "size": f"{row['batch']} x {row['length']}",
                        "measured": measured,
                        "measured_cpu": cpu,  # steadier where other work takes turns
                        "met": goal.met(measured),
                    }
                )
    return found


def _above(rows: Sequence[dict[str, Any]], row: dict[str, Any], against: str) -> float | None:
    other = next((r for r in rows if r["row"] == against and size_of(r) == size_of(row)), None)
    if other is None or row["peak_mb"] is None or other["peak_mb"] is None:
        return None
    return float(row["peak_mb"] - other["peak_mb"])
