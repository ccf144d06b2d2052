"""Matched controls: other units of the same kind that are as loud and as deep as the claimed ones.

How loud a unit is: the norm of what its removal takes out of the residual stream, root mean square over positions >= 1
(of position 0 alone in a one-token prompt):

    head, MLP, attention block    its output
    neuron                        activation * W_out[neuron]
    edge                          pattern[query, key] v[key] W_O, at its query
    key of a head                 pattern / (1 - pattern) (v[key] - z[query]) W_O, over queries: what hiding it changes
    state                         the residual stream at its position

Controls come from the same layer where it has enough of them, else from layers within w of it, nearest in log norm.
Controls of an edge lead into the same query. Position 0 is in no control of a state, and neither are positions behind
the prediction that is measured, where a removal does nothing.

Source: matched random controls as in Wang et al. 2022, arXiv 2211.00593, section 4; the matching is ours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from math import comb
from typing import Any

import numpy as np
import torch
from einops import einsum

from workbench.intervene import MLP, Attention, AttentionEdge, AttentionKey, Head, Neurons, Residual, Where
from workbench.intervene.contradictions import is_void
from workbench.models.hooks import ATTN_OUT, MLP_OUT, MLP_POST, PATTERN, RESID_PRE, V, Z
from workbench.models.model import Model
from workbench.observation import Need, Site, observe

__all__ = ["N_CONTROLS", "Controls", "atoms", "draw_controls", "matched_controls", "output_norms"]

N_CONTROLS = 50


@dataclass(frozen=True)
class Controls:
    """Control sets of units, each as large as the claim; empty sets stand for random directions.

    window: how many layers away they may lie; None for the whole model without matching, and for directions. louder:
    the claim's norm over that of its controls (geometric means); NaN for directions. peers: where directions stand in
    for the controls of one unit, the units that the model does have, too few for a test.
    """

    sets: tuple[tuple[Any, ...], ...]
    window: int | None
    matched: bool = True
    louder: float = float("nan")
    peers: tuple[Any, ...] = ()

    @property
    def directions(self) -> bool:
        """Whether random directions stand in for units."""
        return not self.sets[0]


def atoms(units: Sequence[Any]) -> tuple[Any, ...]:
    """The units one by one: a set of neurons becomes single ones."""
    return tuple(
        one
        for unit in units
        for one in ([Neurons(unit.layer, (n,)) for n in unit.neurons] if isinstance(unit, Neurons) else [unit])
    )


def matched_controls(
    model: Model,
    prompts: Sequence[Any],
    units: Sequence[Any],
    n: int = N_CONTROLS,
    *,
    last: int | None = None,
    matched: bool = True,
    seed: int = 0,
) -> Controls:
    """At least n distinct control sets for units of one kind (`atoms`), as loud on these prompts; see `draw_controls`.

    last: the last position whose removal the metric can see (None: the prompt's last).
    """
    kind, queries = type(units[0]), tuple(sorted({u.query for u in units if isinstance(u, AttentionEdge)}))
    norms = output_norms(model, prompts, kind, queries)
    if kind in (AttentionKey, Residual):  # the last axis is the position
        norms[..., (norms.shape[-1] if last is None else last + 1) :] = np.nan
    shape = norms.shape[1:]
    flat = [(u.layer, int(np.ravel_multi_index(_place(u, queries), shape)) if shape else 0) for u in units]
    rows = np.broadcast_to(np.arange(shape[1])[:, None], shape).ravel() if kind is AttentionEdge else None
    found = draw_controls(norms.reshape(len(norms), -1), flat, n, matched=matched, seed=seed, rows=rows)
    units_at = lambda places: tuple(_unit(kind, a, np.unravel_index(i, shape), queries) for a, i in places)
    return replace(found, sets=tuple(map(units_at, found.sets)), peers=units_at(found.peers))


def _place(unit: Any, queries: tuple[int, ...]) -> tuple[int, ...]:
    """Where a unit stands in the norms of its layer."""
    if isinstance(unit, AttentionEdge):
        return unit.head, queries.index(unit.query), unit.key
    return unit.neurons if isinstance(unit, Neurons) else astuple(unit)[1:]


def _unit(kind: type, layer: int, place: Sequence[Any], queries: tuple[int, ...]) -> Any:
    numbers = tuple(int(i) for i in place)
    if kind is AttentionEdge:
        return AttentionEdge(layer, numbers[0], queries[numbers[1]], numbers[2])
    return Neurons(layer, numbers) if kind is Neurons else kind(layer, *numbers)


# --- how loud --------------------------------------------------------------------------------------------------------


def output_norms(model: Model, prompts: Sequence[Any], kind: type, queries: tuple[int, ...] = ()) -> np.ndarray:
    """Log of how loud each unit of a kind is, root mean square over prompts; NaN where a prompt has no such position.

    `[layer]` for blocks, `[layer, head]`, `[layer, neuron]`, `[layer, head, key]` for keys of heads, `[layer, pos]` for
    states (NaN at 0), `[layer, head, query, key]` for edges into `queries`.
    """
    needs = {
        Head: Need((Z,), head_norm, dims="head"),
        Neurons: Need((MLP_POST,), neuron_norm, dims="neuron"),
        Attention: Need((ATTN_OUT,), block_norm),
        MLP: Need((MLP_OUT,), block_norm),
        AttentionEdge: Need((PATTERN, V), edge_norm, dims="head row key", params={"queries": queries}),
        AttentionKey: Need((PATTERN, V, Z), key_norm, dims="head key"),
        Residual: Need((RESID_PRE,), state_norm, dims="pos"),
    }
    seen = observe(model, prompts, [needs[kind]], positions="none", stop=model.sizes.n_layers)
    squares = seen[needs[kind]].double().square().mean(1).cpu().numpy()
    if model.interventions:
        _silence(squares, model, kind, queries)
    return 0.5 * np.log(squares + 1e-30)


def _silence(squares: np.ndarray, model: Model, kind: Any, queries: tuple[int, ...]) -> None:
    """Units whose removal changes nothing, since an intervention overwrites what they lead to, take nothing out."""
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


# --- which ones ------------------------------------------------------------------------------------------------------


def draw_controls(
    norms: np.ndarray,
    units: Sequence[tuple[int, int]],
    n: int = N_CONTROLS,
    *,
    matched: bool = True,
    seed: int = 0,
    rows: np.ndarray | None = None,
) -> Controls:
    """At least n distinct control sets for units given as (layer, index), as tuples of such pairs.

    norms: log norms `[layer, index]`, NaN for what is no control. rows: label of every index; a unit is replaced by
    others of its label only. The window is the smallest that holds n other units around each claimed one. One unit: the
    n nearest in log norm. Several: each is replaced by a random one of its nearest, until n distinct sets are drawn.
    matched=False draws from the whole model instead: a check that is wrong wherever loud or late units do more, kept to
    show that. Empty sets where the model has too few units; for a single unit the few are `peers`.
    """
    random, claimed = np.random.default_rng(seed), np.zeros(norms.shape, bool)
    claimed[tuple(zip(*units, strict=True))] = True
    free = np.isfinite(norms) & ~claimed
    few = len(units) == 1 and free.sum() < n
    directions = Controls(((),) * n, None, peers=tuple(map(tuple, np.argwhere(free).tolist())) if few else ())
    if comb(int(free.sum()), len(units)) < n:
        return directions
    if not matched:
        return Controls(_unmatched_sets(np.argwhere(free), len(units), n, random), None, matched=False)
    for window in range(len(norms)):
        pools = [_nearest(norms, free, unit, window, rows) for unit in units]
        if min(map(len, pools)) < n and window < len(norms) - 1:
            continue
        sets = tuple(islice(_matched_sets(pools, n, random), n))
        if len(sets) == n:
            others = np.mean([norms[place] for one in sets for place in one])
            louder = float(np.exp(np.mean([norms[unit] for unit in units]) - others))
            return Controls(sets, window, louder=louder)
    return directions


def _unmatched_sets(others: np.ndarray, size: int, n: int, random: np.random.Generator) -> tuple[Any, ...]:
    sets: dict[tuple[Any, ...], None] = {}
    while len(sets) < n:
        chosen = others[random.choice(len(others), size, replace=False)]
        sets[tuple(sorted(map(tuple, chosen.tolist())))] = None
    return tuple(sets)


def _nearest(
    norms: np.ndarray, free: np.ndarray, unit: tuple[int, int], window: int, rows: np.ndarray | None
) -> list[tuple[int, int]]:
    """Free units within a window of layers, nearest in log norm first."""
    layer, index = unit
    low = max(0, layer - window)
    layers = slice(low, layer + window + 1)
    allowed = free[layers] if rows is None else free[layers] & (rows == rows[index])
    distance = np.where(allowed, np.abs(norms[layers] - norms[unit]), np.nan)
    order = np.argsort(distance, axis=None, kind="stable")[: int(allowed.sum())]  # NaN is sorted to the end
    found_layers, indices = np.unravel_index(order, distance.shape)
    return list(zip((found_layers + low).tolist(), indices.tolist(), strict=True))


def _matched_sets(
    pools: list[list[tuple[int, int]]], n: int, random: np.random.Generator
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Distinct sets with one of each pool, from the ten nearest; from more only where those do not give enough."""
    if len(pools) == 1:
        yield from ((unit,) for unit in pools[0])
        return
    found: set[tuple[Any, ...]] = set()
    for attempt in range(40 * n):
        near = 10 + attempt // (2 * n)
        chosen: set[tuple[int, int]] = set()
        for pool in pools:
            left = list(islice((unit for unit in pool if unit not in chosen), near))
            if left:
                chosen.add(left[int(random.integers(len(left)))])
        one = tuple(sorted(chosen))
        if len(one) == len(pools) and one not in found:
            found.add(one)
            yield one
