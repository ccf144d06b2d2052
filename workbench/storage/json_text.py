"""A result as strict JSON: what a program reads, in any language. NaN and infinity are null."""

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from workbench.storage.record import record_of

__all__ = ["brief", "json_of", "known_values", "strict"]


def brief(result: xr.Dataset) -> dict[str, Any]:
    """What a result found: its sentence, model, prompt and parameters, its numbers without dims, and what the others
    are."""
    record = record_of(result)
    scalars = {name: strict(v.values.item()) for name, v in result.data_vars.items() if not v.dims}
    variables = {
        str(name): {"dims": list(map(str, v.dims)), "shape": list(v.shape), **_about(v)}
        for name, v in result.data_vars.items()
        if v.dims
    }
    kept = ("analysis", "model", "prompts", "token_ids", "params", "interventions", "spec_key")
    return {
        "title": result.attrs.get("title", ""),
        "summary": result.attrs.get("summary", ""),
        **{name: strict(record.get(name)) for name in kept},
        "partial": bool(result.attrs.get("partial", False)),
        "scalars": scalars,
        "units": {str(name): v.attrs.get("units", "") for name, v in result.data_vars.items() if not v.dims},
        "variables": variables,
    }


def json_of(result: xr.Dataset) -> str:
    """The whole of a result: `brief`, and the values of every variable and coordinate, nested by their dims."""
    whole = brief(result)
    for name, variable in result.data_vars.items():
        if variable.dims:
            whole["variables"][str(name)]["values"] = strict(known_values(variable))
    whole["coords"] = {
        str(name): {"dims": list(map(str, coord.dims)), "values": strict(coord.values.tolist())}
        for name, coord in result.coords.items()
    }
    whole["provenance"] = strict(record_of(result))
    return json.dumps(whole, allow_nan=False, ensure_ascii=False) + "\n"


def _about(variable: xr.DataArray) -> dict[str, Any]:
    kept = ("units", "long_name", "valid_min", "valid_max")
    return {name: strict(variable.attrs[name]) for name in kept if name in variable.attrs}


def known_values(variable: xr.DataArray) -> Any:
    """Nested lists of values, None where one is missing."""
    absent = variable.attrs.get("absent")
    if absent is None or variable.dtype.kind not in "iu":
        return variable.values.tolist()
    values = variable.values.astype(object)
    values[variable.values == absent] = None
    return values.tolist()


def strict(value: Any) -> Any:
    """A value as JSON has it: plain numbers, texts, lists and objects; null for a number that is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): strict(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [strict(part) for part in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
