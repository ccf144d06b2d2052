"""What was measured of models and families, as a table in Markdown."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import metadata

from workbench.card import said_of_experts, said_of_sight
from workbench.errors import WorkbenchError
from workbench.models.hooks import PATTERN, SCORES
from workbench.models.model import Model
from workbench.models.selfcheck import SelfCheck

__all__ = ["HEADER", "introduction", "row", "table"]

HEADER = ("model", "architecture", "self-check", "edits of attention", "keys in sight", "experts", "what does not hold")


def introduction() -> str:
    """Which versions were measured, and how to do it again."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("transformer-lens", "transformers", "torch"))
    return (
        f"Measured with {versions} by `workbench models check`, which anyone can run: without names on a small model "
        "of every family, with random weights from its own config class; with names (families, or anything that "
        "`load()` takes) on those. An architecture that is not listed may load: its self-check says what holds."
    )


def row(name: str, load: Callable[[str], Model]) -> tuple[str, ...]:
    """One model: loaded and described, or the sentence of its refusal."""
    try:
        with _quiet():
            model = load(name)
    except WorkbenchError as error:
        return (name, "", "refused", "", "", "", str(error))
    check = model.selfcheck
    assert check is not None, "load() runs it"
    unproved = [hook.name for hook in (SCORES, PATTERN) if check.unproved(hook)]
    inside = getattr(model.adapter, "native", [])
    edits = f"refused ({', '.join(unproved)})" if unproved else ("inside the module" if inside else "by the bridge")
    return (
        name,
        model.identity.architecture,
        check.summary,
        edits,
        said_of_sight(model.sizes),
        said_of_experts(model.sizes),
        _failed(check),
    )


def _failed(check: SelfCheck) -> str:
    """Items that do not hold, those of one reason together and the reason once."""
    reasons: dict[str, list[str]] = {}
    for item in check.items:
        if not item.passed:
            reasons.setdefault(item.note.split("; expected")[0], []).append(item.name)
    return "; ".join(", ".join(names) + (f" ({reason})" if reason else "") for reason, names in reasons.items())


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows under HEADER, in Markdown."""
    lines = [HEADER, tuple("---" for _ in HEADER), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries say of small vocabularies and hooks while they load."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
