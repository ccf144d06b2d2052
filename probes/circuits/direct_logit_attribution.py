"""Direct logit attribution: which parts of the model write a logit, or the difference of two, into the last state.

The last state of the residual stream is a sum: the embedding, what every head and MLP added, and biases. With the
final norm's scale s frozen at its own value, a logit is linear in that sum, so each part x has a share
`(W_U[t] * gain) @ x / s` (mean-centred for LayerNorm), and the shares add up to the model's own logit. A head's share
splits further by the key position that it moved the value from: `pattern[q, k] * v[k] @ W_O`. Behind a post-norm
(Gemma 2 and 3), whose scale is frozen too, parts go through its gain. With `against`, everything is the difference:
why A rather than B.

Direct effects only: what a part does through later parts is not in its share, so a head that matters may have none.

Source: Elhage et al. 2021, "A mathematical framework for transformer circuits"; Wang et al. 2022, arXiv 2211.00593.
"""

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from einops import einsum

from probes.checks import claims
from workbench.analysis.legacy import Claim, Entry, Param
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.models.hooks import MLP_OUT, MLP_POST, PATTERN, POST_ATTN_SCALE, POST_MLP_SCALE, RESID_POST, RESID_PRE, V
from workbench.models.model import LayerWeights
from workbench.models.readout import Readout
from workbench.models.selfcheck import PARTS, READOUT, RESIDUAL
from workbench.observation import Need, Observation, Site, keep

__all__ = [
    "ENTRY",
    "bars_figure",
    "direct_logit_attribution",
    "heads_figure",
    "needs",
    "neurons_figure",
    "origin_figure",
    "run",
]


def query_row(pattern: torch.Tensor, site: Site, pos: int) -> torch.Tensor:
    """The attention row of one query, `[batch, head, key]`."""
    return pattern[:, :, pos].float().clone()


def _needs(n_layers: int, pos: int, d_mlp: int, post_norm: bool, neurons: int | None) -> dict[str, Need]:
    """What is kept, by name: states at one position, its attention rows, and all values."""
    at = {"dims": "pos d_model", "params": {"positions": (pos,)}}
    scale = {"dims": "pos one", "params": {"positions": (pos,)}}
    found = {
        "embedding": Need((RESID_PRE,), keep, layers=(0,), **at),
        "last": Need((RESID_POST,), keep, layers=(n_layers - 1,), **at),
        "rows": Need((PATTERN,), query_row, dims="head key", params={"pos": pos}),
        "v": Need((V,), keep, dims="pos head dimension"),
    }
    if d_mlp:
        found["mlp"] = Need((MLP_OUT,), keep, **at)
    if post_norm:
        found["post_attn_scale"] = Need((POST_ATTN_SCALE,), keep, **scale)
    if neurons is not None:
        at_neurons = {"dims": "pos neuron", "params": {"positions": (pos,)}, "layers": (neurons,)}
        found["neurons"] = Need((MLP_POST,), keep, **at_neurons)
        if post_norm:
            found["post_mlp_scale"] = Need((POST_MLP_SCALE,), keep, layers=(neurons,), **scale)
    return found


def needs(
    model, tokens, *, target: str = "", against: str = "", pos: int = -1, neurons: int | None = None
) -> tuple[Need, ...]:
    """States, attention rows and values; target and against are checked here, before anything runs."""
    sizes = model.sizes
    for text in (target, against):
        if text:
            model.vocabulary.token(text)
    if not -len(tokens) <= pos < len(tokens):
        raise InputError(f"position {pos}", f"positions from 0 to {len(tokens) - 1}", "Choose one inside the prompt")
    if neurons is not None and not (0 <= neurons < sizes.n_layers and sizes.d_mlp):
        raise InputError(f"neurons of layer {neurons}", f"layers 0 to {sizes.n_layers - 1} with an MLP", "Choose one")
    post_norm = model.weights(0).post_attn_gain is not None
    return tuple(_needs(sizes.n_layers, pos % len(tokens), sizes.d_mlp, post_norm, neurons).values())


def direct_logit_attribution(
    observation: Observation,
    readout: Readout,
    *,
    target: str = "",
    against: str = "",
    pos: int = -1,
    neurons: int | None = None,
) -> xr.Dataset:
    """Shares of a logit, or of the difference of two.

    target, against: texts of one token; an empty target is the model's top token. Returns, in logits:
    `attribution` (component), signed, with coords kind, layer, head and label, largest first in the model's order
    (embedding, then per layer heads, attention bias, MLP, and at the end the constant of final norm and unembedding);
    `total`, the model's own value; `head_attribution` (layer, head); `origin` (layer, head, key), its split by key
    position; with neurons=layer, `neuron_attribution` (neuron) of that layer's MLP.
    """
    sizes, n = observation.sizes, len(observation.tokens[0])
    post_norm = observation.weights(0).post_attn_gain is not None
    kept = {
        name: observation[need]
        for name, need in _needs(sizes.n_layers, pos % n, sizes.d_mlp, post_norm, neurons).items()
    }
    ids, logits = _targets(observation, readout, target, against, pos % n)
    last = kept["last"][0, 0, 0]
    rows = readout.directions(torch.tensor(ids)).double() / readout.scale(last).double()
    direction = rows[0] - rows[1] if len(ids) == 2 else rows[0]
    constants = readout.constant(torch.tensor(ids)).double()
    constant = constants[0] - constants[1] if len(ids) == 2 else constants[0]
    origin, biases = _heads(observation, kept, direction)
    mlp = kept["mlp"][:, 0, 0].double() @ direction if sizes.d_mlp else None
    parts = list(_components(float(kept["embedding"][0, 0, 0].double() @ direction), origin, biases, mlp, constant))
    values = np.array([part[-1] for part in parts])
    result = dataset(
        observation,
        coords={
            "kind": ("component", [part[0] for part in parts]),
            "label": ("component", [part[1] for part in parts]),
            "component_layer": ("component", [part[2] for part in parts]),
            "component_head": ("component", [part[3] for part in parts]),
        },
        attribution=("component", values, "logits", None, "direct attribution"),
        total=("", float(logits[0] - logits[1] if len(ids) == 2 else logits[0]), "logits", None, "what they sum to"),
        head_attribution=("layer head", origin.sum(-1), "logits", None, "direct attribution of the head"),
        origin=("layer head key", origin, "logits", None, "direct attribution by the key it came from"),
        **_neurons(observation, kept, direction, neurons),
    )
    names = [observation.vocabulary.string(i) for i in ids]
    return result.assign_attrs(
        target=names[0], against=names[1] if len(ids) == 2 else "", position=pos % n, soft_cap=readout.soft_cap or 0.0
    )


def _targets(
    observation: Observation, readout: Readout, target: str, against: str, pos: int
) -> tuple[list[int], torch.Tensor]:
    """Token ids, and their logits in the model's own output; those before a soft cap, which is not linear."""
    row = observation.positions[0].index(pos)
    logits = observation.logits[0][row].double()
    if readout.soft_cap:
        logits = torch.atanh(logits / readout.soft_cap) * readout.soft_cap
    ids = [observation.vocabulary.token(target) if target else int(logits.argmax())]
    if against:
        ids.append(observation.vocabulary.token(against))
    if len(set(ids)) != len(ids):
        raise InputError(f"target and against both {target!r}", "two tokens", "Choose another one")
    return ids, logits[ids]


def _heads(
    observation: Observation, kept: dict[str, torch.Tensor], direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares by (layer, head, key) and of each layer's b_O, float64."""
    origins, biases = [], []
    for layer in range(observation.sizes.n_layers):
        weights = observation.weights(layer)
        towards = _through(direction, weights.post_attn_gain, kept.get("post_attn_scale"), layer)
        per_value = einsum(weights.W_O.double(), towards, "head d_head d_model, d_model -> head d_head")
        values = weights.repeated(kept["v"][layer, 0], dim=1).double()  # key head d_head
        moved = einsum(values, per_value, "key head d_head, head d_head -> head key")
        origins.append(kept["rows"][layer, 0].double() * moved)
        biases.append(weights.b_O.double() @ towards)
    return torch.stack(origins), torch.stack(biases)


def _through(
    direction: torch.Tensor, gain: torch.Tensor | None, scale: torch.Tensor | None, layer: int
) -> torch.Tensor:
    """The direction as seen in front of a post-norm: its gain over its frozen scale."""
    if gain is None or scale is None:
        return direction
    return direction * gain.double() / scale[layer, 0, 0].double()


def _components(embedding: float, origin, biases, mlp, constant) -> Iterator[tuple[str, str, int, int, float]]:
    """(kind, label, layer, head, value) of every part; -1 where there is no layer or head."""
    yield "embedding", "embedding", -1, -1, embedding
    for layer, heads in enumerate(origin.sum(-1).tolist()):
        for head, value in enumerate(heads):
            yield "head", f"L{layer}H{head}", layer, head, value
        if biases.abs().max() > 0:
            yield "bias", f"L{layer} attention bias", layer, -1, float(biases[layer])
        if mlp is not None:
            yield "mlp", f"L{layer} MLP", layer, -1, float(mlp[layer])
    if constant != 0:
        yield "bias", "final norm and unembedding", -1, -1, float(constant)


def _neurons(observation: Observation, kept, direction: torch.Tensor, layer: int | None) -> dict:
    if layer is None:
        return {}
    weights: LayerWeights = observation.weights(layer)
    if weights.W_out is None:
        raise InputError(f"neurons of layer {layer}", "an MLP with an output matrix", "Leave neurons out")
    towards = _through(direction, weights.post_mlp_gain, kept.get("post_mlp_scale"), 0)
    shares = kept["neurons"][0, 0, 0].double() * (weights.W_out.double() @ towards)
    bias = float(weights.b_out.double() @ towards) if weights.b_out is not None else 0.0
    return {
        "neuron_attribution": ("neuron", shares, "logits", None, f"direct attribution of layer {layer}'s neurons"),
        "neuron_bias": ("", bias, "logits", None, f"direct attribution of layer {layer}'s b_out"),
    }


def _what(result: xr.Dataset) -> str:
    against = f" rather than {result.attrs['against']!r}" if result.attrs["against"] else ""
    return f"{result.attrs['target']!r}{against}"


def bars_figure(result: xr.Dataset):
    """The parts of largest share."""
    from workbench.figures import bars

    labels = [str(label) for label in result["label"].values]
    return bars(result, "attribution", "component", title=f"What writes {_what(result)}", labels=labels, limit=20)


def heads_figure(result: xr.Dataset):
    """Layer x head grid of the shares."""
    from workbench.figures import heads_grid

    return heads_grid(result, "head_attribution", title=f"Heads that write {_what(result)}")


def origin_figure(result: xr.Dataset, selection: dict):
    """Where the selected head's share came from, token by token; the strongest head without a selection."""
    from workbench.figures import token_strip

    strongest = np.unravel_index(
        np.nanargmax(np.abs(result["head_attribution"].values)), result["head_attribution"].shape
    )
    layer = selection.get("layer") if selection.get("layer") is not None else int(strongest[0])
    head = selection.get("head") if selection.get("head") is not None else int(strongest[1])
    row = result["origin"].sel(layer=layer, head=head, drop=True).rename(key="pos")
    row = row.rename(key_text="token_text") if "key_text" in row.coords else row
    return token_strip(
        row.to_dataset(), "origin", title=f"L{layer}H{head}: where its share of {_what(result)} came from"
    )


def neurons_figure(result: xr.Dataset, selection: dict):
    """The neurons of largest share in the layer that was asked for, or None."""
    if "neuron_attribution" not in result:
        return None
    from workbench.figures import bars

    return bars(result, "neuron_attribution", "neuron", title=f"Neurons that write {_what(result)}", limit=20)


def component_claim(result: xr.Dataset, selection: dict) -> Claim | None:
    """The selected part, a head or an MLP, does to the logit or the difference what its share says."""
    at = selection.get("component")
    if at is None or at not in result["component"].values:
        return None
    part = result.sel(component=at)
    kind, layer, head = str(part["kind"].item()), int(part["component_layer"]), int(part["component_head"])
    units = {"head": f"L{layer}H{head}", "mlp": f"L{layer} mlp"}.get(kind)
    return None if units is None else claims.check_of(units, **_explained(result, float(part["attribution"])))


def head_claim(result: xr.Dataset, selection: dict) -> Claim | None:
    """The selected head does to what is explained what its share says."""
    if not {"layer", "head"} <= set(selection):
        return None
    share = float(result["head_attribution"].sel(layer=selection["layer"], head=selection["head"]))
    return claims.check_of(f"L{selection['layer']}H{selection['head']}", **_explained(result, share))


def _explained(result: xr.Dataset, share: float) -> dict:
    """What the check measures, and what removing a part of that share must do to it."""
    side = "lowers" if share > 0 else "raises"
    return {name: result.attrs[name] for name in ("target", "against")} | {
        "metric": "logit difference",
        "pos": result.attrs["position"],
        "side": side,
    }


ENTRY = Entry(
    name="direct-logit-attribution",
    title="Direct logit attribution",
    source="Elhage et al. 2021; arXiv 2211.00593",
    limits="Direct effects only, the final norm's scale frozen: a part that works through later parts has no share.",
    definition="Share of part x in logit t: (W_U[t] * gain) @ x / s, s the final norm's scale there; the shares of "
    "embedding, heads, MLPs and biases sum to the logit. A head's share is split by key position: pattern * v W_O.",
    scope="prompt",
    needs=needs,
    analyse=direct_logit_attribution,
    positions=lambda n_tokens, pos=-1, **_: (pos,),
    figures=(bars_figure, heads_figure),
    details=(origin_figure,),
    claims=(component_claim, head_claim),
    params=(
        Param("target", str, "", "token to explain, such as ' Paris'; empty: the model's top token"),
        Param("against", str, "", "token it is compared with: why target rather than this one"),
        Param("pos", int, -1, "position whose prediction is explained; -1 is the last"),
        Param("neurons", int, None, "layer whose neurons are listed too", low=0, optional=True),
    ),
    requires=(READOUT, RESIDUAL, PARTS),
)

run = ENTRY.run
