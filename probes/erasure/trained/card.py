"""What a card of readout probes holds, and of which kind: a file of probes may be anybody's.

A checksum says that card and numbers are as somebody wrote them; here they are held against each other.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from probes.erasure.trained.recipe import KINDS, Recipe

__all__ = ["need_card", "need_tensors"]

_TYPES: dict[str, Any] = {"epochs": int, "lr": (int, float), "batch": int, "seed": int, "dtype": str, "kind": str}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Model(_Part):
    name: str
    weights_hash: str


class _Corpus(_Part):
    name: str
    digest: str


class _Counts(_Part):
    tokens: int
    documents: int


class _Split(_Part):
    train: _Counts
    test: _Counts


class _Row(_Part):
    depth: int
    offset: int
    val_accuracy: float | None
    val_last_accuracy: float | None
    test_accuracy: float | None
    test_last_accuracy: float | None
    test_low: float | None
    test_high: float | None


class _Measured(_Part):
    depth: int
    offset: int
    group: str
    accuracy: float | None


class _Accuracy(_Part):
    rows: list[_Measured]


class _Card(_Part):
    model: _Model
    corpus: _Corpus
    split: _Split | None = None
    recipe: dict[str, Any]
    probes: list[_Row]
    accuracy: _Accuracy | None = None


def need_card(card: Any) -> dict[str, Any]:
    """The card as it is. Raises ValueError where it is none."""
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"a card with another {'.'.join(map(str, first['loc']))}") from error
    recipe = card["recipe"]
    if recipe != {"kind": "imported"}:
        fits = set(recipe) == {one.name for one in fields(Recipe)} and recipe.get("kind") in KINDS
        if not fits or not all(isinstance(recipe[name], kind) for name, kind in _TYPES.items()) or "split" not in card:
            raise ValueError("a card with another recipe")
    return dict(card)


def need_tensors(card: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError where numbers are not those of a card: names, shapes, or values that are not finite."""
    n, d = len(tensors["classes"]), None
    rows = {(row["depth"], row["offset"]) for row in card["probes"]}
    if tensors["counts"].shape != (n,) or tensors["classes"].ndim != 1 or (tensors["classes"] < 0).any():
        raise ValueError("other counts than classes")
    for name, tensor in tensors.items():
        kind, *key = name.split(".")
        if kind == "map":
            depth, offset = map(int, key)
            mean, std = tensors[f"mean.{depth}"], tensors[f"std.{depth}"]
            d = len(mean) if d is None else d
            shape = (d, d) if card["recipe"]["kind"] == "factored" else (d, n)
            shapes = [tuple(one.shape) for one in (mean, std, tensor, tensors[f"bias.{depth}.{offset}"])]
            if (depth, offset) not in rows or shapes != [(d,), (d,), shape, (n,)]:
                raise ValueError(f"a map of depth {depth}, offset {offset} that does not fit")
        if kind not in ("classes", "counts", "hits") and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} with numbers that are not finite")
