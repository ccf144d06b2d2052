"""What the server keeps of a shown prompt: resid_pre of every layer, from which one layer is recomputed exactly.

A click on a head restarts the model at that head's layer with the kept state and leaves after it: about one layer's
share of a pass, and no pattern of any other head is kept or sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr

from workbench.catalog import Entry, finish
from workbench.hooks import RESID_PRE
from workbench.intervene import Ablate, Head
from workbench.models.model import Model
from workbench.observation import Need, Observation, keep, observe
from workbench.prompt import Tokens

__all__ = ["RESID", "States", "slice_of", "states_of"]

RESID = Need((RESID_PRE,), keep, dims="pos d_model")


@dataclass(frozen=True, eq=False)
class States:
    """resid_pre `[layer, pos, d_model]`, float32, of one prompt."""

    tokens: Tokens
    resid: torch.Tensor = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the kept states."""
        return self.resid.nbytes


def states_of(observation: Observation) -> States:
    """The states kept by a pass that had `RESID` among its needs."""
    return States(observation.tokens[0], observation[RESID][:, 0])


def slice_of(
    entry: Entry, model: Model, states: States, params: Mapping[str, Any], ablated: Sequence[tuple[int, int]] = ()
) -> xr.Dataset:
    """The result of an entry whose needs are all of layer `params["layer"]`, from the kept state of that layer.

    ablated: (layer, head); those of earlier layers are in the kept state, later ones cannot reach this layer.
    """
    needs = entry.needs(model, states.tokens, **params)
    layer = params["layer"]
    start = (layer, states.resid[layer][None])
    here = [Ablate(Head(*head)) for head in ablated if head[0] == layer]
    options = {"positions": "none", "start": start, "stop": layer + 1, "interventions": here}
    observation = observe(model, [states.tokens], needs, **options)
    return finish(entry, observation, model, params)
