"""The second answer of a check, which needs no caliper: the effect against norm and depth over units of the kind.

Model of the relation: the log of a unit's |effect| is a parabola in log norm and one in depth, plus noise whose spread
goes with a power of the norm; states of the stream have a level at each position beside. All is fitted by least squares
over all units, the claimed one among them:

    log |effect| = a + b log norm + c (log norm)^2 + d depth + e depth^2 + spread * z
    log spread   = f + g log norm                                              (Harvey 1976, of log |residual|)

p is the rank of the claimed unit's z among all: (1 + others at least as extreme) / (1 + others). That is a test where z
is alike whatever the norm. So the model is tested: over three to six groups of the units by norm, twenty in each or
more where there are so many, the level (Kruskal-Wallis) and the spread (Levene, about medians) of z must not differ;
the smaller p, doubled. A unit without any effect is the least extreme of all.

With a line in log norm, an even spread and one level for all positions one loud neuron of the default model in thirteen
had p <= 0.05, one loud state in twelve, and its edges never fitted.

Source: rank of a residual as in full conformal inference (Vovk et al. 2005); the model and its test are ours.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from workbench.statistics import monte_carlo_p

__all__ = ["FEWEST_PEERS", "HOLDS", "Relation", "relation"]

FEWEST_PEERS = 19  # that make p = 0.05 possible
HOLDS = 0.01  # p of the test of the model below which the model is said not to hold
_EXACT = 1e-9  # residuals that are rounding: an exact law
_MEMBERS = 5  # units of a position that has a level of its own


@dataclass(frozen=True)
class Relation:
    """p: of the claimed unit; slope: b, at the claim's norm; test_p: of the model; all NaN below 19 others with an
    effect, and where the claim's norm is not known (a state at position 0). scale: |effect| expected of the claim and
    of the others. beyond: others at least as far out."""

    p: float
    slope: float
    test_p: float
    beyond: int
    own_scale: float
    scale: np.ndarray


def relation(
    effect: float, effects: np.ndarray, norms: np.ndarray, layers: np.ndarray, own: int, side: str,
    pos: np.ndarray | None = None, own_pos: int = 0,
) -> Relation:  # fmt: skip
    """effect: of the claimed unit; effects, norms (log, against the claim's), layers: of the others `[unit]`; own: the
    claim's layer. side: lowers, raises or changes. pos, own_pos: of states, where they are."""
    values, x = np.append(effects, effect), np.append(norms, 0.0)
    depth = np.append(layers, own).astype(np.float64)
    depth = (depth - depth.mean()) / max(1.0, np.ptp(depth))
    moved = np.isfinite(values) & (values != 0)
    unknown = Relation(np.nan, np.nan, np.nan, 0, np.nan, np.full(len(effects), np.nan))
    if moved[:-1].sum() < FEWEST_PEERS or not np.isfinite(effect) or not np.isfinite(x).all():
        return unknown
    levels = [] if pos is None else _levels(np.append(pos, own_pos), moved)
    terms = np.stack([np.ones_like(x), x, x**2, depth, depth**2, *levels], axis=1)
    size = np.log(np.abs(values[moved]))
    found = np.linalg.lstsq(terms[moved], size, rcond=None)[0]
    level = terms @ found
    noise = np.zeros(len(values))
    noise[moved] = _alike(size - level[moved], x[moved])
    signed = np.sign(values) * np.exp(noise)
    extreme = {"lowers": -signed, "raises": signed, "changes": np.abs(signed)}[side]
    beyond = int((extreme[:-1] >= extreme[-1]).sum())
    p = float(monte_carlo_p(extreme[-1], extreme[:-1]))
    scale = np.exp(level)
    return Relation(p, float(found[1]), _test(noise[moved], x[moved]), beyond, scale[-1], scale[:-1])


def _levels(pos: np.ndarray, moved: np.ndarray) -> list[np.ndarray]:
    """One column for each position but the first that has enough units."""
    known, count = np.unique(pos[moved], return_counts=True)
    return [(pos == one).astype(np.float64) for one in known[count >= _MEMBERS][1:]]


def _alike(residuals: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Residuals over their spread at the norm of each, in units of what it is at the claim's norm (log norm 0)."""
    if np.ptp(residuals) < _EXACT:
        return residuals
    terms = np.stack([np.ones_like(norms), norms], axis=1)
    power = np.linalg.lstsq(terms, np.log(np.maximum(np.abs(residuals), _EXACT)), rcond=None)[0][1]
    return np.asarray(residuals * np.exp(-power * norms))


def _test(residuals: np.ndarray, norms: np.ndarray) -> float:
    """Whether level and spread of the residuals are alike in groups of the units by norm."""
    if np.ptp(residuals) < _EXACT:
        return 1.0
    groups = np.array_split(residuals[np.argsort(norms, kind="stable")], int(np.clip(len(residuals) // 20, 3, 6)))
    level, spread = stats.kruskal(*groups).pvalue, stats.levene(*groups, center="median").pvalue
    return float(min(1.0, 2 * min(level, spread)))
