"""What the server keeps of a shown prompt: resid_pre of every layer, from which one layer is recomputed exactly.

A click on a head restarts the model at that head's layer with the kept state and leaves after it: about one layer's
share of a pass, and no pattern of any other head is kept or sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import xarray as xr

from workbench.analysis.kinds import OnPrompt
from workbench.analysis.run import finished
from workbench.models.hooks import RESID_POST, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation import Need, Observation, keep, observe
from workbench.observation.need import Kept

__all__ = ["RESID", "States", "layer_of", "reading_of", "slice_of", "states_of"]

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
    (layer,) = {layer for need in needs for layer in need.layers or ()}
    return layer


def slice_of(analysis: OnPrompt, model: Model, states: States) -> xr.Dataset:
    """The result of an analysis whose needs are all of one layer, from the kept state of that layer.

    model: as it was edited when the states were kept.
    """
    needs = analysis.needs(model, states.tokens)
    layer = layer_of(needs)
    start = (layer, states.resid[layer][None])
    observation = observe(model, [states.tokens], needs, positions="none", start=start, stop=layer + 1)
    return finished(analysis, analysis.analyse(observation), model, states.tokens)


def reading_of(analysis: OnPrompt, model: Model, states: States) -> xr.Dataset:
    """The result of an analysis that reads the residual stream between the blocks, from the kept states.

    Only the last block runs: behind every other one stands the state that the next one begins with. What sees more than
    those states, or a model that is edited and may differ there, runs anew.
    """
    needs = analysis.needs(model, states.tokens)
    between = all(need.reduce is keep and need.hooks in ((RESID_PRE,), (RESID_POST,)) for need in needs)
    if model.interventions or not between:
        return finished(analysis, analysis.analyse(observe(model, [states.tokens], needs)), model, states.tokens)
    n = model.sizes.n_layers
    behind = Need((RESID_POST,), keep, dims="pos d_model", layers=(n - 1,))
    start = (n - 1, states.resid[-1][None])
    observation = observe(model, [states.tokens], [behind], positions="none", start=start)
    after = torch.cat([states.resid[1:], observation[behind][:, 0].to(states.resid)])
    kept: dict[Need, Kept] = {
        need: _kept(need, states.resid if need.hooks == (RESID_PRE,) else after) for need in needs
    }
    read = replace(observation, results=kept, ran=range(n))
    return finished(analysis, analysis.analyse(read), model, states.tokens)


def _kept(need: Need, states: torch.Tensor) -> torch.Tensor:
    """What `keep` leaves of states `[layer, pos, d_model]` of one prompt: `[layer, prompt, pos, d_model]`."""
    layers = range(len(states)) if need.layers is None else need.layers
    chosen = states[list(layers)]
    return (chosen if need.positions is None else chosen[:, list(need.positions)])[:, None]
