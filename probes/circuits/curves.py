"""Faithfulness curves of circuits and their areas, whatever the circuits are made of.

`faithfulness(k) = (m(circuit) - m(empty)) / (m(model) - m(empty))`, a ratio of means over prompts. As in the MIB
benchmark: CPR is the area under the curve with parts ranked by signed score (1 where few parts do everything, more
where some hurt), CMD the area between the curve and 1 with parts ranked by absolute score (0 is best); trapezoid over
linear k. Intervals are over prompts, from 16 on: bootstrap-t of ratios of means. Where the model does no better than
the empty circuit there is no share of anything, and all is NaN: the quotient would turn round, and call what hurts most
the best.

Source: Mueller et al. 2025, arXiv 2504.13151.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from workbench.analysis.results import dataset
from workbench.analysis.view import reads
from workbench.errors import InputError
from workbench.observation import Observation
from workbench.statistics import Bounds, ratio_interval
from workbench.words import counted, hundredths

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = [
    "SHARES",
    "check_shares",
    "cmd_figure",
    "cpr_figure",
    "curve_figure",
    "faithfulness_curves",
    "n_kept",
    "orders",
    "summary",
    "table",
]

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_DRAWS = 2000


def check_shares(shares: Sequence[float]) -> None:
    """InputError for shares that do not rise, or lie outside 0 to 1."""
    if list(shares) != sorted(set(shares)) or not all(0 < share <= 1 for share in shares):
        raise InputError(f"shares {shares}", "rising shares above 0 and up to 1", "Correct them")


def n_kept(share: float, n: float) -> int:
    """How many of n parts the top share holds."""
    return round(share * n)


def orders(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parts from the highest signed score down, and from the highest absolute one; equal scores in their order."""
    return np.argsort(-scores, kind="stable"), np.argsort(-np.abs(scores), kind="stable")


def faithfulness_curves(
    observation: Observation,
    rankings: Sequence[str],
    shares: Sequence[float],
    metrics: np.ndarray,
    whole: np.ndarray,
    empty: np.ndarray,
    *,
    parts: str,
    n_parts: float,
    units: str,
) -> xr.Dataset:
    """Curves and areas with their intervals.

    metrics: of the circuits, `[mode, ranking, prompt, share]`, mode 0 by signed and 1 by absolute score. whole, empty:
    of the model and of the circuit without parts, `[prompt]`. parts: what a circuit is made of, n_parts of them (a mean
    over prompts). Returns `faithfulness` and `faithfulness_absolute` (group, threshold), `cpr` and `cmd` (group), each
    with `_low` and `_high`; `n_kept` (threshold); `model_metric` and `empty_metric` (prompt).
    """
    x, n = np.array(shares), len(whole)
    gained, gap = metrics - empty[:, None], whole - empty
    if gap.mean() <= 0:
        gap = np.full(n, np.nan)
    variables: dict[str, Any] = {}
    for mode, name in enumerate(("faithfulness", "faithfulness_absolute")):
        curve = _curve(gained[mode], gap)
        label = f"faithfulness, {parts} ranked by {'absolute' if mode else 'signed'} score"
        ends = _ratio_ends(gained[mode], gap)
        variables |= _with_interval(name, "group threshold", curve, ends, "share", label, n)
        if mode:
            # |1 - f| is a ratio of means as well, as long as 1 - f keeps its sign.
            below = np.sign(1 - curve)[:, None] * (gap[:, None] - gained[mode])
            ends = _ratio_ends(np.trapezoid(below, x), gap, bounds=(0, None))
            area = np.trapezoid(np.abs(1 - curve), x)
            variables |= _with_interval("cmd", "group", area, ends, "area", "CMD", n)
        else:
            ends = _ratio_ends(np.trapezoid(gained[mode], x), gap)
            variables |= _with_interval("cpr", "group", np.trapezoid(curve, x), ends, "area", "CPR", n)
    kept = [n_kept(share, n_parts) for share in shares]
    return dataset(
        observation,
        coords={"group": list(rankings), "threshold": x},
        n_kept=("threshold", kept, parts, (0, n_parts), f"{parts} kept"),
        model_metric=("prompt", whole, units, None, "metric of the model"),
        empty_metric=("prompt", empty, units, None, f"metric with all {parts} ablated"),
        **variables,
    ).assign_attrs(parts=parts, n_prompts=n)


def _curve(gained: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Ratio of means, (group, threshold)."""
    return np.asarray(gained.mean(1) / gap.mean())


def _ratio_ends(gained: np.ndarray, gap: np.ndarray, bounds: Bounds = (None, None)) -> tuple[Any, Any]:
    """Of the ratio of means. gained: `[group, prompt, ...]`; gap: `[prompt]`. Returns `[group, ...]` each."""
    over = np.moveaxis(gained, 1, 0)
    under = np.broadcast_to(gap.reshape(-1, *[1] * (over.ndim - 1)), over.shape)
    return ratio_interval(over, under, draws=_DRAWS, bounds=bounds)


def _with_interval(
    name: str, dims: str, value: Any, ends: tuple[Any, Any], units: str, label: str, n: int
) -> dict[str, Any]:
    return {
        name: (dims, value, units, None, label),
        f"{name}_low": (dims, ends[0], units, None, f"{label}, lower end of the 95 % interval over {n} prompts"),
        f"{name}_high": (dims, ends[1], units, None, f"{label}, upper end of the 95 % interval over {n} prompts"),
    }


def summary(result: xr.Dataset, measured: str = "") -> str:
    """CPR in words, the best first. measured: what the circuits are to be faithful to, where it is one and the same."""
    if not np.isfinite(result["cpr"].values).all():
        return f"The model does no better than with all {result.attrs['parts']} ablated: nothing to be faithful to."
    order = np.argsort(-result["cpr"].values)
    said = [f"{result['group'].values[i]} {_with_ends(result, 'cpr', i)}" for i in order]
    kept = f"{int(result['n_kept'].max())} {result.attrs['parts']}"
    n = result.attrs["n_prompts"]
    over = f" (95 % interval over n = {n})" if np.isfinite(result["cpr_low"].values).any() else ""
    to = f" to the {measured}" if measured else ""
    area = f"Area under the curve of faithfulness{to} (CPR) of {kept} on {counted(n, 'prompt')}{over}"
    return f"{area}: {', '.join(said)}."


def _with_ends(result: xr.Dataset, name: str, index: int) -> str:
    """`0.81 [0.70, 0.93]`."""
    value, low, high = (float(result[n].values[index]) for n in (name, f"{name}_low", f"{name}_high"))
    return hundredths(value) + (f" [{hundredths(low)}, {hundredths(high)}]" if np.isfinite(low) else "")


@reads("circuit-evaluation", "circuit-edges")
def table(result: xr.Dataset) -> "pd.DataFrame":
    """One row per ranking: CPR and CMD, with the ends of their 95 % intervals over prompts where there are enough, and
    faithfulness at 1, 5 and 10 %."""
    ends = ("", "_low", "_high") if bool(result["cpr_low"].notnull().any()) else ("",)
    names = [f"{name}{end}" for name in ("cpr", "cmd") for end in ends]
    frame: Any = result[names].reset_coords(drop=True).to_pandas()  # a DataFrame: the variables have one dim
    frame = frame.rename_axis("ranking")
    for share in (0.01, 0.05, 0.1):
        if share in result["threshold"].values:
            frame[f"faithfulness at {share:.0%}"] = result["faithfulness"].sel(threshold=share).values
    return frame


def _over(result: xr.Dataset) -> str:
    """What the drawn intervals are over, where there are any."""
    return f" (95 % over n = {result.attrs['n_prompts']} prompts)" if result["cpr_low"].notnull().any() else ""


@reads("circuit-evaluation", "circuit-edges")
def curve_figure(result: xr.Dataset) -> "go.Figure":
    """Faithfulness by share kept, one line per ranking."""
    from workbench.figures import series

    title = f"Faithfulness of the top share of {result.attrs['parts']}{_over(result)}"
    figure = series(result, "faithfulness", "threshold", by="group", log_x=True, title=title)
    return figure.update_xaxes(title_text=f"share of {result.attrs['parts']} kept")


def cpr_figure(result: xr.Dataset) -> "go.Figure":
    """CPR of every ranking, with intervals."""
    from workbench.figures import bars

    return bars(result, "cpr", "group", title=f"CPR: area under the faithfulness curve{_over(result)}")


def cmd_figure(result: xr.Dataset) -> "go.Figure":
    """CMD of every ranking, with intervals."""
    from workbench.figures import bars

    return bars(result, "cmd", "group", title=f"CMD: area between the faithfulness curve and 1{_over(result)}")
