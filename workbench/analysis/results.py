"""Results: labelled datasets with units and provenance, their keys, and how they are saved.

A result is an `xarray.Dataset`. Its dims come from `GLOSSARY`; positions are integers with the token strings beside
them (`token_text`); every variable has `units`, `long_name`, `valid_min`, `valid_max`; missing is NaN (integers: -1,
which their `absent` names: netCDF's own `_FillValue` would make floats of them wherever a file is opened plainly).
`attrs["provenance"]` is one JSON text. `spec_key` names what was asked (equal keys ask the same thing);
`stamp` says what computed it.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr

from workbench.analysis.keys import digest
from workbench.arguments import argument, fitted
from workbench.errors import InputError, in_words
from workbench.files import need_file_name, read_whole
from workbench.models.model import Identity, Model
from workbench.models.prompt import Tokens
from workbench.observation import Observation
from workbench.storage.endings import ENDINGS, ending_of
from workbench.storage.formats import write
from workbench.storage.inspection import MOST_BYTES
from workbench.storage.netcdf import decoded
from workbench.storage.plain import need_plain
from workbench.storage.record import record_of

__all__ = ["GLOSSARY", "check", "checked", "dataset", "open_result", "provenance", "save", "saved", "stamp", "stamped"]

# layer (0 ... L-1) is for what happens inside a block; depth for states of the residual stream (0 the embedding, d the
# output of block d-1).
GLOSSARY = (
    "prompt", "row", "layer", "depth", "head", "pos", "query", "key", "token", "rank", "offset", "neuron", "expert",
    "dimension", "component", "edge", "segment", "group", "domain", "threshold", "draw", "seed", "step", "sequence",
    "target", "model", "condition", "key_value_head",
)  # fmt: skip
# What every result has some of, where it has the dim; lists (edges, rows, segments, draws) may be empty.
_NEVER_EMPTY = ("layer", "depth", "head", "pos", "query", "key", "rank", "token", "offset", "model", "condition")


@fitted()
def dataset(
    observation: Observation | None = None, /, coords: Mapping[str, Any] | None = None, **variables: Any
) -> xr.Dataset:
    """Build a result from `name=(dims, values, units, (low, high)[, long_name])`.

    dims: a string of glossary terms, "" for a scalar. values: tensor, array or number. (low, high): the valid range,
    None where open. Integer coords are made for every dim that has none; with one observed prompt, `pos`, `query` and
    `key` get the token strings beside them, as `token_text`, `query_text` and `key_text`.
    """
    try:
        data = {name: _variable(name, spec) for name, spec in variables.items()}
        result = xr.Dataset(data, coords={k: _coord(v) for k, v in dict(coords or {}).items()})
    except (TypeError, ValueError, KeyError) as error:  # of xarray: sizes and dims that do not go together
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{', '.join(variables)} as a result ({in_words(error)})",
            "values over the dims that are named",
            "Correct them",
        ) from error
    made: dict[Any, Any] = {dim: np.arange(size) for dim, size in result.sizes.items() if dim not in result.coords}
    if observation is not None and len(observation.tokens) == 1:
        made |= _token_coords(result, made, observation.tokens[0])
    result = result.assign_coords(made)  # all at once: each call costs more than what it assigns
    if observation is not None:
        result.attrs["provenance"] = json.dumps(provenance(observation), sort_keys=True)
    return check(result)


def _variable(name: str, spec: Any) -> xr.DataArray:
    parts = argument(
        name, spec, Annotated[Sequence[Any], "(dims, values, units, (low, high)[, long_name])"], "dataset()"
    )
    if len(parts) not in (4, 5):
        raise InputError(
            f"{name} of {len(parts)} parts", "(dims, values, units, (low, high)[, long_name])", "Give what is missing"
        )
    dims, values, units, bounds, *rest = parts
    for what, text in (("dims", dims), ("units", units), *(("long_name", text) for text in rest)):
        argument(what, text, str, name)
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # numpy has none
    if np.asarray(values).dtype == np.float16:
        values = np.asarray(values, np.float32)  # netCDF has none
    attrs = {"units": units, "long_name": rest[0] if rest else name.replace("_", " ")}
    low, high = (None, None) if bounds is None else argument("(low, high)", bounds, Sequence[Any], name)
    attrs["valid_min"] = -np.inf if low is None else float(low)
    attrs["valid_max"] = np.inf if high is None else float(high)
    if np.asarray(values).dtype.kind == "i" and attrs["valid_min"] >= 0:
        attrs["absent"] = -1
    return xr.DataArray(values, dims=dims.split(), attrs=attrs)


def _coord(value: Any) -> Any:
    return (value[0].split(), list(value[1])) if isinstance(value, tuple) else value


def _token_coords(result: xr.Dataset, made: Mapping[Any, Any], tokens: Tokens) -> dict[str, Any]:
    """Token strings that ride along with positions. made: coords that the result will have."""
    strings = np.array(tokens.strings, dtype=object)
    beside = (("pos", "token_text"), ("query", "query_text"), ("key", "key_text"))
    at = {dim: made[dim] if dim in made else result[dim].values for dim, _ in beside if dim in result.dims}
    return {name: (dim, strings[at[dim]]) for dim, name in beside if dim in at}


def check(result: xr.Dataset) -> xr.Dataset:
    """Hold a result to the conventions; returns it. Raises InputError, naming the variable."""
    for dim in result.dims:
        if dim not in GLOSSARY:
            raise InputError(f"the dim {dim!r}", f"one of {', '.join(GLOSSARY)}", "Use the glossary's term")
    for name, coord in result.coords.items():
        if name in GLOSSARY and coord.dims not in ((), (name,)):
            raise InputError(
                f"a coordinate {name!r} along {', '.join(map(str, coord.dims))}", "one along the dim of its name",
                f"Call it for example {coord.dims[0]}_{name}",
            )  # fmt: skip
    for name, held in result.variables.items():
        need_plain(name, held)
    for name, variable in result.data_vars.items():
        missing = [a for a in ("units", "long_name", "valid_min", "valid_max") if a not in variable.attrs]
        if missing:
            raise InputError(f"{name} without {', '.join(missing)}", "all four attributes", "Build it with dataset()")
        if variable.dtype.kind in "fiu":
            _check_range(str(name), variable)
    return result


def _check_range(name: str, variable: xr.DataArray) -> None:
    finite = variable.values[np.isfinite(variable.values)]
    if "absent" in variable.attrs:
        finite = finite[finite != variable.attrs["absent"]]
    slack = 1e-5  # float32 sums of probabilities overshoot 1 by a few 1e-7 times their length
    low, high = variable.attrs["valid_min"], variable.attrs["valid_max"]
    if finite.size and (
        finite.min() < low - slack * max(1, abs(low)) or finite.max() > high + slack * max(1, abs(high))
    ):
        raise InputError(
            f"{name} from {finite.min():.6g} to {finite.max():.6g}",
            f"values from {low} to {high}",
            "This is a bug: report it",
        )


def provenance(observation: Observation) -> dict[str, Any]:
    """What a result was computed from: model, tokens, interventions."""
    return _record(observation.identity, observation.tokens, observation.interventions)


def _record(identity: Identity, tokens: Sequence[Tokens], interventions: Sequence[Any]) -> dict[str, Any]:
    prompts = [t.source.text or list(t.source.messages or ()) or None for t in tokens[:16]]
    return {
        "model": {k: getattr(identity, k) for k in identity.__dataclass_fields__},
        "prompts": prompts,
        "n_prompts": len(tokens),
        "token_ids": list(tokens[0].ids) if len(tokens) == 1 else None,
        "token_ids_hash": digest([list(t.ids) for t in tokens]),
        "bos": bool(tokens[0].bos) if tokens else None,
        "interventions": [str(i) for i in interventions],
    }


def stamp(device: str = "cpu", dtype: str = "float32") -> dict[str, Any]:
    """What computed a result: library versions, device, dtype, threads. Numbers are bit-equal only for equal stamps."""
    return {**_versions(), "device": device, "dtype": dtype, "threads": torch.get_num_threads()}


@cache
def _versions() -> dict[str, str]:
    names = ("interp-workbench", "torch", "transformers", "transformer-lens", "numpy", "xarray")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


def stamped(
    result: xr.Dataset,
    *,
    analysis: str,
    title: str,
    key: str,
    params: Mapping[str, Any],
    model: Model,
    tokens: Tokens | None,
    **more: Any,
) -> xr.Dataset:
    """Write model, tokens, interventions, analysis, params, key and stamp into a result's provenance.

    What the result says itself of model and tokens holds, but the model's interventions stand there in any case.
    """
    record = _record(model.identity, [] if tokens is None else [tokens], model.interventions)
    record |= json.loads(result.attrs.get("provenance", "{}"))
    record["interventions"] = list(dict.fromkeys([*map(str, model.interventions), *record["interventions"]]))
    record |= {"analysis": analysis, "params": dict(params), "spec_key": key, **more}
    record["stamp"] = stamp(model.identity.device, model.identity.dtype)
    return result.assign_attrs(title=title, provenance=json.dumps(record, sort_keys=True, default=str), spec_key=key)


@fitted()
def save(result: xr.Dataset, path: str | PathLike[str]) -> Path:
    """Save a result as its name ends (.nc, .zarr, .csv, .parquet, .json), whole or not at all.

    An interrupted save leaves no file that a later run would trust. A netCDF file carries the sha256 of its bytes,
    which `open_result` verifies. Of several tables a file each: `lens.csv` becomes `lens.depth_pos.csv`, ...; what is
    returned is the path as given, at which there is none then.
    Raises InputError for another ending, what is no file, and what `open_result` would refuse in a netCDF file;
    UnavailableError where nothing can be written.
    """
    store = Path(path).suffix.lower() == ".zarr"  # which is a folder
    need_file_name(str(path).rstrip("/") if store else path)
    saved(result, Path(path))
    return Path(path)


def saved(result: xr.Dataset, path: Path) -> tuple[Path, ...]:
    """`save`, for a path that was looked at; returns the files that there are now."""
    if ending_of(path) == "nc":
        checked(result)
    return write(result, path)


@fitted()
def open_result(path: str | PathLike[str]) -> xr.Dataset:
    """Read a saved netCDF result into memory, whoever made the file.

    Raises InputError where it is missing, damaged, not as it was written, or no result: values in other files, links
    out of it, filters and sizes that no result has are refused before any value is touched.
    """
    if os.path.isdir(path) and Path(path).suffix.lower() == ".zarr":
        raise InputError(f"{path}, a Zarr store", "a netCDF file", "Open it with xarray.open_zarr")
    content = read_whole(Path(path), MOST_BYTES)
    try:
        return checked(decoded(content))
    except InputError as error:
        ending = Path(path).suffix.lower().removeprefix(".")
        if ending in ENDINGS and ending not in ("nc", "zarr"):  # of our own, perhaps, but it lacks what is read here
            raise InputError(
                f"{path}, whose ending is .{ending}", "a result in netCDF", "Save it with the ending .nc, too"
            ) from error
        raise InputError(f"{error.got} at {path}", error.expected, error.remedy) from error


def checked(opened: xr.Dataset) -> xr.Dataset:
    """A result that came from a file, held to the conventions and to the schema of its provenance. InputError."""
    for name, variable in opened.data_vars.items():
        for attribute in ("valid_min", "valid_max", "absent"):
            given = variable.attrs.get(attribute, 0)
            if not isinstance(given, int | float | np.number):
                raise InputError(f"{name} with {attribute} {given!r}", "a number", "Compute it again")
        low, high = (variable.attrs.get(end, 0) for end in ("valid_min", "valid_max"))
        if not low <= high and {"valid_min", "valid_max"} <= set(variable.attrs):  # NaN is neither
            raise InputError(f"{name} from {low} to {high}", "a range", "Compute it again")
        for attribute in ("units", "long_name"):
            if not isinstance(variable.attrs.get(attribute, ""), str):
                raise InputError(f"{name} with another {attribute}", "a text", "Compute it again")
    empty = [str(dim) for dim, size in opened.sizes.items() if size == 0 and dim in _NEVER_EMPTY]
    if empty:
        raise InputError(f"a result without any {empty[0]}", "at least one", "Compute it again")
    for name in ("summary", "title"):
        if not isinstance(opened.attrs.get(name, ""), str):
            raise InputError(f"a result with another {name}", "a text", "Compute it again")
    record_of(opened)
    return check(opened)
