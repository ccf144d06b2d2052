"""The second answer of a check, which needs no caliper: the effect against norm and depth over units of the kind.

Model of the relation: the effect of a unit is a scale times noise, and the log of the scale is a line in log norm and a
parabola in depth, fitted by least squares to log |effect| over all units, the claimed one among them:

    effect = exp(a + b log norm + c depth + d depth^2) * e

p is the rank of the claimed unit's e among all: (1 + others at least as extreme) / (1 + others). That is a test where e
is alike whatever the norm. So the model is tested: over thirds of the units by norm, the level (Kruskal-Wallis) and the
spread (Levene, about medians) of log |e| must not differ; the smaller p, doubled. A unit without any effect has e = 0.

Source: rank of a residual as in full conformal inference (Vovk et al. 2005); the model and its test are ours.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from workbench.statistics import monte_carlo_p

__all__ = ["FEWEST_PEERS", "HOLDS", "Relation", "relation"]

FEWEST_PEERS = 19  # that make p = 0.05 possible
HOLDS = 0.01  # p of the test of the model below which the model is said not to hold


@dataclass(frozen=True)
class Relation:
    """p: of the claimed unit; slope: b; test_p: of the model; all NaN below 19 others with an effect. scale: of the
    claimed unit and of the others. beyond: how many others lie at least as far out."""

    p: float
    slope: float
    test_p: float
    beyond: int
    own_scale: float
    scale: np.ndarray


def relation(
    effect: float, effects: np.ndarray, norms: np.ndarray, layers: np.ndarray, own: int, side: str
) -> Relation:
    """effect: of the claimed unit; effects, norms (log, against the claim's), layers: of the others `[unit]`; own: the
    claim's layer. side: lowers, raises or changes."""
    values, x = np.append(effects, effect), np.append(norms, 0.0)
    depth = np.append(layers, own).astype(np.float64)
    depth = (depth - depth.mean()) / max(1.0, np.ptp(depth))
    moved = np.isfinite(values) & (values != 0)
    unknown = Relation(np.nan, np.nan, np.nan, 0, np.nan, np.full(len(effects), np.nan))
    if moved[:-1].sum() < FEWEST_PEERS or not np.isfinite(effect):
        return unknown
    terms = np.stack([np.ones_like(x), x, depth, depth**2], axis=1)
    size = np.log(np.abs(values[moved]))
    found = np.linalg.lstsq(terms[moved], size, rcond=None)[0]
    scale = np.exp(terms @ found)
    noise = values / scale
    extreme = {"lowers": -noise, "raises": noise, "changes": np.abs(noise)}[side]
    beyond = int((extreme[:-1] >= extreme[-1]).sum())
    p = float(monte_carlo_p(extreme[-1], extreme[:-1]))
    return Relation(p, float(found[1]), _test(size - terms[moved] @ found, x[moved]), beyond, scale[-1], scale[:-1])


def _test(residuals: np.ndarray, norms: np.ndarray) -> float:
    """Whether level and spread of the residuals are alike in thirds of the units by norm."""
    if np.ptp(residuals) < 1e-9:  # an exact law
        return 1.0
    thirds = np.array_split(residuals[np.argsort(norms, kind="stable")], 3)
    level, spread = stats.kruskal(*thirds).pvalue, stats.levene(*thirds, center="median").pvalue
    return float(min(1.0, 2 * min(level, spread)))
