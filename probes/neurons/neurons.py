"""The neurons of one MLP that write most at a token, and the tokens they promote."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.routes.promoted import logit_contributions, promoted
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import Claim, View
from workbench.errors import InputError
from workbench.models.hooks import MLP_POST, RESID_POST
from workbench.models.model import LayerWeights, Model
from workbench.models.prompt import Tokens
from workbench.observation import Need, Observation, Site, keep

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "Neurons", "activation_figure", "contribution_figure", "neuron_claim", "tokens_figure", "written"]

_PROMOTED = 8  # tokens listed on either side of a neuron


def written(activation: torch.Tensor, site: Site, pos: int) -> torch.Tensor:
    """Activations and sizes of what they write, `[batch, 2, neuron]`, at one position.

    A neuron writes its activation times its row of W_out (through a post-norm's gain where there is one; the
    post-norm's scale is the same for all neurons and is left out).
    """
    here = activation[:, pos].float()
    return torch.stack([here, here.abs() * _rows(site.weights).norm(dim=-1)], dim=1)


def _rows(weights: LayerWeights) -> torch.Tensor:
    """What each neuron writes for an activation of 1, `[neuron, d_model]`, up to a post-norm's scale."""
    assert weights.W_out is not None, "needs() refuses a layer without an MLP of neurons"
    rows = weights.W_out.float()
    return rows if weights.post_mlp_gain is None else rows * weights.post_mlp_gain.float()


class Neurons(OnPrompt, name="neurons", title="Neurons"):
    """The neurons of one MLP that write most at a token, and the tokens they promote.

    Definition: A neuron adds activation * W_out[neuron] to the residual stream; drawn is the norm of that, for the
    selected layer and token. The activation is what W_out reads: gate times up where the MLP is gated.

    Limits: A large write is not yet an effect: several neurons may cancel, and later layers may ignore it.

    Source: Geva et al. 2021, arXiv 2012.14913

    Returns: `contribution`, `activation` (neuron) of the top_k, largest contribution first: the norm of what the neuron
    adds to the residual stream, and its activation. Over (neuron, rank): `promoted_text`, `promoted_logit` and
    `suppressed_text`, `suppressed_logit`: what it adds to logits by the direct path, with the final norm's scale of the
    state behind the layer. `share` (scalar): their part of the sum of norms over all neurons.
    """

    layer: Annotated[int, Range(0), "follows the selection"] = 0
    pos: Annotated[int, Range(0), "follows the selection"] = 0
    top_k: Annotated[int, Range(1, 200), "neurons drawn"] = 24

    @classmethod
    def inapplicable(cls, model: Model) -> str | None:
        """It is of MLPs."""
        return None if model.sizes.d_mlp else "has no MLP"

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """The activations of one layer's neurons at one position, and the state behind the layer.

        InputError where the model or prompt has none.
        """
        n_layers = model.sizes.n_layers
        if not self.layer < n_layers:
            raise InputError(f"layer {self.layer}", f"0 to {n_layers - 1} on {model.name}", "Choose a layer it has")
        if not self.pos < len(tokens):
            raise InputError(f"position {self.pos}", f"0 to {len(tokens) - 1}", "Choose one inside the prompt")
        if self.layer in model.sizes.experts:
            raise InputError(
                f"layer {self.layer} of {model.name}, a mixture of {model.sizes.n_experts} experts",
                "a layer with one MLP: here every expert has neurons of its own, and a token uses those of a few",
                "Look at experts instead (workbench run experts)",
            )
        if model.weights(self.layer).W_out is None:
            raise InputError(
                f"layer {self.layer} of {model.name}", "a layer with an MLP of neurons", "Choose another model"
            )
        return self._written, self._state

    @property
    def _written(self) -> Need:
        return Need((MLP_POST,), written, dims="component neuron", params={"pos": self.pos}, layers=(self.layer,))

    @property
    def _state(self) -> Need:
        at = {"positions": (self.pos,)}
        return Need((RESID_POST,), keep, dims="pos d_model", params=at, layers=(self.layer,))

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The largest writes, and what they do to the logits."""
        values, sizes = observation[self._written][0, 0]
        top = sizes.topk(min(self.top_k, len(sizes)))
        chosen = values[top.indices]
        rows = _rows(observation.weights(self.layer))[top.indices]
        writes = chosen[:, None].to(rows) * rows
        logits = logit_contributions(observation.readout, writes, observation[self._state][0, 0, 0])
        ids = promoted(logits, _PROMOTED)
        texts = [[[observation.vocabulary.string(i) for i in row] for row in found.tolist()] for found in ids]
        up, down = (logits.gather(-1, found) for found in ids)
        share = float(top.values.sum() / sizes.sum().clamp(min=1e-30))
        text = observation.tokens[0].strings[self.pos]
        summary = (
            f"At token {self.pos} {text!r}, {len(chosen)} of the {len(sizes)} neurons of layer {self.layer} carry "
            f"{share:.0%} of the sizes of what all of them write."
        )
        return dataset(
            observation,
            {"neuron": top.indices.tolist()},
            contribution=("neuron", top.values, "norm", (0, None), "size of what it writes"),
            activation=("neuron", chosen, "activation", None),
            share=("", share, "share of all neurons", (0, 1)),
            promoted_text=("neuron rank", texts[0], "text", None),
            promoted_logit=("neuron rank", up, "logits", None),
            suppressed_text=("neuron rank", texts[1], "text", None),
            suppressed_logit=("neuron rank", down, "logits", None),
        ).assign_attrs(layer=self.layer, at=self.pos, summary=summary)


def tokens_figure(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """Tokens that the selected neuron promotes and suppresses; of the one that writes most where none is selected."""
    from workbench.figures import bars, show_token

    known = result["neuron"].values
    neuron = selection.get("neuron")
    neuron = known[0] if neuron is None else neuron
    if neuron not in known:
        return None
    row = result.sel(neuron=int(neuron)).reset_coords(drop=True)
    texts = [*row["promoted_text"].values, *row["suppressed_text"].values[::-1]]
    values = np.concatenate([row["promoted_logit"].values, row["suppressed_logit"].values[::-1]])
    attrs = {"units": "logits", "long_name": "direct contribution", "valid_min": -np.inf, "valid_max": np.inf}
    table = xr.Dataset({"logit": ("rank", values, attrs)}, coords={"rank": np.arange(len(values))})
    labels = [show_token(str(text), html=False) for text in texts]
    title = f"L{result.attrs['layer']}N{int(neuron)} promotes and suppresses"
    return bars(table, "logit", "rank", labels=labels, title=title)


def contribution_figure(result: xr.Dataset) -> "go.Figure":
    """One bar per neuron, largest first."""
    return _neuron_bars(result, "contribution", "write most")


def activation_figure(result: xr.Dataset) -> "go.Figure":
    """The same neurons' activations."""
    return _neuron_bars(result, "activation", "write most: activations")


def _neuron_bars(result: xr.Dataset, variable: str, said: str) -> "go.Figure":
    from workbench.figures import bars

    layer, pos = result.attrs["layer"], result.attrs["at"]
    labels = [f"L{layer}N{int(n)}" for n in result["neuron"].values]
    plain = result.reset_coords(drop=True)
    return bars(plain, variable, "neuron", labels=labels, title=f"Neurons of layer {layer} that {said} at token {pos}")


def neuron_claim(result: xr.Dataset, selection: Mapping[str, Any]) -> Claim | None:
    """The selected neuron, by default the one that writes most, changes the prediction at the selected token."""
    neuron = selection.get("neuron")
    if neuron is None or neuron not in result["neuron"].values:
        neuron = int(result["neuron"].values[0])
    return claims.check_of(f"L{result.attrs['layer']}N{neuron}", pos=result.attrs["at"])


VIEW = View(
    Neurons,
    question="Which neurons of the selected layer write most at the selected token, and what do they promote?",
    figures=(contribution_figure, activation_figure),
    details=(tokens_figure,),
    claims=(neuron_claim,),
    follows=("layer", "pos"),
)
