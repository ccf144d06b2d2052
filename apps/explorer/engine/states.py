"""What the server keeps of a shown prompt: resid_pre of every layer, from which one layer is recomputed exactly.

A click on a head restarts the model at that head's layer with the kept state and leaves after it: about one layer's
share of a pass, and no pattern of any other head is kept or sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr

from workbench.analysis.legacy import Entry, finish
from workbench.models.hooks import RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation import Need, Observation, keep, observe

__all__ = ["RESID", "States", "layer_of", "slice_of", "states_of"]

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


def layer_of(needs: Sequence[Need]) -> int:
    """The one layer that all needs are of."""
    (layer,) = {layer for need in needs for layer in need.layers}
    return layer


def slice_of(
    entry: Entry, model: Model, states: States, params: Mapping[str, Any], interventions: Sequence[Any] = ()
) -> xr.Dataset:
    """The result of an entry whose needs are all of one layer, from the kept state of that layer.

    interventions: those of this layer; earlier ones are in the kept state, later ones cannot reach it.
    """
    needs = entry.needs(model, states.tokens, **params)
    layer = layer_of(needs)
    start = (layer, states.resid[layer][None])
    options = {"positions": "none", "start": start, "stop": layer + 1, "interventions": interventions}
    observation = observe(model, [states.tokens], needs, **options)
    return finish(entry, observation, model, params)
