"""Induction heads: which heads look at what followed the current token last time.

On repeated random tokens nothing but the repeat says what comes next. Three scores per head, over the queries q of the
second copy, with P the period:

    induction score        mean of pattern[q, q - P + 1]    the token after the previous occurrence
    previous-token score   mean of pattern[q, q - 1]
    duplicate-token score  mean of pattern[q, q - P]        the previous occurrence itself

`induction-heads` computes them on a stimulus of its own, with intervals over sequences and a test.
`induction-on-prompt` computes them on the user's prompt, at the queries whose token occurred before: one text, so no
interval and no test.

Source: Olsson et al. 2022, arXiv 2209.11895 (prefix matching on repeated random tokens, in-context learning score). The
random periods, the baseline of other keys, the test and the label are ours.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from einops import rearrange, repeat
from torch.nn.functional import cross_entropy

from probes.checks import claims
from workbench.analysis.legacy import Entry, Param, Stimulus
from workbench.analysis.results import dataset
from workbench.errors import RefusedError
from workbench.models.hooks import LOGITS, PATTERN
from workbench.models.prompt import Prompt, tokenise
from workbench.models.readout import Readout
from workbench.models.selfcheck import ROWS
from workbench.observation import Need, Observation, Site
from workbench.observation.repeats import previous_occurrence
from workbench.statistics import benjamini_hochberg, bootstrap_interval, sign_flip_test

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["ENTRY", "ON_PROMPT", "induction_heads", "induction_on_prompt", "needs", "prompt_needs", "run", "stimulus"]

KINDS = ("induction", "previous_token", "duplicate_token")
EFFECT_FLOOR = 0.1  # attention share above other keys below which a head is not called an induction head
FALSE_DISCOVERY = 0.05
DRAWS = 2000
_SHORTEST = 12  # tokens after the first: periods of 4 and more keep the three keys of a query apart
_CHUNK = 64  # rows of logits that are normalised at once: 12 MB at a vocabulary of 49,152


# The stimulus


def stimulus(model, *, n_sequences: int = 16, length: int = 96, seed: int = 0) -> Stimulus:
    """Repeated random tokens, and as many sequences of the same length without a repeat.

    Every sequence is a BOS token and `length` ordinary tokens (fewer where n_ctx or the vocabulary is smaller). A
    repeated one draws its period from a third to a half of that, and its tokens without replacement, so that the
    previous occurrence is unique. Its partner has no repeat. fields: `period` (0 in partners) and `lag`, the offset to
    score at: the period, in both of a pair. Raises RefusedError for a model with too little context.
    """
    random = np.random.default_rng(seed)
    first, ordinary = _vocabulary(model, random)
    length = min(length, model.sizes.n_ctx - 1, len(ordinary))
    if length < _SHORTEST:
        raise RefusedError(
            f"{model.name}, which leaves {length} different tokens in a row",
            f"at least {_SHORTEST} (n_ctx {model.sizes.n_ctx}, {len(ordinary)} ordinary tokens)",
            "Use a model with a longer context or a larger vocabulary",
        )
    lags = random.integers(length // 3, length // 2, n_sequences, endpoint=True)
    repeated = [np.resize(random.choice(ordinary, lag, replace=False), length) for lag in lags]
    plain = [random.choice(ordinary, length, replace=False) for _ in lags]
    tokens = tuple(tokenise(model, Prompt.ids([first, *row.tolist()])) for row in (*repeated, *plain))
    period = np.concatenate([lags, np.zeros_like(lags)])
    return Stimulus(tokens, {"period": torch.tensor(period), "lag": torch.tensor(np.concatenate([lags, lags]))})


def _vocabulary(model, random: np.random.Generator) -> tuple[int, np.ndarray]:
    """The token for position 0, and up to 8192 ordinary ones: neither special nor added, and text of their own."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return 0, np.arange(1, model.sizes.d_vocab)
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    candidates = random.permutation(min(model.sizes.d_vocab, len(tokenizer)))[:8192]
    ordinary = [int(i) for i in candidates if i not in special and _is_text(tokenizer.decode([int(i)]))]
    if tokenizer.bos_token_id is None:
        return ordinary[0], np.array(ordinary[1:])
    return tokenizer.bos_token_id, np.array(ordinary)


def _is_text(piece: str) -> bool:
    """False for half of a multi-byte character, control characters and nothing at all."""
    return bool(piece) and "\ufffd" not in piece and (piece.isprintable() or piece.isspace())


# What is needed of a layer


def lag_attention(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """The three scores at a known lag per row (`fields["lag"]`), and the mean attention to other keys.

    pattern: (batch, head, query, key), rows sum to 1. Returns (batch, head, component=6), shares of attention, 0 to 1:
    induction, previous token, duplicate token, then for each the mean over other keys of the same rows. Other keys are
    all visible ones but the query itself, the previous token, key 0, the previous occurrence and its successor.
    """
    query = torch.arange(pattern.shape[-1], device=pattern.device)
    lag = site.fields["lag"].to(pattern.device)[:, None]  # batch one
    # Not beyond the second copy: there, two occurrences would share what a perfect head gives to one.
    is_second = (query > lag) & (query <= 2 * lag) & site.mask
    return _attention(pattern, torch.where(is_second, query - lag, -1), site)


def repeat_attention(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """The same where the tokens of a text repeat: lag from each query to the previous occurrence of its token.

    Shapes as `lag_attention`; NaN for a row without repeats. Other keys may hold still earlier occurrences.
    """
    return _attention(pattern, previous_occurrence(site.tokens, site.mask), site)


def _attention(pattern: torch.Tensor, previous: torch.Tensor, site: Site) -> torch.Tensor:
    """Means over queries with a previous occurrence (previous >= 0), as `lag_attention` returns them.

    Gathers five entries of each row and takes the rest as one minus them, so that nothing as large as the pattern is
    made. A key outside a sliding layer's window is not counted; a score without any countable key is NaN.
    """
    query = torch.arange(previous.shape[1], device=previous.device).expand_as(previous)
    keys = torch.stack([previous + 1, query - 1, previous, query, torch.zeros_like(query)], dim=-1)
    reach = _reach(site)
    seen = (previous >= 0)[..., None] & (query[..., None] - keys < reach)  # batch query slot
    index = repeat(keys.clamp(min=0), "batch query slot -> batch head query slot", head=pattern.shape[1])
    values = pattern.gather(-1, index).float() * seen[:, None]
    n_others = (query + 1).clamp(max=reach) - seen.sum(-1)
    others = (1 - values.sum(-1)).clamp(min=0) / n_others.clamp(min=1)[:, None]
    weight = rearrange(seen[..., :3], "batch query slot -> batch 1 query slot").float()
    total = weight.sum(-2)  # 0 / 0 is the NaN we want
    scores = (values[..., :3] * weight).sum(-2) / total
    return torch.cat([scores, (others[..., None] * weight).sum(-2) / total], dim=-1)


def _reach(site: Site) -> int:
    """How many keys a query of this layer can see, itself included."""
    sizes = site.model.sizes
    return sizes.window if site.layer in sizes.sliding else site.tokens.shape[1]


def token_loss(logits: torch.Tensor, site: Site) -> torch.Tensor:
    """Loss of predicting each token from those before it, nats, (batch, pos); NaN for position 0.

    logits: (batch, pos, d_vocab). A few dozen rows are normalised at a time, so that no second copy is made.
    """
    loss = torch.full(site.tokens.shape, torch.nan, device=logits.device)
    for row, (tokens, scores) in enumerate(zip(site.tokens, logits, strict=True)):
        for start in range(0, len(tokens) - 1, _CHUNK):
            targets = tokens[start + 1 : start + 1 + _CHUNK]
            part = scores[start : start + len(targets)].float()
            loss[row, start + 1 : start + 1 + len(targets)] = cross_entropy(part, targets, reduction="none")
    return loss


_AT_LAG = Need((PATTERN,), lag_attention, dims="head component")
_AT_REPEATS = Need((PATTERN,), repeat_attention, dims="head component")
_LOSS = Need((LOGITS,), token_loss, dims="pos")


def needs(model, tokens, **params) -> tuple[Need, ...]:
    """Attention at the lags of the stimulus, and the loss of every token."""
    return _AT_LAG, _LOSS


def prompt_needs(model, tokens, **params) -> tuple[Need, ...]:
    """Attention where the tokens of the prompt repeat."""
    return (_AT_REPEATS,)


# Results


def induction_heads(observation: Observation, readout: Readout, *, seed: int = 0, **params) -> xr.Dataset:
    """Scores with interval, null, effect and q per head; the label; losses on the first and second copy.

    For each of `induction_score`, `previous_token_score`, `duplicate_token_score` (layer, head), shares of attention:
    `_low`, `_high` (95 % percentile bootstrap over the repeated sequences), `_null`, `_d` (effect), `_q`, and the
    scalar `_null_95`. `is_induction_head` (layer, head). `loss_first_copy`, `loss_second_copy`,
    `in_context_learning_score`, `loss_by_position` (pos), `loss_by_offset` (offset), nats, with intervals;
    the curves also with `_null`.
    """
    repeated = (observation.fields["period"] > 0).cpu().numpy()
    attention = observation[_AT_LAG].cpu().numpy()  # layer prompt head component
    attention = np.where(np.isnan(attention).any(1, keepdims=True), np.nan, attention)  # a window that cuts off some
    variables = {}
    for slot, kind in enumerate(KINDS):
        variables |= _score(kind, attention[..., slot], attention[..., slot + 3], repeated, seed)
    q, effect = variables["induction_score_q"][1], variables["induction_score_d"][1]
    label = (q <= FALSE_DISCOVERY) & (effect > EFFECT_FLOOR)  # NaN is no induction head
    variables["is_induction_head"] = ("layer head", label, "true or false", (0, 1), "induction head")
    losses, coords = _losses(observation, repeated, seed)
    result = dataset(observation, coords, **variables, **losses)
    return result.assign_attrs(_notes(observation, int(repeated.sum())))


def _score(kind: str, at_key: np.ndarray, at_others: np.ndarray, repeated: np.ndarray, seed: int) -> dict[str, tuple]:
    """All variables of one score. at_key, at_others: (layer, prompt, head); repeated: (prompt,).

    A head may prefer a distance whatever the tokens: against other keys alone, a third of the heads in layer 1 of
    random GPT-2s pass at p < 0.05. So each repeated sequence is held against its partner at the same lag; if the repeat
    plays no part, their difference is symmetric about zero, as the test asks. The previous token needs no repeat and is
    itself a distance: it is held against other keys only.
    """
    contrast = at_key - at_others
    difference = contrast[:, repeated]
    if kind == "previous_token":
        null, null_text = at_others[:, ~repeated].mean(1), "attention to other keys without a repeat"
    else:
        difference = difference - contrast[:, ~repeated]
        null, null_text = at_key[:, ~repeated].mean(1), "the same score without a repeat"
    low, high = bootstrap_interval(at_key[:, repeated], axis=1, draws=DRAWS, seed=seed)
    q = benjamini_hochberg(sign_flip_test(difference, axis=1, seed=seed))
    tail = np.percentile(null[~np.isnan(null)], 95) if not np.isnan(null).all() else np.nan
    name, title, share = f"{kind}_score", f"{kind.replace('_', '-')} score", ("share of attention", (0, 1))
    return {
        name: ("layer head", at_key[:, repeated].mean(1), *share, title),
        f"{name}_low": ("layer head", low, *share, f"{title}, lower end of the 95 % interval"),
        f"{name}_high": ("layer head", high, *share, f"{title}, upper end of the 95 % interval"),
        f"{name}_null": ("layer head", null, *share, null_text),
        f"{name}_null_95": ("", tail, *share, f"95th percentile over heads of {null_text}"),
        f"{name}_d": ("layer head", difference.mean(1), "share of attention", (-2, 2), f"effect on the {title}"),
        f"{name}_q": ("layer head", q, "false discovery rate", (0, 1), f"q of the {title}"),
    }


def _losses(observation: Observation, repeated: np.ndarray, seed: int) -> tuple[dict[str, tuple], dict[str, object]]:
    """Losses of the two copies without their first token, which no repeat announces, and the loss curves."""
    loss = observation[_LOSS].cpu().numpy()  # prompt pos
    lags = observation.fields["lag"].cpu().numpy()
    pairs = list(zip(loss[repeated], lags[repeated], strict=True))
    first = np.array([row[2 : 1 + lag].mean() for row, lag in pairs])
    second = np.array([row[2 + lag : 1 + 2 * lag].mean() for row, lag in pairs])
    reach = (loss.shape[1] - 1) // 3  # the shortest period: offsets that every sequence has
    offsets = np.arange(1 - reach, reach)
    aligned = np.stack([row[1 + lag + offsets] for row, lag in zip(loss, lags, strict=True)])
    found = {
        **_mean("loss_first_copy", "", first, (0, None), "loss on the first copy", seed),
        **_mean("loss_second_copy", "", second, (0, None), "loss on the second copy", seed),
        **_mean("in_context_learning_score", "", second - first, None, "loss on the second copy minus the first", seed),
        **_mean("loss_by_position", "pos", loss[repeated], (0, None), "loss of the token at a position", seed),
        **_mean("loss_by_offset", "offset", aligned[repeated], (0, None), "loss around the second copy's start", seed),
        "loss_by_position_null": ("pos", loss[~repeated].mean(0), "nats", (0, None), "the same without a repeat"),
        "loss_by_offset_null": ("offset", aligned[~repeated].mean(0), "nats", (0, None), "the same without a repeat"),
    }  # fmt: skip
    return found, {"offset": offsets}


def _mean(name: str, dims: str, values: np.ndarray, bounds: tuple | None, title: str, seed: int) -> dict[str, tuple]:
    """Mean over sequences (the first axis) with its interval, in nats."""
    low, high = bootstrap_interval(values, axis=0, draws=DRAWS, seed=seed)
    return {
        name: (dims, values.mean(0), "nats", bounds, title),
        f"{name}_low": (dims, low, "nats", bounds, f"{title}, lower end of the 95 % interval"),
        f"{name}_high": (dims, high, "nats", bounds, f"{title}, upper end of the 95 % interval"),
    }


def _notes(observation: Observation, n: int) -> dict[str, str]:
    """What a reader must know beside the numbers."""
    first = observation.tokens[0]
    bos = "a BOS token" if first.bos else f"{first.strings[0]!r} in place of a BOS token, which the tokenizer lacks"
    return {
        "stimulus": f"{n} repeated and {n} other sequences of {len(first)} tokens; position 0 holds {bos}",
        "interval": f"95 % percentile bootstrap over {n} sequences, {DRAWS} draws",
        "test": f"one-sided sign flip over {n} sequences, Benjamini-Hochberg per score over all heads",
        "label": f"q at most {FALSE_DISCOVERY} and effect d above {EFFECT_FLOOR}",
        "missing": "NaN: a sliding-window layer that cannot see the key (not applicable)",
    }


def induction_on_prompt(observation: Observation, readout: Readout, **params) -> xr.Dataset:
    """The three scores (layer, head) on one text, mean over its queries with a previous occurrence; no interval.

    `_null`: mean attention to other keys of the same rows. `previous_occurrence` (pos): NaN where there is none.
    `n_repeats`: how many queries the means are over. All scores are NaN in a text without repeats.
    """
    attention = observation[_AT_REPEATS][:, 0].cpu().numpy()  # layer head component
    tokens = torch.tensor([observation.tokens[0].ids])
    previous = previous_occurrence(tokens, torch.ones_like(tokens, dtype=torch.bool))[0].numpy()
    count = int((previous >= 0).sum())
    share = ("share of attention", (0, 1))
    variables = {}
    for slot, kind in enumerate(KINDS):
        at_key, at_others, title = attention[..., slot], attention[..., slot + 3], f"{kind.replace('_', '-')} score"
        variables[f"{kind}_score"] = ("layer head", at_key, *share, title)
        variables[f"{kind}_score_null"] = ("layer head", at_others, *share, "other keys of the same rows")
    result = dataset(
        observation,
        **variables,
        previous_occurrence=("pos", np.where(previous < 0, np.nan, previous), "position", (0, None)),
        n_repeats=("", count, "tokens", (0, None), "tokens that occurred before"),
    )  # fmt: skip
    return result.assign_attrs(note=_prompt_note(count))


def _prompt_note(count: int) -> str:
    if count == 0:
        return "No token of this prompt occurs again three or more places later, so there is nothing to score."
    return f"One text (n = 1), mean over {count} repeated token{'s' * (count > 1)}: no interval and no test."


# Figures


def induction_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the induction score; induction heads are ringed."""
    from workbench.figures import heads_grid

    return heads_grid(
        result, "induction_score", title="Induction score", mark="is_induction_head", mark_name="induction head"
    )


def previous_token_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the previous-token score."""
    from workbench.figures import heads_grid

    return heads_grid(result, "previous_token_score", title="Previous-token score")


def duplicate_token_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the duplicate-token score."""
    from workbench.figures import heads_grid

    return heads_grid(result, "duplicate_token_score", title="Duplicate-token score")


def loss_figure(result: xr.Dataset) -> "go.Figure":
    """Loss around the start of the second copy, beside sequences without a repeat."""
    from workbench.figures import series

    return series(result, "loss_by_offset", "offset", title="Loss by position, 0 = start of the second copy")


def prompt_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the induction score on the prompt."""
    from workbench.figures import heads_grid

    return heads_grid(result, "induction_score", title="Induction score on this prompt")


def head_detail(result: xr.Dataset, selection: dict) -> "go.Figure":
    """The three scores of one head, with intervals where there are any, and what other keys or no repeat give."""
    from workbench.figures import bars, head_name

    head = result.sel(layer=selection["layer"], head=selection["head"], drop=True)
    kinds = [kind.replace("_", "-") for kind in KINDS]
    small = xr.Dataset(coords={"component": kinds})
    for ending in ("", "_low", "_high", "_null", "_q"):
        if f"{KINDS[0]}_score{ending}" in head:
            values = [head[f"{kind}_score{ending}"].item() for kind in KINDS]
            small[f"score{ending}"] = ("component", values, head[f"{KINDS[0]}_score{ending}"].attrs)
    small["score"].attrs |= {"long_name": "mean attention"}
    return bars(
        small, "score", "component", title=f"{head_name(selection['layer'], selection['head'])}: where it looks"
    )


# Entries

_DEFINITION = (
    "Mean attention, over queries q whose token occurred P positions before, to the key after that occurrence "
    "(induction, q - P + 1), to the previous token (q - 1), and to the occurrence itself (duplicate, q - P). "
)

ENTRY = Entry(
    name="induction-heads",
    title="Induction heads",
    source="Olsson et al. 2022, arXiv 2209.11895 (scores); the baseline, the test and the label are ours",
    definition=_DEFINITION
    + "Stimulus: a BOS token, then random ordinary tokens that repeat with a random period P; queries are those of the "
    "second copy. Interval: 95 % percentile bootstrap over sequences. Null: the same score, at the same distances, "
    "on sequences without a repeat. Effect d: score minus the mean attention to other keys of the same rows (without "
    "key 0, the query and the three keys of the scores), minus the same on a partner sequence without a repeat. The "
    "previous-token score needs no repeat: there d has no partner, and the null is attention to other keys. q: "
    "one-sided sign flip of d over sequences, Benjamini-Hochberg per score over all heads. Induction head: q at most "
    "0.05 and d above 0.1. In-context learning score: loss on the second copy minus loss on the first (nats), each "
    "without its first token; below zero means that the repeat helps.",
    limits="A score says where a head looks, not what it does with it: ablate the head to see whether it matters. "
    "Random tokens are no language: on text a head may behave otherwise. The prompt is not used: the stimulus is the "
    "analysis's own. NaN is not applicable: a sliding-window layer that cannot see the key.",
    scope="model",
    stimulus=stimulus,
    needs=needs,
    analyse=induction_heads,
    figures=(induction_figure, previous_token_figure, duplicate_token_figure, loss_figure),
    details=(head_detail,),
    claims=(claims.repetition,),
    params=(
        Param("n_sequences", int, 16, "repeated sequences, and as many without a repeat", low=16, high=1024),
        Param(
            "length", int, 96, "tokens after the first; fewer where the model's context is shorter", low=12, high=1024
        ),
        Param("seed", int, 0, "seed of the stimulus, the bootstrap and the test", low=0),
    ),
    requires=(ROWS,),
)

ON_PROMPT = Entry(
    name="induction-on-prompt",
    title="Induction on this prompt",
    source=ENTRY.source,
    definition=_DEFINITION
    + "Queries: tokens of the prompt whose nearest earlier occurrence lies three or more positions back and not at "
    "position 0. Null: mean attention to other keys of the same rows (without key 0, the query and the three keys of "
    "the scores).",
    limits="One text (n = 1): no interval, no test, no label. In language a repeated token is also near, frequent or "
    "grammatically bound, so a high score alone does not make an induction head. NaN: the prompt repeats no token.",
    scope="prompt",
    needs=prompt_needs,
    analyse=induction_on_prompt,
    figures=(prompt_figure, previous_token_figure, duplicate_token_figure),
    details=(head_detail,),
    claims=(claims.repetition,),
    requires=(ROWS,),
)

run = ENTRY.run
