"""The verdict of a check as numbers: the claim's effect among those of its controls, and among those of its peers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from probes.checks.hypothesis import SIDES, measured_of
from probes.checks.matched_controls import Controls
from probes.checks.relation import relation
from probes.checks.sentences import nouns, sentence
from workbench.analysis.results import dataset
from workbench.observation.metrics import Metric
from workbench.observation.sweeps import Base
from workbench.statistics import bootstrap_interval, monte_carlo_p

__all__ = ["verdict"]

_OF_EACH = {  # what is measured of several prompts with unlike tokens
    "logit difference": "logit of each prompt's target",
    "log-probability": "log-probability of each prompt's target",
    "repetition": "mean log-probability of what came next the last time (repeated tokens)",
}
_NAMED = 6  # units that a sentence names
_RIVALS = 3  # controls that a sentence names


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

    effects: of the claim, by prompt. controlled, peered: of its controls and of its peers, by prompt, NaN where not yet
    known. how: the reference of the method.
    """
    by_prompt, metric = np.array(effects), metrics[0]
    effect, (low, high) = float(by_prompt.mean()), bootstrap_interval(by_prompt)
    by_control, control_norms, sets = _known(
        np.mean(controlled, axis=0), controls.norms, [" ".join(map(str, one)) for one in controls.sets]
    )
    extreme = np.abs if side == "changes" else (lambda x: x)
    p = float(monte_carlo_p(extreme(effect), extreme(by_control), SIDES[side]))
    floor = 1 / (1 + len(by_control)) if len(by_control) else np.nan
    own_layer = units[0].layer
    own_pos = getattr(units[0], "pos", None)  # of a state
    peers, peer_norms, layers, labels, pos = _known(
        np.mean(peered, axis=0) if peered else np.zeros(0),
        controls.peer_norms,
        [unit.layer for unit in controls.peers],
        [str(unit) for unit in controls.peers],
        [] if own_pos is None else [unit.pos for unit in controls.peers],
    )
    where = () if own_pos is None else (pos, own_pos)
    beside = relation(effect, peers, peer_norms.astype(float), layers, own_layer, side, *where)
    times = "times the claim's"
    result = dataset(
        replace(bases[0].observation, tokens=tuple(base.tokens for base in bases)),
        coords={"label": ("component", list(labels))} if len(peers) else None,
        effect=("", effect, metric.units, None, "effect of the removal"),
        effect_low=("", float(low), metric.units, None, f"95 % interval over {len(effects)} prompts, low"),
        effect_high=("", float(high), metric.units, None, f"95 % interval over {len(effects)} prompts, high"),
        effect_by_prompt=("prompt", by_prompt, metric.units, None, "effect by prompt"),
        control_effect=("draw", by_control, metric.units, None, "effect of the controls"),
        control_norm=("draw", control_norms, times, (0, None), "norm of the controls"),
        p=("", p, "probability", (0, 1), "share of controls at least as extreme"),
        p_floor=("", floor, "probability", (0, 1), "smallest p that so many controls can give"),
        louder=("", controls.louder, "times its controls", (0, None), "norm against the controls'"),
        control_norm_low=("", controls.low, times, (0, None), "smallest norm of a control"),
        control_norm_high=("", controls.high, times, (0, None), "largest norm of a control"),
        relation_p=("", beside.p, "probability", (0, 1), "rank of the effect's residual over norm and depth"),
        relation_slope=(
            "",
            beside.slope,
            "log effect per log norm",
            None,
            "slope of log effect over log norm at the claim",
        ),
        relation_test_p=("", beside.test_p, "probability", (0, 1), "test of the model of that relation"),
        relation_scale=("", beside.own_scale, metric.units, (0, None), "size of effect expected of the claim"),
        **_of_peers(peers, peer_norms, beside.scale, metric.units),
        **_of_prompts(metrics, bases),
    )
    result.attrs.update(
        units=" ".join(map(str, units)),
        called=_called(units),
        nouns=nouns(units),
        metric=_measured(metrics, bases),
        method=method if method == "zero" else f"{method} of {how}",
        side=side,
        controls=controls.kind,
        window=-1 if controls.window is None else controls.window,
        caliper=controls.caliper,
        within_caliper=controls.fewest,
        scarce=str(units[0]) if len(units) == 1 else _scarce(units, controls),
        n_others=controls.n_others,
        n_beyond=beside.beyond,
        by_position=int(own_pos is not None),
        one_token=int(all(len(base.tokens) == 1 for base in bases)),
        rivals="" if controls.directions or len(units) > 1 else _rivals(sets, by_control, effect, side),
        peer_rivals="" if len(units) > 1 else _rivals(labels, peers, effect, side),
    )
    result.attrs["summary"] = " ".join(filter(None, (sentence(result), _noted(metrics))))
    return result


def _noted(metrics: Sequence[Metric]) -> str:
    """What is to be said of the targets, of several prompts: of how many, and how it stands with the first of them; and
    of the numbers' digits."""
    notes = [metric.note for metric in metrics if metric.note]
    said, coarse = "".join(notes[:1]), next((metric.coarse for metric in metrics if metric.coarse), "")
    if notes and (len(set(notes)) > 1 or len(notes) < len(metrics)):
        first = "" if len(notes) == 1 else ", here of the first of these"
        said = f"Of {len(notes)} of the {len(metrics)} prompts this is to be said{first}: {said}"
    return " ".join(filter(None, (said, coarse)))


def _known(effects: np.ndarray, *beside: Sequence[Any]) -> list[np.ndarray]:
    """Effects that are known, and what belongs to them; NaN where nothing does."""
    known = ~np.isnan(effects)
    rest = [np.array(one if len(one) else [np.nan] * len(effects))[known] for one in beside]
    return [effects[known], *rest]


def _rivals(names: np.ndarray, effects: np.ndarray, own: float, side: str) -> str:
    """The controls that do at least as much, the most first, with what they do; "" where they are many, or none."""
    extreme = {"changes": np.abs, "lowers": np.negative, "raises": np.positive}[side]
    order = [i for i in np.argsort(-extreme(effects), kind="stable") if extreme(effects[i]) >= extreme(own)]
    return ", ".join(f"{names[i]} by {effects[i]:+.3g}" for i in order) if len(order) <= _RIVALS else ""


def _of_prompts(metrics: Sequence[Metric], bases: Sequence[Base]) -> dict[str, Any]:
    if len(metrics) == 1:
        return {}
    return measured_of(bases[0].observation.vocabulary, [base.tokens for base in bases], metrics)


def _of_peers(effects: np.ndarray, norms: np.ndarray, scale: np.ndarray, units: str) -> dict[str, Any]:
    if not len(effects):
        return {}
    return {
        "peer_effect": ("component", effects, units, None, "effect of the others"),
        "peer_norm": ("component", np.exp(norms.astype(float)), "times the claim's", (0, None), "norm of the others"),
        "peer_scale": ("component", scale, units, (0, None), "size of effect expected of the others"),
    }


def _scarce(units: Sequence[Any], controls: Controls) -> str:
    """The member of a claim that has the fewest units within the caliper."""
    parts = [one for unit in units for one in ([unit] * len(getattr(unit, "neurons", (0,))))]
    return str(parts[controls.scarce])


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


def _called(units: Sequence[Any]) -> str:
    """The units by name, or how many of them where that would be a list."""
    return " ".join(map(str, units)) if len(units) <= _NAMED else f"{len(units)} {nouns(units).split(' into ')[0]}"
