"""Claims: what views say of a selection, put so that `causal-check` can test it. Each is None where nothing is said.

What a claim measures is the prediction that the view is about. A view that is about no prediction, such as a head's
attention, asks whether the head changes the prediction of the prompt's next token.
"""

import json
from typing import Any

import numpy as np
import xarray as xr

from workbench.catalog import Claim
from workbench.figures import head_name

__all__ = ["asked", "block", "check_of", "edge", "head", "head_for_the_loss", "head_or_state", "state"]


def check_of(units: str, title: str = "", **params: Any) -> Claim:
    """The claim that removing units changes what is measured. title: of the button, by default the units."""
    return Claim(f"Check {title or units}", {"units": units, **params})


def asked(result: xr.Dataset) -> dict[str, str]:
    """The metric and the tokens that a result was asked about, as params of the check."""
    params = json.loads(result.attrs.get("provenance", "{}")).get("params", {})
    return {name: params[name] for name in ("metric", "target", "against") if params.get(name)}


def head(result: xr.Dataset, selection: dict) -> Claim | None:
    """The selected head changes the prediction that the view is about."""
    if not {"layer", "head"} <= set(selection):
        return None
    return check_of(head_name(selection["layer"], selection["head"]), **asked(result))


def head_for_the_loss(result: xr.Dataset, selection: dict) -> Claim | None:
    """The selected head helps to predict the prompt's own tokens: without it the loss rises."""
    if not {"layer", "head"} <= set(selection):
        return None
    return check_of(head_name(selection["layer"], selection["head"]), metric="loss", side="raises")


def edge(result: xr.Dataset, selection: dict) -> Claim | None:
    """What the selected head moves from the selected key to the query changes the prediction."""
    if not {"layer", "head", "query", "key"} <= set(selection):
        return None
    name = head_name(selection["layer"], selection["head"])
    return check_of(f"{name}:{selection['query']}<-{selection['key']}")


def state(result: xr.Dataset, selection: dict) -> Claim | None:
    """What stands at the selected depth and position enters the prediction. Position 0 has no mean, and the last depth
    is read by nothing."""
    if not {"depth", "pos"} <= set(selection):
        return None
    depth, pos = selection["depth"], int(selection["pos"])
    last = np.max(result["depth"].values) if "depth" in result.coords else np.inf
    if pos < 1 or depth != int(depth) or depth >= last:
        return None
    return check_of(f"L{int(depth)} pos {pos}", method="mean", **asked(result))


def block(result: xr.Dataset, selection: dict, kind: str) -> Claim | None:
    """The selected layer's `mlp` or `attention` changes the prediction."""
    return check_of(f"L{selection['layer']} {kind}", **asked(result)) if "layer" in selection else None


def head_or_state(result: xr.Dataset, selection: dict, site: str) -> Claim | None:
    """What a patched site is about: a head, a block, or the residual stream at a position."""
    if site in ("z", "pattern"):
        return head(result, selection)
    if site in ("mlp_out", "attn_out"):
        return block(result, selection, "mlp" if site == "mlp_out" else "attention")
    if not {"layer", "pos"} <= set(selection) or site == "v":
        return None
    depth = selection["layer"] + (site == "resid_post")
    if depth > int(np.max(result["layer"].values)):
        return None  # behind the last block, which nothing reads
    return state(result, {**selection, "depth": depth})
