"""The self-check of a model: what was measured of its behaviour, item by item.

Each item has a measured number, a tolerance and a verdict. An analysis names the items it relies on and refuses, with
the item's sentence, where one failed. Nothing here corrects a model: it says what is so. They are measured at load
(see `workbench.loading.selfcheck`), or were at an earlier load of the same (`workbench.loading.passed`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from workbench.models.hooks import Hook

__all__ = [
    "FINITE", "FIRES", "LOGITS_EQUAL", "PADDING", "PARTS", "READOUT", "RESIDUAL", "ROWS", "SAME_AS_PLAIN", "SOFTMAX",
    "VISIBLE", "Item", "SelfCheck", "edits_of",
]  # fmt: skip

LOGITS_EQUAL = "logits equal the Hugging Face model's"
READOUT = "readout of the last state equals the logits"
ROWS = "attention rows sum to 1"
RESIDUAL = "resid_pre + attn_out + mlp_out = resid_post"
PARTS = "per-head parts plus bias sum to attn_out"
PADDING = "right-padding changes nothing before it"
FIRES = "every hook we rely on fires"
FINITE = "every state is finite"
SOFTMAX = "softmax of the scores = pattern"
VISIBLE = "queries see the keys that the sizes say"
SAME_AS_PLAIN = "an edit of z equals a plain Hugging Face hook's"


def edits_of(hook: Hook) -> str:
    """The item that proves edits of one kind of activation."""
    return f"edits of {hook.name} take effect"


@dataclass(frozen=True)
class Item:
    """One assumption: what was measured, the tolerance, and whether it held."""

    name: str
    measured: float
    tolerance: float
    passed: bool
    note: str = ""

    @property
    def sentence(self) -> str:
        """The item as a reader should see it."""
        verdict = "holds" if self.passed else "does not hold"
        note = f" ({self.note})" if self.note else ""
        return f"'{self.name}' {verdict}: {self.measured:.2g} against a tolerance of {self.tolerance:.2g}{note}"


@dataclass(frozen=True)
class SelfCheck:
    """All items of one model.

    about: what it was measured on. when: the time, ISO 8601 with its offset from UTC; "" if not told.
    """

    items: tuple[Item, ...]
    about: str = ""
    when: str = ""

    @property
    def passed(self) -> bool:
        """Whether every item held."""
        return all(item.passed for item in self.items)

    @property
    def measured(self) -> str:
        """When, for people: such as "measured 2026-03-01 14:05 UTC"; "" if not told."""
        return self.when and f"measured {datetime.fromisoformat(self.when).astimezone(UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def summary(self) -> str:
        """Such as "7/7"."""
        return f"{sum(item.passed for item in self.items)}/{len(self.items)}"

    def failed(self, names: Sequence[str]) -> list[Item]:
        """Items among names that did not hold. Unknown names are our own mistake and raise; only equal logits cannot be
        measured of every model: a toy has no other one beside it."""
        known = {item.name: item for item in self.items}
        measured = [name for name in names if name != LOGITS_EQUAL or name in known]
        return [known[name] for name in measured if not known[name].passed]

    def unproved(self, hook: Hook) -> Item | None:
        """The item that says that edits of a hook do nothing here, if it is so."""
        return next((item for item in self.items if item.name == edits_of(hook) and not item.passed), None)
