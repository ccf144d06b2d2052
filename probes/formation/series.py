"""Any analyses along the steps of a run: each checkpoint through the one runner, results joined along `step`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.run import Failure, run
from workbench.models.model import Model

__all__ = ["joined", "observed", "scores_of"]

_BESIDE = ("_low", "_high", "_null", "_q", "_d", "_null_95", "_p", "_n")


def observed(
    checkpoints: Iterable[tuple[int, Model]], analyses: Sequence[Any], prompt: Any = None
) -> dict[str, xr.Dataset]:
    """Run analyses on every checkpoint; by name a result with the dim `step`. The first error is raised.

    checkpoints: (step, model), in any order.
    """
    found: dict[str, list[tuple[int, xr.Dataset]]] = {}
    for step, model in checkpoints:
        for name, result in run(model, prompt, analyses).items():
            if isinstance(result, Failure):
                raise result.error
            found.setdefault(name, []).append((step, result))
    return {name: joined(dict(results)) for name, results in found.items()}


def joined(results: Mapping[int, xr.Dataset]) -> xr.Dataset:
    """Results of one analysis by step, joined along `step` in the order of numbers."""
    steps = sorted(results)
    parts = [results[step].drop_attrs(deep=False) for step in steps]
    whole = xr.concat(parts, "step", join="outer", coords="minimal", compat="override", data_vars="all")
    for name in whole.data_vars:
        whole[name].attrs = results[steps[0]][name].attrs
    return whole.assign_coords(step=np.array(steps))


def scores_of(result: xr.Dataset) -> list[str]:
    """Variables that a timeline shows: one number a head, a layer or a model, without what only stands beside one."""
    return [
        str(name)
        for name, values in result.data_vars.items()
        if set(values.dims) <= {"layer", "head", "depth", "step"} and values.dtype.kind == "f"
        and not any(str(name).endswith(end) and str(name).removesuffix(end) in result for end in _BESIDE)
    ]  # fmt: skip
