"""A result whose variables share few dims: a scalar, a list of edges, integers of which one is missing."""

import json

import numpy as np
import xarray as xr

from workbench import dataset


def mixed() -> xr.Dataset:
    result = dataset(
        coords={"token_text": ("pos", ["a", "=1+1", "東"])},
        score=("layer pos", np.linspace(0, 1, 6).reshape(2, 3), "share", (0, 1), "a score"),
        turned=("pos layer", np.linspace(1, 0, 6).reshape(3, 2), "share", (0, 1)),
        rank=("pos", np.array([1, -1, 2]), "count", (0, None)),
        weight=("edge", np.arange(4.0), "nats", (0, None)),
        total=("", np.nan, "nats", None),
    )
    record = {"analysis": "made-up", "model": {"name": "m"}, "params": {"k": 1}}
    return result.assign_attrs(provenance=json.dumps(record), summary="Made up.", title="Made up")
