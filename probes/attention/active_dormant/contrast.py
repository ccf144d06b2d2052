"""Which heads differ between the first two domains, with what they are compared, and which are ablated."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from probes.attention.sinks.measures import mean_known
from workbench.errors import InputError
from workbench.intervene import Head
from workbench.models.model import Model
from workbench.statistics import benjamini_hochberg, difference_interval, draws_for, permutation_test

__all__ = ["EFFECT_FLOOR", "FALSE_DISCOVERY", "Activity", "Difference", "heads_to_ablate", "matched_controls"]

FALSE_DISCOVERY = 0.05
EFFECT_FLOOR = 0.1  # difference between the domains below which a head is not said to differ
_NEARBY = 3  # layers on either side in which a control head is looked for


@dataclass(frozen=True)
class Difference:
    """Of the means of two domains: value, interval, and q over all heads; each (layer, head)."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    q: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, seed: int) -> "Difference":
        """The first domain minus the second. values: (domain, prompt, layer, head)."""
        first, second = values[0], values[1]
        low, high = difference_interval(first, second, seed=seed, bounds=(-1, 1))
        q = benjamini_hochberg(permutation_test(first, second, draws=draws_for(first[0].size), seed=seed))
        return cls(mean_known(first, 0) - mean_known(second, 0), low, high, q)

    @property
    def passes(self) -> np.ndarray:
        """Heads whose q is low enough and whose difference is large enough."""
        return (np.nan_to_num(self.q, nan=1.0) < FALSE_DISCOVERY) & (np.abs(self.value) >= EFFECT_FLOOR)


@dataclass(frozen=True)
class Activity:
    """What the first pass measured, (domain, prompt, layer, head), and what follows from it.

    attention_above, output_below: what counts as dormant. seed: draws permutations, resamples and random heads. units:
    of the norms, which stand before a post-norm where there is one.
    """

    attention: np.ndarray
    norm: np.ndarray
    attention_above: float
    output_below: float
    seed: int
    units: str = "residual units"

    @cached_property
    def relative(self) -> np.ndarray:
        """Output norm, of the head's largest over all texts."""
        return self.norm / np.maximum(np.nanmax(self.norm, axis=(0, 1)), 1e-30)

    @cached_property
    def dormant(self) -> np.ndarray:
        """1 where the head is dormant on the text; NaN where its attention is not known."""
        asleep = (self.attention > self.attention_above) & (self.relative < self.output_below)
        return np.where(np.isnan(self.attention), np.nan, asleep)

    @cached_property
    def contrast(self) -> Difference:
        """In the share of dormant texts."""
        return Difference.of(self.dormant, self.seed)

    @cached_property
    def sink_contrast(self) -> Difference:
        """In the attention to the sink set."""
        return Difference.of(self.attention, self.seed)

    @cached_property
    def control(self) -> np.ndarray:
        """Layer and head of the matched control of every head, (2, layer, head); -1 without one."""
        return matched_controls(self.norm, self.contrast.passes)


def matched_controls(norm: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """For every head the one nearby, no candidate itself, whose output norm is nearest: (2, layer, head), or -1.

    norm: (domain, prompt, layer, head). candidate: (layer, head).
    """
    size = np.log(np.maximum(np.nanmean(norm, axis=(0, 1)), 1e-30))
    found = np.full((2, *size.shape), -1)
    layers = np.arange(size.shape[0])[:, None]
    for layer, head in np.ndindex(size.shape):
        gap = np.abs(size - size[layer, head])
        gap[(np.abs(layers - layer) > _NEARBY) | candidate] = np.inf
        gap[layer, head] = np.inf
        if np.isfinite(gap).any():
            found[:, layer, head] = np.unravel_index(gap.argmin(), gap.shape)
    return found


def heads_to_ablate(model: Model, activity: Activity, ablate: str, leading: int, random_heads: int) -> list[Head]:
    """Heads to ablate, as `ablate` says: "candidates", "all", "none", or those named with their controls.

    Candidates come with the head whose dormant share differs most (passing or not: it is the one to report), the
    leading ones (whose attention to sinks differs most, of those that pass for that), their controls, and random heads.
    """
    shape = activity.norm.shape[2:]
    if ablate == "none":
        return []
    if ablate == "all":
        return [Head(*place) for place in np.ndindex(shape)]
    if ablate == "candidates":
        passed = [Head(int(layer), int(head)) for layer, head in np.argwhere(activity.contrast.passes)]
        named = [*passed, *_largest(activity.contrast.value, 1)]
        named += _largest(np.where(activity.sink_contrast.passes, activity.sink_contrast.value, 0), leading)
    else:
        named = [_named(name, model) for name in ablate.replace(",", " ").split()]
    controls = [Head(*map(int, activity.control[:, head.layer, head.head])) for head in named]
    chosen = dict.fromkeys([*named, *(control for control in controls if control.layer >= 0)])
    others = [Head(*place) for place in np.ndindex(shape) if Head(*place) not in chosen]
    drawn = np.random.default_rng(activity.seed).permutation(len(others))[:random_heads]
    return [*chosen, *(others[i] for i in sorted(drawn.tolist()))]


def _largest(values: np.ndarray, n: int) -> list[Head]:
    """The heads of the `n` largest sizes above zero."""
    size = np.nan_to_num(np.abs(values))
    order = np.argsort(-size, axis=None, kind="stable")[:n]
    return [Head(*map(int, np.unravel_index(i, size.shape))) for i in order if size.flat[i] > 0]


def _named(name: str, model: Model) -> Head:
    found = re.fullmatch(r"L(\d+)H(\d+)", name)
    if not found:
        raise InputError(f"ablate={name!r}", "candidates, all, none, or heads such as L18H6", "Correct the value")
    head = Head(int(found[1]), int(found[2]))
    head.check(model)
    return head
