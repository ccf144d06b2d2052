"""What the records of a store hold, and of which kind: a store may be anybody's, so each is read by its schema.

A key becomes a file's name, a label an index, a number of rows a length: what does not fit is a damaged record.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.batch.spec import Spec

__all__ = ["entry", "plan", "prompt", "shard"]

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Model(_Record):
    label: str
    weights: str
    step: int | None = None
    badge: str | None = None


class _Refused(_Record):
    group: str
    where: str
    reason: str


class _Plan(_Record):
    format: int = 0
    spec: Any
    folder: str
    models: list[_Model]
    shards: list[Key]
    tokens: list[Count] | None = None
    counted: list[Key] | None = None
    refused: list[_Refused]


class _Prompt(_Record):
    model: str
    group: str
    document: str
    where: str
    text: str
    n: Count
    cells: dict[str, str]


class _Entry(_Record):
    model_config = ConfigDict(extra="forbid", strict=True)
    shard: Key
    sha256: Sha256
    cells: dict[str, list[str]]
    failed: dict[str, str]
    seconds: Seconds
    n_tokens: Count
    halved: Count = 0
    stamp: dict[str, Any] = {}


class _Shard(_Record):
    model: str
    weights: str
    analyses: Sequence[str]
    ids: Sequence[Sequence[Count]] | None
    columns: Sequence[dict[str, str]]
    cells: Sequence[Sequence[str]]
    batch_tokens: Annotated[int, Field(ge=1)]
    attempt: Count = 0


def plan(record: dict[str, Any]) -> dict[str, Any]:
    """plan.json as it is, with a spec that is one. Raises ValueError, as all of these do."""
    _fits(_Plan, record)
    _fits(Spec, record["spec"])
    return record


def prompt(record: dict[str, Any]) -> dict[str, Any]:
    """A line of prompts.jsonl as it is."""
    return _fits(_Prompt, record)


def entry(record: dict[str, Any]) -> dict[str, Any]:
    """A line of the ledger as it is."""
    return _fits(_Entry, record)


def shard(record: dict[str, Any]) -> dict[str, Any]:
    """A shard as it is, whose cells are those of its prompts."""
    _fits(_Shard, record)
    n = 1 if record["ids"] is None else len(record["ids"])
    if len(record["cells"]) != len(record["analyses"]) or any(len(cells) != n for cells in record["cells"]):
        raise ValueError("other cells than prompts")
    if record["ids"] is not None and len(record["columns"]) != n:
        raise ValueError("other columns than prompts")
    return record


def _fits(model: type[BaseModel], record: Any) -> Any:
    try:
        model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return record
