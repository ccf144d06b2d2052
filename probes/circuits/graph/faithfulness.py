"""Measures of circuits on pairs that no ranking has seen: faithfulness by budget and its areas, and what is left out.

faithfulness f = (m(circuit) - m(none)) / (m(model) - m(none)), a quotient of means over pairs. CPR is the area under f
over the budget (1 where few edges do everything, more where the rest hurts), CMD the area between f and 1, CMD-log the
same over the logarithm of the budget, divided by its length: the budgets that a person would read weigh as much as the
others. completeness: f of what is left when the circuit's edges are taken out; near 0 where nothing else does the task.

Edges outside bring what their source adds in the counterfactual run ("patched"), its mean over counterfactual runs and
positions ("mean"), or nothing ("zero"). Where the model's own difference is not clearly above none there is no f.

Source: Mueller et al. 2025, arXiv 2504.13151; completeness arXiv 2211.00593; CMD-log is ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.circuits.graph.gradients import readout_logits
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.passes import sources, with_edges
from probes.circuits.graph.rankings import rows_of
from probes.circuits.graph.selection import BUDGETS, n_edges
from probes.circuits.graph.tasks import Pair, batches
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.errors import InputError
from workbench.models.model import Model
from workbench.statistics import bootstrap_interval, ratio_interval

__all__ = ["ABLATIONS", "Measured", "areas", "curves", "metrics", "outside"]

ABLATIONS = ("patched", "mean", "zero")


class Measured:
    """Metrics of circuits on some pairs, `[pair]` each, measured once; of the model and of no edge as well.

    progress: told the share of what is being measured, after every pass; it raises to cancel.
    """

    def __init__(
        self,
        model: Model,
        pairs: Sequence[Pair],
        ablation: str = "patched",
        reference: Any = None,
        progress: Progress | None = None,
    ) -> None:
        if ablation not in ABLATIONS:
            raise InputError(f"the ablation {ablation!r}", f"one of {', '.join(ABLATIONS)}", "Choose one of these")
        if not pairs:
            raise InputError("no pairs", "at least one", "Ask for some")
        self.model, self.pairs, self.ablation = model, tuple(pairs), ablation
        self.graph, self._reference = Graph.of(model.sizes), reference
        self._known: dict[bytes, np.ndarray] = {}
        self.passes, self._progress = 0, progress

    @property
    def whole(self) -> np.ndarray:
        """Of the model."""
        return self.of([self.graph.exists])[0]

    @property
    def empty(self) -> np.ndarray:
        """With no edge kept."""
        return self.of([np.zeros(self.graph.shape, bool)])[0]

    def of(self, circuits: Sequence[np.ndarray], progress: Progress | None = None) -> np.ndarray:
        """Metrics `[circuit, pair]`."""
        keys = [np.packbits(self.graph.checked(mask)).tobytes() for mask in circuits]
        fresh = {key: mask for key, mask in zip(keys, circuits, strict=True) if key not in self._known}
        if fresh:
            found = metrics(
                self.model,
                self.pairs,
                list(fresh.values()),
                self.ablation,
                self._reference,
                progress=progress or self._progress,
            )
            self._known |= dict(zip(fresh, found, strict=True))
            self.passes += len(fresh)
        return np.stack([self._known[key] for key in keys])

    def faithfulness(self, circuits: Sequence[np.ndarray]) -> np.ndarray:
        """f of each circuit; NaN where the model does no better than no edge."""
        gap = float((self.whole - self.empty).mean())
        found = (self.of(circuits) - self.empty).mean(1)
        return found / gap if gap > 0 else np.full(len(circuits), np.nan)


def metrics(
    model: Model,
    pairs: Sequence[Pair],
    circuits: Sequence[np.ndarray],
    ablation: str = "patched",
    reference: torch.Tensor | None = None,
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """The metric of every circuit on every pair, `[circuit, pair]`. reference: of `outside`, for means."""
    found, done = np.full((len(circuits), len(pairs)), np.nan), 0
    if ablation == "mean" and reference is None:
        reference = outside(model, pairs)
    with torch.no_grad():
        for some in batches(pairs, rows_of(model, pairs, gradients=False)):
            other = sources(model, some.corrupt).added if ablation == "patched" else reference
            if ablation == "zero":
                other = torch.zeros(Graph.of(model.sizes).shape[0], 1, 1, 1, dtype=torch.float32)
            assert other is not None
            for index, mask in enumerate(circuits):
                last = with_edges(model, some.clean, mask, other)[:, -1]
                found[index, list(some.places)] = some.values(readout_logits(model, last)).double().cpu().numpy()
                if progress is not None:
                    progress((done + len(some.pairs) * (index + 1) / len(circuits)) / len(pairs))
            done += len(some.pairs)
    return found


def outside(model: Model, pairs: Sequence[Pair]) -> torch.Tensor:
    """What each source adds on the counterfactual prompts of pairs, mean over pairs and positions from 1 on,
    `[source, 1, 1, d_model]`."""
    total, n = torch.zeros(Graph.of(model.sizes).shape[0], model.sizes.d_model, dtype=torch.float32), 0
    for some in batches(pairs, rows_of(model, pairs, gradients=False)):
        total += sources(model, some.corrupt).added[:, :, 1:].sum((1, 2))
        n += some.corrupt[:, 1:].numel()
    return total[:, None, None] / max(n, 1)


def areas(budgets: Sequence[float], f: np.ndarray) -> dict[str, np.ndarray]:
    """CPR, CMD and CMD-log of curves `[..., budget]`."""
    x = np.asarray(budgets, float)
    gap, log = np.abs(1 - f), np.log(x)
    return {
        "cpr": np.trapezoid(f, x, axis=-1),
        "cmd": np.trapezoid(gap, x, axis=-1),
        "cmd_log": np.trapezoid(gap, log, axis=-1) / (log[-1] - log[0]),
    }


def curves(
    measured: Measured,
    circuits: Mapping[str, Sequence[np.ndarray]],
    budgets: Sequence[float] = BUDGETS,
    *,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Curves and areas of each ranking: its circuits by budget.

    Returns `faithfulness` (group, threshold), `cpr`, `cmd`, `cmd_log` (group), each with `_low` and `_high` over pairs;
    `n_kept` (group, threshold), edges after pruning; `n_asked` (threshold); `model_metric`, `empty_metric` (prompt);
    `accuracy`, the share of pairs that the model gets right.
    """
    every = [np.zeros(measured.graph.shape, bool), measured.graph.exists]
    every += [mask for masks in circuits.values() for mask in masks]
    found = measured.of(every, progress)
    empty, whole = found[0], found[1]
    by_group = found[2:].reshape(len(circuits), len(budgets), -1)
    over, under = np.moveaxis(by_group - empty, 2, 0), whole - empty  # pair group budget
    low, _ = bootstrap_interval(under)
    no_gap = bool(low <= 0) if np.isfinite(low) else under.mean() <= 0
    f = np.full(over.shape[1:], np.nan) if no_gap else over.mean(0) / under.mean()
    variables: dict[str, Any] = {
        "faithfulness": ("group threshold", f, "share", None, "faithfulness"),
        "n_kept": ("group threshold", [[int(m.sum()) for m in masks] for masks in circuits.values()], "edges",
                   (0, measured.graph.n_edges), "edges kept, after pruning"),
        "n_asked": ("threshold", [n_edges(b, measured.graph) for b in budgets], "edges", (0, None), "edges asked for"),
        "model_metric": ("prompt", whole, "logits", None, "metric of the model"),
        "empty_metric": ("prompt", empty, "logits", None, "metric with no edge kept"),
        "accuracy": ("", float((whole > 0).mean()), "share", (0, 1), "pairs that the model gets right"),
    }  # fmt: skip
    x, log = np.asarray(budgets, float), np.log(budgets)
    below = np.sign(1 - f) * (under[:, None, None] - over)  # |1 - f| is a ratio of means while 1 - f keeps its sign
    tops = {
        "faithfulness": over,
        "cpr": np.trapezoid(over, x, axis=-1),
        "cmd": np.trapezoid(below, x, axis=-1),
        "cmd_log": np.trapezoid(below, log, axis=-1) / (log[-1] - log[0]),
    }
    for name, value in areas(budgets, f).items():
        variables[name] = ("group", value, "area", None, name.upper().replace("_", "-"))
    for name, top in tops.items():
        bottom = np.broadcast_to(under.reshape(-1, *[1] * (top.ndim - 1)), top.shape)
        ends = ratio_interval(top, bottom, bounds=(0, None) if name.startswith("cmd") else (None, None))
        for end, values in zip(("low", "high"), ends, strict=True):
            values = np.full_like(values, np.nan) if no_gap else values
            dims, _, units, _, label = variables[name]
            variables[f"{name}_{end}"] = (dims, values, units, None, f"{label}, {end} end over {len(whole)} pairs")
    result = dataset(None, coords={"group": list(circuits), "threshold": x}, **variables)
    return result.assign_attrs(n_pairs=len(whole), ablation=measured.ablation, parts="edges")
