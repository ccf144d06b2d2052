"""Views of one layer that follow the selection: the attention of a head, the neurons of an MLP.

They are entries like those of the catalog, so they export and print as code like any other; on the page they are
recomputed from the kept state of their layer whenever the selection moves.
"""

import numpy as np
import torch
import xarray as xr

from probes import claims
from probes.flow_routes.promoted import logit_contributions, promoted
from workbench.catalog import Claim, Entry, Param
from workbench.errors import InputError
from workbench.hooks import MLP_POST, PATTERN, RESID_POST
from workbench.models.model import LayerWeights
from workbench.models.selfcheck import ROWS
from workbench.observation import Need, Observation, Site, keep
from workbench.results import dataset

__all__ = ["ATTENTION", "NEURONS", "SLICES", "attention", "neurons"]

_PROMOTED = 8  # tokens listed on either side of a neuron


def one_head(pattern: torch.Tensor, site: Site, head: int) -> torch.Tensor:
    """The pattern `[batch, query, key]` of one head."""
    return pattern[:, head].float().clone()


def _pattern_need(layer: int, head: int) -> Need:
    return Need((PATTERN,), one_head, dims="query key", params={"head": head}, layers=(layer,))


def attention_needs(model, tokens, *, layer: int, head: int) -> tuple[Need, ...]:
    """The pattern of one head; InputError where the model does not have it."""
    sizes = model.sizes
    if not (0 <= layer < sizes.n_layers and 0 <= head < sizes.n_heads):
        last = f"L{sizes.n_layers - 1}H{sizes.n_heads - 1}"
        raise InputError(f"head L{layer}H{head}", f"L0H0 to {last} on {model.name}", "Choose a head it has")
    return (_pattern_need(layer, head),)


def attention(observation: Observation, readout, *, layer: int, head: int) -> xr.Dataset:
    """Returns `pattern` (query, key): the share of its attention that a query gives to a key; rows sum to 1."""
    values = observation[_pattern_need(layer, head)][0, 0]
    result = dataset(observation, pattern=("query key", values, "share of attention", (0, 1), "attention weight"))
    return result.assign_attrs(layer=layer, head=head, summary=_attention_summary(values, layer, head))


def _attention_summary(values: torch.Tensor, layer: int, head: int) -> str:
    if len(values) == 1:
        return f"L{layer}H{head} has only the one token to look at."
    first, own = float(values[1:, 0].mean()), float(values.diagonal()[1:].mean())  # token 0 sees nothing but itself
    return (
        f"From token 1 on, L{layer}H{head} gives {first:.0%} of its attention to the first token and {own:.0%} to the "
        "token itself."
    )


def pattern_figure(result: xr.Dataset):
    """Queries downwards, keys to the right; the colour range leaves key 0 out, where sinks would wash out the rest."""
    from workbench.figures import head_name
    from workbench.figures import pattern_figure as draw
    from workbench.figures.quantity import pick_scale

    name = head_name(result.attrs["layer"], result.attrs["head"])
    tokens = [str(text) for text in result["query_text"].values]
    scale = pick_scale(result["pattern"], None)  # signed where it is a difference
    return draw(result["pattern"].values, tokens, title=f"Attention of {name}", exclude_first=True, scale=scale)


def row_figure(result: xr.Dataset, selection: dict):
    """Where the selected token looks."""
    from workbench.figures import bars, head_name, show_token

    query = selection.get("query")
    if query is None or query not in result["query"].values:
        return None
    row = result.sel(query=int(query)).isel(key=slice(0, int(query) + 1))
    labels = [
        f"{int(k)} {show_token(str(t), html=False)}" for k, t in zip(row["key"], row["key_text"].values, strict=True)
    ]
    name = head_name(result.attrs["layer"], result.attrs["head"])
    plain = row.reset_coords(drop=True)
    return bars(plain, "pattern", "key", labels=labels, limit=12, title=f"{name}: token {int(query)} looks at")


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


_LAYER = Param("layer", int, 0, "follows the selection", low=0)

ATTENTION = Entry(
    name="attention",
    title="Attention",
    source="Vaswani et al. 2017, arXiv 1706.03762",
    definition=(
        "pattern(query, key) = softmax over keys of q k / sqrt(d_head) + mask: the share of its attention that a query "
        "position gives to a key position, for the selected head. Rows sum to 1."
    ),
    limits=(
        "Attention says where a head looks, not what it carries over or whether it matters: a head that looks at the "
        "first token often moves nothing."
    ),
    requires=(ROWS,),
    needs=attention_needs,
    analyse=attention,
    figures=(pattern_figure,),
    details=(row_figure,),
    claims=(claims.head, claims.edge),
    params=(_LAYER, Param("head", int, 0, "follows the selection", low=0)),
)

NEURONS = Entry(
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
        _LAYER,
        Param("pos", int, 0, "follows the selection", low=0),
        Param("top_k", int, 24, "neurons drawn", low=1, high=200),
    ),
)

SLICES = (ATTENTION, NEURONS)
