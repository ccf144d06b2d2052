"""The verdict of a check: the claim's effect among those of its controls, as numbers and as one plain sentence."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from probes.checks.hypothesis import SIDES
from probes.checks.matched_controls import Controls
from workbench.analysis.results import dataset
from workbench.intervene import MLP, Attention, AttentionEdge, AttentionKey, Head, Neurons, Residual
from workbench.observation.metrics import Metric
from workbench.observation.sweeps import Base
from workbench.statistics import bootstrap_interval, monte_carlo_p

__all__ = ["ENOUGH_PROMPTS", "verdict"]

ENOUGH_PROMPTS = 8  # for an interval over prompts
_OF_EACH = {  # what is measured of several prompts with unlike tokens
    "logit difference": "logit of each prompt's target",
    "log-probability": "log-probability of each prompt's target",
    "repetition": "mean log-probability of what came next the last time (repeated tokens)",
}
_NAMED = 6  # units that a sentence names
_MUCH_LOUDER = 1.5  # times its controls, from where the sentence says so


def verdict(
    effects: Sequence[float],
    controlled: Sequence[np.ndarray],
    peered: Sequence[np.ndarray],
    bases: Sequence[Base],
    units: Sequence[Any],
    metrics: Sequence[Metric],
    controls: Controls,
    side: str,
    method: str,
    how: Any,
) -> xr.Dataset:
    """The result of a check so far.

    effects: of the claim, by prompt. controlled, peered: of its controls and of its peers, by prompt. how: the
    reference of the method.
    """
    by_prompt, metric = np.array(effects), metrics[0]
    by_control = np.mean(controlled, axis=0)
    effect = float(by_prompt.mean())
    extreme = np.abs if side == "changes" else (lambda x: x)
    p = float(monte_carlo_p(extreme(effect), extreme(by_control), SIDES[side]))
    enough = len(by_prompt) >= ENOUGH_PROMPTS
    low, high = bootstrap_interval(by_prompt) if enough else (np.nan, np.nan)
    floor = 1 / (1 + len(by_control))
    peers = np.mean(peered, axis=0) if peered else np.zeros(0)
    result = dataset(
        replace(bases[0].observation, tokens=tuple(base.tokens for base in bases)),
        coords={"label": ("component", list(map(str, controls.peers)))} if len(peers) else None,
        effect=("", effect, metric.units, None, "effect of the removal"),
        effect_low=("", float(low), metric.units, None, "95 % interval over prompts, low"),
        effect_high=("", float(high), metric.units, None, "95 % interval over prompts, high"),
        effect_by_prompt=("prompt", by_prompt, metric.units, None, "effect by prompt"),
        control_effect=("draw", by_control, metric.units, None, "effect of the controls"),
        p=("", p, "probability", (0, 1), "share of controls at least as extreme"),
        p_floor=("", floor, "probability", (0, 1), "smallest p that so many controls can give"),
        louder=("", controls.louder, "times its controls", (0, None), "norm against the controls'"),
        **({"peer_effect": ("component", peers, metric.units, None, "effect of the others")} if len(peers) else {}),
    )
    result.attrs.update(
        units=" ".join(map(str, units)),
        called=_called(units),
        metric=_measured(metrics, bases),
        method=method if method == "zero" else f"{method} of {how}",
        side=side,
        controls=_kind_of_controls(controls),
        window=-1 if controls.window is None else controls.window,
    )
    said = _sentence(result, _nouns(units), len(by_prompt)) + _beside_peers(result, units)
    result.attrs["sentence"] = metric.noted(said) if len(by_prompt) == 1 else said
    return result


def _measured(metrics: Sequence[Metric], bases: Sequence[Base]) -> str:
    """What is measured and where, in words: of one prompt with its tokens, of several as far as they agree."""
    vocabulary, first = bases[0].observation.vocabulary, metrics[0]
    said = {metric.describe(vocabulary) for metric in metrics}
    what = said.pop() if len(said) == 1 else _OF_EACH[first.kind]
    if first.kind in ("loss", "repetition"):
        return what
    what += " minus its alternative" if what == _OF_EACH.get(first.kind) and first.against is not None else ""
    ends = zip(metrics, bases, strict=True)
    at = {m.position % len(base.tokens) + m.length - 1 - len(base.tokens) for m, base in ends}
    if at == {-1}:
        return f"{what} at the last position"
    strings = {base.tokens.strings[m.position] for m, base in zip(metrics, bases, strict=True)}
    token = f" ({strings.pop()!r})" if len(strings) == 1 else ""
    return f"{what} at position {first.position}{token}"


def _kind_of_controls(controls: Controls) -> str:
    if controls.directions:
        return "random directions"
    return "matched units" if controls.matched else "unmatched units"


def _called(units: Sequence[Any]) -> str:
    """The units by name, or how many of them where that would be a list."""
    return " ".join(map(str, units)) if len(units) <= _NAMED else f"{len(units)} {_nouns(units).split(' into ')[0]}"


def _nouns(units: Sequence[Any]) -> str:
    """What the controls are, for people."""
    return {
        Head: "heads",
        Attention: "attention blocks",
        MLP: "MLPs",
        Neurons: "neurons",
        AttentionEdge: "edges into the same queries",
        AttentionKey: "keys of heads",
        Residual: "states of the residual stream",
    }[type(units[0])]


def _sentence(result: xr.Dataset, nouns: str, n_prompts: int) -> str:
    """One plain sentence: what was done, what happened, against what, how rare; and how unlike the controls are."""
    a, effect, p = result.attrs, float(result["effect"]), float(result["p"])
    n, units = result.sizes["draw"], result["effect"].attrs["units"]
    known = not np.isnan(float(result["effect_low"]))
    interval = (
        f" (95 % interval {float(result['effect_low']):+.3g} to {float(result['effect_high']):+.3g})" if known else ""
    )
    against = {
        "random directions": f"{n} random directions of the same norm (the model has too few {nouns} to compare with)",
        "unmatched units": f"{n} unmatched sets",
        "matched units": f"{n} sets of the {nouns} nearest in norm, from "
        + ("the same layer" if a["window"] == 0 else f"layers within {a['window']}"),
    }[a["controls"]]
    floor = ", the smallest that so many can give" if p <= float(result["p_floor"]) + 1e-12 else ""
    word = "more" if p <= 0.05 else "no more"
    louder = float(result["louder"])
    unlike = f" It is {louder:.2g} times as loud as they are: none nearby is as loud." if louder > _MUCH_LOUDER else ""
    return (
        f"Removing {a['called']} ({a['method'].split(' of ')[0]}) changes the {a['metric']} by {effect:+.3g} {units}"
        f"{interval} on {n_prompts} prompt{'s' if n_prompts > 1 else ''}; {against}, change it by "
        f"{float(result['control_effect'].mean()):+.3g} on average: it {a['side']} it {word} than its like "
        f"(p = {p:.3g}{floor}).{unlike}"
    )


def _beside_peers(result: xr.Dataset, units: Sequence[Any]) -> str:
    """How the claimed unit stands among the others of its kind, where they are too few for a test."""
    if "peer_effect" not in result:
        return ""
    others, own, side = result["peer_effect"].values, float(result["effect"]), result.attrs["side"]
    n = int({"changes": np.abs(others) >= abs(own), "lowers": others <= own, "raises": others >= own}[side].sum())
    return f" Of the {len(others)} other {_nouns(units)}, removed one by one, {n} {'does' if n == 1 else 'do'} as much."
