"""The neurons of one MLP that write most at a token, and the tokens they promote."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.routes.one_layer import NOTHING
from probes.routes.promoted import logit_contributions, promoted
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, Claim, View
from workbench.errors import InputError
from workbench.intervene.arriving import arriving_of_neurons
from workbench.models.hooks import EXPERT_WEIGHT, MLP_POST, POST_MLP_SCALE, RESID_POST, expert_post
from workbench.models.model import LayerWeights, Model, Sizes
from workbench.models.neurons import need_neurons
from workbench.models.prompt import Tokens, place
from workbench.models.selfcheck import READOUT
from workbench.observation import Need, Observation, Site, keep

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "Neurons", "activation_figure", "contribution_figure", "neuron_claim", "tokens_figure", "written"]

_PROMOTED = 8  # tokens listed on either side of a neuron


def written(activation: torch.Tensor, site: Site, pos: int) -> torch.Tensor:
    """Activations and sizes of what they write, `[batch, 2, neuron]`, at one position.

    A neuron writes its activation times its row of W_out (through a post-norm's gain where there is one; `_through`
    knows its scale, which is the same for all neurons).
    """
    here = activation[:, pos].float()
    return torch.stack([here, here.abs() * _rows(site.weights).norm(dim=-1)], dim=1)


def _rows(weights: LayerWeights) -> torch.Tensor:
    """What each neuron writes for an activation of 1, `[neuron, d_model]`, up to a post-norm's scale."""
    assert weights.W_out is not None, "needs() refuses a layer without an MLP of neurons"
    return _gained(weights.W_out.float(), weights)


def _gained(rows: torch.Tensor, weights: LayerWeights) -> torch.Tensor:
    return rows if weights.post_mlp_gain is None else rows * weights.post_mlp_gain.float()


def written_by(activation: torch.Tensor, weight: torch.Tensor, site: Site, pos: int, expert: int) -> torch.Tensor:
    """The same of one expert, and the weight it writes with, `[batch, 3, neuron]`; NaN where it is not taken."""
    assert site.layer is not None, "experts are of layers"
    own = site.model.expert_weights(site.layer, expert)
    here, factor = activation[:, pos].float(), weight[:, pos, expert, None].float()
    rows = _gained(own.W_out.float(), site.weights)
    size = here.abs() * rows.norm(dim=-1)
    factor = (factor > 0).float() if own.scaled_inside else factor
    return torch.stack([here, size * factor, factor.expand_as(here)], dim=1)


class Neurons(OnPrompt, name="neurons", title="Neurons", requires=(READOUT,)):
    """The neurons of one MLP that write most at a token, and the tokens they promote.

    Definition: A neuron adds activation * W_out[neuron] to the residual stream; drawn is the norm of that, for the
    selected layer and token. The activation is what W_out reads: gate times up where the MLP is gated. In a mixture,
    each expert has neurons of its own: drawn are those of the experts that the token takes, times the expert's weight.
    Behind a post-norm (Gemma 2 and 3) it goes through that, its scale frozen; where an intervention multiplies the
    MLP's output, it is multiplied.

    Limits: A large write is not yet an effect: several neurons may cancel, and later layers may ignore it; where an
    intervention sets what they write into, drawn is what they would add, and the sentence says so. An expert
    that all tokens share (Qwen2-MoE, Llama 4) is left out.

    Source: Geva et al. 2021, arXiv 2012.14913

    Returns: `contribution`, `activation` (neuron) of the top_k, largest contribution first: the norm of what the neuron
    adds to the residual stream, and its activation. Over (neuron, rank): `promoted_text`, `promoted_logit` and
    `suppressed_text`, `suppressed_logit`: what it adds to logits by the direct path, with the final norm's scale of the
    state behind the layer. `share` (scalar): their part of the sum of norms over all neurons. In a mixture neurons are
    counted through its experts, and `of_expert` (neuron) says whose each is.
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
        place(self.pos, len(tokens))
        if self.layer in model.sizes.experts:
            model.expert_weights(self.layer, 0)
            return *self._of_experts(model.sizes), *self._states(model.weights(self.layer))
        if model.weights(self.layer).W_out is None:  # a dense layer of a mixture has some, and bridges leave it whole
            mixed = ", ".join(map(str, model.sizes.experts))
            raise InputError(
                f"layer {self.layer} of {model.name}, whose MLP's neurons are not shown",
                f"a layer with a mixture of experts ({mixed})" if mixed else "a layer with an MLP of neurons",
                "Choose one of these" if mixed else "Choose another model",
            )
        need_neurons(model)
        return self._written, *self._states(model.weights(self.layer))

    @property
    def _written(self) -> Need:
        return Need((MLP_POST,), written, dims="component neuron", params={"pos": self.pos}, layers=(self.layer,))

    def _states(self, weights: LayerWeights) -> tuple[Need, ...]:
        """The state behind the layer, and the scale of a post-norm where there is one."""
        return self._state, *([] if weights.post_mlp_gain is None else [self._scale])

    @property
    def _state(self) -> Need:
        at = {"positions": (self.pos,)}
        return Need((RESID_POST,), keep, dims="pos d_model", params=at, layers=(self.layer,))

    @property
    def _scale(self) -> Need:
        at = {"positions": (self.pos,)}
        return Need((POST_MLP_SCALE,), keep, dims="pos one", params=at, layers=(self.layer,))

    def _of_experts(self, sizes: Sizes) -> tuple[Need, ...]:
        """One need an expert."""
        return tuple(
            Need(
                (expert_post(expert), EXPERT_WEIGHT), written_by, dims="component neuron",
                params={"pos": self.pos, "expert": expert}, layers=(self.layer,),
            )
            for expert in range(sizes.n_experts)
        )  # fmt: skip

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The largest writes, and what they do to the logits."""
        if self.layer in observation.sizes.experts:
            return self._in_mixture(observation)
        through = self._through(observation)
        values, sizes = observation[self._written][0, 0]
        sizes = sizes * abs(through)
        top = sizes.topk(min(self.top_k, len(sizes)))
        rows = _rows(observation.weights(self.layer))[top.indices] * through
        writes = values[top.indices, None].to(rows) * rows
        found = self._result(observation, top, values, sizes, writes)
        return found.assign_attrs(summary=self._summary(observation, found, f"the {len(sizes)} neurons of layer"))

    def _in_mixture(self, observation: Observation) -> xr.Dataset:
        """The same over the experts that the token takes."""
        width, layer = observation.sizes.d_expert, observation.weights(self.layer)
        found = torch.stack([observation[need][0, 0] for need in self._of_experts(observation.sizes)])
        values, sizes, factors = found.movedim(1, 0).flatten(1)  # counted through the experts
        through = self._through(observation)
        sizes, factors = sizes * abs(through), factors * through
        taken = torch.stack([one.isfinite().any() for one in found[:, 0]]).nonzero()[:, 0].tolist()
        top = sizes.nan_to_num(-1.0).topk(min(self.top_k, width * len(taken)))
        numbers = top.indices.tolist()
        own = {expert: observation.expert_weights(self.layer, expert).W_out for expert in taken}
        rows = _gained(torch.stack([own[n // width][n % width].float() for n in numbers]), layer)
        writes = (values * factors)[top.indices, None].to(rows) * rows
        result = self._result(observation, top, values, sizes, writes)
        about = {
            "units": "expert",
            "long_name": "its expert",
            "valid_min": 0,
            "valid_max": observation.sizes.n_experts - 1,
        }
        result["of_expert"] = ("neuron", [n // width for n in numbers], about)
        neurons = f"the {width * len(taken)} neurons of {', '.join(f'L{self.layer}E{e}' for e in taken)} in layer"
        return result.assign_attrs(d_expert=width, summary=self._summary(observation, result, neurons))

    def _arriving(self, observation: Observation) -> float:
        """By how much interventions multiply what the neurons write here; 0 where they set it."""
        given = (observation.model, observation.interventions, self.layer, len(observation.tokens[0]))
        return float(arriving_of_neurons(*given)[self.pos])

    def _through(self, observation: Observation) -> float:
        """What every write is multiplied by: what arrives (all of it where nothing does, and that is said), over the
        scale of a post-norm."""
        normed = observation.weights(self.layer).post_mlp_gain is not None
        scale = float(observation[self._scale][0, 0, 0, 0]) if normed else 1.0
        return (self._arriving(observation) or 1.0) / scale

    def _result(
        self, observation: Observation, top: Any, values: torch.Tensor, sizes: torch.Tensor, writes: torch.Tensor
    ) -> xr.Dataset:
        """top: the largest of `sizes`. writes: what they add to the residual stream, `[neuron, d_model]`."""
        logits = logit_contributions(observation.readout, writes, observation[self._state][0, 0, 0])
        ids = promoted(logits, _PROMOTED)
        texts = [[[observation.vocabulary.string(i) for i in row] for row in found.tolist()] for found in ids]
        up, down = (logits.gather(-1, found) for found in ids)
        share = float(top.values.sum() / sizes.nansum().clamp(min=1e-30))
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
        ).assign_attrs(layer=self.layer, at=self.pos)

    def _summary(self, observation: Observation, result: xr.Dataset, neurons: str) -> str:
        text = observation.tokens[0].strings[self.pos]
        return (
            f"At token {self.pos} {text!r}, {result.sizes['neuron']} of {neurons} {self.layer} carry "
            f"{float(result['share']):.0%} of the sizes of what all of them write."
            f"{NOTHING * (not self._arriving(observation))}"
        )


def _label(result: xr.Dataset, neuron: int) -> str:
    """As units are written: L3N12, or L3E5N12 in a mixture."""
    width = result.attrs.get("d_expert")
    number = f"N{neuron}" if width is None else f"E{neuron // width}N{neuron % width}"
    return f"L{result.attrs['layer']}{number}"


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
    title = f"{_label(result, int(neuron))} promotes and suppresses"
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
    labels = [_label(result, int(n)) for n in result["neuron"].values]
    plain = result.reset_coords(drop=True)
    return bars(plain, variable, "neuron", labels=labels, title=f"Neurons of layer {layer} that {said} at token {pos}")


def neuron_claim(result: xr.Dataset, selection: Mapping[str, Any]) -> Claim | None:
    """The selected neuron, by default the one that writes most, changes the prediction at the selected token."""
    neuron = selection.get("neuron")
    if neuron is None or neuron not in result["neuron"].values:
        neuron = int(result["neuron"].values[0])
    return claims.check_of(_label(result, int(neuron)), pos=result.attrs["at"])


VIEW = View(
    Neurons,
    question="Which neurons of the selected layer write most at the selected token, and what do they promote?",
    asks=(Ask("top_k", "Draw the", unit="strongest neurons"),),
    figures=(contribution_figure, activation_figure),
    details=(tokens_figure,),
    claims=(neuron_claim,),
    follows=("layer", "pos"),
)
