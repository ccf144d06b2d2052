"""Does this model behave as the analyses assume? Measured at load, on two short texts."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from einops import einsum

from workbench.errors import WorkbenchError
from workbench.loading.proofs import edit_items, softmax_gap
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
    masked_below,
)
from workbench.models.model import Model
from workbench.models.prompt import Prompt
from workbench.models.selfcheck import (
    FINITE,
    FIRES,
    LOGITS_EQUAL,
    PADDING,
    PARTS,
    READOUT,
    RESIDUAL,
    ROWS,
    SOFTMAX,
    VISIBLE,
    Item,
    SelfCheck,
)
from workbench.observation import Need, Site, observe

_See = Callable[[Need], torch.Tensor]

__all__ = ["LENGTH", "check_ids", "selfcheck", "short_ids"]


# Two texts of our own; what is measured on noise may not hold where states grow large, as they do on a first token.
_TEXTS = (
    "The old lighthouse keeper climbed the stairs every evening, lit the lamp, and wrote down which ships had passed. "
    "In winter the nights were long, and he counted the waves instead of the ships.",
    "Rivers carry sand to the sea, where the tide sorts it: coarse grains stay near the shore, and fine ones travel "
    "far. After a thousand years the sand is stone, and the stone is lifted into hills again.",
)
LENGTH = 24  # tokens of each text
_SHORT = 8  # of these, where edits are proved


def check_ids(tokenizer: Any, n_vocab: int, length: int = LENGTH) -> tuple[torch.Tensor, str]:
    """The input of the self-check, `[2, length]`, and what it is.

    Natural text, the first row behind BOS where the tokenizer has such a token, the second without; repeated where it
    is short. Without a tokenizer that encodes: ids spread over the vocabulary.
    """
    spread = short_ids(n_vocab, length), f"2 x {length} ids spread over the vocabulary"
    if not hasattr(tokenizer, "encode"):
        return spread[0], f"{spread[1]} (no tokenizer)"
    bos = getattr(tokenizer, "bos_token_id", None)
    bos = bos if bos is not None and bos < n_vocab else None  # a tokenizer may know more tokens than its model
    rows, first = [], [] if bos is None else [bos]
    for text, before in zip(_TEXTS, (first, []), strict=True):
        ids = list(tokenizer.encode(text, add_special_tokens=False))
        if not ids or max(ids) >= n_vocab:
            return spread[0], f"{spread[1]} (the tokenizer's do not fit)"
        repeats = -(-length // len(ids))
        rows.append((before + ids * repeats)[:length])
    behind = "without a BOS token" if bos is None else "one of them behind BOS"
    return torch.tensor(rows), f"2 texts of {length} tokens, {behind}"


def short_ids(n_vocab: int, length: int = 12) -> torch.Tensor:
    """Ids `[2, length]` spread over the vocabulary, the same for every run."""
    steps = torch.arange(2 * length, dtype=torch.float64) * 0.6180339887498949
    return (3 + (steps % 1.0) * (n_vocab - 4)).long().view(2, length)


def selfcheck(model: Model, reference: torch.Tensor | None) -> SelfCheck:
    """Measure every item. reference: the model's logits on `check_ids`, computed before a bridge took it over.

    It may be longer than LENGTH: then it reaches beyond a sliding window, and so do items that need it.
    """
    length = min(LENGTH, model.sizes.n_ctx) if reference is None else reference.shape[1]
    ids, about = check_ids(model.tokenizer, model.sizes.d_vocab, length)
    half = model.identity.dtype != "float32"
    items = []
    with model.passes.run(), torch.no_grad():
        logits = model.adapter.forward(ids.to(model.adapter.device)).float()
    if reference is not None:
        items.append(_logits_item(model, logits, reference.float()))
    ids, logits = ids[:, :LENGTH], logits[:, :LENGTH]
    see = _seen(model, ids)
    for name, measure, tolerance in _ITEMS:
        allowed = max(tolerance, 2e-2) if half and tolerance else tolerance
        items.append(_measure(name, partial(measure, model, ids, logits, see), allowed))
    items += edit_items(model, _prompts(ids[:, :_SHORT]), 2e-2 if half else 1e-4)
    window = f"; windows of {model.sizes.window} tokens" if model.sizes.window else ""
    about = f"{about}{window}, in {model.identity.dtype}"
    return SelfCheck(tuple(items), about, datetime.now(UTC).isoformat(timespec="seconds"))


def _logits_item(model: Model, logits: torch.Tensor, reference: torch.Tensor) -> Item:
    """Bit-equal in float32 on CPU where the bridge runs the model's own modules; GPT-2's joint QKV is split by the
    bridge, which re-associates sums (1.2e-7 seen); bfloat16 and GPUs round differently."""
    exact = model.identity.dtype == "float32" and model.identity.device == "cpu"
    tolerance = 1e-5 if exact else 5e-2
    gap = float((logits - reference).abs().max() / reference.abs().max().clamp(min=1.0))
    return Item(
        LOGITS_EQUAL, gap, tolerance, gap <= tolerance, "bit-equal" if gap == 0 else "largest relative difference"
    )


def _measure(name: str, measure: Callable[[], Any], tolerance: float) -> Item:
    try:
        gap = float(measure())
    except WorkbenchError as error:
        return Item(name, float("nan"), tolerance, False, str(error))
    return Item(name, gap, tolerance, gap <= tolerance)


def _seen(model: Model, ids: torch.Tensor) -> _See:
    """What needs come to: all from one pass, or each from its own where one of them fails."""
    needs = [need for need in (make(model) for make in _NEEDS) if need is not None]

    def alone(need: Need) -> torch.Tensor:
        return observe(model, _prompts(ids), [need], positions="none")[need]

    try:
        seen = observe(model, _prompts(ids), needs, positions="none")
    except WorkbenchError:
        return alone
    return lambda need: seen[need]


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


def _rows_need(model: Model) -> Need | None:
    """Of layers without a learned sink: GPT-OSS's rows sum to less by construction; SOFTMAX measures them."""
    layers = [layer for layer in range(model.sizes.n_layers) if model.weights(layer).sinks is None]
    return Need((PATTERN,), row_sums, layers=layers) if layers else None


def _softmax_need(model: Model) -> Need:
    return Need((SCORES, PATTERN), softmax_gap)


def hidden_otherwise(scores: torch.Tensor, site: Site) -> torch.Tensor:
    """Share of (query, key) that the scores hide and the sizes show, or the other way round, `[batch]`."""
    assert site.layer is not None, "scores are of layers"
    query = torch.arange(scores.shape[-2], device=scores.device)
    key = torch.arange(scores.shape[-1], device=scores.device)
    said = (key <= query[:, None]) & (key >= site.model.sizes.first_key(site.layer, query)[:, None])
    return ((scores > masked_below(scores.dtype)).any(1) != said).float().mean((1, 2))


def _visible_need(model: Model) -> Need:
    return Need((SCORES,), hidden_otherwise)


def infinite(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """Share of entries that are not finite, `[batch]`."""
    return (~resid.isfinite()).float().mean((1, 2))


def _finite_need(model: Model) -> Need:
    return Need((RESID_POST,), infinite)


def _finite(model: Model, ids: torch.Tensor, logits: torch.Tensor, see: _See) -> float:
    return max(float(see(_finite_need(model)).max()), float((~logits.isfinite()).float().mean()))


def residual_gap_attention_only(pre: torch.Tensor, attn: torch.Tensor, post: torch.Tensor, site: Site) -> torch.Tensor:
    """The same for a block without an MLP."""
    return residual_gap(pre, attn, torch.zeros_like(attn), post, site)


def _residual_need(model: Model) -> Need:
    if model.sizes.d_mlp == 0:
        return Need((RESID_PRE, ATTN_OUT, RESID_POST), residual_gap_attention_only)
    return Need((RESID_PRE, ATTN_OUT, MLP_OUT, RESID_POST), residual_gap)


def _parts_need(model: Model) -> Need:
    if model.weights(0).post_attn_gain is not None:
        return Need((PATTERN, V, ATTN_OUT, POST_ATTN_SCALE), parts_gap_normed)
    return Need((PATTERN, V, ATTN_OUT), parts_gap)


def _padding(model: Model, ids: torch.Tensor, logits: torch.Tensor, see: _See) -> torch.Tensor:
    """The first 7 tokens of row 0 beside all of row 1, against the same 7 alone; relative to the largest logit."""
    short = Prompt.ids(ids[0, :7])
    alone = observe(model, [short], positions="all").logits[0].float()
    beside = observe(model, [short, Prompt.ids(ids[1])], positions="all").logits[0].float()
    return (alone - beside).abs().max() / alone.abs().max().clamp(min=1.0)


def last_state(resid: torch.Tensor, site: Site) -> torch.Tensor:
    """resid_post as it is."""
    return resid.clone()


def _state_need(model: Model) -> Need:
    return Need((RESID_POST,), last_state, dims="pos d_model", layers=(model.sizes.n_layers - 1,))


def _readout(model: Model, ids: torch.Tensor, logits: torch.Tensor, see: _See) -> torch.Tensor:
    states = see(_state_need(model))[0]
    read = model.readout.logits(states).float()
    logits = logits.to(read.device)
    tokens = short_ids(model.sizes.d_vocab, 16).flatten().to(read.device)
    gap = torch.maximum(
        (read - logits).abs().max(), (_added_up(model, states, tokens) - logits[..., tokens]).abs().max()
    )
    return gap / logits.abs().max().clamp(min=1.0)


def _added_up(model: Model, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of tokens by the weights that split them into parts: an unembedding may do more than multiply by W_U."""
    readout = model.readout
    normed = states.to(tokens.device).double() / readout.scale(states).to(tokens.device).double()
    found = normed @ readout.directions(tokens).double().mT + readout.constant(tokens).double()
    return torch.tanh(found / readout.soft_cap) * readout.soft_cap if readout.soft_cap else found


def fired(*activations_and_site: Any) -> torch.Tensor:
    """A zero per row: the pass raises if one of the hooks stayed silent."""
    return torch.zeros(len(activations_and_site[-1].lengths), dtype=torch.float32)


def _fires(model: Model, ids: torch.Tensor, logits: torch.Tensor, see: _See) -> float:
    hooks = [RESID_PRE, RESID_POST, ATTN_OUT, MLP_OUT, ATTN_RESULT, PATTERN, SCORES, V, Z]
    if not model.sizes.parallel:
        hooks.append(RESID_MID)
    if model.sizes.d_mlp == 0:
        hooks = [h for h in hooks if h not in (MLP_OUT, RESID_MID)]
    observe(model, _prompts(ids), [Need((hook,), fired) for hook in hooks], positions="none")
    return 0.0


def _largest(make: Callable[[Model], Need | None]) -> Callable[..., float]:
    """The largest value of a need; 0 where the model has nothing to measure."""

    def measure(model: Model, ids: torch.Tensor, logits: torch.Tensor, see: _See) -> float:
        need = make(model)
        return 0.0 if need is None else float(see(need).max())

    return measure


_NEEDS = (_rows_need, _softmax_need, _visible_need, _finite_need, _residual_need, _parts_need, _state_need)

# Tolerances: sums of 24 probabilities or of a few hundred products in float32 re-associate to a few 1e-6 at most; what
# a wrong bias, a missing gain or a shifted head does is 1e-2 and more.
_ITEMS = (
    (READOUT, _readout, 1e-5),
    (ROWS, _largest(_rows_need), 1e-5),
    (RESIDUAL, _largest(_residual_need), 1e-5),
    (PARTS, _largest(_parts_need), 1e-4),
    (PADDING, _padding, 1e-4),
    (FIRES, _fires, 0.0),
    (SOFTMAX, _largest(_softmax_need), 1e-5),
    (VISIBLE, _largest(_visible_need), 0.0),
    (FINITE, _finite, 0.0),
)
