"""The attention of one head: how a query's attention is shared out over the keys that it sees.

`pattern(query, key) = softmax over keys of q k / sqrt(d_head) + mask`. On the page it follows the selection and is
recomputed from the kept state of its layer.
"""

import torch
import xarray as xr

from probes.checks import claims
from workbench.analysis.legacy import Entry, Param
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.models.hooks import PATTERN
from workbench.models.selfcheck import ROWS
from workbench.observation import Need, Observation, Site

__all__ = ["ENTRY", "attention"]


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


ENTRY = Entry(
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
    params=(
        Param("layer", int, 0, "follows the selection", low=0),
        Param("head", int, 0, "follows the selection", low=0),
    ),
)
