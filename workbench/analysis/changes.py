"""What is said of a difference: its largest change, what is blank, and where not the same is measured."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.figures.quantity import numbers, units
from workbench.figures.text import head_name, number, shorten, show_token

__all__ = ["TOKEN_DIMS", "about", "place_of", "unlike_measures", "unlike_tokens"]

TOKEN_DIMS = ("pos", "query", "key")
_NAMED = 3  # unlike tokens that a sentence names
_EDIT, _EDITS = 60, 3  # characters of an intervention that a sentence names, and how many it names
_STEPS = 4  # of the model's dtype, within which a change is rounding


def unlike_tokens(a: xr.Dataset, b: xr.Dataset, tokens: Sequence[Sequence[Any]], counterparts: Sequence[int]) -> str:
    """`At 2 tokens others are subtracted: 5 ·Rome minus ·Paris, 9.`; nothing where all that are aligned are equal."""
    before, after = tokens
    pairs = [(pos, at) for pos, at in enumerate(counterparts) if at >= 0 and after[pos] != before[at]]
    if not pairs:
        return ""
    named = []
    for pos, at in pairs[:_NAMED]:
        words = [_text_of(result, place) for result, place in ((b, pos), (a, at))]
        named.append(f"{pos} {' minus '.join(words)}" if all(words) else str(pos))
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    where = "At 1 token another one is" if len(pairs) == 1 else f"At {len(pairs)} tokens others are"
    return f"{where} subtracted: {', '.join(named)}{more}."


def unlike_measures(a: xr.Dataset, b: xr.Dataset) -> str:
    """`Not the same is measured: logit of 'q' minus logit of 'x'.`, as where each run is asked about the token that it
    itself predicts; nothing where one thing is."""
    after, before = _measure(b), _measure(a)
    if not after or not before or after == before:
        return ""
    words = [said + (f" ({ids})" if after[0] == before[0] else "") for said, ids in (after, before)]
    return f"Not the same is measured: {words[0]} here, {words[1]} subtracted."


def _measure(result: xr.Dataset) -> tuple[str, str] | None:
    """What a result is a number of, in words and in ids; None where it does not say."""
    told = {name: str(result.attrs.get(name) or "") for name in ("metric", "target", "against")}
    ids = [str(result.attrs.get(name) or "") for name in ("target_ids", "against_ids")]
    minus = f" minus {told['against']!r}" if told["against"] else ""
    words = told["metric"] or (f"the logit of {told['target']!r}{minus}" if told["target"] else "")
    return (words, " minus ".join(filter(None, ids))) if words else None


def _text_of(result: xr.Dataset, pos: int) -> str:
    """The token at a position as it is shown, "" where the result does not know it."""
    for dim in TOKEN_DIMS:  # beside the prompt's own token may stand the one that is followed
        texts = result.coords.get("token_text" if dim == "pos" else f"{dim}_text")
        if texts is not None and texts.dims == (dim,) and dim in result.indexes and pos in result.indexes[dim]:
            return show_token(str(texts.sel({dim: pos}).item()), html=False)
    return ""


def about(
    result: xr.Dataset, b: xr.Dataset, records: list[dict[str, Any]], counterparts: Sequence[int], also: tuple[str, str]
) -> dict[str, str]:
    """Summary, provenance and key of a difference. also: what to say of tokens, and of what is measured."""
    unlike, measured = also
    keys = [record.get("spec_key", "") for record in records]
    key = hashlib.sha256(json.dumps(["difference", *keys]).encode()).hexdigest()
    record = {"analysis": records[1].get("analysis"), "difference": {"from": records[0], "to": records[1]}}
    record |= {
        name: records[1].get(name) for name in ("model", "prompts", "token_ids", "interventions", "params", "stamp")
    } | {"spec_key": key}
    said = [_largest(result, b, max(map(_dtype, records), key=_eps))]  # the coarser one rounds
    if (blank := sum(c < 0 for c in counterparts)) and set(TOKEN_DIMS) & set(result.dims):
        have = "has no counterpart and is" if blank == 1 else "have no counterpart and are"
        said.append(f"{blank} of {len(counterparts)} tokens {have} blank.")
    if unlike and set(TOKEN_DIMS) & set(result.dims):
        said.append(unlike)
    others = sorted(
        name
        for name, value in (records[1].get("params") or {}).items()
        if (records[0].get("params") or {}).get(name) != value
    )
    said += [f"The two were computed with different {', '.join(others)}."] * bool(others) + [measured] * bool(measured)
    said += _unlike_runs(records)
    return {"summary": " ".join(said), "provenance": json.dumps(record, sort_keys=True), "spec_key": key}


def _unlike_runs(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """`Of toy with Ablate(L1H0 by zero), minus that without an intervention.`, where models or what they were changed
    by are not the same: a difference that is taken away must say what it is one of."""
    names, edits = ([one[name] for one in records] for name in ("model", "interventions"))
    models = [str(one.get("name") or "a model") for one in names]
    formats = [_dtype(one) for one in records]
    if formats[0] != formats[1]:
        models = [f"{name} in {dtype}" for name, dtype in zip(models, formats, strict=True)]
    elif names[0].get("weights_hash") != names[1].get("weights_hash") and models[0] == models[1]:
        models = [f"{name} ({str(one.get('weights_hash'))[:8]})" for name, one in zip(models, names, strict=True)]
    if models[0] == models[1] and edits[0] == edits[1]:
        return []
    before, after = (f"with {_named(one)}" if one else "without an intervention" for one in edits)
    if edits[0] == edits[1]:
        return [f"Of {models[1]}, minus that of {models[0]}."]
    return [f"Of {models[1]} {after}, minus that {f'of {models[0]} ' if models[0] != models[1] else ''}{before}."]


def _named(edits: Sequence[str]) -> str:
    """`Ablate(L1H0 by zero), Ablate(L2 MLP by zero) and 3 more`."""
    more = f" and {len(edits) - _EDITS} more" if len(edits) > _EDITS else ""
    return ", ".join(shorten(one, _EDIT) for one in edits[:_EDITS]) + more


def _largest(result: xr.Dataset, b: xr.Dataset, dtype: str) -> str:
    """`Largest change of entropy: -2.3 nats at depth 12, pos 5 ·Peter.`: of the first number that changes by more than
    rounding, or else at all; where that is not the first one, which figures show, that it does not change. dtype: of
    the model."""
    changes = [variable for variable in result.data_vars.values() if variable.dtype.kind == "f"]
    moved = [one for one in changes if np.nan_to_num(one.values).any()]
    real = [one for one in moved if (np.abs(one.values) > _steps(b[one.name], dtype)).any()]
    variable = next(iter(real or moved or changes))
    values, what = variable.values, variable.attrs["long_name"]
    if not np.isfinite(values).any():
        return f"No {what}: nothing has a counterpart."
    is_first = variable is changes[0] or not np.isfinite(changes[0].values).any()
    beyond = " but for rounding" if any(one is changes[0] for one in moved) else ""
    before = "" if is_first else f"No {changes[0].attrs['long_name']}{beyond}. "
    flat = int(np.nanargmax(np.abs(values)))
    if values.flat[flat] == 0:
        return f"No {what}: the two are equal."
    indices = map(int, np.unravel_index(flat, values.shape))
    at = dict(zip(map(str, variable.dims), indices, strict=True))
    unit = units(variable)
    unit = "" if unit in what.split() else unit  # `probability of the target: 0.5 probability` says it twice
    place = f" at {', '.join(place_of(variable, at))}" if at else ""
    said = f"{before}Largest {what}: {number(float(values.flat[flat]))}{f' {unit}' if unit else ''}{place}."
    after = b[variable.name]
    if abs(values.flat[flat]) > _steps(after, dtype).flat[flat]:
        return said
    return f"{said} That is rounding of {dtype}, at {number(float(numbers(after).flat[flat]))}."


def _dtype(record: Mapping[str, Any]) -> str:
    """The number format that a run was computed in."""
    return str((record.get("model") or {}).get("dtype") or "float32")


def _eps(dtype: str) -> float:
    return {"float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 2.0**-23)


def _steps(after: xr.DataArray, dtype: str) -> np.ndarray:
    """How far each number may move by rounding: a few steps of its own, or of what is usual where it is small. A batch
    of other rows, another number of threads or another machine adds up in another order."""
    values = np.abs(numbers(after))
    usual = np.median(values[np.isfinite(values)]) if np.isfinite(values).any() else 0.0
    return np.asarray(_STEPS * _eps(dtype) * np.fmax(values, usual))


def place_of(variable: xr.DataArray, at: Mapping[str, int]) -> list[str]:
    """`["L18H6"]`, `["L20 MLP"]` where parts have labels, or `["depth 30", "pos 5 ·Peter"]`."""
    values = {dim: variable[dim].values[i] for dim, i in at.items()}
    words = [head_name(values.pop("layer"), values.pop("head"))] if {"layer", "head"} <= set(values) else []
    for dim, value in values.items():
        if dim == "component" and "label" in variable.coords:
            words.append(str(variable["label"].values[at[dim]]))
            continue
        texts = variable.coords.get({"pos": "token_text"}.get(dim, f"{dim}_text"))
        token = "" if texts is None else f" {show_token(str(texts.values[at[dim]]), html=False)}"
        shown = value if isinstance(value, str) else f"{value + (dim == 'rank'):g}"  # rank 1 is the top, to people
        words.append(f"{dim.replace('_', ' ')} {shown}{token}")
    return words
