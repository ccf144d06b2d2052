"""The hypothesis of a check: units of one kind, prompts that did not suggest it, what is measured of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.checks.matched_controls import FEWEST, atoms
from workbench.arguments import argument, shown
from workbench.errors import InputError
from workbench.intervene import AttentionEdge, AttentionKey, Expert, ExpertNeurons, Residual, units_of
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.models.typed import typed
from workbench.observation.metrics import Metric, followed_by, going_on, make_metric
from workbench.observation.sweeps import Base

__all__ = [
    "EITHER",
    "METHODS",
    "SIDES",
    "checked_units",
    "chosen_prompts",
    "gone_on",
    "measured_of",
    "metric_of",
    "need_inside",
]

SIDES = {"lowers": "less", "raises": "greater", "changes": "greater"}
EITHER = "changes"  # the side of a claim that names none
METHODS = ("zero", "mean", "resample")
_MOST = 10_000  # controls


def checked_units(model: Model, units: Any, side: str, n_controls: int, method: str, corrupt: Any) -> tuple[Any, ...]:
    """The units of a claim, from values or a text; InputError where the claim cannot be tested."""
    units = units_of(units) if isinstance(units, str) else tuple(units if isinstance(units, Sequence) else (units,))
    if not all(hasattr(unit, "check") and hasattr(unit, "hook") for unit in units):
        raise InputError(f"units {shown(units)}", "units, such as Head(3, 1), or a text", "Name parts of the model")
    if side not in SIDES:
        raise InputError(f"side={side!r}", f"one of {', '.join(SIDES)}", "Say what the claim says")
    parts = atoms(units)
    if not units or len({type(unit) for unit in units}) > 1 or len(set(parts)) != len(parts):
        raise InputError(f"units {[str(u) for u in units]}", "different units of one kind", "Check them separately")
    if not FEWEST <= n_controls <= _MOST:
        raise InputError(f"{n_controls} controls", f"{FEWEST} to {_MOST:,}", "Ask for so many")
    if method not in METHODS:
        raise InputError(f"method={method!r}", "zero, mean or resample", "Choose one of these")
    if (method == "resample") != (corrupt is not None):
        raise InputError(
            f"method {method!r} {'without' if corrupt is None else 'with'} a corrupt prompt",
            "a corrupt prompt for resample only",
            "Give one, or choose zero or mean",
        )
    for unit in units:
        unit.check(model)
    if isinstance(units[0], Expert):
        raise InputError(
            f"the expert {units[0]}",
            "units whose controls are matched by norm",
            "Run expert-contrast: its random experts are matched by use",
            first="expert-contrast",
        )
    if method != "zero" and isinstance(units[0], AttentionEdge | AttentionKey):
        raise InputError(f"{units[0]} by {method}", "zero: attention is taken away, not replaced", "Choose zero")
    if method != "zero" and isinstance(units[0], ExpertNeurons):
        raise InputError(f"{units[0]} by {method}", "zero: at most tokens it has no value", "Choose zero")
    if isinstance(units[0], Residual) and any(unit.pos is None for unit in units):
        raise InputError(f"{units[0]} without a position", "a state such as L12 pos 5", "Name its position")
    return units


def need_inside(units: Sequence[Any], prompts: Sequence[Tokens]) -> None:
    """InputError for a unit at a position that a prompt does not have."""
    shortest = min(map(len, prompts))
    for unit in units:
        at = [getattr(unit, name) for name in ("pos", "query", "key") if hasattr(unit, name)]
        if at and max(at) >= shortest:
            raise InputError(f"{unit}", f"positions from 0 to {shortest - 1}", "Choose one inside every prompt")


def chosen_prompts(
    model: Model, prompts: Any, corrupt: Any, metric: Any, suggested_by: Sequence[Any]
) -> tuple[list[Tokens], list[Tokens | None], list[dict[str, Any]]]:
    """Tokens of prompts and of their corrupt partners, and metric options, without prompts that suggested the claim.

    What comes twice counts once: its copy tells nothing more, and would make an interval narrow.
    """
    many = isinstance(prompts, list | tuple) and not all(isinstance(p, int) for p in prompts)
    tokens = [typed(model, p) for p in (prompts if many else [prompts])]
    corrupts = [None] * len(tokens) if corrupt is None else [typed(model, c) for c in (corrupt if many else [corrupt])]
    several = isinstance(metric, list | tuple)
    metrics = list(map(_options, metric)) if several else [_options({} if metric is None else metric)] * len(tokens)
    if not len(tokens) == len(corrupts) == len(metrics):
        raise InputError(
            f"{len(tokens)} prompts, {len(corrupts)} corrupt ones and {len(metrics)} metrics",
            "as many of each",
            "Pair them",
        )
    for one, other in zip(tokens, corrupts, strict=True):
        if other is not None and len(one) != len(other):
            raise InputError(f"prompts of {len(one)} and {len(other)} tokens", "equal lengths", "Change the words")
    seen = {typed(model, p).ids for p in suggested_by}
    every = enumerate(zip(tokens, corrupts, metrics, strict=True))
    once = {(t.ids, None if c is None else c.ids, tuple(sorted(m.items()))): i for i, (t, c, m) in reversed([*every])}
    kept = sorted(once.values())
    fresh = [i for i in kept if tokens[i].ids not in seen] or kept
    return [tokens[i] for i in fresh], [corrupts[i] for i in fresh], [metrics[i] for i in fresh]


_OPTIONS = {"kind": str, "target": str, "against": str, "position": int}


def _options(metric: Any) -> dict[str, Any]:
    """Options of a metric by their names; InputError for what is none."""
    if not isinstance(metric, Mapping) or not set(metric) <= set(_OPTIONS):
        raise InputError(f"metric={shown(metric)}", f"options: {', '.join(_OPTIONS)}", "Name them in a dictionary")
    return {name: argument(name, value, _OPTIONS[name], "a metric") for name, value in metric.items()}


def metric_of(model: Model, base: Base, options: Mapping[str, Any]) -> Metric:
    """What is measured of a prompt, by its run; see `make_metric` for the options."""
    position = int(options.get("position", -1))
    if not -len(base.tokens) <= position < len(base.tokens):
        raise InputError(f"position {position}", f"positions from 0 to {len(base.tokens) - 1}", "Choose one inside")
    named = {"kind": "log-probability", **options}
    at = position - len(_more(model, named)) if position == -1 else position
    return make_metric(model, base.tokens, base.logits(model, at), **named)


def gone_on(model: Model, tokens: Tokens, options: Mapping[str, Any]) -> Tokens:
    """A prompt that goes on with a target of several tokens, where its end is measured."""
    named = {"kind": "log-probability", **options}
    return followed_by(model, tokens, _more(model, named)) if int(named.get("position", -1)) == -1 else tokens


def _more(model: Model, options: Mapping[str, Any]) -> tuple[int, ...]:
    return going_on(model, options["kind"], options.get("target", ""), options.get("against", ""))


def measured_of(vocabulary: Any, runs: Sequence[Tokens], metrics: Sequence[Metric]) -> dict[str, Any]:
    """Variables of a result over several prompts: each prompt, and what is measured of it, which one name cannot say of
    all where none was named. runs: as they were measured, with all but the last token of a longer target."""
    of_prompt = [run.ids[: len(run) + 1 - metric.length] for run, metric in zip(runs, metrics, strict=True)]
    texts, measured = map(vocabulary.text, of_prompt), [one.describe(vocabulary) for one in metrics]
    return {
        "prompt_text": ("prompt", np.array(list(texts), dtype=object), "text", None, "the prompt"),
        "measured": ("prompt", np.array(measured, dtype=object), "text", None, "what is measured of it"),
    }
