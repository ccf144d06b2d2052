"""Direct logit attribution: which parts of the model write a logit, or the difference of two, into the last state."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr
from einops import einsum

from probes.checks import claims
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Position, Range
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, Claim, View, chosen, reads
from workbench.errors import InputError
from workbench.intervene.arriving import arriving, arriving_of_neurons, surviving
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    POST_ATTN_SCALE,
    POST_MLP_SCALE,
    RESID_POST,
    RESID_PRE,
    V,
    Z,
)
from workbench.models.model import LayerWeights, Model
from workbench.models.neurons import need_neurons
from workbench.models.prompt import Tokens, place
from workbench.models.selfcheck import PARTS, READOUT, RESIDUAL
from workbench.models.target import likelier, need_one_token
from workbench.models.vocabulary import by_id
from workbench.observation import Need, Observation, Site, keep

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "DirectLogitAttribution", "bars_figure", "heads_figure", "neurons_figure", "origin_figure"]

_FOR = "a direct attribution, which is of one logit"


class DirectLogitAttribution(
    OnPrompt, name="direct-logit-attribution", title="Direct logit attribution", requires=(READOUT, RESIDUAL, PARTS)
):
    """Which parts of the model write a logit, or the difference of two, into the last state.

    Definition: The last state of the residual stream is a sum: the embedding, what every head and MLP added, and
    biases. With the final norm's scale s frozen at its own value, a logit is linear in that sum, so each part x has a
    share (W_U[t] * gain) @ x / s in logit t (mean-centred for LayerNorm), and the shares of embedding, heads, MLPs and
    biases add up to the model's own logit. A head's share splits further by the key position that it moved the value
    from: pattern[q, k] * v[k] @ W_O. Behind a post-norm (Gemma 2 and 3), whose scale is frozen too, parts go through
    its gain. With `against`, everything is the difference: why A rather than B. Under interventions a head's share is
    what it then writes (where that is nothing, it comes from no key; where it is another run's or a mean, `origin` is
    what the head would have moved), times what its attention's output is scaled by, and what they put into the stream
    beside all parts is a part of its own. Where they set what a part writes into, the output of its block or a state
    behind it, nothing of it arrives: its share is 0; where they multiply a state, the shares in front of it are.

    Limits: Direct effects only, the final norm's scale frozen: what a part does through later parts is not in its
    share, so a head that matters may have none.

    Source: Elhage et al. 2021, "A mathematical framework for transformer circuits"; Wang et al. 2022, arXiv 2211.00593.

    Returns: in logits, `attribution` (component), signed, with coords kind, layer, head and label, in the model's order
    (embedding, then per layer heads, attention bias, MLP, and at the end the constant of final norm and unembedding,
    and what interventions wrote); `total`, the model's own value; `head_attribution` (layer, head); `origin` (layer,
    head, key), its split by key position; with neurons=layer, `neuron_attribution` (neuron) of that layer's MLP.
    """

    target: Annotated[str, "token to explain, such as ' Paris'; empty: the model's top token"] = ""
    against: Annotated[str, "token it is compared with: why target rather than this one"] = ""
    pos: Annotated[int, Position(), "position whose prediction is explained; -1 is the last"] = -1
    neurons: Annotated[int | None, Range(0), "layer whose neurons are listed too"] = None

    def needs(self, model: Model, tokens: Sequence[int] | Tokens) -> tuple[Need, ...]:
        """States, attention rows and values; target and against are checked here, before anything runs."""
        sizes, pos = model.sizes, place(self.pos, len(tokens))
        for text in (self.target, self.against):
            if text:
                need_one_token(model.vocabulary, text, _FOR)
        if self.neurons is not None and not (0 <= self.neurons < sizes.n_layers and sizes.d_mlp):
            raise InputError(
                f"neurons of layer {self.neurons}", f"layers 0 to {sizes.n_layers - 1} with an MLP", "Choose one"
            )
        if self.neurons is not None:
            need_neurons(model)
        post_norm = model.weights(0).post_attn_gain is not None
        return tuple(_needs(sizes.n_layers, pos, sizes.d_mlp, post_norm, self.neurons).values())

    def read_positions(self, n_tokens: int) -> Sequence[int]:
        """The position that is explained."""
        return (self.pos,)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Shares of a logit, or of the difference of two."""
        readout, pos = observation.readout, observation.tokens[0].place(self.pos)
        kept = _kept(observation, pos, self.neurons)
        ids, logits = _targets(observation, self.target, self.against, pos)
        last = kept["last"][0, 0, 0]
        of_targets = readout.directions(torch.tensor(ids)).double() / readout.scale(last).double()
        direction = of_targets[0] - of_targets[1] if len(ids) == 2 else of_targets[0]
        constants = readout.constant(torch.tensor(ids)).double()
        constant = constants[0] - constants[1] if len(ids) == 2 else constants[0]
        total = float(logits[0] - logits[1] if len(ids) == 2 else logits[0])
        heads, origin, biases = _heads(observation, kept, direction, pos)
        mlp = kept["mlp"][:, 0, 0].double() @ direction if observation.sizes.d_mlp else None
        arrives = surviving(observation.model, observation.interventions, pos, len(observation.tokens[0])).double()
        embedding = float(kept["embedding"][0, 0, 0].double() @ direction * arrives[0, 0])
        for part in (heads, origin, biases):
            part *= arrives[:, 0].to(part).view(-1, *[1] * (part.ndim - 1))
        mlp = None if mlp is None else mlp * arrives[:, 1].to(mlp)
        parts = list(_components(embedding, heads, biases, mlp, constant))
        if observation.interventions:
            parts.append(("intervention", "interventions", -1, -1, total - sum(part[-1] for part in parts)))
        result = dataset(
            observation,
            coords={
                "kind": ("component", [part[0] for part in parts]),
                "label": ("component", [part[1] for part in parts]),
                "component_layer": ("component", [part[2] for part in parts]),
                "component_head": ("component", [part[3] for part in parts]),
            },
            attribution=("component", np.array([part[-1] for part in parts]), "logits", None, "direct attribution"),
            total=("", total, "logits", None, "what they sum to"),
            head_attribution=("layer head", heads, "logits", None, "direct attribution of the head"),
            origin=("layer head key", origin, "logits", None, "direct attribution by the key it came from"),
            **_neurons(observation, kept, direction, self.neurons, pos),
        )
        names, written = [observation.vocabulary.string(i) for i in ids], [by_id(i) for i in ids]
        result = result.assign_attrs(
            target=names[0], against=names[1] if len(ids) == 2 else "", position=pos, soft_cap=readout.soft_cap or 0.0
        )
        result.attrs |= {"target_ids": written[0], "against_ids": written[1] if len(ids) == 2 else ""}
        log_probs = observation.log_probs[0][observation.positions[0].index(pos)]
        notes = [likelier(observation.vocabulary, text, log_probs) for text in (self.target, self.against) if text]
        return result.assign_attrs(summary=" ".join(filter(None, [_summary(result), *notes])))


def query_row(pattern: torch.Tensor, site: Site, pos: int) -> torch.Tensor:
    """The attention row of one query, `[batch, head, key]`."""
    return pattern[:, :, pos].float().clone()


def _needs(n_layers: int, pos: int, d_mlp: int, post_norm: bool, neurons: int | None) -> dict[str, Need]:
    """What is kept, by name: states at one position, its attention rows, and all values."""
    at: dict[str, Any] = {"dims": "pos d_model", "params": {"positions": (pos,)}}
    scale: dict[str, Any] = {"dims": "pos one", "params": {"positions": (pos,)}}
    found = {
        "embedding": Need((RESID_PRE,), keep, layers=(0,), **at),
        "last": Need((RESID_POST,), keep, layers=(n_layers - 1,), **at),
        "rows": Need((PATTERN,), query_row, dims="head key", params={"pos": pos}),
        "v": Need((V,), keep, dims="pos head dimension"),
        "z": Need((Z,), keep, dims="pos head dimension", params={"positions": (pos,)}),
    }
    if d_mlp:
        found["mlp"] = Need((MLP_OUT,), keep, **at)
    if post_norm:
        found["post_attn_scale"] = Need((POST_ATTN_SCALE,), keep, **scale)
    if neurons is not None:
        found["neurons"] = Need((MLP_POST,), keep, "pos neuron", {"positions": (pos,)}, (neurons,))
        if post_norm:
            found["post_mlp_scale"] = Need((POST_MLP_SCALE,), keep, layers=(neurons,), **scale)
    return found


def _kept(observation: Observation, pos: int, neurons: int | None) -> dict[str, torch.Tensor]:
    """What was observed of a position, by name."""
    sizes, post_norm = observation.sizes, observation.weights(0).post_attn_gain is not None
    asked = _needs(sizes.n_layers, pos, sizes.d_mlp, post_norm, neurons)
    return {name: observation[need] for name, need in asked.items()}


def _targets(observation: Observation, target: str, against: str, pos: int) -> tuple[list[int], torch.Tensor]:
    """Token ids, and their logits in the model's own output; those before a soft cap, which is not linear."""
    readout, row = observation.readout, observation.positions[0].index(pos)
    logits = observation.logits[0][row].double()
    if readout.soft_cap:
        logits = torch.atanh(logits / readout.soft_cap) * readout.soft_cap
    ids = [need_one_token(observation.vocabulary, target, _FOR) if target else int(logits.argmax())]
    if against:
        ids.append(need_one_token(observation.vocabulary, against, _FOR))
    if len(set(ids)) != len(ids):
        which = "the target" if target else "the top token, which is explained where no target is named,"
        raise InputError(
            f"{observation.vocabulary.string(ids[0])!r} as {which} and as what it is held against",
            "two tokens",
            "Choose another one" if target else "Name the target",
        )
    return ids, logits[ids]


def _heads(
    observation: Observation, kept: Mapping[str, torch.Tensor], direction: torch.Tensor, pos: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shares by (layer, head), by (layer, head, key), and of each layer's b_O, float64."""
    edits, n_pos = (observation.model, observation.interventions), len(observation.tokens[0])
    written, origins, biases = [], [], []
    for layer in range(observation.sizes.n_layers):
        weights = observation.weights(layer)
        towards = _through(direction, weights.post_attn_gain, kept.get("post_attn_scale"), layer)
        per_value = einsum(weights.W_O.double(), towards, "head d_head d_model, d_model -> head d_head")
        values = weights.repeated(kept["v"][layer, 0], dim=1).double()  # key head d_head
        moved = einsum(values, per_value, "key head d_head, head d_head -> head key")
        origin = kept["rows"][layer, 0].double() * moved
        wrote, bias = origin.sum(-1), weights.b_O.double() @ towards
        if observation.interventions:  # they may have overwritten or scaled what the pattern moved
            z = kept["z"][layer, 0, 0].double()
            moved, _ = arriving(*edits, layer, n_pos, (Z,))
            behind, added = arriving(*edits, layer, n_pos, (ATTN_RESULT, ATTN_OUT))
            scaled = torch.where(moved[:, pos] == 0, (z != 0).any(-1).cpu(), moved[:, pos]) * behind[:, pos]
            wrote = (z * per_value).sum(-1) * behind[:, pos].to(z)
            origin, bias = origin * scaled.to(z)[:, None], bias * added[pos].to(z)
        written.append(wrote)
        origins.append(origin)
        biases.append(bias)
    return torch.stack(written), torch.stack(origins), torch.stack(biases)


def _through(
    direction: torch.Tensor, gain: torch.Tensor | None, scale: torch.Tensor | None, layer: int
) -> torch.Tensor:
    """The direction as seen in front of a post-norm: its gain over its frozen scale."""
    if gain is None or scale is None:
        return direction
    return direction * gain.double() / scale[layer, 0, 0].double()


def _components(
    embedding: float, written: torch.Tensor, biases: torch.Tensor, mlp: torch.Tensor | None, constant: torch.Tensor
) -> Iterator[tuple[str, str, int, int, float]]:
    """(kind, label, layer, head, value) of every part; -1 where there is no layer or head."""
    yield "embedding", "embedding", -1, -1, embedding
    for layer, heads in enumerate(written.tolist()):
        for head, value in enumerate(heads):
            yield "head", f"L{layer}H{head}", layer, head, value
        if biases.abs().max() > 0:
            yield "bias", f"L{layer} attention bias", layer, -1, float(biases[layer])
        if mlp is not None:
            yield "mlp", f"L{layer} MLP", layer, -1, float(mlp[layer])
    if constant != 0:
        yield "bias", "final norm and unembedding", -1, -1, float(constant)


def _neurons(
    observation: Observation, kept: Mapping[str, torch.Tensor], direction: torch.Tensor, layer: int | None, pos: int
) -> dict[str, Any]:
    if layer is None:
        return {}
    weights: LayerWeights = observation.weights(layer)
    if weights.W_out is None:
        raise InputError(f"neurons of layer {layer}", "an MLP with an output matrix", "Leave neurons out")
    edits, n_pos = (observation.model, observation.interventions), len(observation.tokens[0])
    arrives = float(
        arriving_of_neurons(*edits, layer, n_pos, (MLP_OUT,))[pos] * surviving(*edits, pos, n_pos)[layer, 1]
    )
    towards = _through(direction, weights.post_mlp_gain, kept.get("post_mlp_scale"), 0) * arrives
    shares = kept["neurons"][0, 0, 0].double() * (weights.W_out.double() @ towards)
    bias = float(weights.b_out.double() @ towards) if weights.b_out is not None else 0.0
    return {
        "neuron_attribution": ("neuron", shares, "logits", None, f"direct attribution of layer {layer}'s neurons"),
        "neuron_bias": ("", bias, "logits", None, f"direct attribution of layer {layer}'s b_out"),
    }


def _summary(result: xr.Dataset) -> str:
    """The total, and the largest part on either side of it, in logits."""
    shares, labels = result["attribution"].values, result["label"].values
    sides = []
    for side, at in (("for", int(shares.argmax())), ("against", int(shares.argmin()))):
        there = shares[at] > 0 if side == "for" else shares[at] < 0
        named = f"the largest part {side} it is {labels[at]} with {shares[at]:+.3g}" if there else f"none is {side} it"
        sides.append(named)
    target, against = result.attrs["target"], result.attrs["against"]
    what = f"logit of {target!r} less that of {against!r}" if against else f"logit of {target!r}"
    capped = ", before the soft cap," if result.attrs["soft_cap"] else ""
    total = f"at position {result.attrs['position']}{capped} is {float(result['total']):+.3g}"
    return f"The {what} {total}; of its parts {sides[0]}, and {sides[1]} (logits).{_of_heads(result)}"


def _of_heads(result: xr.Dataset) -> str:
    """The heads that write the most for it and against it, where they are not the largest parts anyway."""
    shares, labels = result["attribution"].values, result["label"].values
    heads = np.flatnonzero(result["kind"].values == "head")
    ends = {int(shares.argmax()), int(shares.argmin())}
    if not len(heads) or ends <= set(heads.tolist()):
        return ""
    most, least = (int(heads[place]) for place in (shares[heads].argmax(), shares[heads].argmin()))
    said = [f"the most for it is {labels[most]} with {shares[most]:+.3g}"] if shares[most] > 0 else []
    said += [f"the most against it is {labels[least]} with {shares[least]:+.3g}"] if shares[least] < 0 else []
    return f" Of the heads, {', and '.join(said)}." if said else ""


def _what(result: xr.Dataset) -> str:
    against = f" rather than {result.attrs['against']!r}" if result.attrs["against"] else ""
    return f"{result.attrs['target']!r}{against}"


@reads("direct-logit-attribution")
def bars_figure(result: xr.Dataset) -> "go.Figure":
    """The parts of largest share."""
    from workbench.figures import bars

    labels = [str(label) for label in result["label"].values]
    parts = (result[name].values.tolist() for name in ("kind", "component_layer", "component_head"))
    units, title = [_unit(*part) for part in zip(*parts, strict=True)], f"What writes {_what(result)}"
    return bars(result, "attribution", "component", title=title, labels=labels, limit=20, selects=units)


def _unit(kind: str, layer: int, head: int) -> dict[str, Any]:
    """What a part selects in every view: its head, its MLP's layer, or nothing more."""
    if kind == "head":
        return {"layer": layer, "head": head}
    return {"layer": layer, "part": "mlp"} if kind == "mlp" else {}


def heads_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the shares."""
    from workbench.figures import heads_grid

    return heads_grid(result, "head_attribution", title=f"Heads that write {_what(result)}")


def origin_figure(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """Where the selected head's share came from, token by token; the strongest head without a selection."""
    from workbench.figures import token_strip

    at = chosen(result, selection, "layer", "head")
    if selection.get("layer") is None or selection.get("head") is None:
        shares = np.abs(result["head_attribution"].values)
        at = tuple(int(i) for i in np.unravel_index(np.nanargmax(shares), shares.shape))
    if at is None:
        return None
    layer, head = at
    row = result["origin"].sel(layer=layer, head=head, drop=True).rename(key="pos")
    row = row.rename(key_text="token_text") if "key_text" in row.coords else row
    return token_strip(
        row.to_dataset(), "origin", title=f"L{layer}H{head}: where its share of {_what(result)} came from"
    )


def neurons_figure(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """The neurons of largest share in the layer that was asked for, or None."""
    if "neuron_attribution" not in result:
        return None
    from workbench.figures import bars

    return bars(result, "neuron_attribution", "neuron", title=f"Neurons that write {_what(result)}", limit=20)


def component_claim(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """The selected part, a head or an MLP, does to the logit or the difference what its share says."""
    at = chosen(result, selection, "component")
    if at is None:
        return None
    part = result.sel(component=at[0])
    kind, layer, head = str(part["kind"].item()), int(part["component_layer"]), int(part["component_head"])
    units = {"head": f"L{layer}H{head}", "mlp": f"L{layer} mlp"}.get(kind)
    return None if units is None else claims.check_of(units, **_explained(result, float(part["attribution"])))


def head_claim(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """The selected head does to what is explained what its share says."""
    at = chosen(result, selection, "layer", "head")
    if at is None:
        return None
    share = float(result["head_attribution"].sel(layer=at[0], head=at[1]))
    return claims.check_of(f"L{at[0]}H{at[1]}", **_explained(result, share))


def _explained(result: xr.Dataset, share: float) -> dict[str, Any]:
    """What the check measures, and what removing a part of that share must do to it."""
    side = "lowers" if share > 0 else "raises"
    return {name: result.attrs[f"{name}_ids"] for name in ("target", "against")} | {
        "metric": "logit difference",
        "pos": claims.last_as_end(result, int(result.attrs["position"])),
        "side": side,
    }


VIEW = View(
    DirectLogitAttribution,
    question="Which parts write the predicted token, or one token rather than another?",
    asks=(
        Ask("target", "Explain", empty="the model's top token"),
        Ask("against", "rather than", empty="none"),
        Ask("pos", "after", pick="pos", empty="the last token"),
    ),
    figures=(bars_figure, heads_figure),
    details=(origin_figure,),
    claims=(component_claim, head_claim),
)
