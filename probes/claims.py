"""Claims: what views say of a selection, put so that `causal-check` can test it. Each is None where nothing is said.

What a claim measures: the prediction that the view is about. A view that is about no prediction, such as a head's
attention, asks whether the head changes the prompt's prediction at all.
"""

from typing import Any

import numpy as np
import xarray as xr

from workbench.catalog import Claim
from workbench.figures import head_name

__all__ = ["check_of", "head", "head_for_the_loss", "state"]


def check_of(units: str, title: str = "", **params: Any) -> Claim:
    """The claim that removing units changes what is measured. title: of the button, by default the units."""
    return Claim(f"Check {title or units}", {"units": units, **params})


def head(result: xr.Dataset, selection: dict) -> Claim | None:
    """The selected head changes the prompt's prediction."""
    if not {"layer", "head"} <= set(selection):
        return None
    return check_of(head_name(selection["layer"], selection["head"]))


def head_for_the_loss(result: xr.Dataset, selection: dict) -> Claim | None:
    """The selected head helps to predict the prompt's own tokens: without it the loss rises."""
    if not {"layer", "head"} <= set(selection):
        return None
    return check_of(head_name(selection["layer"], selection["head"]), metric="loss", side="raises")


def state(result: xr.Dataset, selection: dict) -> Claim | None:
    """What stands at the selected depth and position enters the prompt's prediction. Position 0 has no mean."""
    if not {"depth", "pos"} <= set(selection):
        return None
    depth, pos = selection["depth"], int(selection["pos"])
    n_layers = int(np.max(result["depth"].values)) if "depth" in result.coords else np.inf
    if pos < 1 or depth != int(depth) or depth >= n_layers:
        return None
    return check_of(f"L{int(depth)} pos {pos}", method="mean")
