"""Matched controls: other units of the same kind that are as loud as the claimed ones, and as near in depth.

How loud a unit is, `norms` says. A control lies within a caliper of the unit that it replaces: its norm is at most 1.5
times as large or as small, unless told otherwise. Among those the nearest in depth are taken, then the nearest in norm.
In a set every member is replaced within its own caliper, none twice, none by a member of the claim. Fewer controls than
asked for are fewer controls; where a member has fewer than 19, a p of 0.05 is out of reach and the test is refused.

Controls of an edge lead into the same query. Position 0 is in no control of a state, and neither are positions behind
the prediction that is measured, where a removal does nothing.

Beside them stand peers: units of the kind whatever their norm, which `relation` sets the effect against.

Source: matched random controls as in Wang et al. 2022, arXiv 2211.00593, section 4; the caliper as in matching for
observational studies (Rosenbaum and Rubin 1985).
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from probes.checks.norms import SILENT, output_norms
from workbench.intervene import AttentionEdge, AttentionKey, ExpertNeurons, Neurons, Residual
from workbench.models.model import Model

__all__ = [
    "CALIPER",
    "FEWEST",
    "N_CONTROLS",
    "N_PEERS",
    "Controls",
    "HeadControls",
    "atoms",
    "draw_controls",
    "matched_controls",
]

N_CONTROLS = 50
N_PEERS = 100
CALIPER = 1.5
FEWEST = 19  # controls that make p = 0.05 possible
_FEW = 50  # other units of a kind below which random directions stand in for them


@dataclass(frozen=True)
class Controls:
    """Control sets of units, each as large as the claim.

    kind: "matched units", "unmatched units", "random directions" (then the sets are empty) or "none" (no sets: too few
    units are as loud). window: how many layers away they lie at most; None without matching. low, high: the smallest
    and largest norm of a control, times that of the member it replaces. norms: the same by set, geometric mean over its
    members. fewest: how many units the member with the fewest has within the caliper. peers: other units of the kind,
    for a claim of one unit, with their log norms against the claim's; n_others: how many there are in all, without
    those whose removal takes nothing away.
    """

    sets: tuple[tuple[Any, ...], ...]
    kind: str
    window: int | None = None
    norms: tuple[float, ...] = ()
    low: float = float("nan")
    high: float = float("nan")
    caliper: float = CALIPER
    fewest: int = 0
    scarce: int = 0
    peers: tuple[Any, ...] = ()
    peer_norms: tuple[float, ...] = field(default=(), repr=False)
    n_others: int = 0

    @property
    def directions(self) -> bool:
        """Whether random directions stand in for units."""
        return self.kind == "random directions"

    @property
    def louder(self) -> float:
        """The claim's norm over that of its controls, geometric means; NaN without units as controls."""
        return float(np.exp(-np.mean(np.log(self.norms)))) if self.norms else float("nan")


def atoms(units: Sequence[Any]) -> tuple[Any, ...]:
    """The units one by one: a set of neurons becomes single ones."""
    return tuple(
        one
        for unit in units
        for one in (
            [replace(unit, neurons=(n,)) for n in unit.neurons] if isinstance(unit, Neurons | ExpertNeurons) else [unit]
        )
    )


def matched_controls(
    model: Model,
    prompts: Sequence[Any],
    units: Sequence[Any],
    n: int = N_CONTROLS,
    *,
    caliper: float = CALIPER,
    peers: int = N_PEERS,
    last: int | None = None,
    matched: bool = True,
    seed: int = 0,
) -> Controls:
    """Up to n distinct control sets for units of one kind (`atoms`), as loud on these prompts; see `draw_controls`.

    last: the last position whose removal the metric can see (None: the prompt's last).
    """
    kind, queries = type(units[0]), tuple(sorted({u.query for u in units if isinstance(u, AttentionEdge)}))
    norms = output_norms(model, prompts, kind, queries)
    if kind in (AttentionKey, Residual):  # the last axis is the position
        norms[..., (norms.shape[-1] if last is None else last + 1) :] = np.nan
    shape = norms.shape[1:]
    flat = [(u.layer, int(np.ravel_multi_index(_place(u, queries), shape)) if shape else 0) for u in units]
    rows = np.broadcast_to(np.arange(shape[1])[:, None], shape).ravel() if kind is AttentionEdge else None
    found = draw_controls(
        norms.reshape(len(norms), -1), flat, n, caliper=caliper, peers=peers, matched=matched, seed=seed, rows=rows
    )
    units_at = lambda places: tuple(_unit(kind, a, np.unravel_index(i, shape), queries) for a, i in places)
    return replace(found, sets=tuple(map(units_at, found.sets)), peers=units_at(found.peers))


def _place(unit: Any, queries: tuple[int, ...]) -> tuple[int, ...]:
    """Where a unit stands in the norms of its layer."""
    if isinstance(unit, AttentionEdge):
        return unit.head, queries.index(unit.query), unit.key
    if isinstance(unit, ExpertNeurons):
        return unit.expert, *unit.neurons
    return unit.neurons if isinstance(unit, Neurons) else astuple(unit)[1:]


def _unit(kind: type, layer: int, place: Sequence[Any], queries: tuple[int, ...]) -> Any:
    numbers = tuple(int(i) for i in place)
    if kind is AttentionEdge:
        return AttentionEdge(layer, numbers[0], queries[numbers[1]], numbers[2])
    if kind is ExpertNeurons:
        return ExpertNeurons(layer, numbers[0], numbers[1:])
    return Neurons(layer, numbers) if kind is Neurons else kind(layer, *numbers)


def draw_controls(
    norms: np.ndarray,
    units: Sequence[tuple[int, int]],
    n: int = N_CONTROLS,
    *,
    caliper: float = CALIPER,
    peers: int = 0,
    matched: bool = True,
    seed: int = 0,
    rows: np.ndarray | None = None,
) -> Controls:
    """Up to n distinct control sets for units given as (layer, index), as tuples of such pairs.

    norms: log norms `[layer, index]`, NaN for what is no control. rows: label of every index; a unit is replaced by
    others of its label only. One unit: those within the caliper, nearest in depth, then in norm. Several: each is
    replaced by a random one of the n that are nearest so, until n distinct sets are drawn. Fewer than 19 for a member,
    or in all: random directions where the model has fewer than 50 other units and the claim's norm is known (a state's
    at position 0 is not), else none. peers: how many other units
    of a single claim's kind to set its effect beside; all, or as many drawn evenly over their norms. matched=False
    draws from the whole model instead: a check that is wrong wherever loud or late units do more, kept to show that.
    """
    random, claimed = np.random.default_rng(seed), np.zeros(norms.shape, bool)
    claimed[tuple(zip(*units, strict=True))] = True
    free = np.isfinite(norms) & ~claimed
    alike = [free if rows is None else free & (rows == rows[index]) for _, index in units]
    pools = [_within(norms, allowed, unit, caliper) for allowed, unit in zip(alike, units, strict=True)]
    fewest = min(map(len, pools))
    heard = [allowed & (norms > SILENT) for allowed in alike]  # what takes nothing away is no other unit
    beside = _peers(norms, units[0], heard[0], pools[0][:n], peers, random) if len(units) == 1 else {}
    common: dict[str, Any] = {
        "caliper": caliper, "fewest": fewest, "scarce": int(np.argmin(list(map(len, pools)))),
        "n_others": int(min(map(np.sum, heard))), **beside,
    }  # fmt: skip
    if not matched and free.sum() > len(units) + n:
        sets = _unmatched_sets(np.argwhere(free), len(units), n, random)
        return Controls(sets, "unmatched units", **common)
    chosen = list(islice(_matched_sets([pool[:n] for pool in pools], n, random), n)) if fewest >= FEWEST else []
    if len(chosen) >= FEWEST:
        return _measured(norms, units, chosen, common)
    if min(map(np.sum, alike)) < _FEW and np.isfinite(norms[tuple(zip(*units, strict=True))]).all():
        return Controls(((),) * n, "random directions", **common)
    return Controls((), "none", **common)


def _measured(
    norms: np.ndarray,
    units: Sequence[tuple[int, int]],
    chosen: list[tuple[tuple[int, int], ...]],
    common: dict[str, Any],
) -> Controls:
    """The sets with how loud and how far they are. chosen: the replacement of every member, in the claim's order."""
    apart = np.array([[norms[new] - norms[old] for new, old in zip(one, units, strict=True)] for one in chosen])
    window = max(abs(new[0] - old[0]) for one in chosen for new, old in zip(one, units, strict=True))
    return Controls(
        tuple(tuple(sorted(one)) for one in chosen),
        "matched units",
        window,
        tuple(np.exp(apart.mean(1)).tolist()),
        float(np.exp(apart.min())),
        float(np.exp(apart.max())),
        **common,
    )


def _within(norms: np.ndarray, allowed: np.ndarray, unit: tuple[int, int], caliper: float) -> list[tuple[int, int]]:
    """Allowed units within the caliper, nearest in depth first, then in log norm."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(norms - norms[unit])
        near = allowed & (apart <= np.log(caliper) + 1e-9)  # rounding must not cut a norm of just the caliper
    layers, indices = np.nonzero(near)
    order = np.lexsort((apart[near], np.abs(layers - unit[0])))
    return list(zip(layers[order].tolist(), indices[order].tolist(), strict=True))


def _matched_sets(
    pools: list[list[tuple[int, int]]], n: int, random: np.random.Generator
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Distinct sets with one of each pool, none twice in a set, the members in the order of the pools."""
    if len(pools) == 1:
        yield from ((unit,) for unit in pools[0])
        return
    found: set[tuple[Any, ...]] = set()
    for _ in range(40 * n):
        chosen: list[tuple[int, int]] = []
        for pool in pools:
            left = [unit for unit in pool if unit not in chosen]
            if not left:
                break
            chosen.append(left[int(random.integers(len(left)))])
        if len(chosen) == len(pools) and tuple(sorted(chosen)) not in found:
            found.add(tuple(sorted(chosen)))
            yield tuple(chosen)


def _unmatched_sets(others: np.ndarray, size: int, n: int, random: np.random.Generator) -> tuple[Any, ...]:
    sets: dict[tuple[Any, ...], None] = {}
    while len(sets) < n:
        chosen = others[random.choice(len(others), size, replace=False)]
        sets[tuple(sorted(map(tuple, chosen.tolist())))] = None
    return tuple(sets)


def _peers(
    norms: np.ndarray,
    unit: tuple[int, int],
    free: np.ndarray,
    controls: list[tuple[int, int]],
    n: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    """All other units of the kind, or n of them: the controls, and others drawn evenly over the ranks of norms."""
    places = list(map(tuple, np.argwhere(free).tolist()))
    if len(places) > n:
        kept = [place for place in controls if free[place]][:n]
        rest = sorted(set(places) - set(kept), key=lambda place: norms[place])
        strata = np.array_split(np.arange(len(rest)), n - len(kept)) if n > len(kept) else []
        places = kept + [rest[int(random.choice(stratum))] for stratum in strata]
    apart = tuple(float(norms[place] - norms[unit]) for place in places)
    return {"peers": tuple(places), "peer_norms": apart}


class HeadControls:
    """The controls of every head: `weights` [head, head] averages them; their number, and how loud they are.

    Of a head with fewer than 19, all weights are 0.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        n = int(np.prod(shape))
        self.weights, self.number = np.zeros((n, n)), np.zeros(shape, int)
        self.low, self.high = np.full(shape, np.nan), np.full(shape, np.nan)

    @classmethod
    def of(cls, norms: np.ndarray, caliper: float) -> "HeadControls":
        """norms: log norms (layer, head)."""
        made = cls(norms.shape)
        for row, place in enumerate(np.ndindex(norms.shape)):
            found = draw_controls(norms, [place], N_CONTROLS, caliper=caliper)
            made.number[place] = found.fewest if found.kind != "matched units" else len(found.sets)
            if found.kind == "matched units":
                made.low[place], made.high[place] = found.low, found.high
                columns = [int(np.ravel_multi_index(one[0], norms.shape)) for one in found.sets]
                made.weights[row, columns] = 1 / len(columns)
        return made

    def contrast(self, effects: np.ndarray) -> np.ndarray:
        """Effects (prompt, layer, head) minus the mean of their controls'; NaN where there are too few."""
        flat = effects.reshape(len(effects), -1)
        apart = flat - np.where(np.isfinite(flat), flat, 0.0) @ self.weights.T
        broken = (~np.isfinite(flat)).astype(float) @ self.weights.T > 0
        apart[:, self.weights.sum(1) == 0] = np.nan
        return np.where(broken | ~np.isfinite(apart), np.nan, apart).reshape(effects.shape)
