"""What the probes read in states: probabilities of the true tokens, and which depths to compare."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.erasure.trained.artifact import FILES, ReadoutProbes, find
from probes.erasure.trained.recipe import OFFSETS
from workbench.analysis.parameters import Choice
from workbench.errors import InputError, UnavailableError, WorkbenchError
from workbench.models.model import Model

__all__ = [
    "GET",
    "KIND_HELP",
    "SHOWN",
    "Kind",
    "Reading",
    "chosen_depths",
    "erasure",
    "identified",
    "plan",
    "probes_digest",
    "read",
    "shown_offsets",
]

SHOWN = (*OFFSETS, -3)  # what is shown where there are probes
KIND_HELP = "which probes: the cheap ones, the paper's plain softmax, or imported ones"
Kind = Annotated[str, Choice(tuple(FILES)), KIND_HELP]
_NAMES_ITSELF = 0.98  # of held-out tokens at offset 0: the state still says which token it stands on
TRAIN = "Train them in some minutes: run token-erasure-probes, or `workbench train erasure-probes`"
GET = {
    "factored": TRAIN,
    "linear": "Train them: run token-erasure-probes as linear, or `workbench train erasure-probes --kind linear`",
    "imported": "Import them: `workbench import erasure-probes FILE --layer L --offset I`",
}


@dataclass(frozen=True, eq=False)
class Reading:
    """Arrays over (depth, token, offset). prob: of the true token, NaN where t + offset lies before the text. top: the
    id the probe would name, -1 there."""

    depths: tuple[int, ...]
    offsets: tuple[int, ...]
    prob: np.ndarray = field(repr=False)
    top: np.ndarray = field(repr=False)

    def delta(self, early: int, late: int) -> np.ndarray:
        """Erasure `[token, offset]`, -1 to 1."""
        return self.prob[self.depths.index(early)] - self.prob[self.depths.index(late)]


def plan(key: str, name: str, early: int | None, late: int | None, kind: str) -> tuple[ReadoutProbes, int, int]:
    """The probes of a model from the user's cache, and the two depths to compare. Raises where there are none."""
    probes = find(key, kind=kind)
    if probes is None:
        trained = "" if kind == "imported" else "token-erasure-probes"
        raise UnavailableError(
            f"no {kind} readout probes of {name}", "probes of these weights and settings", GET[kind], first=trained
        )
    return probes, *chosen_depths(probes, early, late)


def probes_digest(model: Model, early: int | None, late: int | None, kind: str) -> str | None:
    """A hash of the probes that a result is made with, and of what is known of them; None where there are none."""
    try:
        probes = plan(model.identity.key, model.name, early, late, kind)[0]
    except WorkbenchError:
        return None  # the analysis raises it
    known = json.dumps([probes.card["probes"], probes.card.get("accuracy")], sort_keys=True)
    return sha256(f"{probes.digest} {known}".encode()).hexdigest()


def shown_offsets(probes: ReadoutProbes, depths: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the offsets 0, -1, -2, -3 that have a probe at every one of these depths."""
    return tuple(offset for offset in SHOWN if all((depth, offset) in probes.maps for depth in depths))


def chosen_depths(probes: ReadoutProbes, early: int | None, late: int | None) -> tuple[int, int]:
    """Depths l1 and l2 by the rule, on the documents kept for choosing, unless they are given.

    l1: where offset -1 is read best while offset 0 is still named in 98 % of cases (the best of all where none is). l2:
    the first later depth where last tokens of words have lost half of their accuracy at offset -1, else the deepest.
    Probes whose accuracy was not measured: the first and the last depth.
    """
    depths = tuple(d for d in probes.depths if all((d, offset) in probes.maps for offset in OFFSETS))
    if len(depths) < 2:
        had = ", ".join(f"depth {d} offset {o}" for d, o in sorted(probes.maps))
        raise InputError(f"probes for {had}", f"two depths with the offsets {OFFSETS}", GET[probes.kind])
    missing = [d for d in (early, late) if d is not None and d not in depths]
    if missing:
        raise InputError(f"depth {missing[0]}", f"one of {', '.join(map(str, depths))}", GET[probes.kind])
    card = probes.numbers
    known = all(card[d, offset]["val_accuracy"] is not None for d in depths for offset in (0, -1))
    if early is None:
        before = [d for d in depths[:-1] if late is None or d < late] or list(depths[:1])
        whole = [d for d in before if known and card[d, 0]["val_accuracy"] >= _NAMES_ITSELF]
        early = max(whole or before, key=lambda d: card[d, -1]["val_accuracy"]) if known else before[0]
    if late is None:
        after = [d for d in depths if d > early] or list(depths[-1:])
        late = next((d for d in after if known and _halved(card[early, -1], card[d, -1])), after[-1])
    if early >= late:
        had = ", ".join(map(str, depths))
        raise InputError(f"depths {early} and {late}", f"an early and a later one of {had}", "Correct the depths")
    return early, late


def _halved(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    first, then = before["val_last_accuracy"], after["val_last_accuracy"]
    return first is not None and then is not None and then <= first / 2


@torch.no_grad()
def read(
    probes: ReadoutProbes,
    W_U: torch.Tensor,
    states: Mapping[int, torch.Tensor],
    ids: np.ndarray,
    pos: np.ndarray,
    first: int,
    offsets: tuple[int, ...] = OFFSETS,
) -> Reading:
    """Read tokens laid end to end.

    states: by depth `[token, d_model]`, as the probes take them (`ReadoutProbes.reads_raw`). ids, pos: token ids and
    positions in their piece; first: where the text of a piece begins. A token that the corpus never held is a class of
    its own here, through its row of the unembedding; a plain probe gives it probability 0.
    """
    classes, index = probes.classes_with(ids)
    rows = W_U[classes.to(W_U.device)].float().cpu()
    prob = np.full((len(states), len(ids), len(offsets)), np.nan, dtype=np.float32)
    top = np.full(prob.shape, -1, dtype=np.int64)
    for column, offset in enumerate(offsets):
        at = np.flatnonzero(pos + offset >= first)
        wanted = torch.tensor([index[int(i)] for i in ids[at + offset]], dtype=torch.long)
        for row, (depth, state) in enumerate(states.items()):
            own, _, best = probes.score(depth, offset, state.cpu()[torch.from_numpy(at)], rows, wanted)
            prob[row, at, column] = own.exp().numpy()
            top[row, at, column] = classes[best].numpy()
    return Reading(tuple(states), tuple(offsets), prob, top)


def erasure(reading: Reading, early: int, late: int, first: int) -> np.ndarray:
    """delta `[text token, 3]` of one piece, the BOS token left out: what `psi` works on."""
    return reading.delta(early, late)[first:, : len(OFFSETS)].astype(np.float64)


def identified(result: xr.Dataset, model: Model) -> xr.Dataset:
    """A study's result with the model in its provenance."""
    identity = {key: getattr(model.identity, key) for key in model.identity.__dataclass_fields__}
    return result.assign_attrs(provenance=json.dumps({"model": identity}, sort_keys=True))
