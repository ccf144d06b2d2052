"""What the data say about one head, in sentences; also where they do not support that it is active-dormant."""

import numpy as np
import xarray as xr

from probes.attention.active_dormant.contrast import EFFECT_FLOOR, FALSE_DISCOVERY
from workbench.analysis.view import reads
from workbench.arguments import fitted
from workbench.intervene import Head
from workbench.statistics import ENOUGH
from workbench.words import counted, signed

__all__ = ["largest", "summary", "verdict"]

NO_COST = 1e-3  # nats per token up to which a change of loss is none
_HIDDEN = "where a layer's window is shorter than the texts, their first token is out of sight"


@reads("active-dormant")
@fitted()
def verdict(result: xr.Dataset, layer: int, head: int) -> str:
    """Dormant shares, attention to sinks and ablations of one head, and what follows from them."""
    domains = [str(domain) for domain in result["domain"].values[:2]]
    at = result.sel(layer=layer, head=head)
    if not np.isfinite(float(at["sink_contrast"])):
        return f"{Head(layer, head)} is not told about: {_HIDDEN}."
    shares, sinks = at["dormant_share"].values[:2], at["mean_sink_attention"].values[:2]
    outputs = at["mean_relative_output"].values[:2]
    asleep, awake = (0, 1) if (shares[0], sinks[0]) >= (shares[1], sinks[1]) else (1, 0)
    counts = " and ".join(str(int(n)) for n in result["n_texts"].values[:2])
    said = [
        f"{Head(layer, head)}: dormant on {shares[0]:.0%} of {domains[0]} and {shares[1]:.0%} of {domains[1]} texts "
        f"(difference {_interval(at, 'contrast', 2)}, q = {float(at['contrast_q']):.2g}; n = {counts} texts).",
        f"It {'differs' if float(at['candidate']) else 'is not shown to differ'} by {EFFECT_FLOOR:g} or more after "
        "correction over all heads.",
        f"Attention to sinks: {sinks[0]:.2f} and {sinks[1]:.2f} (difference {_interval(at, 'sink_contrast', 2)}, "
        f"q = {float(at['sink_contrast_q']):.2g}). Output: {outputs[0]:.2f} and {outputs[1]:.2f} of its largest.",
    ]
    if np.isnan(at["ablation_dloss"].values[:2]).any():
        return " ".join([*said, "It was not ablated."])
    ablated = int(result["text_ablation_dloss"].isel(domain=awake).sel(layer=layer, head=head).notnull().sum())
    for variable, how in (("ablation_dloss", "Zero"), ("mean_ablation_dloss", "Mean")):
        parts = [f"{_interval(at.isel(domain=d), variable)} nats per token on {domains[d]}" for d in (asleep, awake)]
        said.append(f"{how} ablation changes the loss by {parts[0]} and {parts[1]} (n = {ablated} texts).")
    return " ".join([*said, *_comparison(result, layer, head, asleep, awake, domains), _conclusion(at, asleep, awake)])


def _comparison(result: xr.Dataset, layer: int, head: int, asleep: int, awake: int, domains: list[str]) -> list[str]:
    """Beside the matched control and the other ablated heads."""
    changes, said = result["ablation_dloss"].values, []
    control = int(result["control_layer"][layer, head]), int(result["control_head"][layer, head])
    if control[0] >= 0 and not np.isnan(changes[awake][control]):
        said.append(
            f"Its control {Head(*control)}: {signed(changes[asleep][control], 4)} on {domains[asleep]}, "
            f"{signed(changes[awake][control], 4)} on {domains[awake]}."
        )
    known = ~np.isnan(changes[awake])
    known[layer, head] = False
    if known.any():
        gaps = changes[awake] - changes[asleep]
        said.append(
            f"The difference between the domains, {signed(gaps[layer, head], 4)}, is larger than that of "
            f"{int((gaps[known] < gaps[layer, head]).sum())} of the {int(known.sum())} other heads that were ablated."
        )
    return said


def _conclusion(at: xr.Dataset, asleep: int, awake: int) -> str:
    """What the intervals of the two changes of loss allow to say; a change above NO_COST is a cost of the removal."""
    low, high = at["ablation_dloss_low"].values, at["ablation_dloss_high"].values
    if not float(at["candidate"]):
        return "The data do not support that it is active-dormant."
    if np.isnan([low[awake], high[asleep]]).any():
        return f"Whether its work depends on the domain cannot be told: intervals need {ENOUGH} ablated texts."
    if low[awake] <= high[asleep]:
        return "The data do not support that its work depends on the domain: the intervals of the two changes overlap."
    if low[awake] <= NO_COST:
        return "The two changes differ, but the data do not support that removing it costs anything where it is awake."
    if low[asleep] > NO_COST:
        return "Removing it costs more where it is awake, but it costs something where it sleeps, too."
    if high[asleep] < -NO_COST:
        return "Removing it costs something where it is awake, and lowers the loss where it sleeps: not idle there."
    return (
        "The data support that it is active-dormant: removing it costs something where it is awake, and no cost is "
        "shown where it sleeps."
    )


def _interval(part: xr.Dataset, variable: str, digits: int = 4) -> str:
    """`+0.12 [-0.02, +0.24]`; the value alone where there are too few texts for an interval."""
    value, low, high = (float(part[f"{variable}{ending}"]) for ending in ("", "_low", "_high"))
    ends = f" [{signed(low, digits)}, {signed(high, digits)}]" if np.isfinite(low) else ""
    return f"{signed(value, digits)}{ends}"


def summary(result: xr.Dataset) -> str:
    """How many heads pass, the one that differs most, and how many differ in their attention to sinks."""
    domains = [str(domain) for domain in result["domain"].values[:2]]
    known = int(np.isfinite(result["sink_contrast"].values).sum())
    left = result["candidate"].size - known
    if not known:
        return f"Of no head it is told whether it is dormant: {_HIDDEN}."
    passed = [str(Head(int(layer), int(head))) for layer, head in np.argwhere(result["candidate"].values == 1)]
    layer, head = largest(result)
    differs = bool(np.nan_to_num(result["contrast"].values).any())
    name = "dormant_share" if differs else "mean_sink_attention"
    shares, q = result[name].values[:2, layer, head], float(result["contrast_q"][layer, head])
    listed = f": {', '.join(passed[:8])}{' ...' if len(passed) > 8 else ''}" if passed else ""
    verb = "passes" if len(passed) == 1 else "pass"
    said = f"{len(passed)} of {counted(known, 'head')} {verb} correction for dormancy{listed}. "
    if differs:
        said += f"{Head(layer, head)} differs most: dormant on {shares[0]:.0%} of {domains[0]} and {shares[1]:.0%} of "
        said += f"{domains[1]} texts (q = {q:.2g}). "
    else:
        asleep = bool(np.nan_to_num(result["dormant_share"].values).any())
        said += f"No head is dormant on {'more texts of one than of the other' if asleep else 'any text'}; "
        said += f"{Head(layer, head)} differs most in its attention to sinks: "
        said += f"{shares[0]:.2f} on {domains[0]} and {shares[1]:.2f} on {domains[1]}. "
    large = np.abs(result["sink_contrast"].values) >= EFFECT_FLOOR
    differ = int(((result["sink_contrast_q"].values < FALSE_DISCOVERY) & large).sum())
    does = "differs in its" if differ == 1 else "differ in their"
    said += f"{differ} {does} attention to sinks (by {EFFECT_FLOOR:g} or more, q < {FALSE_DISCOVERY:g})."
    return said + (f" Of {counted(left, 'head')} nothing is told: {_HIDDEN}." if left else "")


def largest(result: xr.Dataset) -> tuple[int, int]:
    """Layer and head of the largest contrast, or of that in attention to sinks where all of the former are none."""
    for name in ("contrast", "sink_contrast"):
        size = np.nan_to_num(np.abs(result[name].values))
        if size.any():
            break
    layer, head = np.unravel_index(size.argmax(), size.shape)
    return int(layer), int(head)
