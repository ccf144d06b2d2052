"""The counts as a page of the documentation."""

from apps.calibration.counts import Counts

__all__ = ["page"]

_BEGIN = """# Calibration

Measured by `make calibration`, which goes on where the last call stopped. A number is a rate, its count behind it.

"""
_TABLES = (
    ("caliper", "Checks beside matched controls: P(p <= 0.05)",
     "Every unit is claimed in turn, whatever it does, so at most 0.05 is right in every column: by its norm against "
     "that of its controls (geometric mean), and by its norm among the units of the kind."),
    ("refused", "Claims without a test", "Share of units that have fewer than 19 others within a factor 1.5."),
    ("relation", "The answer without a caliper: P(p <= 0.05)",
     "Where the model of the relation is not rejected."),
    ("labels", "Labels of random weights", "None is deserved."),
    ("coverage: mean", "95 % intervals of a mean", "How often they hold it. No interval is given below 16 units."),
    ("coverage: difference", "95 % intervals of a difference of means", "Of samples of unequal spread."),
    (
        "coverage: share",
        "95 % intervals of shares over documents",
        "Of accuracies and their contrasts, by expanded percentiles over documents.",
    ),
    ("coverage: ratio", "95 % intervals of a ratio of means", "Of pairs."),
    ("coverage: rare", "95 % intervals of shares of units", "Of values that are 0 or 1, rare and nearly certain ones."),
    (
        "coverage: outliers",
        "Where 95 % intervals of a mean hold it less often",
        "Of values whose mean hangs on few units: n units may hold none of them, and then no interval knows.",
    ),
)  # fmt: skip


def page(counts: Counts) -> str:
    """Markdown."""
    parts = [_BEGIN]
    for name, title, words in _TABLES:
        rows = counts.of(name)
        if rows:
            parts.append(f"## {title}\n\n{words}\n\n{_markdown(rows)}\n")
    return "\n".join(parts)


def _markdown(rows: dict[str, dict[str, tuple[int, int]]]) -> str:
    columns = sorted({column for row in rows.values() for column in row}, key=_order)
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in sorted(rows):
        cells = [_cell(rows[name].get(column)) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _order(column: str) -> tuple[bool, int, str]:
    known = ("all", "0.8 or less times its controls", "0.8 to 1.25 times its controls", "above 1.25 times its controls",
             "quietest third", "middle third", "loudest third", "loudest tenth")  # fmt: skip
    return column not in known, known.index(column) if column in known else 0, column


def _cell(found: tuple[int, int] | None) -> str:
    return "" if found is None or not found[1] else f"{found[0] / found[1]:.3f} ({found[1]})"
