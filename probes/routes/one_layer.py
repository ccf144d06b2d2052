"""What a click on the lattice shows of one layer: a head's two maps, a state's lens, an MLP's neurons.

The needs of each are all of one layer, so that it can be recomputed from the kept state of that layer, which costs a
layer's share of a pass.
"""

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import xarray as xr

from probes.routes.contributions import head_need
from probes.routes.promoted import logit_contributions, promoted
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.results import dataset
from workbench.analysis.view import View
from workbench.errors import InputError
from workbench.intervene.arriving import arriving_of_neurons
from workbench.kernels.proximity import part_proximity
from workbench.models.hooks import MLP_POST, PATTERN, POST_MLP_SCALE, RESID_MID, RESID_POST, RESID_PRE, Hook
from workbench.models.model import LayerWeights, Model, Sizes
from workbench.models.neurons import need_neurons
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PARTS, READOUT, RESIDUAL
from workbench.observation import Need, Observation, keep
from workbench.observation.reducers import head_pattern

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "HEAD",
    "NEURONS",
    "NODE",
    "NOTHING",
    "FlowRouteHead",
    "FlowRouteNeurons",
    "FlowRouteNode",
    "check_inside",
    "head_figure",
    "neuron_outputs",
    "neuron_shares",
    "neurons_figure",
    "node_figure",
]

NOTHING = " An intervention sets what they write into: nothing of it arrives."


def check_inside(*ranges: tuple[str, int, int]) -> None:
    """InputError for the first (name, value, size) whose value is not an index below the size."""
    for name, value, size in ranges:
        if not 0 <= value < size:
            raise InputError(f"{name}={value}", f"{name} from 0 to {size - 1}", "Choose one that is there")


def _at(hook: Hook, layer: int, pos: int) -> Need:
    return Need((hook,), keep, dims=hook.dims[1:], params={"positions": (pos,)}, layers=(layer,))


# --- an edge: the maps of its head ------------------------------------------------------------------------------------


class FlowRouteHead(
    OnPrompt, name="flow-route-head", title="Attention and shares of one head", requires=(RESIDUAL, PARTS)
):
    """Where a head looks, and beside it what that brings.

    Definition: pattern(query, key) of one head, and the share of pattern v W_O in what the edge leads into.

    Limits: A head can look where it brings nothing, and the other way round: neither map says what matters later.

    Source: Ferrando & Voita 2024, arXiv 2403.00824

    Returns: over (query, key): `pattern`, and `share`, what each edge brings to what it leads into; every pair is
    there.
    """

    layer: Annotated[int, Range(0), "layer"] = 0
    head: Annotated[int, Range(0), "head"] = 0
    p: Annotated[int, Choice((1, 2)), "norm"] = 1

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """Shares and pattern of one head; InputError where the model does not have it."""
        check_inside(("layer", self.layer, model.sizes.n_layers), ("head", self.head, model.sizes.n_heads))
        return self._share_need(model.sizes, model.weights(self.layer)), self._pattern_need()

    def _share_need(self, sizes: Sizes, weights: LayerWeights) -> Need:
        return head_need(sizes, weights, self.layer, self.head, self.p)

    def _pattern_need(self) -> Need:
        return Need((PATTERN,), head_pattern, "query key", {"head": self.head}, (self.layer,))

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The two maps."""
        name = f"L{self.layer}H{self.head}"
        share = observation[self._share_need(observation.sizes, observation.weights(self.layer))][0, 0]
        return dataset(
            observation,
            pattern=("query key", observation[self._pattern_need()][0, 0], "attention weight", (0, 1)),
            share=("query key", share, "share", (0, 1), f"share of {name}"),
        ).assign_attrs(
            name=name,
            summary=f"{name} brings at most {float(share.nan_to_num().max()):.3f} of what one edge leads into.",
        )


def head_figure(result: xr.Dataset) -> "go.Figure":
    """Where the head looks, and beside it what that brings."""
    from workbench.figures import pattern_pair

    tokens = [str(text) for text in result["query_text"].values]
    maps = {"attention": result["pattern"].values, "share": result["share"].values}
    return pattern_pair(maps, tokens, result.attrs["name"])


HEAD = View(FlowRouteHead, question="Where does this head look, and what does that bring?", figures=(head_figure,))


# --- a node: its lens -------------------------------------------------------------------------------------------------


class FlowRouteNode(OnPrompt, name="flow-route-node", title="Logit lens of one state", requires=(READOUT,)):
    """What the model would say of one state.

    Definition: softmax(unembed(norm(resid))) of the residual stream at one depth and position.

    Limits: Early states live in other bases than the last one: nonsense does not show that nothing is known.

    Source: nostalgebraist 2020

    Returns: `text` and `probability` over `rank`, the likeliest first.
    """

    depth: Annotated[int, Range(0), "depth: 0 is the embedding"] = 0
    pos: Annotated[int, Range(0), "position"] = 0

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """The residual stream at one depth and position; InputError where there is none."""
        check_inside(("depth", self.depth, model.sizes.n_layers + 1), ("pos", self.pos, len(tokens)))
        return (self._state_need(model.sizes),)

    def _state_need(self, sizes: Sizes) -> Need:
        if self.depth < sizes.n_layers:
            return _at(RESID_PRE, self.depth, self.pos)
        return _at(RESID_POST, self.depth - 1, self.pos)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The logit lens of the state."""
        state = observation[self._state_need(observation.sizes)][0, 0, 0]
        logits = observation.readout.logits(state[None])[0].float()
        top = logits.softmax(-1).topk(min(10, observation.vocabulary.size))
        texts = [observation.vocabulary.string(i) for i in top.indices.tolist()]
        first = f"{texts[0]!r} (p = {float(top.values[0]):.2f})"
        return dataset(
            observation,
            text=("rank", np.array(texts, dtype=object), "text", None, "top tokens"),
            probability=("rank", top.values, "probability", (0, 1)),
        ).assign_attrs(
            depth=self.depth,
            at=self.pos,
            summary=f"At depth {self.depth} token {self.pos} reads out as {first}.",
        )


def node_figure(result: xr.Dataset) -> "go.Figure":
    """Top tokens of the state with their probabilities."""
    from workbench.figures import bars, show_token

    labels = [f"{rank + 1} {show_token(str(text), html=False)}" for rank, text in enumerate(result["text"].values)]
    title = f"Lens at depth {result.attrs['depth']}, token {result.attrs['at']}"
    return bars(result, "probability", "rank", labels=labels, title=title)


NODE = View(FlowRouteNode, question="What would the model say of this state?", figures=(node_figure,))


# --- an MLP: its neurons ----------------------------------------------------------------------------------------------


class FlowRouteNeurons(
    OnPrompt, name="flow-route-neurons", title="Neurons of one MLP", requires=(READOUT, RESIDUAL, PARTS)
):
    """The strongest neurons of one MLP at one position, with the tokens each promotes.

    Definition: share of activation * W_out[n] in resid_post, in one sum with the residual stream and the bias; promoted
    are the tokens whose logits it raises most, through the final norm's gain and the unembedding.

    Limits: Neurons may cancel, and later layers may ignore what one promotes.

    Source: Ferrando & Voita 2024, arXiv 2403.00824; arXiv 2404.07004

    Returns: over `neuron` (ids, the strongest first): `neuron_share` (of resid_post, in one sum with the residual),
    `activation`; over (neuron, token): `neuron_text`.
    """

    layer: Annotated[int, Range(0), "layer"] = 0
    pos: Annotated[int, Range(0), "position"] = 0
    top: Annotated[int, Range(1, 200), "neurons listed"] = 20
    promote: Annotated[int, Range(1, 20), "promoted tokens of each"] = 5

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """One position of an MLP; InputError where there is none, or none made of neurons."""
        check_inside(("layer", self.layer, model.sizes.n_layers), ("pos", self.pos, len(tokens)))
        weights = model.weights(self.layer)
        if weights.W_out is None:
            raise InputError(
                f"layer {self.layer} of {model.name}, whose MLP's neurons are not shown",
                "a layer with an MLP of neurons",
                "Choose another model",
            )
        need_neurons(model)
        return self._needs(model.sizes, weights)

    def _needs(self, sizes: Sizes, weights: LayerWeights) -> tuple[Need, ...]:
        return tuple(_at(hook, self.layer, self.pos) for hook in _neuron_hooks(sizes, weights))

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The neurons with the largest shares."""
        layer, weights = self.layer, observation.weights(self.layer)
        post, resid, target, *scale = (observation[n][0, 0, 0] for n in self._needs(observation.sizes, weights))
        edits = (observation.model, observation.interventions, layer, len(observation.tokens[0]))
        arrives = float(arriving_of_neurons(*edits)[self.pos])
        outputs, shares, _ = neuron_shares(post, weights, resid, target, scale[0] if scale else None, arrives=arrives)
        best = shares.argsort(descending=True)[: self.top]
        up, _ = promoted(logit_contributions(observation.readout, outputs[best], target), self.promote)
        text = np.array([[observation.vocabulary.string(i) for i in row] for row in up.tolist()], dtype=object)
        said = f"{len(best)} of {len(shares)} neurons of layer {layer} hold {float(shares[best].sum()):.0%} of the sum"
        return dataset(
            observation,
            {"neuron": best.tolist()},
            neuron_share=("neuron", shares[best], "share", (0, 1), "share of the neuron in resid_post"),
            activation=("neuron", post[best], "activation", None),
            neuron_text=("neuron token", text, "text", None, "tokens the neuron promotes"),
        ).assign_attrs(layer=layer, at=self.pos, summary=f"{said} at token {self.pos}.{NOTHING * (not arrives)}")


def _neuron_hooks(sizes: Sizes, weights: LayerWeights) -> tuple[Hook, ...]:
    """Activations, what goes past the MLP, their sum, and the scale of a post-norm where there is one."""
    normed = (POST_MLP_SCALE,) if weights.post_mlp_gain is not None else ()
    return (MLP_POST, RESID_PRE if sizes.parallel else RESID_MID, RESID_POST, *normed)


def neuron_outputs(
    post: torch.Tensor, weights: LayerWeights, scale: torch.Tensor | None = None, chosen: int | slice = slice(None)
) -> torch.Tensor:
    """What neurons write into the residual stream, `[neuron, d_model]` (`[d_model]` of one).

    post: their activations, `[neuron]`. scale: of a post-norm, which needs it. chosen: which of them.
    """
    assert weights.W_out is not None, "needs() refuses a layer without an MLP of neurons"
    outputs = post[chosen][..., None] * weights.W_out[chosen].float()
    return outputs if scale is None else outputs / scale * _gain(weights)


def _gain(weights: LayerWeights) -> torch.Tensor:
    """The gain of the post-norm whose scale is given."""
    assert weights.post_mlp_gain is not None, "the scale is asked for only where there is a gain"
    return weights.post_mlp_gain.float()


def neuron_shares(
    post: torch.Tensor,
    weights: LayerWeights,
    resid: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor | None = None,
    p: int = 1,
    *,
    arrives: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shares of neurons in resid_post at one position: outputs `[neuron, d_model]`, shares `[neuron]`, residual's
    share.

    post `[neuron]`, resid and target `[d_model]`; b_out is a part of the sum but not listed. scale: of a post-norm.
    arrives: what interventions multiply the MLP's output by; where that is 0, outputs are what would be written.
    """
    assert weights.b_out is not None, "an MLP of neurons has one, zeros where the model has none"
    outputs, bias = neuron_outputs(post, weights, scale), weights.b_out.float()
    if scale is not None:
        bias = bias / scale * _gain(weights)
    each, bias = part_proximity(arrives * outputs, target, p), arrives * bias
    rest, constant = part_proximity(resid, target, p), part_proximity(bias, target, p)
    whole = (each.sum() + rest + constant).clamp(min=1e-300)
    return (arrives or 1.0) * outputs, each / whole, rest / whole


def neurons_figure(result: xr.Dataset) -> "go.Figure":
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


NEURONS = View(
    FlowRouteNeurons,
    question="Which neurons is this MLP's output made of, and what do they promote?",
    figures=(neurons_figure,),
)
