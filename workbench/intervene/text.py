"""Interventions in words: the one textual form that links, chips and copied code share.

L18H6                   the unit's output is replaced by zero; any unit that `units_of` reads
L18H6 mean              by its mean over a reference text
L3E5N12                 a neuron of an expert is replaced by zero where a token takes that expert
L3E5 forced             the router chooses this expert (L3E5 alone switches it off)
L1H0 previous-token     the head looks at the previous token alone (or first-token, own-token)
9 cannot see 3          no head of any layer attends from token 9 to token 3
L18H6 9 cannot see 3    that head does not
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.arguments import fitted
from workbench.errors import InputError
from workbench.intervene import Ablate, Attend, Force, Knockout
from workbench.intervene.attend import ATTENDED
from workbench.intervene.units import (
    AttentionEdge,
    AttentionKey,
    Expert,
    ExpertNeurons,
    Head,
    Residual,
    Unit,
    units_of,
)
from workbench.models.hooks import ATTN_OUT, MLP_OUT, MLP_POST, Z
from workbench.models.model import Model

__all__ = ["MEAN_HOOKS", "Phrase", "phrase"]

MEAN_HOOKS = (Z, ATTN_OUT, MLP_OUT, MLP_POST)  # what `measure_means` must measure for any phrase

_BLIND = re.compile(r"(?:(L\d{1,6}H\d{1,6}) )?(\d{1,9}) cannot see (\d{1,9})")


@dataclass(frozen=True)
class Phrase:
    """One intervention. how: "zero", "mean", "forced" (an expert), a word of ATTENDED (a head), or "blind" (query and
    key are set; unit: a head, or None for all)."""

    unit: Unit | None
    how: str = "zero"
    query: int | None = None
    key: int | None = None

    def __str__(self) -> str:
        words = [] if self.unit is None else [str(self.unit)]
        said = {"zero": [], "blind": [f"{self.query} cannot see {self.key}"]}
        words += said.get(self.how, [self.how])
        return " ".join(words)

    def check(self, model: Model, n_tokens: int) -> None:
        """InputError where the model has no such unit or the prompt no such tokens."""
        if self.unit is not None:
            self.unit.check(model)
        places = [getattr(self.unit, name, None) for name in ("query", "key", "pos")]
        if any(place is not None and place >= n_tokens for place in places):
            raise InputError(f"{str(self)!r}", f"tokens 0 to {n_tokens - 1}", "Take it back, or choose other tokens")
        if self.how == "blind":
            query, key = self._edge
            if not (0 <= key <= query < n_tokens and query > 0):
                raise InputError(
                    f"{str(self)!r}",
                    f"a token from 1 to {n_tokens - 1} and one that it sees",
                    "Take it back, or choose other tokens",
                )

    @property
    def _edge(self) -> tuple[int, int]:
        """Query and key of a blind one."""
        if self.query is None or self.key is None:
            raise InputError(f"{str(self)!r}", "a query and a key", "Name both tokens")
        return self.query, self.key

    def intervention(self, model: Model, means: Callable[[], Any]) -> Any:
        """The value for `observe()` or `run()`. means: gives `Means`, called if needed."""
        if self.how == "blind":
            layers = tuple(range(model.sizes.n_layers)) if self.unit is None else (self.unit.layer,)
            query, key = self._edge
            return Knockout((query,), (key,), layers, None if self.unit is None else self.unit.units)
        assert self.unit is not None, "only a blind one is of all heads"
        if self.how == "forced":
            assert isinstance(self.unit, Expert), "phrase() refuses others"
            return Force(self.unit)
        if self.how in ATTENDED:
            assert isinstance(self.unit, Head), "phrase() refuses others"
            return Attend(self.unit, self.how)
        return Ablate(self.unit, self.how, means() if self.how == "mean" else None)

    @property
    def words(self) -> tuple[str, ...]:
        """Names that its code needs imported."""
        unit = () if self.unit is None or self.how == "blind" else (type(self.unit).__name__,)
        made = {"blind": "Knockout", "forced": "Force", **dict.fromkeys(ATTENDED, "Attend")}
        return (made.get(self.how, "Ablate"), *unit)

    def code(self) -> str:
        """The same as Python, where `model` is the model and `means` its means."""
        if self.how == "blind":
            layers = "tuple(range(model.sizes.n_layers))" if self.unit is None else f"({self.unit.layer},)"
            heads = "" if self.unit is None else f", {self.unit.units!r}"
            return f"Knockout(({self.query},), ({self.key},), {layers}{heads})"
        if self.how == "forced":
            return f"Force({self.unit!r})"
        if self.how in ATTENDED:
            return f"Attend({self.unit!r}, {self.how!r})"
        reference = ", 'mean', means" if self.how == "mean" else ""
        return f"Ablate({self.unit!r}{reference})"


@fitted()
def phrase(text: str) -> Phrase:
    """The intervention that a text stands for; InputError where it stands for none."""
    blind = _BLIND.fullmatch(text)
    if blind:
        head, query, key = blind.groups()
        return Phrase(units_of(head)[0] if head else None, "blind", int(query), int(key))
    how = next((how for how in ("mean", "forced", *ATTENDED) if text.endswith(f" {how}")), "zero")
    units = units_of(text.removesuffix(f" {how}"))
    if len(units) != 1:
        raise InputError(f"the intervention {text!r}", "one unit, such as L18H6 or L20 MLP mean", "Name one")
    without_mean = isinstance(units[0], Expert | ExpertNeurons | Residual | AttentionEdge | AttentionKey)
    if (without_mean and how == "mean") or (not isinstance(units[0], Expert) and how == "forced"):
        raise InputError(
            f"the intervention {text!r}",
            "an expert alone or forced; its neurons, a state, an edge or a key alone; others alone or by their mean",
            "Drop the last word",
        )
    if how in ATTENDED and not isinstance(units[0], Head):
        raise InputError(f"the intervention {text!r}", f"a head that looks at the {how}", "Name one, such as L0H1")
    return Phrase(units[0], how)
