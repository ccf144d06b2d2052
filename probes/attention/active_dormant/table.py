"""What is known so far as one Dataset: it can be made after every step of the study."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from probes.attention.active_dormant.contrast import FALSE_DISCOVERY, Activity
from probes.attention.active_dormant.texts import Texts
from probes.attention.sinks.measures import mean_known
from workbench.analysis.results import dataset
from workbench.statistics import bootstrap_interval

__all__ = ["HOWS", "Ablations", "table"]

HOWS = {"zero": "ablation_dloss", "mean": "mean_ablation_dloss"}  # kinds of ablation, and the variables they fill
_SHARE, _LARGEST = "share of attention", "share of the largest"
_BY_TEXT, _BY_DOMAIN = "domain prompt layer head", "domain layer head"


@dataclass
class Ablations:
    """Filled head by head. loss: (domain, prompt), with all heads. changes: by how, (domain, prompt, layer, head).

    reference: the text that means were measured on.
    """

    shape: tuple[int, ...]
    reference: str = "not measured"
    loss: np.ndarray = field(init=False)
    changes: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.loss = np.full(self.shape[:2], np.nan)
        self.changes = {how: np.full(self.shape, np.nan) for how in HOWS}


def table(texts: Texts, activity: Activity, ablations: Ablations, epsilon: float, origin: dict[str, Any]) -> xr.Dataset:
    """The result. epsilon: of the sink set. origin: provenance of the first pass."""
    names = np.full(activity.norm.shape[:2], "", dtype=object)
    for name, place in zip(texts.names, texts.place, strict=True):
        names[place] = name
    result = dataset(
        coords={"domain": list(texts.domains)},
        **_activity(texts, activity),
        **_contrasts(activity, texts.domains),
        **_ablations(ablations, activity.seed),
        document=("domain prompt", names, "name", None, "text"),
    )
    convention = (
        f"T = {len(texts.tokens[0])}, {'BOS counted' if texts.tokens[0].bos else 'no BOS'}, epsilon = {epsilon:g}, "
        f"dormant: sinks > {activity.attention_above:g} and output < {activity.output_below:g}, "
        f"n = {len(texts.tokens) // len(texts.domains)} texts of each"
    )
    return result.assign_attrs(
        convention=convention,
        reference=ablations.reference,
        skipped=json.dumps(texts.skipped),
        provenance=json.dumps({**origin, "texts": texts.names, "skipped": texts.skipped}, sort_keys=True),
    )


def _activity(texts: Texts, activity: Activity) -> dict[str, Any]:
    attention, norm = activity.attention, activity.norm
    share, relative = mean_known(activity.dormant, 1), mean_known(activity.relative, 1)
    sinks = "attention to the sink set"
    count, skipped = (~np.isnan(norm[:, :, 0, 0])).sum(1), [len(names) for names in texts.skipped.values()]
    return {
        "sink_attention": (_BY_TEXT, attention, _SHARE, (0, 1), sinks),
        "output_norm": (_BY_TEXT, norm, "residual units", (0, None), "norm of the head's output"),
        "relative_output": (_BY_TEXT, activity.relative, _LARGEST, (0, 1), "output norm, of the head's largest"),
        "dormant_share": (_BY_DOMAIN, share, "share of texts", (0, 1), "dormant texts"),
        "mean_sink_attention": (_BY_DOMAIN, mean_known(attention, 1), _SHARE, (0, 1), sinks),
        "mean_relative_output": (_BY_DOMAIN, relative, _LARGEST, (0, 1), "output norm, of the head's largest"),
        "n_texts": ("domain", count, "texts", (0, None), "texts"),
        "n_skipped": ("domain", skipped, "texts", (0, None), "too short"),
    }


def _contrasts(activity: Activity, domains: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, difference, unit, what in (
        ("contrast", activity.contrast, "share of texts", "dormant texts"),
        ("sink_contrast", activity.sink_contrast, _SHARE, "attention to the sink set"),
    ):
        found |= {
            name: ("layer head", difference.value, unit, (-1, 1), f"{what}: {domains[0]} minus {domains[1]}"),
            f"{name}_low": ("layer head", difference.low, unit, (-1, 1), f"{what}: lower end"),
            f"{name}_high": ("layer head", difference.high, unit, (-1, 1), f"{what}: upper end"),
            f"{name}_q": ("layer head", difference.q, "q", (0, 1), f"{what}: false discovery rate over all heads"),
        }
    flags, (layers, heads) = activity.contrast.passes.astype(np.float64), activity.control
    return {
        **found,
        "candidate": ("layer head", flags, "flag", (0, 1), f"contrast with q < {FALSE_DISCOVERY:g}"),
        "control_layer": ("layer head", layers, "layer", (-1, None), "layer of the matched control head"),
        "control_head": ("layer head", heads, "head", (-1, None), "matched control head"),
    }


def _ablations(ablations: Ablations, seed: int) -> dict[str, Any]:
    found = {"loss": ("domain prompt", ablations.loss, "nats per token", (0, None), "loss with all heads")}
    for how, name in HOWS.items():
        found |= dict(_changes(name, ablations.changes[how], f"change of loss by {how} ablation", seed))
    return found


def _changes(name: str, by_text: np.ndarray, what: str, seed: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Mean, interval and single texts of one kind of ablation."""
    units = "nats per token"
    low, high = (np.stack(ends) for ends in zip(*(bootstrap_interval(t, seed=seed) for t in by_text), strict=True))
    yield name, (_BY_DOMAIN, mean_known(by_text, 1), units, None, what)
    yield f"{name}_low", (_BY_DOMAIN, low, units, None, f"{what}: lower end")
    yield f"{name}_high", (_BY_DOMAIN, high, units, None, f"{what}: upper end")
    yield f"text_{name}", (_BY_TEXT, by_text, units, None, f"{what}, by text")
