"""Mixtures of experts: which expert every token takes, and with what weight."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from workbench.analysis.kinds import OnPrompt
from workbench.analysis.results import dataset
from workbench.analysis.view import View, chosen
from workbench.errors import InputError
from workbench.models.hooks import EXPERT_WEIGHT
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.observation import Need, Observation, Site, keep
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "Experts", "expert_use", "need_experts", "no_experts", "share_figure", "use_need", "weight_figure"]


def no_experts(model: Model) -> str | None:
    """What a model without a mixture of experts has instead."""
    if model.sizes.experts:
        return None
    return "has one MLP in every layer and no experts" if model.sizes.d_mlp else "has neither MLPs nor experts"


def need_experts(model: Model) -> None:
    """InputError for a model without a mixture of experts."""
    if (lacks := no_experts(model)) is not None:
        raise InputError(
            f"{model.name}, which {lacks}", "a mixture of experts", "Look at neurons instead (workbench run neurons)"
        )


def expert_use(weight: torch.Tensor, site: Site) -> torch.Tensor:
    """Share of a prompt's tokens that choose each expert, `[batch, expert]`, 0 to 1. Padding is no use."""
    taken = (weight > 0) & site.mask[..., None]
    return taken.sum(1) / site.lengths[:, None]


def use_need(sizes: Sizes) -> Need:
    """`expert_use` of every layer with experts."""
    return Need((EXPERT_WEIGHT,), expert_use, dims="expert", layers=sizes.experts)


def _weights(sizes: Sizes) -> Need:
    return Need((EXPERT_WEIGHT,), keep, dims="pos expert", layers=sizes.experts)


class Experts(OnPrompt, name="experts", title="Experts"):
    """Which experts of every mixture each token takes, and with what weight.

    Definition: A router scores all experts of its layer for a token and hands the token to the few with the highest
    scores; what they give is added up with weights. Drawn is, for every expert, the share of the prompt's tokens that
    choose it, and the weight at each token. Weights are the model's own: some families' sum to 1, others' do not. In
    Llama 4 the weight multiplies what the expert reads.

    Limits: To be chosen is not yet to matter: expert-contrast switches experts off. Experts that all tokens share
    (Qwen2-MoE, Llama 4) are chosen by nobody and not listed. One prompt says little about how experts are used.

    Source: Shazeer et al. 2017, arXiv 1701.06538; Fedus et al. 2022, arXiv 2101.03961

    Returns: `weight` (layer, pos, expert), 0 where not chosen; `use` (layer, expert), the share of tokens that choose
    it; `use_null`, the same if all experts were chosen equally often; `weight_sum` (layer, pos). Layers with experts
    only.
    """

    @classmethod
    def inapplicable(cls, model: Model) -> str | None:
        """A model without experts."""
        return no_experts(model)

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """The weights of every layer with experts; InputError for a model that has none."""
        need_experts(model)
        return (_weights(model.sizes),)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Weights as they are, and how often each expert is chosen."""
        weight = observation[_weights(observation.sizes)][:, 0].cpu().numpy()  # layer pos expert
        layers = list(observation.sizes.experts)
        use = (weight > 0).mean(1)
        equal = np.broadcast_to(use.mean(1, keepdims=True), use.shape)
        layer, expert = np.unravel_index(int(use.argmax()), use.shape)
        taken = (weight > 0).sum(-1).mean()
        where = f"each of {len(layers)} layers" if len(layers) > 1 else f"layer {layers[0]}"
        others = int((use == use[layer, expert]).sum()) - 1  # of a short prompt many
        most = f"are L{layers[layer]}E{expert} and {others} more" if others else f"is L{layers[layer]}E{expert}"
        share = f"{use[layer, expert]:.0%} of {counted(weight.shape[1], 'token')}{', each' if others else ''}"
        summary = (
            f"A token takes {taken:.3g} of {weight.shape[-1]} experts in {where}; most often chosen {most} ({share})."
        )
        return dataset(
            observation,
            {"layer": layers},
            weight=("layer pos expert", weight, "weight", (0, None), "weight of the expert"),
            use=("layer expert", use, "share of tokens", (0, 1), "tokens that choose the expert"),
            use_null=("layer expert", equal.copy(), "share of tokens", (0, 1), "if all were chosen equally often"),
            weight_sum=("layer pos", weight.sum(-1), "weight", (0, None), "sum over the token's experts"),
        ).assign_attrs(summary=summary)


def share_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x expert grid of how often each is chosen."""
    from workbench.figures import heads_grid

    return heads_grid(result, "use", title="Share of tokens that choose each expert", unit="expert")


def weight_figure(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """The weight of the selected expert at every token; of the most used one where none is selected."""
    from workbench.figures import token_strip

    at = chosen(result, selection, "layer", "expert")
    if at is None:
        use = result["use"].values
        layer, expert = (int(i) for i in np.unravel_index(int(use.argmax()), use.shape))
        at = (int(result["layer"].values[layer]), expert)
    layer, expert = at
    row = result.sel(layer=layer, expert=expert)
    return token_strip(row, "weight", title=f"Weight of L{layer}E{expert} at each token")


VIEW = View(
    Experts,
    question="Which experts does each token take, and with what weight?",
    figures=(share_figure,),
    details=(weight_figure,),
)
