"""What the server keeps of a shown prompt: resid_pre of every layer, from which one layer is recomputed exactly.

A click on a head restarts the model at that head's layer with the kept state and leaves after it: about one layer's
share of a pass, and no pattern of any other head is kept or sent.
"""

from dataclasses import dataclass, field

import torch

from workbench.errors import InputError
from workbench.hooks import PATTERN, RESID_PRE
from workbench.models.model import Model
from workbench.observation import Need, Observation, Site, keep, observe
from workbench.prompt import Tokens

__all__ = ["RESID", "States", "head_pattern", "states_of"]

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


def one_head(pattern: torch.Tensor, site: Site, head: int) -> torch.Tensor:
    """The pattern `[batch, query, key]` of one head."""
    return pattern[:, head].float().clone()


def head_pattern(model: Model, states: States, layer: int, head: int) -> torch.Tensor:
    """Attention of one head `[query, key]`, rows sum to 1, recomputed from the kept state of its layer."""
    sizes = model.sizes
    if not (0 <= layer < sizes.n_layers and 0 <= head < sizes.n_heads):
        last = f"L{sizes.n_layers - 1}H{sizes.n_heads - 1}"
        raise InputError(f"head L{layer}H{head}", f"L0H0 to {last} on {model.name}", "Choose a head it has")
    need = Need((PATTERN,), one_head, dims="query key", params={"head": head}, layers=(layer,))
    start = (layer, states.resid[layer][None])
    found = observe(model, [states.tokens], [need], positions="none", start=start, stop=layer + 1)
    return found[need][0, 0]
