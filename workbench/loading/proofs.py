"""Proof that an edit of each kind of activation takes effect, in every layer, on this model.

An edit is made in all layers at once; what was written is then held against what the next step of the same pass made of
it: scores and pattern, pattern times v and z, z times W_O and the attention's output, the outputs and the residual
stream. A library that discards an edit shows the written value and computes with the old one, so the two disagree.
Queries and keys are set to zero: scores must then forget the text. z is held against a plain Hugging Face hook besides.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum, rearrange
from torch import nn

from workbench.errors import WorkbenchError
from workbench.intervene.edit import Edit, Printed, Where
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    EXPERT_WEIGHT,
    EXPERTS_OUT,
    LN_FINAL_SCALE,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    POST_MLP_SCALE,
    RESID_POST,
    RESID_PRE,
    ROUTER,
    SCORES,
    Hook,
    K,
    Q,
    V,
    Z,
    expert_post,
    masked_below,
)
from workbench.models.model import ExpertWeights, Model
from workbench.models.prompt import Prompt
from workbench.models.selfcheck import SAME_AS_PLAIN, Item, edits_of
from workbench.observation import Need, Observation, Site, observe

__all__ = ["edit_items", "row_of", "softmax_gap"]


@dataclass(frozen=True, eq=False, repr=False)
class Shaken(Printed):
    """Activations of all layers changed beyond mistaking: queries and keys to zero, all else entry by entry."""

    hooks: tuple[Hook, ...]
    rows: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"Shaken({', '.join(dict.fromkeys(hook.name for hook in self.hooks))})"

    def edits(self, model: Model) -> list[Edit]:
        """One edit of each hook in every layer that has it."""
        return [
            Edit(Where(hook, layer, additive=True), _WAYS.get(hook, _shake))
            for hook in self.hooks
            for layer in (layers_with(model, hook) if hook.layered else [None])
        ]


def _zero(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
    x.zero_()


def _shake(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
    x.copy_(shaken(x))


def _turn(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
    x.copy_(x.roll(1, -1))


def _choose(x: torch.Tensor, mesh: tuple[torch.Tensor, ...], length: int) -> None:
    """As interventions on experts do: each token's last expert is forced, its first one switched off."""
    first, last = x.argmax(-1, keepdim=True), x.argmin(-1, keepdim=True)
    x.scatter_(-1, last, x.amax(-1, keepdim=True) + 1.0)
    if x.shape[-1] > 1:
        x.scatter_(-1, first, -torch.inf)


# States are turned by one dimension: shaken in every layer they would grow beyond float16.
_WAYS = {ROUTER: _choose, Q: _zero, K: _zero, RESID_PRE: _turn, RESID_POST: _turn}


def shaken(x: torch.Tensor) -> torch.Tensor:
    """Entries along the last axis times 1.25 and 0.75 by turns: no norm undoes it. What a mask wrote stays."""
    factor = torch.where(torch.arange(x.shape[-1], device=x.device) % 2 == 0, 1.25, 0.75).to(x.dtype)
    return torch.where(x < masked_below(x.dtype), x, x * factor)


def layers_with(model: Model, hook: Hook) -> list[int]:
    """Layers that have a hook: a mixture's dense layers have neurons, its others have not."""
    return [layer for layer in range(model.sizes.n_layers) if has(model, hook, layer)]


def has(model: Model, hook: Hook, layer: int | None) -> bool:
    """Whether the model shows an activation there."""
    try:
        return model.adapter.point(hook, layer) is not None
    except KeyError:
        return False


# --- what the next step makes of what was written: largest relative gap, `[batch]` -----------------------------------


def _relative(gap: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return gap.float().abs().flatten(1).amax(1) / whole.float().abs().flatten(1).amax(1).clamp(min=1e-6)


def row_of(scores: torch.Tensor, site: Site) -> torch.Tensor:
    """The pattern that masked scores lead to: their softmax, with the learned sink where there is one."""
    seen, scores, sinks = scores > masked_below(scores.dtype), scores.float(), site.weights.sinks
    if site.weights.attention == "relu":
        return scores.relu() / seen.sum(-1, keepdim=True)
    if sinks is None:
        return scores.softmax(-1)
    column = sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]


def softmax_gap(scores: torch.Tensor, pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """Largest |softmax(scores) - pattern|, `[batch]`."""
    return (row_of(scores, site) - pattern.float()).abs().amax((1, 2, 3))


def z_gap(pattern: torch.Tensor, v: torch.Tensor, z: torch.Tensor, site: Site) -> torch.Tensor:
    """Largest relative |pattern v - z|, `[batch]`."""
    values = site.weights.repeated(v.float(), dim=2)
    return _relative(einsum(pattern.float(), values, "b h q k, b k h e -> b q h e") - z.float(), z)


def output_gap(z: torch.Tensor, out: torch.Tensor, site: Site) -> torch.Tensor:
    """Largest relative |z W_O + b_O - attn_out|, `[batch]`."""
    return _relative(_output(z, site) - out.float(), out)


def shaken_output_gap(z: torch.Tensor, out: torch.Tensor, site: Site) -> torch.Tensor:
    """The same where what attention gives was shaken."""
    return _relative(shaken(_output(z, site)) - out.float(), out)


def _output(z: torch.Tensor, site: Site) -> torch.Tensor:
    w = site.weights
    return einsum(z.float(), w.W_O.float(), "b q h e, h e d -> b q d") + w.b_O.float()


def neurons_gap(post: torch.Tensor, out: torch.Tensor, site: Site) -> torch.Tensor:
    """Largest relative |post W_out + b_out - mlp_out|, `[batch]`."""
    w = site.weights
    assert w.W_out is not None and w.b_out is not None, "asked for only where there are neurons"
    return _relative(post.float() @ w.W_out.float() + w.b_out.float() - out.float(), out)


def neurons_gap_normed(post: torch.Tensor, scale: torch.Tensor, out: torch.Tensor, site: Site) -> torch.Tensor:
    """The same through a post-norm, by the scale of this pass."""
    w = site.weights
    assert w.W_out is not None and w.b_out is not None and w.post_mlp_gain is not None, "asked for only where they are"
    written = (post.float() @ w.W_out.float() + w.b_out.float()) / scale.float() * w.post_mlp_gain.float()
    return _relative(written - out.float(), out)


def residual_gap(*parts_and_site: Any) -> torch.Tensor:
    """Largest relative |sum of all but the last - the last|, `[batch]`: resid_pre, outputs, resid_post."""
    *parts, post, _ = parts_and_site
    return _relative(sum(parts) - post, post)


def text_gap(scores: torch.Tensor, site: Site) -> torch.Tensor:
    """How far the scores of the first two prompts differ where none is masked, over both, `[batch]`."""
    hidden = scores[0] < masked_below(scores.dtype)  # as they are: a mask of float64 is infinite as float32
    one, other = (row.float().masked_fill(hidden, 0.0) for row in scores[:2])
    return ((one - other).abs().max() / (1.0 + one.abs().max())).expand(len(scores))


def choice_gap(scores: torch.Tensor, weight: torch.Tensor, site: Site) -> torch.Tensor:
    """Share of tokens that do not take the expert with the highest score, or take one that is off, `[batch]`."""
    forced = weight.gather(-1, scores.argmax(-1, keepdim=True))[..., 0] > 0
    off = ((scores == -torch.inf) & (weight > 0)).any(-1)
    return (~forced | off).float().mean(1)


def experts_gap(weight: torch.Tensor, out: torch.Tensor, *posts_and_site: Any) -> torch.Tensor:
    """Largest relative |sum over a token's experts of weight (post W_out + b_out) - what they add up to|, `[batch]`."""
    *posts, site = posts_and_site
    total = torch.zeros_like(out, dtype=torch.float32)
    for number, post in enumerate(posts):
        total = total + expert_write(post, weight[..., number], site.model.expert_weights(site.layer, number))
    return _relative(total - out.float(), out)


def expert_write(post: torch.Tensor, weight: torch.Tensor, expert: ExpertWeights) -> torch.Tensor:
    """What one expert adds to the residual stream, `[batch, pos, d_model]`: 0 where it is not taken."""
    factor = (weight > 0).float() if expert.scaled_inside else weight.float()
    rows = post.float().nan_to_num(0.0, torch.inf, -torch.inf) @ expert.W_out.float() + expert.b_out.float()
    return rows * factor[..., None]


# --- the proofs ------------------------------------------------------------------------------------------------------


def edit_items(model: Model, prompts: Sequence[Prompt], tolerance: float) -> list[Item]:
    """One item per kind of activation that interventions write; seven short passes.

    prompts: two of equal length and other tokens.
    """
    proofs = list(_proofs(model))
    try:
        intact = torch.stack(observe(model, prompts, positions="all").logits).float()
    except WorkbenchError as error:
        hooks = [hook for proof in proofs for hook in proof.needs]
        return [Item(edits_of(hook), float("nan"), tolerance, False, str(error)) for hook in hooks]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bridges that say what is measured here
        return [item for proof in proofs for item in proof.items(model, prompts, intact, tolerance)]


@dataclass(frozen=True)
class _Proof:
    """Edits that can be made in one pass, each with the need whose gap proves it.

    None: the logits must move; RESID_POST's is that the next block starts with it. likewise: hooks that are edited
    besides, of the same name.
    """

    needs: dict[Hook, Need | None]
    likewise: tuple[Hook, ...] = ()

    def items(self, model: Model, prompts: Sequence[Prompt], intact: torch.Tensor, tolerance: float) -> list[Item]:
        """The items of these edits."""
        hooks = tuple(self.needs)
        needs = [need for need in self.needs.values() if need is not None]
        try:
            seen = observe(model, prompts, needs, positions="all", interventions=[Shaken((*hooks, *self.likewise))])
        except WorkbenchError as error:
            return [Item(edits_of(hook), float("nan"), tolerance, False, str(error)) for hook in hooks]
        logits = torch.stack(seen.logits).float()
        moved = float((logits - intact).abs().max())
        if hooks == (LN_FINAL_SCALE,):
            return [_final_scale(model, logits, intact, moved, tolerance)]
        items = [_item(hook, need, seen, moved, tolerance) for hook, need in self.needs.items()]
        return [*items, _same_as_plain(model, prompts, logits, tolerance)] if hooks == (Z,) else items


def _item(hook: Hook, need: Need | None, seen: Observation, moved: float, tolerance: float) -> Item:
    if not moved >= 0 or (need is None and moved == 0):  # NaN, too
        return Item(edits_of(hook), float("nan"), tolerance, False, "the logits did not move")
    if need is None:
        return Item(edits_of(hook), 0.0, tolerance, True, f"moved the logits by {moved:.2g}")
    if hook is RESID_POST:
        states = seen[need]  # layer prompt 2 pos d_model: resid_pre, resid_post
        gap = (
            float(_relative(states[1:, :, 0] - states[:-1, :, 1], states[:-1, :, 1]).max()) if len(states) > 1 else 0.0
        )
    else:
        gap = float(seen[need].max())
    # Parts that write nothing on these texts, as in a small planted circuit, leave the logits where they are.
    note = "" if moved > 0 else "no later step needs it on these texts"
    note = note if gap <= tolerance else "what was written is not what the pass went on with"
    return Item(edits_of(hook), gap, tolerance, gap <= tolerance, note)


def _final_scale(model: Model, logits: torch.Tensor, intact: torch.Tensor, moved: float, tolerance: float) -> Item:
    """A scale times 1.25 makes logits 1.25 times smaller, where nothing but the norm and a matrix follow."""
    readout, name = model.readout, edits_of(LN_FINAL_SCALE)
    if not moved > 0:
        return Item(name, float("nan"), tolerance, False, "the logits did not move")
    biased = readout.b_U is not None and bool(readout.b_U.any())
    if readout.kind != "rms" or readout.soft_cap or biased:
        return Item(name, 0.0, tolerance, True, f"moved the logits by {moved:.2g}")
    gap = float((logits * 1.25 - intact).abs().max() / intact.abs().max().clamp(min=1.0))
    note = "" if gap <= tolerance else "the norm in front of the unembedding is used elsewhere, too"
    return Item(name, gap, tolerance, gap <= tolerance, note)


def both(pre: torch.Tensor, post: torch.Tensor, site: Site) -> torch.Tensor:
    """The states before and behind a block, `[batch, 2, pos, d_model]`."""
    return torch.stack([pre, post], dim=1).float()


def _proofs(model: Model) -> Iterator[_Proof]:
    """Edits in passes where none overwrites what another one's proof reads."""
    mlps = [MLP_OUT] if model.sizes.d_mlp else []
    residual = Need((RESID_PRE, ATTN_OUT, *mlps, RESID_POST), residual_gap)
    weighted = Need((PATTERN, V, Z), z_gap)
    behind = model.weights(0).post_attn_gain is not None
    neurons = layers_with(model, MLP_POST)
    plain = [layer for layer in neurons if model.weights(layer).post_mlp_gain is None]

    first: dict[Hook, Need | None] = {SCORES: Need((SCORES, PATTERN), softmax_gap), V: weighted, ATTN_OUT: residual}
    if plain:
        first[MLP_POST] = Need((MLP_POST, MLP_OUT), neurons_gap, layers=plain)
    yield _Proof(first)
    yield _Proof({PATTERN: weighted, RESID_PRE: residual, **dict.fromkeys(mlps, residual)})
    yield _Proof({Z: Need((Z, ATTN_RESULT if behind else ATTN_OUT), output_gap)})
    states = Need((RESID_PRE, RESID_POST), both, dims="component pos d_model")
    yield _Proof({Q: Need((SCORES,), text_gap), RESID_POST: states})
    last: dict[Hook, Need | None] = {K: Need((SCORES,), text_gap)}
    if not behind:
        last[ATTN_RESULT] = Need((Z, ATTN_OUT), shaken_output_gap)
    yield _Proof(last)
    if behind:
        yield _Proof({ATTN_RESULT: None})
    if normed := [layer for layer in neurons if layer not in plain]:
        yield _Proof({MLP_POST: Need((MLP_POST, POST_MLP_SCALE, MLP_OUT), neurons_gap_normed, layers=normed)})
    if model.sizes.experts:
        yield _Proof({ROUTER: Need((ROUTER, EXPERT_WEIGHT), choice_gap, layers=model.sizes.experts)})
        yield from _expert_proof(model)
    if has(model, LN_FINAL_SCALE, None):
        yield _Proof({LN_FINAL_SCALE: None})


def _expert_proof(model: Model) -> Iterator[_Proof]:
    """Neurons of every expert: what was written is what the sum of the experts is made of."""
    posts = tuple(expert_post(number) for number in range(model.sizes.n_experts))
    if layers := layers_with(model, posts[0]):
        law = Need((EXPERT_WEIGHT, EXPERTS_OUT, *posts), experts_gap, layers=layers)
        yield _Proof({posts[0]: law}, posts[1:])


def _same_as_plain(model: Model, prompts: Sequence[Prompt], logits: torch.Tensor, tolerance: float) -> Item:
    """The edit of z by PyTorch hooks on the library's own output projections, against ours."""
    modules = [model.adapter.reading_z(layer) for layer in range(model.sizes.n_layers)]
    reading = [module for module in modules if module is not None]
    fired: set[nn.Module] = set()

    def shake(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        fired.add(module)
        z = rearrange(inputs[0], "... (head d_head) -> ... head d_head", head=model.sizes.n_heads)
        return (shaken(z).reshape(inputs[0].shape), *inputs[1:])

    handles = [module.register_forward_pre_hook(shake) for module in reading]
    try:
        plain = torch.stack(observe(model, prompts, positions="all").logits).float()
    finally:
        for handle in handles:
            handle.remove()
    if len(fired) < len(modules):
        return Item(SAME_AS_PLAIN, 0.0, tolerance, True, "not applicable: no module of the library reads z alone")
    gap = float((plain - logits).abs().max() / logits.abs().max().clamp(min=1.0))
    return Item(SAME_AS_PLAIN, gap, tolerance, gap <= tolerance)
