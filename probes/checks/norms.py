"""How loud a unit is: the norm of what its removal takes out of the residual stream.

Root mean square over positions >= 1 (of position 0 alone in a one-token prompt):

    head, MLP, attention block    its output
    neuron                        activation * W_out[neuron]; of an expert: times the expert's weight, 0 where not taken
    edge                          pattern[query, key] v[key] W_O, at its query
    key of a head                 pattern / (1 - pattern) (v[key] - z[query]) W_O, over queries: what hiding it changes
    state                         the residual stream at its position
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import einsum

from workbench.intervene import (
    MLP,
    Attention,
    AttentionEdge,
    AttentionKey,
    ExpertNeurons,
    Head,
    Neurons,
    Residual,
    Where,
)
from workbench.intervene.contradictions import is_void
from workbench.models.hooks import ATTN_OUT, EXPERT_WEIGHT, MLP_OUT, MLP_POST, PATTERN, RESID_PRE, V, Z, expert_post
from workbench.models.model import Model, Sizes
from workbench.observation import Need, Site, observe

__all__ = ["SILENT", "output_norms"]

SILENT = -30.0  # log norm below which a removal takes nothing away: an intervention overwrites what it leads to


def output_norms(model: Model, prompts: Sequence[Any], kind: type, queries: tuple[int, ...] = ()) -> np.ndarray:
    """Log of how loud each unit of a kind is, root mean square over prompts; NaN where a prompt has no such position.

    `[layer]` for blocks, `[layer, head]`, `[layer, neuron]`, `[layer, expert, neuron]` (NaN in layers without),
    `[layer, head, key]` for keys of heads, `[layer, pos]` for states (NaN at 0), `[layer, head, query, key]` for edges
    into `queries`.
    """
    sizes = model.sizes
    needs = {
        Head: Need((Z,), head_norm, dims="head"),
        Neurons: Need((MLP_POST,), neuron_norm, dims="neuron", layers=_dense(sizes)),
        ExpertNeurons: Need(
            (EXPERT_WEIGHT, *map(expert_post, range(sizes.n_experts))),
            expert_norm,
            dims="expert neuron",
            layers=sizes.experts or None,
        ),
        Attention: Need((ATTN_OUT,), block_norm),
        MLP: Need((MLP_OUT,), block_norm),
        AttentionEdge: Need((PATTERN, V), edge_norm, dims="head row key", params={"queries": queries}),
        AttentionKey: Need((PATTERN, V, Z), key_norm, dims="head key"),
        Residual: Need((RESID_PRE,), state_norm, dims="pos"),
    }
    need = needs[kind]
    seen = observe(model, prompts, [need], positions="none", stop=sizes.n_layers)
    known = seen[need].double().square().mean(1).cpu().numpy()
    squares = np.full((sizes.n_layers, *known.shape[1:]), np.nan)
    squares[slice(None) if need.layers is None else list(need.layers)] = known
    if model.interventions:
        _silence(squares, model, kind, queries)
    return 0.5 * np.log(squares + 1e-30)


def _silence(squares: np.ndarray, model: Model, kind: Any, queries: tuple[int, ...]) -> None:
    """Units whose removal changes nothing, since an intervention overwrites what they lead to, take nothing out."""
    if kind is ExpertNeurons:
        for layer, expert in np.ndindex(squares.shape[:2]):
            if is_void(model, Where(expert_post(expert), layer)):
                squares[layer, expert] *= 0
        return
    by_head = kind in (Head, AttentionEdge, AttentionKey)
    for layer, head in np.ndindex(len(squares), model.sizes.n_heads if by_head else 1):
        where = Where(kind.hook, layer, (head,) if by_head else None)
        here = (layer, head) if by_head else (layer,)
        for row, query in enumerate(queries or (None,)):
            if is_void(model, where if query is None else where._replace(positions=(query,))):
                squares[here if query is None else (*here, row)] *= 0  # NaN stays


def head_norm(z: torch.Tensor, site: Site) -> torch.Tensor:
    """How loud each head is, `[batch, head]`."""
    gram = site.weights.W_O_gram  # |z W_O|^2 without writing z W_O out
    squares = einsum(z.float(), gram, z.float(), "b t h e, h e f, b t h f -> b t h")
    return _mean_square(squares, site)


def block_norm(out: torch.Tensor, site: Site) -> torch.Tensor:
    """How loud a whole block is, `[batch]`."""
    return _mean_square(out.float().square().sum(-1, keepdim=True), site)[:, 0]


def neuron_norm(post: torch.Tensor, site: Site) -> torch.Tensor:
    """How loud each neuron is, `[batch, neuron]`."""
    W_out = site.weights.W_out
    assert W_out is not None, "a layer with neurons has it"
    return _mean_square(post.float().square() * W_out.float().square().sum(-1), site)


def expert_norm(weight: torch.Tensor, *posts_and_site: Any) -> torch.Tensor:
    """How loud each neuron of each expert is, `[batch, expert, neuron]`."""
    *posts, site = posts_and_site
    found = []
    for number, post in enumerate(posts):
        expert, taken = site.model.expert_weights(site.layer, number), weight[..., number, None].float()
        factor = (taken > 0).float() if expert.scaled_inside else taken
        sizes = (post.float().nan_to_num(0.0) * factor).square() * expert.W_out.float().square().sum(-1)
        found.append(_mean_square(sizes, site))
    return torch.stack(found, 1)


def _dense(sizes: Sizes) -> tuple[int, ...] | None:
    """Layers with one MLP; None where there are none, and no such neurons to ask about."""
    return tuple(layer for layer in range(sizes.n_layers) if layer not in sizes.experts) or None


def edge_norm(pattern: torch.Tensor, v: torch.Tensor, site: Site, queries: tuple[int, ...]) -> torch.Tensor:
    """How loud each edge into the queries is, `[batch, head, query, key]`; NaN for keys behind a query."""
    values = site.weights.repeated(v.float(), dim=2)
    size = einsum(values, site.weights.W_O_gram, values, "b k h e, h e f, b k h f -> b h k").clamp_min(0).sqrt()
    found = pattern[:, :, list(queries)].float() * size[:, :, None]
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    behind = keys > torch.tensor(queries, device=pattern.device)[:, None]
    return found.masked_fill(behind, torch.nan)


def key_norm(pattern: torch.Tensor, v: torch.Tensor, z: torch.Tensor, site: Site) -> torch.Tensor:
    """How much hiding each key changes each head's output, `[batch, head, key]`."""
    values, gram, out = site.weights.repeated(v.float(), dim=2), site.weights.W_O_gram, z.float()
    own = einsum(values, gram, values, "b k h e, h e f, b k h f -> b h k")[:, :, None]
    cross = einsum(out, gram, values, "b q h e, h e f, b k h f -> b h q k")
    whole = einsum(out, gram, out, "b q h e, h e f, b q h f -> b h q")[..., None]
    weight = pattern.float()
    moved = (weight / (1 - weight).clamp_min(1e-4)).square() * (own - 2 * cross + whole).clamp_min(0)
    queries = site.mask.clone()
    queries[:, 0] = False  # it sees nothing but itself, and keeps that
    return ((moved * queries[:, None, :, None]).sum(2) / queries.sum(-1).clamp_min(1)[:, None, None]).sqrt()


def state_norm(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """How loud the residual stream is, `[batch, pos]`; NaN at 0, where it is unlike anything else."""
    found = resid.float().norm(dim=-1)
    found[:, 0] = torch.nan
    return found


def _mean_square(squares: torch.Tensor, site: Site) -> torch.Tensor:
    """Over positions >= 1 where there are any: position 0 is a sink in most models and would drown the rest."""
    mask = site.mask.clone()
    mask[:, 0] = mask.sum(-1) == 1
    mean = (squares * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return mean.clamp_min(0).sqrt()
