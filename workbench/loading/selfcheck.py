"""Does this model behave as the analyses assume? Measured at load, on one short input."""

from collections.abc import Callable
from typing import Any

import torch
from einops import einsum

from workbench.errors import WorkbenchError
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    MLP_OUT,
    PATTERN,
    POST_ATTN_SCALE,
    RESID_MID,
    RESID_POST,
    RESID_PRE,
    SCORES,
    V,
    Z,
)
from workbench.models.model import Model
from workbench.models.prompt import Prompt
from workbench.models.selfcheck import (
    FIRES,
    LOGITS_EQUAL,
    PADDING,
    PARTS,
    READOUT,
    RESIDUAL,
    ROWS,
    Item,
    SelfCheck,
)
from workbench.observation import Need, Site, observe

__all__ = ["selfcheck", "short_ids"]


def short_ids(n_vocab: int, length: int = 12) -> torch.Tensor:
    """The fixed input of the self-check, `[2, length]`: spread over the vocabulary, the same for every run."""
    steps = torch.arange(2 * length, dtype=torch.float64) * 0.6180339887498949
    return (3 + (steps % 1.0) * (n_vocab - 4)).long().view(2, length)


def selfcheck(model: Model, reference: torch.Tensor | None) -> SelfCheck:
    """Measure every item. reference: the model's logits on `short_ids`, computed before a bridge took it over."""
    ids = short_ids(model.sizes.d_vocab)
    half = model.identity.dtype != "float32"
    items = []
    with model.passes.run(), torch.no_grad():
        logits = model.adapter.forward(ids.to(model.adapter.device)).float()
    if reference is not None:
        items.append(_logits_item(model, logits, reference.float()))
    for name, measure, tolerance in _ITEMS:
        items.append(_measure(name, measure, tolerance if not half else max(tolerance, 2e-2), model, ids, logits))
    return SelfCheck(tuple(items))


def _logits_item(model: Model, logits: torch.Tensor, reference: torch.Tensor) -> Item:
    """Bit-equal in float32 on CPU where the bridge runs the model's own modules; GPT-2's joint QKV is split by the
    bridge, which re-associates sums (1.2e-7 seen); bfloat16 and GPUs round differently."""
    exact = model.identity.dtype == "float32" and model.identity.device == "cpu"
    tolerance = 1e-5 if exact else 5e-2
    gap = float((logits - reference).abs().max() / reference.abs().max().clamp(min=1.0))
    return Item(
        LOGITS_EQUAL, gap, tolerance, gap <= tolerance, "bit-equal" if gap == 0 else "largest relative difference"
    )


def _measure(
    name: str, measure: Callable[..., Any], tolerance: float, model: Model, ids: torch.Tensor, logits: torch.Tensor
) -> Item:
    try:
        gap = float(measure(model, ids, logits))
    except WorkbenchError as error:
        return Item(name, float("nan"), tolerance, False, str(error))
    return Item(name, gap, tolerance, gap <= tolerance)


def _prompts(ids: torch.Tensor) -> list[Prompt]:
    return [Prompt.ids(row) for row in ids]


def row_sums(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """Largest distance of a row's sum from 1, `[batch]`."""
    return (pattern.float().sum(-1) - 1).abs().amax((1, 2))


def residual_gap(
    pre: torch.Tensor, attn: torch.Tensor, mlp: torch.Tensor, post: torch.Tensor, site: Site
) -> torch.Tensor:
    """Largest |resid_pre + attn_out + mlp_out - resid_post| relative to the largest |resid_post|, `[batch]`."""
    gap = (pre + attn + mlp - post).float().abs().amax((1, 2))
    return gap / post.float().abs().amax((1, 2)).clamp(min=1e-6)


def parts_gap(pattern: torch.Tensor, v: torch.Tensor, out: torch.Tensor, site: Site) -> torch.Tensor:
    """Largest relative |sum over (key, head) of pattern v W_O, plus b_O, minus what attention adds|, `[batch]`."""
    return _parts_gap(pattern, v, out, None, site)


def parts_gap_normed(
    pattern: torch.Tensor, v: torch.Tensor, out: torch.Tensor, scale: torch.Tensor, site: Site
) -> torch.Tensor:
    """The same through a post-norm with its scale frozen."""
    return _parts_gap(pattern, v, out, scale, site)


def _parts_gap(
    pattern: torch.Tensor, v: torch.Tensor, out: torch.Tensor, scale: torch.Tensor | None, site: Site
) -> torch.Tensor:
    w = site.weights
    v = w.repeated(v, dim=2)
    parts = einsum(pattern.float(), v.float(), w.W_O.float(), "b h q k, b k h e, h e d -> b q d") + w.b_O.float()
    if scale is not None:
        assert w.post_attn_gain is not None, "`_parts` asks for the scale only where there is a gain"
        parts = parts / scale.float() * w.post_attn_gain.float()
    gap = (parts - out.float()).abs().amax((1, 2))
    return gap / out.float().abs().amax((1, 2)).clamp(min=1e-6)


def _rows(model: Model, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    need = Need((PATTERN,), row_sums)
    return observe(model, _prompts(ids), [need], positions="none")[need].max()


def residual_gap_attention_only(pre: torch.Tensor, attn: torch.Tensor, post: torch.Tensor, site: Site) -> torch.Tensor:
    """The same for a block without an MLP."""
    return residual_gap(pre, attn, torch.zeros_like(attn), post, site)


def _residual(model: Model, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    if model.sizes.d_mlp == 0:
        need = Need((RESID_PRE, ATTN_OUT, RESID_POST), residual_gap_attention_only)
    else:
        need = Need((RESID_PRE, ATTN_OUT, MLP_OUT, RESID_POST), residual_gap)
    return observe(model, _prompts(ids), [need], positions="none")[need].max()


def _parts(model: Model, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    normed = model.weights(0).post_attn_gain is not None
    need = (
        Need((PATTERN, V, ATTN_OUT, POST_ATTN_SCALE), parts_gap_normed)
        if normed
        else Need((PATTERN, V, ATTN_OUT), parts_gap)
    )
    return observe(model, _prompts(ids), [need], positions="none")[need].max()


def _padding(model: Model, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The first 7 tokens of row 0 beside all of row 1, against the same 7 alone; relative to the largest logit."""
    short = Prompt.ids(ids[0, :7])
    alone = observe(model, [short], positions="all").logits[0].float()
    beside = observe(model, [short, Prompt.ids(ids[1])], positions="all").logits[0].float()
    return (alone - beside).abs().max() / alone.abs().max().clamp(min=1.0)


def last_state(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """resid_post as it is."""
    return resid.clone()


def _readout(model: Model, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    need = Need((RESID_POST,), last_state, dims="pos d_model", layers=(model.sizes.n_layers - 1,))
    state = observe(model, _prompts(ids), [need], positions="none")[need][0]
    return (model.readout.logits(state).float() - logits.cpu().to(state.device)).abs().max() / logits.abs().max().clamp(
        min=1.0
    )


def fired(*activations_and_site: Any) -> torch.Tensor:
    """A zero per row: the pass raises if one of the hooks stayed silent."""
    return torch.zeros(len(activations_and_site[-1].lengths))


def _fires(model: Model, ids: torch.Tensor, logits: torch.Tensor) -> float:
    hooks = [RESID_PRE, RESID_POST, ATTN_OUT, MLP_OUT, ATTN_RESULT, PATTERN, SCORES, V, Z]
    if not model.sizes.parallel:
        hooks.append(RESID_MID)
    if model.sizes.d_mlp == 0:
        hooks = [h for h in hooks if h not in (MLP_OUT, RESID_MID)]
    observe(model, _prompts(ids), [Need((hook,), fired) for hook in hooks], positions="none")
    return 0.0


# Tolerances: sums of 12 probabilities or of a few hundred products in float32 re-associate to a few 1e-6 at most; what
# a wrong bias, a missing gain or a shifted head does is 1e-2 and more.
_ITEMS = (
    (READOUT, _readout, 1e-5),
    (ROWS, _rows, 1e-5),
    (RESIDUAL, _residual, 1e-5),
    (PARTS, _parts, 1e-4),
    (PADDING, _padding, 1e-4),
    (FIRES, _fires, 0.0),
)
