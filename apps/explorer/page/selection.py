"""The one selection that every view reads and writes.

A selection is a small dict: `pos`, `query`, `key` (token positions), `layer`, `head`, `depth`, `unit`, and `part`, the
kind of edge that was clicked last. The browser keeps it; a click merges into it. `pos` and `query` name the same token,
and a chosen layer marks the state behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.figures import head_name, show_token
from workbench.intervene import Neurons

__all__ = ["COLUMNS", "KEYS", "clean", "headline", "merge", "neuron_at", "settle", "strongest_head"]

KEYS = ("pos", "query", "key", "layer", "head", "depth", "unit", "neuron", "component", "rank")
COLUMNS = ("pos", "query", "key", "layer", "head", "depth", "neuron")  # of a table: a click on a row selects them
_PARTS = ("attention", "mlp", "resid_attn", "resid_mlp")


def clean(given: Any) -> dict[str, Any]:
    """A selection that came from a browser or a link: known names with small numbers, a kind of edge; the rest is
    dropped."""
    if not isinstance(given, Mapping):
        return {}
    kept: dict[str, Any] = {}
    for name in KEYS:
        value = given.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1_000_000:
            if float(value).is_integer():
                kept[name] = int(value)
            elif name == "depth":  # a state between two layers; everything else is counted
                kept[name] = value
    return kept | ({"part": given["part"]} if given.get("part") in _PARTS else {})


def merge(selection: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The selection after something was chosen; what belongs together moves together."""
    chosen = dict(chosen)
    if "pos" in chosen and "query" not in chosen:
        chosen["query"] = chosen["pos"]
    elif "query" in chosen:
        chosen["pos"] = chosen["query"]
    if "layer" in chosen and "depth" not in chosen:
        chosen["depth"] = chosen["layer"] + 1
    merged = {**selection, **chosen}
    if "part" not in chosen:
        merged.pop("part", None)  # it is about the last click
    if merged.get("layer") != selection.get("layer") and "neuron" not in chosen:
        merged.pop("neuron", None)  # a neuron is one of its layer's
    same_unit = all(merged.get(name) == selection.get(name) for name in ("layer", "head"))
    if not same_unit and "component" not in chosen:
        merged.pop("component", None)  # a part of a prediction is a head's or a layer's
    if "query" in merged and merged.get("key", 0) > merged["query"]:
        del merged["key"]  # a token cannot attend to a later one
    return merged


def neuron_at(layer: int, number: int) -> Neurons:
    """A neuron of a layer with one MLP."""
    return Neurons(layer, (number,))


def settle(
    selection: Mapping[str, Any],
    n_tokens: int,
    n_layers: int,
    n_heads: int,
    neurons: Callable[[int], int] | None = None,
    head: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The selection on a prompt and model: what lies outside is dropped, and something is always selected.

    neurons: how many a layer has. head: (layer, head) to select where none is.
    """
    bounds = {"pos": n_tokens, "query": n_tokens, "key": n_tokens, "layer": n_layers, "head": n_heads}
    kept = {k: v for k, v in clean(selection).items() if k not in bounds or v < bounds[k]}
    if "neuron" in kept and kept["neuron"] >= (neurons(kept.get("layer", -1)) if neurons else 0):
        del kept["neuron"]
    if kept.get("depth", 0) > n_layers:
        del kept["depth"]
    if "pos" not in kept:
        kept = merge(kept, {"pos": n_tokens - 1})
    if head is not None and ("layer" not in kept or "head" not in kept):
        kept |= {"layer": head[0], "head": head[1]}
    kept.setdefault("depth", n_layers)
    return kept


def strongest_head(results: Sequence[xr.Dataset]) -> tuple[int, int] | None:
    """The head with the largest value of the first table over (layer, head) among results; None without a table."""
    for result in results:
        for name, variable in result.data_vars.items():
            if set(variable.dims) == {"layer", "head"} and variable.dtype.kind == "f":
                values = result[name].transpose("layer", "head").values
                if np.isfinite(values).any():
                    layer, head = np.unravel_index(np.nanargmax(values), values.shape)
                    return int(result["layer"].values[layer]), int(result["head"].values[head])
    return None


def headline(
    selection: Mapping[str, Any], tokens: Sequence[str], neuron: Callable[[int, int], object] = neuron_at
) -> list[str]:
    """What is selected, in words: ["token 12 ·Peter", "looks at 3 ·Laura", "L23H2", "depth 24"].

    neuron: the unit by its layer and number.
    """
    said = []
    if "pos" in selection and selection["pos"] < len(tokens):
        said.append(f"token {selection['pos']} {show_token(tokens[selection['pos']], html=False)}")
    if "key" in selection and selection["key"] < len(tokens):
        said.append(f"← {selection['key']} {show_token(tokens[selection['key']], html=False)}")
    if "layer" in selection and "head" in selection:
        said.append(head_name(selection["layer"], selection["head"]))
    elif "layer" in selection:
        said.append(f"layer {selection['layer']}")
    if "layer" in selection and "neuron" in selection:
        said.append(str(neuron(selection["layer"], selection["neuron"])))
    if "depth" in selection:
        said.append(f"depth {selection['depth']:g}")
    return said
