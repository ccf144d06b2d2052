"""How loud a unit is: the norm of what its removal by zero takes out of the residual stream.

Also where it is removed by its mean, or by what it is on another prompt, which moves the stream otherwise.

Root mean square over positions >= 1 (of position 0 alone in a one-token prompt):

    head, MLP, attention block    its output
    neuron                        activation * W_out[neuron]; of an expert: times the expert's weight, 0 where not taken
    edge                          pattern[query, key] v[key] W_O, at its query
    key of a head                 pattern / (1 - pattern) (v[key] - z[query]) W_O, over queries: what hiding it changes
    state                         the residual stream at its position

Where a norm stands between a block and the stream (Gemma 2 and 3), all of it through that norm's gain, over its own
scale: heads of unlike layers are compared by what they add.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import einsum

from workbench.errors import RefusedError
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
from workbench.models.hooks import (
    ATTN_OUT,
    EXPERT_WEIGHT,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    POST_ATTN_SCALE,
    POST_MLP_SCALE,
    RESID_PRE,
    V,
    Z,
    expert_post,
)
from workbench.models.model import Model, Sizes
from workbench.models.selfcheck import PARTS
from workbench.observation import Need, Site, observe
from workbench.observation.reducers import arrives, neurons_arrive

__all__ = ["SILENT", "output_norms"]

SILENT = -30.0  # log norm below which a removal takes nothing away: an intervention overwrites what it leads to


def output_norms(model: Model, prompts: Sequence[Any], kind: type, queries: tuple[int, ...] = ()) -> np.ndarray:
    """Log of how loud each unit of a kind is, root mean square over prompts; NaN where a prompt has no such position.

    `[layer]` for blocks, `[layer, head]`, `[layer, neuron]`, `[layer, expert, neuron]` (NaN in layers without),
    `[layer, head, key]` for keys of heads, `[layer, pos]` for states (NaN at 0), `[layer, head, query, key]` for edges
    into `queries`.
    """
    sizes = model.sizes
    if kind in (AttentionEdge, AttentionKey) and (failed := model.selfcheck and model.selfcheck.failed((PARTS,))):
        raise RefusedError(
            f"how loud edges and keys are on {model.name}",
            f"a passed self-check ({failed[0].sentence})",
            "Take heads, whose norm is of what they write",
        )
    weights = model.weights(0)
    attn = () if weights.post_attn_gain is None else (POST_ATTN_SCALE,)
    mlp = () if weights.post_mlp_gain is None else (POST_MLP_SCALE,)
    needs = {
        Head: Need((Z, *attn), head_norm, dims="head"),
        Neurons: Need((MLP_POST, *mlp), neuron_norm, dims="neuron", layers=_dense(sizes)),
        ExpertNeurons: Need(
            (EXPERT_WEIGHT, *map(expert_post, range(sizes.n_experts)), *mlp),
            expert_norm,
            dims="expert neuron",
            layers=sizes.experts or None,
        ),
        Attention: Need((ATTN_OUT,), block_norm),
        MLP: Need((MLP_OUT,), block_norm),
        AttentionEdge: Need((PATTERN, V, *attn), edge_norm, dims="head row key", params={"queries": queries}),
        AttentionKey: Need((PATTERN, V, Z, *attn), key_norm, dims="head key"),
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


def head_norm(z: torch.Tensor, *scale_and_site: Any) -> torch.Tensor:
    """How loud each head is, `[batch, head]`."""
    *scale, site = scale_and_site
    gram = site.weights.added_gram  # |z W_O|^2 without writing z W_O out
    squares = einsum(z.float(), gram, z.float(), "b t h e, h e f, b t h f -> b t h")
    squares = squares * arrives(site, read=Z).square().transpose(1, 2).to(squares)
    return _mean_square(_scaled(squares, scale), site)


def _scaled(squares: torch.Tensor, scale: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squared norms `[batch, pos, unit]` over the squared scale of a post-norm, `[batch, pos, one]`, if any."""
    return squares / scale[0].float().square() if scale else squares


def block_norm(out: torch.Tensor, site: Site) -> torch.Tensor:
    """How loud a whole block is, `[batch]`."""
    return _mean_square(out.float().square().sum(-1, keepdim=True), site)[:, 0]


def neuron_norm(post: torch.Tensor, *scale_and_site: Any) -> torch.Tensor:
    """How loud each neuron is, `[batch, neuron]`."""
    *scale, site = scale_and_site
    assert site.weights.W_out is not None, "a layer with neurons has it"
    squares = post.float().square() * _gained(site.weights.W_out, site).square().sum(-1)
    return _mean_square(_scaled(_arrived(squares, site), scale), site)


def _arrived(squares: torch.Tensor, site: Site) -> torch.Tensor:
    """Squares of what neurons write `[batch, pos, neuron]`, as far as interventions on the MLP's output let it
    through."""
    return squares * neurons_arrive(site).square()[..., None].to(squares)


def _gained(W_out: torch.Tensor, site: Site) -> torch.Tensor:
    """Rows of W_out `[neuron, d_model]` through the gain of a post-norm, where there is one."""
    gain = site.weights.post_mlp_gain
    return W_out.float() if gain is None else W_out.float() * gain.float()


def expert_norm(weight: torch.Tensor, *seen_and_site: Any) -> torch.Tensor:
    """How loud each neuron of each expert is, `[batch, expert, neuron]`."""
    *seen, site = seen_and_site
    posts, scale, found = seen[: weight.shape[-1]], seen[weight.shape[-1] :], []
    for number, post in enumerate(posts):
        expert, taken = site.model.expert_weights(site.layer, number), weight[..., number, None].float()
        factor = (taken > 0).float() if expert.scaled_inside else taken
        rows = _gained(expert.W_out, site).square().sum(-1)
        sizes = (post.float().nan_to_num(0.0) * factor).square() * rows
        found.append(_mean_square(_scaled(_arrived(sizes, site), scale), site))
    return torch.stack(found, 1)


def _dense(sizes: Sizes) -> tuple[int, ...] | None:
    """Layers with one MLP; None where there are none, and no such neurons to ask about."""
    return tuple(layer for layer in range(sizes.n_layers) if layer not in sizes.experts) or None


def edge_norm(pattern: torch.Tensor, v: torch.Tensor, *scale_and_site: Any, queries: tuple[int, ...]) -> torch.Tensor:
    """How loud each edge into the queries is, `[batch, head, query, key]`; NaN for keys behind a query."""
    *scale, site = scale_and_site
    values = site.weights.repeated(v.float(), dim=2)
    size = einsum(values, site.weights.added_gram, values, "b k h e, h e f, b k h f -> b h k").clamp_min(0).sqrt()
    found = pattern[:, :, list(queries)].float() * size[:, :, None]
    found = found / scale[0][:, list(queries), 0].float()[:, None, :, None] if scale else found
    if site.model.interventions:
        found = found * arrives(site, read=PATTERN)[:, :, list(queries), None].abs().to(found)
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    behind = keys > torch.tensor(queries, device=pattern.device)[:, None]
    return found.masked_fill(behind, torch.nan)


def key_norm(pattern: torch.Tensor, v: torch.Tensor, z: torch.Tensor, *scale_and_site: Any) -> torch.Tensor:
    """How much hiding each key changes each head's output, `[batch, head, key]`."""
    *scale, site = scale_and_site
    values, gram, out = site.weights.repeated(v.float(), dim=2), site.weights.added_gram, z.float()
    own = einsum(values, gram, values, "b k h e, h e f, b k h f -> b h k")[:, :, None]
    if site.model.interventions:  # z as the pattern makes it, whatever was written to it
        out = einsum(pattern.float(), values, "b h q k, b k h e -> b q h e")
    cross = einsum(out, gram, values, "b q h e, h e f, b k h f -> b h q k")
    whole = einsum(out, gram, out, "b q h e, h e f, b q h f -> b h q")[..., None]
    weight = pattern.float()
    moved = (weight / (1 - weight).clamp_min(1e-4)).square() * (own - 2 * cross + whole).clamp_min(0)
    moved = moved / scale[0][..., 0].float().square()[:, None, :, None] if scale else moved
    moved = moved * arrives(site, read=PATTERN).square()[..., None].to(moved)
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
