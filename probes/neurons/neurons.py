"""The neurons of one MLP that write most at a token, and the tokens they promote.

On the page it follows the selection and is recomputed from the kept state of its layer.
"""

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.routes.promoted import logit_contributions, promoted
from workbench.analysis.legacy import Claim, Entry, Param
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.models.hooks import MLP_POST, RESID_POST
from workbench.models.model import LayerWeights
from workbench.observation import Need, Observation, Site, keep

__all__ = ["ENTRY", "neurons"]

_PROMOTED = 8  # tokens listed on either side of a neuron


def written(activation: torch.Tensor, site: Site, pos: int) -> torch.Tensor:
    """Activations and sizes of what they write, `[batch, 2, neuron]`, at one position.

    A neuron writes its activation times its row of W_out (through a post-norm's gain where there is one; the
    post-norm's scale is the same for all neurons and is left out).
    """
    here = activation[:, pos].float()
    rows = site.weights.W_out.float()
    if site.weights.post_mlp_gain is not None:
        rows = rows * site.weights.post_mlp_gain.float()
    return torch.stack([here, here.abs() * rows.norm(dim=-1)], dim=1)


def _neurons_need(layer: int, pos: int) -> Need:
    return Need((MLP_POST,), written, dims="component neuron", params={"pos": pos}, layers=(layer,))


def neurons_needs(model, tokens, *, layer: int, pos: int, top_k: int) -> tuple[Need, ...]:
    """The activations of one layer's neurons at one position; InputError where the model or prompt has none."""
    if not 0 <= layer < model.sizes.n_layers:
        raise InputError(f"layer {layer}", f"0 to {model.sizes.n_layers - 1} on {model.name}", "Choose a layer it has")
    if not 0 <= pos < len(tokens):
        raise InputError(f"position {pos}", f"0 to {len(tokens) - 1}", "Choose one inside the prompt")
    if model.weights(layer).W_out is None:
        raise InputError(f"layer {layer} of {model.name}", "a layer with an MLP of neurons", "Choose another model")
    return (_neurons_need(layer, pos), _state_need(layer, pos))


def _state_need(layer: int, pos: int) -> Need:
    return Need((RESID_POST,), keep, dims="pos d_model", params={"positions": (pos,)}, layers=(layer,))


def neurons(observation: Observation, readout, *, layer: int, pos: int, top_k: int) -> xr.Dataset:
    """The neurons that write most at a position.

    Returns `contribution`, `activation` (neuron) of the top_k, largest contribution first: the norm of what the neuron
    adds to the residual stream, and its activation. Over (neuron, rank): `promoted_text`, `promoted_logit` and
    `suppressed_text`, `suppressed_logit`: what it adds to logits by the direct path, with the final norm's scale of the
    state behind the layer. `share` (scalar): their part of the sum of norms over all neurons.
    """
    values, sizes = observation[_neurons_need(layer, pos)][0, 0]
    top = sizes.topk(min(top_k, len(sizes)))
    writes = _writes(observation.weights(layer), values, top.indices)
    logits = logit_contributions(readout, writes, observation[_state_need(layer, pos)][0, 0, 0])
    ids = promoted(logits, _PROMOTED)
    texts = [[[observation.vocabulary.string(i) for i in row] for row in found.tolist()] for found in ids]
    up, down = (logits.gather(-1, found) for found in ids)
    share = float(top.values.sum() / sizes.sum().clamp(min=1e-30))
    text = observation.tokens[0].strings[pos]
    return dataset(
        observation,
        {"neuron": top.indices.tolist()},
        contribution=("neuron", top.values, "norm", (0, None), "size of what it writes"),
        activation=("neuron", values[top.indices], "activation", None),
        share=("", share, "share of all neurons", (0, 1)),
        promoted_text=("neuron rank", texts[0], "text", None),
        promoted_logit=("neuron rank", up, "logits", None),
        suppressed_text=("neuron rank", texts[1], "text", None),
        suppressed_logit=("neuron rank", down, "logits", None),
    ).assign_attrs(
        layer=layer,
        at=pos,
        summary=f"At token {pos} {text!r}, {len(top.indices)} of the {len(sizes)} neurons of layer {layer} carry "
        f"{share:.0%} of the sizes of what all of them write.",
    )


def _writes(weights: LayerWeights, activations: torch.Tensor, neurons: torch.Tensor) -> torch.Tensor:
    """What neurons add to the residual stream, `[neuron, d_model]`, up to a post-norm's scale."""
    rows = weights.W_out.float()[neurons]
    if weights.post_mlp_gain is not None:
        rows = rows * weights.post_mlp_gain.float()
    return activations[neurons][:, None].to(rows) * rows


def tokens_figure(result: xr.Dataset, selection: dict):
    """Tokens that the selected neuron promotes and suppresses; of the one that writes most where none is selected."""
    from workbench.figures import bars, show_token

    known = result["neuron"].values
    neuron = selection.get("neuron", known[0])
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


def contribution_figure(result: xr.Dataset):
    """One bar per neuron, largest first."""
    return _neuron_bars(result, "contribution", "write most")


def activation_figure(result: xr.Dataset):
    """The same neurons' activations."""
    return _neuron_bars(result, "activation", "write most: activations")


def _neuron_bars(result: xr.Dataset, variable: str, said: str):
    from workbench.figures import bars

    layer, pos = result.attrs["layer"], result.attrs["at"]
    labels = [f"L{layer}N{int(n)}" for n in result["neuron"].values]
    plain = result.reset_coords(drop=True)
    return bars(plain, variable, "neuron", labels=labels, title=f"Neurons of layer {layer} that {said} at token {pos}")


def neuron_claim(result: xr.Dataset, selection: dict) -> Claim | None:
    """The selected neuron, by default the one that writes most, changes the prediction at the selected token."""
    neuron = selection.get("neuron")
    if neuron is None or neuron not in result["neuron"].values:
        neuron = int(result["neuron"].values[0])
    return claims.check_of(f"L{result.attrs['layer']}N{neuron}", pos=result.attrs["at"])


ENTRY = Entry(
    name="neurons",
    title="Neurons",
    source="Geva et al. 2021, arXiv 2012.14913",
    definition=(
        "A neuron adds activation * W_out[neuron] to the residual stream; drawn is the norm of that, for the selected "
        "layer and token. The activation is what W_out reads: gate times up where the MLP is gated."
    ),
    limits="A large write is not yet an effect: several neurons may cancel, and later layers may ignore it.",
    needs=neurons_needs,
    analyse=neurons,
    figures=(contribution_figure, activation_figure),
    details=(tokens_figure,),
    claims=(neuron_claim,),
    params=(
        Param("layer", int, 0, "follows the selection", low=0),
        Param("pos", int, 0, "follows the selection", low=0),
        Param("top_k", int, 24, "neurons drawn", low=1, high=200),
    ),
)
