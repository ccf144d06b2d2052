"""What a result says of itself: the JSON of its provenance, read by schema.

The text may come from a stranger's file: whoever reads it finds what is here, of the kind that is said here.
"""

import json
from typing import Any

import xarray as xr
from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import InputError

__all__ = ["record_of"]

_LONGEST = 32 << 20  # characters


class _Model(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    name: str = "a model"
    weights_hash: str = ""
    dtype: str = ""
    device: str = ""
    badge: str | None = None
    revision: str | None = None


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    model: _Model = _Model()
    prompts: list[Any] = []
    n_prompts: int = 0
    token_ids: list[int] | None = None
    bos: bool | None = None
    interventions: list[str] = []
    analysis: str | None = None
    params: dict[str, Any] = {}
    spec_key: str = ""
    stamp: dict[str, str | int] | None = None


def record_of(result: xr.Dataset) -> dict[str, Any]:
    """The provenance of a result; what it lacks is as in a record of nothing.

    Raises InputError where it is no JSON object, or holds something of another kind than a result of ours does.
    """
    text = result.attrs.get("provenance", "{}")
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise _wrong("of another kind")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong("that is no JSON") from error
    if not isinstance(found, dict):
        raise _wrong("that is no object")
    return _checked(found)


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    if found.get("difference") is not None:
        ends = found["difference"]
        if not isinstance(ends, dict) or not all(isinstance(ends.get(end), dict) for end in ("from", "to")):
            raise _wrong("of a difference without both ends")
    given = {name: value for name, value in found.items() if value is not None or name in ("token_ids", "bos")}
    try:
        return _Record.model_validate(given).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(f"with another {'.'.join(map(str, first['loc']))} ({first['msg']})") from error
    except RecursionError as error:
        raise _wrong("that is too deep") from error


def _wrong(what: str) -> InputError:
    return InputError(f"a provenance {what}", "the record of a result", "Compute it again")
