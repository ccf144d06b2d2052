"""What a click on the lattice shows of one layer: a head's two maps, a state's lens, an MLP's neurons.

Each is an entry whose needs are all of one layer, so that it can be recomputed from the kept state of that layer, which
costs a layer's share of a pass.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from probes.routes.contributions import head_need
from probes.routes.promoted import logit_contributions, promoted
from workbench.analysis.legacy import Entry, Param
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.kernels.proximity import part_proximity
from workbench.models.hooks import MLP_POST, PATTERN, POST_MLP_SCALE, RESID_MID, RESID_POST, RESID_PRE, Hook
from workbench.models.model import LayerWeights, Model, Sizes
from workbench.models.selfcheck import PARTS, READOUT, RESIDUAL
from workbench.observation import Need, Observation, Site

__all__ = ["HEAD", "NEURONS", "NODE", "follow", "head_maps", "neuron_shares", "neurons", "node"]


def follow(selection: Mapping[str, Any], *, p: int = 1, **_) -> list[tuple[Entry, dict[str, Any]]]:
    """What to recompute for the part of the lattice that was clicked last: an edge, an MLP, or a state."""
    part = selection.get("part")
    layer, head, pos, depth = (selection.get(name) for name in ("layer", "head", "pos", "depth"))
    if part == "attention" and layer is not None and head is not None:
        return [(HEAD, {"layer": int(layer), "head": int(head), "p": p})]
    if part == "mlp" and layer is not None and pos is not None:
        return [(NEURONS, {"layer": int(layer), "pos": int(pos)})]
    return [] if depth is None or pos is None else [(NODE, {"depth": int(depth), "pos": int(pos)})]


def check_inside(*ranges: tuple[str, int, int]) -> None:
    """InputError for the first (name, value, size) whose value is not an index below the size."""
    for name, value, size in ranges:
        if not 0 <= value < size:
            raise InputError(f"{name}={value}", f"{name} from 0 to {size - 1}", "Choose one that is there")


def at_position(activation: torch.Tensor, site: Site, pos: int) -> torch.Tensor:
    """One position of an activation, float32 `[batch, ...]`."""
    return activation[:, pos].detach().to(torch.float32, copy=True)


def _at(hook: Hook, layer: int, pos: int) -> Need:
    return Need((hook,), at_position, dims=hook.dims[2:], params={"pos": pos}, layers=(layer,))


# --- an edge: the maps of its head ------------------------------------------------------------------------------------


def head_pattern(pattern: torch.Tensor, site: Site, head: int) -> torch.Tensor:
    """One head's pattern, `[batch, query, key]`."""
    return pattern[:, head].detach().to(torch.float32, copy=True)


def _pattern_need(layer: int, head: int) -> Need:
    return Need((PATTERN,), head_pattern, "query key", {"head": head}, (layer,))


def head_needs(model: Model, tokens, *, layer: int, head: int, p: int = 1) -> tuple[Need, ...]:
    """Shares and pattern of one head; InputError where the model does not have it."""
    check_inside(("layer", layer, model.sizes.n_layers), ("head", head, model.sizes.n_heads))
    return head_need(model.sizes, model.weights(layer), layer, head, p), _pattern_need(layer, head)


def head_maps(observation: Observation, readout, *, layer: int, head: int, p: int = 1) -> xr.Dataset:
    """Over (query, key): `pattern`, and `share`, what each edge brings to what it leads into; every pair is there."""
    weights = observation.weights(layer)
    share = observation[head_need(observation.sizes, weights, layer, head, p)][0, 0]
    return dataset(
        observation,
        pattern=("query key", observation[_pattern_need(layer, head)][0, 0], "attention weight", (0, 1)),
        share=("query key", share, "share", (0, 1), f"share of L{layer}H{head}"),
    ).assign_attrs(
        name=f"L{layer}H{head}",
        summary=f"L{layer}H{head} brings at most {float(share.nan_to_num().max()):.3f} of what one edge leads into.",
    )


def head_figure(result: xr.Dataset):
    """Where the head looks, and beside it what that brings."""
    from workbench.figures import pattern_pair

    tokens = [str(text) for text in result["query_text"].values]
    maps = {"attention": result["pattern"].values, "share": result["share"].values}
    return pattern_pair(maps, tokens, result.attrs["name"])


# --- a node: its lens -------------------------------------------------------------------------------------------------


def _state_need(sizes: Sizes, depth: int, pos: int) -> Need:
    return _at(RESID_PRE, depth, pos) if depth < sizes.n_layers else _at(RESID_POST, depth - 1, pos)


def node_needs(model: Model, tokens, *, depth: int, pos: int) -> tuple[Need, ...]:
    """The residual stream at one depth and position; InputError where there is none."""
    check_inside(("depth", depth, model.sizes.n_layers + 1), ("pos", pos, len(tokens)))
    return (_state_need(model.sizes, depth, pos),)


def node(observation: Observation, readout, *, depth: int, pos: int) -> xr.Dataset:
    """The logit lens of one state: `text` and `probability` over `rank`, the likeliest first."""
    state = observation[_state_need(observation.sizes, depth, pos)][0, 0]
    top = readout.logits(state[None])[0].float().softmax(-1).topk(min(10, observation.vocabulary.size))
    texts = [observation.vocabulary.string(i) for i in top.indices.tolist()]
    first = f"{texts[0]!r} (p = {float(top.values[0]):.2f})"
    return dataset(
        observation,
        text=("rank", np.array(texts, dtype=object), "text", None, "top tokens"),
        probability=("rank", top.values, "probability", (0, 1)),
    ).assign_attrs(depth=depth, at=pos, summary=f"At depth {depth} token {pos} reads out as {first}.")


def node_figure(result: xr.Dataset):
    """Top tokens of the state with their probabilities."""
    from workbench.figures import bars, show_token

    labels = [f"{rank + 1} {show_token(str(text), html=False)}" for rank, text in enumerate(result["text"].values)]
    title = f"Lens at depth {result.attrs['depth']}, token {result.attrs['at']}"
    return bars(result, "probability", "rank", labels=labels, title=title)


# --- an MLP: its neurons ----------------------------------------------------------------------------------------------


def _neuron_hooks(sizes: Sizes, weights: LayerWeights) -> tuple[Hook, ...]:
    """Activations, what goes past the MLP, their sum, and the scale of a post-norm where there is one."""
    normed = (POST_MLP_SCALE,) if weights.post_mlp_gain is not None else ()
    return (MLP_POST, RESID_PRE if sizes.parallel else RESID_MID, RESID_POST, *normed)


def neurons_needs(model: Model, tokens, *, layer: int, pos: int, **_) -> tuple[Need, ...]:
    """One position of an MLP; InputError where there is none, or none made of neurons."""
    check_inside(("layer", layer, model.sizes.n_layers), ("pos", pos, len(tokens)))
    if model.weights(layer).W_out is None:
        raise InputError(f"layer {layer} of {model.name}", "a layer with an MLP of neurons", "Choose another model")
    return tuple(_at(hook, layer, pos) for hook in _neuron_hooks(model.sizes, model.weights(layer)))


def neuron_shares(
    post: torch.Tensor, weights: LayerWeights, resid: torch.Tensor, target: torch.Tensor, scale=None, p: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shares of neurons in resid_post at one position: outputs `[neuron, d_model]`, shares `[neuron]`, residual's
    share.

    post `[neuron]`, resid and target `[d_model]`; b_out is a part of the sum but not listed. scale: of a post-norm.
    """
    outputs, bias = post[:, None] * weights.W_out.float(), weights.b_out.float()
    if scale is not None:
        outputs, bias = (part / scale * weights.post_mlp_gain.float() for part in (outputs, bias))
    each = part_proximity(outputs, target, p)
    rest, constant = part_proximity(resid, target, p), part_proximity(bias, target, p)
    whole = (each.sum() + rest + constant).clamp(min=1e-300)
    return outputs, each / whole, rest / whole


def neurons(observation: Observation, readout, *, layer: int, pos: int, top: int = 20, promote: int = 5) -> xr.Dataset:
    """The strongest neurons of one MLP at one position, with the tokens each promotes.

    Over `neuron` (ids, the strongest first): `neuron_share` (of resid_post, in one sum with the residual),
    `activation`; over (neuron, token): `neuron_text`.
    """
    weights = observation.weights(layer)
    taken = [observation[_at(hook, layer, pos)][0, 0] for hook in _neuron_hooks(observation.sizes, weights)]
    post, resid, target, *scale = taken
    outputs, shares, _ = neuron_shares(post, weights, resid, target, *scale)
    best = shares.argsort(descending=True)[:top]
    up, _ = promoted(logit_contributions(readout, outputs[best], target), promote)
    text = np.array([[observation.vocabulary.string(i) for i in row] for row in up.tolist()], dtype=object)
    said = f"{len(best)} of {len(shares)} neurons of layer {layer} hold {float(shares[best].sum()):.0%} of the sum"
    return dataset(
        observation,
        {"neuron": best.tolist()},
        neuron_share=("neuron", shares[best], "share", (0, 1), "share of the neuron in resid_post"),
        activation=("neuron", post[best], "activation", None),
        neuron_text=("neuron token", text, "text", None, "tokens the neuron promotes"),
    ).assign_attrs(layer=layer, at=pos, summary=f"{said} at token {pos}.")


def neurons_figure(result: xr.Dataset):
    """One bar per neuron, the tokens it promotes written along it."""
    from workbench.figures import bars, show_token

    layer, pos = result.attrs["layer"], result.attrs["at"]
    labels = [f"N{neuron}" for neuron in result["neuron"].values]
    promotes = [" ".join(show_token(str(text)) for text in row) for row in result["neuron_text"].values]
    plain = result.drop_vars(["neuron_text", "token"], errors="ignore")
    figure = bars(plain, "neuron_share", "neuron", labels=labels, title=f"Neurons of layer {layer} at token {pos}")
    hover = [f"{text}<br>promotes {tokens}" for text, tokens in zip(figure.data[0].hovertext, promotes, strict=True)]
    figure.data[0].update(hovertext=hover, marker_opacity=0.35)  # the tokens are read on it
    for place, tokens in enumerate(promotes):
        figure.add_annotation(
            x=0.02, xref="paper", y=place, text=tokens, showarrow=False, xanchor="left", font={"size": 9.5}
        )
    return figure


# --- entries ----------------------------------------------------------------------------------------------------------

_LAYER, _POS = Param("layer", int, 0, "layer", low=0), Param("pos", int, 0, "position", low=0)

HEAD = Entry(
    name="flow-route-head",
    title="Attention and shares of one head",
    source="Ferrando & Voita 2024, arXiv 2403.00824",
    definition="pattern(query, key) of one head, and the share of pattern v W_O in what the edge leads into.",
    limits="A head can look where it brings nothing, and the other way round: neither map says what matters later.",
    requires=(RESIDUAL, PARTS),
    needs=head_needs,
    analyse=head_maps,
    figures=(head_figure,),
    params=(_LAYER, Param("head", int, 0, "head", low=0), Param("p", int, 1, "norm", choices=(1, 2))),
)

NODE = Entry(
    name="flow-route-node",
    title="Logit lens of one state",
    source="nostalgebraist 2020",
    definition="softmax(unembed(norm(resid))) of the residual stream at one depth and position.",
    limits="Early states live in other bases than the last one: nonsense does not show that nothing is known.",
    requires=(READOUT,),
    needs=node_needs,
    analyse=node,
    figures=(node_figure,),
    params=(Param("depth", int, 0, "depth: 0 is the embedding", low=0), _POS),
)

NEURONS = Entry(
    name="flow-route-neurons",
    title="Neurons of one MLP",
    source="Ferrando & Voita 2024, arXiv 2403.00824; arXiv 2404.07004",
    definition=(
        "share of activation * W_out[n] in resid_post, in one sum with the residual stream and the bias; promoted are "
        "the tokens whose logits it raises most, through the final norm's gain and the unembedding."
    ),
    limits="Neurons may cancel, and later layers may ignore what one promotes.",
    requires=(RESIDUAL, PARTS),
    needs=neurons_needs,
    analyse=neurons,
    figures=(neurons_figure,),
    params=(
        _LAYER,
        _POS,
        Param("top", int, 20, "neurons listed", low=1, high=200),
        Param("promote", int, 5, "promoted tokens of each", low=1, high=20),
    ),
)
