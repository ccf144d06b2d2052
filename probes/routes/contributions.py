"""What each part brings to each representation, reduced while the pass runs.

For a sum y = sum of parts z_k: `proximity(z_k) = max(0, ||y||_1 - ||y - z_k||_1)`, how much closer to y one gets by
having z_k, and `share(z_k) = proximity(z_k) / sum of proximities`. Behind attention y is resid_mid, and its parts are
resid_pre, one `pattern v W_O` for every (key, head), and the bias b_O; behind the MLP y is resid_post, with the parts
mlp_out and resid_mid. A parallel block is one sum of all of them. Through a post-norm (Gemma 2 and 3) the parts of
attention go with the norm's scale frozen. No norm is linearised: v already holds the norm of the one position it comes
from. Where no part alone brings the sum closer, all is left to the residual stream.

Source: Ferrando & Voita 2024, arXiv 2403.00824. The bias as a part of its own, and the residue, are ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from workbench.intervene.arriving import arriving
from workbench.kernels.proximity import part_proximity, proximity, strongest
from workbench.models.hooks import MLP_OUT, PATTERN, POST_ATTN_SCALE, RESID_MID, RESID_POST, RESID_PRE, Hook, V
from workbench.models.model import LayerWeights, Model, Sizes
from workbench.observation import Need, Site

__all__ = [
    "ATTENTION",
    "BIAS",
    "MLP",
    "RESIDUAL",
    "RESIDUE",
    "attention_need",
    "attention_needs",
    "attention_table",
    "attention_table_normed",
    "attention_table_parallel",
    "head_need",
    "mlp_need",
    "mlp_shares",
    "predict_bytes",
    "split_table",
]

# In a layer's table a part without a key: its "head" says what it is. RESIDUE is no part but what the parts miss.
RESIDUAL, BIAS, ATTENTION, MLP, RESIDUE = -1, -2, -3, -4, -5
_SINGLE = (RESIDUAL, BIAS, ATTENTION, MLP, RESIDUE)
_DIRECTIONS = 16  # of the sketch that measures the residue


def attention_needs(sizes: Sizes, *, min_share: float, min_coverage: float, p: int) -> tuple[Need, ...]:
    """The need behind attention (the whole block where it is parallel) as it is without and with a post-norm.

    A ragged table per layer, `[prompt, edge, 4]` with columns query, key, head, share; key -1 for what is no (key,
    head) pair: `head` then says what it is. Only one of the two fits a model, see `attention_need`.
    """
    params = {"min_share": min_share, "min_coverage": min_coverage, "p": p}
    hooks: tuple[Hook, ...] = (RESID_PRE, PATTERN, V)
    if sizes.parallel:
        return (Need((*hooks, MLP_OUT, RESID_POST), attention_table_parallel, "edge column", params),)
    target = RESID_MID if sizes.d_mlp else RESID_POST
    normed = Need((*hooks, POST_ATTN_SCALE, target), attention_table_normed, "edge column", params)
    return Need((*hooks, target), attention_table, "edge column", params), normed


def attention_need(model: Model, **params: Any) -> Need:
    """The one of `attention_needs` that fits a model."""
    return attention_needs(model.sizes, **params)[-1 if model.weights(0).post_attn_gain is not None else 0]


def mlp_need(sizes: Sizes, *, p: int) -> Need | None:
    """The need behind the MLP: `[layer, prompt, pos, 2]` of mlp share and residue; None where there is no such step."""
    if sizes.parallel or not sizes.d_mlp:
        return None
    return Need((RESID_MID, MLP_OUT, RESID_POST), mlp_shares, "pos column", {"p": p})


def head_need(sizes: Sizes, weights: LayerWeights, layer: int, head: int, p: int) -> Need:
    """Shares of every edge of one head of one layer, `[prompt, query, key]`; weights: of that layer."""
    fitting = attention_needs(sizes, min_share=0.0, min_coverage=1.0, p=p)
    table = fitting[-1 if weights.post_attn_gain is not None else 0]
    return Need(table.hooks, table.reduce, "query key", {"p": p, "head": head}, (layer,))


def attention_table(
    resid_pre: torch.Tensor, pattern: torch.Tensor, v: torch.Tensor, resid_mid: torch.Tensor, site: Site, **asked: Any
) -> torch.Tensor:
    """Parts of resid_mid (of resid_post in a block without an MLP). See `attention_needs` and `head_need`."""
    return _reduced(_Sum.rows(site, resid_pre, pattern, v, resid_mid), pattern, **asked)


def attention_table_normed(
    resid_pre: torch.Tensor,
    pattern: torch.Tensor,
    v: torch.Tensor,
    scale: torch.Tensor,
    resid_mid: torch.Tensor,
    site: Site,
    **asked: Any,
) -> torch.Tensor:
    """The same through a post-norm whose scale is frozen: every part divided by it and multiplied by its gain."""
    return _reduced(_Sum.rows(site, resid_pre, pattern, v, resid_mid, scale=scale), pattern, **asked)


def attention_table_parallel(
    resid_pre: torch.Tensor,
    pattern: torch.Tensor,
    v: torch.Tensor,
    mlp_out: torch.Tensor,
    resid_post: torch.Tensor,
    site: Site,
    **asked: Any,
) -> torch.Tensor:
    """Parts of resid_post where attention and MLP both read resid_pre: one sum."""
    return _reduced(_Sum.rows(site, resid_pre, pattern, v, resid_post, mlp_out=mlp_out), pattern, **asked)


def _reduced(
    rows: Iterator["_Sum"],
    pattern: torch.Tensor,
    *,
    p: int,
    min_share: float | None = None,
    min_coverage: float | None = None,
    head: int | None = None,
) -> torch.Tensor:
    """The tables of a batch or, with head, the map of that head, `[prompt, query, key]`."""
    if head is None:
        assert min_share is not None and min_coverage is not None, "the need of a table has both"
        return _tables([one.table(min_share, min_coverage, p) for one in rows], pattern)
    maps = torch.zeros(pattern[:, 0].shape, device=pattern.device, dtype=torch.float32)
    for row, one in enumerate(rows):
        shares = one.shares_of(head, p)
        maps[row, : len(shares), : len(shares)] = shares
    return maps


@dataclass(frozen=True, eq=False)
class _Sum:
    """One prompt's sum at one layer, without padding. pattern is divided by a post-norm's scale where there is one.

    resid, target, mlp `[query, d_model]` (mlp None where it is no part), bias the same or one row for all; v `[key,
    head, d_head]`.
    """

    resid: torch.Tensor
    pattern: torch.Tensor
    v: torch.Tensor
    W_O: torch.Tensor
    bias: torch.Tensor
    target: torch.Tensor
    mlp: torch.Tensor | None

    @classmethod
    def rows(
        cls,
        site: Site,
        resid: torch.Tensor,
        pattern: torch.Tensor,
        v: torch.Tensor,
        target: torch.Tensor,
        *,
        scale: torch.Tensor | None = None,
        mlp_out: torch.Tensor | None = None,
    ) -> Iterator["_Sum"]:
        """Prompt by prompt of a batch."""
        w = site.weights
        W_O, b_O = w.W_O.float(), w.b_O.float()
        if scale is not None:
            assert w.post_attn_gain is not None, "the scale is asked for only where there is a gain"
            W_O, b_O = W_O * w.post_attn_gain.float(), b_O * w.post_attn_gain.float()
        assert site.layer is not None, "patterns are of layers"
        for row, n in enumerate(site.lengths.tolist()):
            attention, bias = pattern[row, :, :n, :n].float(), b_O[None]
            if site.model.interventions:
                moved, added = (
                    factors.to(attention) for factors in arriving(site.model, site.model.interventions, site.layer, n)
                )
                attention, bias = attention * moved[..., None], bias * added[:, None]
            if scale is not None:
                divisor = scale[row, :n].float()
                attention, bias = attention / divisor, bias / divisor
            values = w.repeated(v[row, :n].float(), dim=1)
            mlp = None if mlp_out is None else mlp_out[row, :n].float()
            yield cls(resid[row, :n].float(), attention, values, W_O, bias, target[row, :n].float(), mlp)

    def proximities(self, p: int) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Of the single parts by name, float64 `[query]`, and of every pair, `[head, query, key]`."""
        parts = {RESIDUAL: self.resid, BIAS: self.bias} | ({} if self.mlp is None else {MLP: self.mlp})
        single = {name: part_proximity(part, self.target, p) for name, part in parts.items()}
        return single, self._pairs(p)

    def _pairs(self, p: int) -> torch.Tensor:
        """Of every pair. A head scaled by less than zero (by an intervention) brings closer what its opposite brings
        closer to the opposite."""
        turned = self.pattern < 0
        if not bool(turned.any()):
            return proximity(self.pattern, self.v, self.W_O, self.target, p=p)
        ahead, behind = (
            proximity(self.pattern.abs(), self.v, self.W_O, target, p=p) for target in (self.target, -self.target)
        )
        return torch.where(turned, behind, ahead)

    def shares_of(self, head: int, p: int) -> torch.Tensor:
        """Shares of every edge of one head, float32 `[query, key]`."""
        single, pairs = self.proximities(p)
        whole = pairs.sum((0, 2), dtype=torch.float64) + sum(single.values())
        return (pairs[head] / whole.masked_fill(whole <= 0, 1.0)[:, None]).float()

    def table(self, min_share: float, min_coverage: float, p: int) -> torch.Tensor:
        """Kept (key, head) pairs and the single parts, `[edge, 4]`."""
        single, pairs = self.proximities(p)
        others: Any = sum(single.values())
        kept = strongest(pairs, others, min_share=min_share, min_coverage=min_coverage)
        whole = kept.total.to(others) + others
        single[RESIDUAL] = single[RESIDUAL].masked_fill(whole <= 0, 1.0)  # no part alone brings anything
        whole = whole.masked_fill(whole <= 0, 1.0)
        single[ATTENTION] = kept.total.to(others)
        values = torch.stack([*(value / whole for value in single.values()), self.residue()])
        names = torch.tensor([*single, RESIDUE], device=whole.device)
        table = torch.empty(values.numel() + len(kept.share), 4, device=whole.device, dtype=torch.float32)
        parts, pairs = table.split([values.numel(), len(kept.share)])
        parts = parts.view(*values.shape, 4)  # part query column
        parts[..., 0] = torch.arange(len(whole), device=whole.device)
        parts[..., 1] = -1
        parts[..., 2] = names[:, None]
        parts[..., 3] = values
        for column, numbers in enumerate(kept[:4]):
            pairs[:, column] = numbers
        return table

    def residue(self) -> torch.Tensor:
        """||target - sum of parts|| / ||target||, estimated in 16 random directions: right to a fifth of itself.

        Projecting first makes the (key, head) parts numbers instead of vectors: no second attention is computed.
        """
        directions = _directions(self.target.shape[-1]).to(self.target)
        rest = self.target - self.resid - self.bias - (0 if self.mlp is None else self.mlp)
        heads = (self.W_O.flatten(0, 1) @ directions).unflatten(0, self.W_O.shape[:2])
        through = torch.bmm(self.v.transpose(0, 1), heads)  # head key direction
        missed = rest @ directions - torch.bmm(self.pattern, through).sum(0)
        return missed.norm(dim=-1).double() / self.target.norm(dim=-1).double().clamp(min=1e-30)


@cache
def _directions(d_model: int) -> torch.Tensor:
    """Random directions `[d_model, 16]`, the same ones every time."""
    return (
        torch.randn(d_model, _DIRECTIONS, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        / _DIRECTIONS**0.5
    )


def _tables(tables: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Tables of a batch, padded with NaN to the longest: `[prompt, edge, 4]`."""
    out = torch.full((len(tables), max(map(len, tables)), 4), torch.nan, device=like.device)
    for row, table in enumerate(tables):
        out[row, : len(table)] = table
    return out


def mlp_shares(
    resid_mid: torch.Tensor, mlp_out: torch.Tensor, resid_post: torch.Tensor, site: Site, *, p: int
) -> torch.Tensor:
    """Share of mlp_out in resid_post (the rest is resid_mid's), and the residue: `[batch, pos, 2]`."""
    resid, mlp, target = resid_mid.float(), mlp_out.float(), resid_post.float()
    ours, others = part_proximity(mlp, target, p), part_proximity(resid, target, p)
    residue = (target - resid - mlp).norm(dim=-1) / target.norm(dim=-1).clamp(min=1e-30)
    return torch.stack([ours / (ours + others).clamp(min=1e-300), residue.double()], dim=-1).float()


def split_table(table: torch.Tensor, n_pos: int) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """One prompt's table of one layer as its edges `[edge, 4]` and its single parts by name, each `[pos]`: views, no
    copy."""
    size = len(table) - int(table[:, 0].isnan().sum())
    names = [name for name in (int(i) for i in table[: len(_SINGLE) * n_pos : n_pos, 2]) if name in _SINGLE]
    parts = dict(zip(names, table[: len(names) * n_pos, 3].view(-1, n_pos), strict=True))
    return table[len(names) * n_pos : size], parts


def predict_bytes(sizes: Sizes, n_pos: int, min_share: float, min_coverage: float) -> int:
    """Bytes that the edges of a prompt will take at most while it is computed, from what was measured.

    With the default settings about 0.8 sqrt(n_pos) edges are kept for each row and head (default model, 64 to 1024
    tokens; more in the first layer). Lower shares: no row has more than 1 / min_share of them. More coverage may keep
    every edge. Each takes 40 bytes on the way into the result, beside two tables of one layer.
    """
    by_share = 1 / (max(min_share, 1e-9) * sizes.n_heads) if min_share < 0.001 else 0.0
    by_coverage = n_pos**0.5 if min_coverage <= 0.95 else n_pos
    kept = sizes.n_layers * n_pos * sizes.n_heads * min(n_pos / 2, max(by_share, by_coverage))
    return int(40 * kept + 3 * 4 * sizes.n_heads * n_pos**2 + 4 * n_pos * sizes.d_model * 8)
