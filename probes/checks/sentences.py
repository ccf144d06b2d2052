"""What a check says in words. Every word follows from the numbers of its result, by way of a small table of facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from probes.checks.matched_controls import FEWEST
from probes.checks.relation import HOLDS
from workbench.intervene import MLP, Attention, AttentionEdge, AttentionKey, ExpertNeurons, Head, Neurons, Residual
from workbench.words import counted

__all__ = ["Facts", "facts", "nouns", "sentence"]

SMALL = 0.05  # p at which a sentence says "more than"
_OTHER_WAY = {"lowers": "raises", "raises": "lowers"}


@dataclass(frozen=True)
class Facts:
    """What a sentence may say. n: controls; as_much, peers_as_much: of them and of the peers, at least as extreme on
    the claim's side; control_mean: of what is compared, absolute values where the side is "changes"; rivals: the few
    controls that do as much, by name; peer_rivals: the few peers."""

    side: str
    effect: float
    low: float
    high: float
    n_prompts: int
    kind: str
    n: int
    as_much: int
    control_mean: float
    p: float
    at_floor: bool
    n_peers: int
    peers_as_much: int
    all_peers: bool
    beyond: int
    relation_p: float
    test_p: float
    rivals: str
    peer_rivals: str

    @property
    def astray(self) -> bool:
        """Whether the removal raises what it is claimed to lower, or the other way round."""
        return (self.side == "lowers" and self.effect >= 0) or (self.side == "raises" and self.effect <= 0)


def facts(result: xr.Dataset) -> Facts:
    """The facts of a check's result."""
    a, effect = result.attrs, float(result["effect"])
    controls, peers = (
        result[name].values if name in result else np.zeros(0) for name in ("control_effect", "peer_effect")
    )
    side, p = a["side"], float(result["p"])
    compared = np.abs(controls) if side == "changes" else controls
    return Facts(
        side=side,
        effect=effect,
        low=float(result["effect_low"]),
        high=float(result["effect_high"]),
        n_prompts=result["effect_by_prompt"].size,
        kind=a["controls"],
        n=controls.size,
        as_much=_as_much(controls, effect, side),
        control_mean=float(compared.mean()) if controls.size else float("nan"),
        p=p,
        at_floor=bool(controls.size) and _as_much(controls, effect, side) == 0,
        n_peers=peers.size,
        peers_as_much=_as_much(peers, effect, side),
        all_peers=peers.size == a["n_others"],
        beyond=int(a["n_beyond"]),
        relation_p=float(result["relation_p"]),
        test_p=float(result["relation_test_p"]),
        rivals=a.get("rivals", ""),
        peer_rivals=a.get("peer_rivals", ""),
    )


def _as_much(effects: np.ndarray, own: float, side: str) -> int:
    return int({"changes": np.abs(effects) >= abs(own), "lowers": effects <= own, "raises": effects >= own}[side].sum())


def nouns(units: Sequence[Any]) -> str:
    """What the controls are, for people."""
    return {
        Head: "heads",
        Attention: "attention blocks",
        MLP: "MLPs",
        Neurons: "neurons",
        ExpertNeurons: "neurons of experts",
        AttentionEdge: "edges into the same queries",
        AttentionKey: "keys of heads",
        Residual: "states of the residual stream behind position 0",
    }[type(units[0])]


def sentence(result: xr.Dataset) -> str:
    """What was done and what happened; against what, how rare; and the same without a caliper."""
    known = facts(result)
    parts = [_effect(result, known)]
    if known.kind == "random directions":
        parts += [_peers(result, known), _directions(result, known)]
    elif known.kind == "none":
        parts += [_refused(result, known), _peers(result, known)]
    else:
        parts += [_controls(result, known)]
    return " ".join(filter(None, [*parts, _relation(result, known)]))


def _effect(result: xr.Dataset, known: Facts) -> str:
    a = result.attrs
    interval = ""
    if np.isfinite(known.low):
        interval = f" (95 % interval {known.low:+.3g} to {known.high:+.3g}, n = {known.n_prompts})"
    prompts = counted(known.n_prompts, "prompt")
    return (
        f"Removing {a['called']} ({a['method'].split(' of ')[0]}) changes the {a['metric']} by {known.effect:+.3g} "
        f"{result['effect'].attrs['units']}{interval} on {prompts}."
    )


def _does(known: Facts, n: int) -> str:
    """`lower it as much`, of n units; where the claimed one raises it, what "at least as low" means then."""
    verb, other = (word if n == 1 else word.removesuffix("s") for word in (known.side, _OTHER_WAY.get(known.side, "")))
    return f"{verb} it, or {other} it by no more" if known.astray else f"{verb} it as much"


def _rarity(known: Facts) -> str:
    """`1 of them lowers it as much (L16H0 by -1.59; p = 0.0952)`."""
    floor = ", the smallest that so many can give" if known.at_floor else ""
    mean = f"{known.control_mean:.3g} in absolute size" if known.side == "changes" else f"{known.control_mean:+.3g}"
    return (
        f"they {'change' if known.side == 'changes' else 'move'} it by {mean} on average, and "
        f"{known.as_much or 'none'} of them {_does(known, known.as_much)} "
        f"({known.rivals and known.rivals + '; '}p = {known.p:.3g}{floor})"
    )


def _judged(known: Facts, like: str) -> str:
    """Only a small p says that it matters more; a large one shows nothing. What goes the other way does not do it."""
    if known.astray:
        less = f", and {_OTHER_WAY[known.side]} it less than {like}" if known.p <= SMALL else ""
        return f"it does not {known.side.removesuffix('s')} it{less}."
    if known.p <= SMALL:
        return f"it {known.side} it more than {like}."
    return f"it is not shown that it {known.side} it more than {like}."


def _controls(result: xr.Dataset, known: Facts) -> str:
    a = result.attrs
    if known.kind == "unmatched units":
        against = f"{known.n} unmatched sets of {a['nouns']}"
    else:
        near = "the same layer" if a["window"] == 0 else f"layers at most {a['window']} away"
        low, high = float(result["control_norm_low"]), float(result["control_norm_high"])
        against = (
            f"{known.n} controls of {a['nouns']} within a factor {a['caliper']:g} of its norm ({low:.2f} to {high:.2f} "
            f"times it), from {near}"
        )
    return f"Beside {against}: {_rarity(known)}: {_judged(known, 'its like')}"


def _directions(result: xr.Dataset, known: Facts) -> str:
    a = result.attrs
    where = "the only position" if a.get("one_token") else "every position but 0"
    return (
        f"Too few {a['nouns']} are as loud ({a['within_caliper']} within a factor {a['caliper']:g}; a test needs "
        f"{FEWEST}), so {known.n} random directions of the same norm, added at {where}, stand in: "
        f"{_rarity(known)}: {_judged(known, 'random directions')}"
    )


def _refused(result: xr.Dataset, known: Facts) -> str:
    a = result.attrs
    return (
        f"No test beside its like: {a['scarce']} has {a['within_caliper']} of {_others(a)} "
        f"within a factor {a['caliper']:g} of its norm, and a p of 0.05 needs {FEWEST}."
    )


def _others(a: Mapping[str, Any]) -> str:
    return f"the one other of the {a['nouns']}" if a["n_others"] == 1 else f"{a['n_others']} other {a['nouns']}"


def _peers(result: xr.Dataset, known: Facts) -> str:
    """How the claimed unit stands among the others of its kind, as they are."""
    if not known.n_peers:
        return ""
    n = known.peers_as_much
    if known.n_peers == 1:
        less = f"{_OTHER_WAY.get(known.side)} it by more" if known.astray else ""
        does = _does(known, 1) if n else less or f"does not {known.side.removesuffix('s')} it as much"
        there = "There is one other" if known.all_peers else "One other was drawn"
        return f"{there} of the {result.attrs['nouns']}: removed, whatever its norm, it {does}."
    whose = f"{known.n_peers} other {result.attrs['nouns']}"
    whose = f"the {whose}, whatever their norm" if known.all_peers else f"{whose}, a sample over all norms"
    named = f" ({known.peer_rivals})" if n and known.peer_rivals else ""
    return f"Of {whose}, removed one by one, {n or 'none'} {_does(known, n)}{named}."


def _relation(result: xr.Dataset, known: Facts) -> str:
    """The second answer; where its model does not hold, that it does not. It ranks effects over the size that is usual,
    so that its count is another than that of the strokes further out in the figure, and says so."""
    if not np.isfinite(known.relation_p):
        return ""
    a = result.attrs
    of = "" if known.all_peers else f" of {a['n_others']}"
    usual = "norm, depth and position" if a.get("by_position") else "norm and depth"
    model = "a parabola in log norm and in depth" + (" and a level at each position" if a.get("by_position") else "")
    whose = f"{known.n_peers}{of} other {a['nouns']}"
    begun = f"Against the size that is usual at its {usual} (log |effect| as {model}, over {whose}"
    if known.test_p < HOLDS:
        return f"{begun}): that model does not hold here (p = {known.test_p:.2g}), so its ranks are no test."
    verb = "lies" if known.beyond == 1 else "lie"
    far = {"lowers": "low", "raises": "high", "changes": "far out"}[known.side]
    return (
        f"{begun}; not rejected at {HOLDS:g}: p = {known.test_p:.2g}), {known.beyond or 'none'} {verb} as {far} as it "
        f"(p = {known.relation_p:.3g})."
    )
