"""The attention of one head: how a query's attention is shared out over the keys that it sees."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
import xarray as xr

from probes.checks import claims
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import View, chosen
from workbench.errors import InputError
from workbench.figures import show_token
from workbench.models.hooks import PATTERN
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import ROWS
from workbench.observation import Need, Observation
from workbench.observation.reducers import head_pattern

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "Attention", "pattern_figure", "row_figure"]

_TOLD = 0.005  # share below which a key is none percent


class Attention(OnPrompt, name="attention", title="Attention", requires=(ROWS,)):
    """How each query of one head shares out its attention over the keys that it sees.

    Definition: pattern(query, key) = softmax over keys of q k / sqrt(d_head) + mask: the share of its attention that a
    query position gives to a key position, for the selected head. Rows sum to 1, with the learned sink's share where
    the model has one (GPT-OSS).

    Limits: Attention says where a head looks, not what it carries over or whether it matters: a head that looks at the
    first token often moves nothing.

    Source: Vaswani et al. 2017, arXiv 1706.03762

    Returns: `pattern` (query, key): the share of its attention that a query gives to a key; rows sum to 1.
    """

    layer: Annotated[int, Range(0), "follows the selection"] = 0
    head: Annotated[int, Range(0), "follows the selection"] = 0

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """The pattern of one head; InputError where the model does not have it."""
        sizes = model.sizes
        if not (self.layer < sizes.n_layers and self.head < sizes.n_heads):
            last = f"L{sizes.n_layers - 1}H{sizes.n_heads - 1}"
            raise InputError(
                f"head L{self.layer}H{self.head}", f"L0H0 to {last} on {model.name}", "Choose a head it has"
            )
        return (self._need,)

    @property
    def _need(self) -> Need:
        return Need((PATTERN,), head_pattern, dims="query key", params={"head": self.head}, layers=(self.layer,))

    def analyse(self, observation: Observation) -> xr.Dataset:
        """The pattern as it is."""
        values = observation[self._need][0, 0]
        result = dataset(observation, pattern=("query key", values, "share of attention", (0, 1), "attention weight"))
        summary = _summary(values, self.layer, self.head, observation.tokens[0].strings)
        return result.assign_attrs(layer=self.layer, head=self.head, summary=summary)


def _summary(values: torch.Tensor, layer: int, head: int, strings: Sequence[str]) -> str:
    """Shares of all that is looked at from token 1 on (token 0 sees nothing but itself): they add up to at most 1."""
    n = len(values)
    if n == 1:
        return f"L{layer}H{head} has only the one token to look at."
    first, own = float(values[1:, 0].mean()), float(values.diagonal()[1:].mean())
    said = (
        f"From token 1 on, L{layer}H{head} gives {first:.0%} of its attention to the first token and {own:.0%} to the "
        "token itself"
    )
    others = values[1:, 1:].tril(-1).sum(0) / (n - 1)
    key = int(others.argmax())
    if float(others[key]) < _TOLD:
        return f"{said}."
    token = show_token(strings[key + 1], html=False)
    return f"{said}; of the others token {key + 1} {token} gets most: {float(others[key]):.0%}."


def pattern_figure(result: xr.Dataset) -> "go.Figure":
    """Queries downwards, keys to the right; the colour range leaves key 0 out, where sinks would wash out the rest."""
    from workbench.figures import head_name
    from workbench.figures import pattern_figure as draw
    from workbench.figures.quantity import pick_scale

    name = head_name(result.attrs["layer"], result.attrs["head"])
    tokens = [str(text) for text in result["query_text"].values]
    scale = pick_scale(result["pattern"], None)  # signed where it is a difference
    return draw(result["pattern"].values, tokens, title=f"Attention of {name}", exclude_first=True, scale=scale)


def row_figure(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """Where the selected token looks."""
    from workbench.figures import bars, head_name, show_token

    at = chosen(result, selection, "query")
    if at is None:
        return None
    (query,) = at
    row = result.sel(query=query).isel(key=slice(0, query + 1))
    labels = [
        f"{int(k)} {show_token(str(t), html=False)}" for k, t in zip(row["key"], row["key_text"].values, strict=True)
    ]
    name = head_name(result.attrs["layer"], result.attrs["head"])
    plain = row.reset_coords(drop=True)
    return bars(plain, "pattern", "key", labels=labels, limit=12, title=f"{name}: token {query} looks at")


VIEW = View(
    Attention,
    question="Which earlier tokens does each token look at, through the selected head?",
    figures=(pattern_figure,),
    details=(row_figure,),
    claims=(claims.head, claims.edge),
    follows=("layer", "head"),
)
