"""Attention entropy, written as a user writes a probe: the example that tests run beside ours."""

from typing import Annotated

import numpy as np
import torch
import xarray as xr

from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import View
from workbench.models.hooks import PATTERN
from workbench.models.selfcheck import ROWS
from workbench.observation import Need, Observation, Site


def row_entropy(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """Entropy of every attention row over that of a uniform one, [batch, head, query]; 0 for query 0."""
    nats = torch.special.entr(pattern).sum(-1)
    visible = torch.arange(1, pattern.shape[-2] + 1, device=pattern.device)
    return (nats / visible.log().clamp_min(1e-9)).clamp(0, 1)


NEED = Need((PATTERN,), row_entropy, dims="head query")


class AttentionEntropy(OnPrompt, name="attention-entropy", title="Attention entropy", requires=(ROWS,)):
    """How many tokens a head looks at.

    Definition: mean over queries q >= first of the entropy of row q, in nats, over that of uniform attention over the
    keys that q can see: 0 looks at one token, 1 at all alike.

    Limits: a head that dumps its attention on the first token looks focused; it may be doing nothing.

    Source: Zhai et al. 2023, arXiv 2303.06296 (entropy of attention rows); the normalisation is ours.

    Returns: `entropy` (layer, head), unitless.
    """

    first: Annotated[int, Range(1, 16), "first query that counts"] = 1

    def needs(self, model, tokens) -> tuple[Need, ...]:
        """Every row, shrunk to one number."""
        return (NEED,)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The mean over queries."""
        rows = observation[NEED][:, 0, :, self.first :]
        return dataset(observation, entropy=("layer head", rows.mean(-1), "share of uniform", (0, 1)))

    def sentence(self, result: xr.Dataset) -> str:
        """The head that looks at the fewest tokens."""
        layer, head = np.unravel_index(result["entropy"].values.argmin(), result["entropy"].shape)
        return f"L{layer}H{head} looks at the fewest tokens: {float(result['entropy'].min()):.2f} of uniform."


def heads_figure(result: xr.Dataset):
    """Layer x head grid."""
    from workbench.figures import heads_grid

    return heads_grid(result, "entropy", title="How many tokens a head looks at")


VIEW = View(AttentionEntropy, question="How many tokens does a head look at?", figures=(heads_figure,))
