"""Logit lens: what the model would say if it stopped at each depth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Position, Range
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, View, reads
from workbench.errors import InputError
from workbench.models.hooks import RESID_MID, RESID_POST, RESID_PRE
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens, place
from workbench.models.readout import Readout
from workbench.models.selfcheck import READOUT
from workbench.models.target import likelier, need_one_token
from workbench.observation import Need, Observation, keep

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "LogitLens", "chosen_positions", "lens", "lens_figure", "top_tokens_figure"]

_ALL_UP_TO = 32  # a lens at every position of 32 tokens costs a few bare forward passes
_LAST = 16
_ROWS = 128  # states read out together: one pass over W_U serves them all, and their logits stay near the cache
_FOR = "a lens, which follows one token"
_BLOCK = 64  # tokens per block of the two-level top-k


class LogitLens(OnPrompt, name="logit-lens", title="Logit lens", requires=(READOUT,)):
    """What the model would say if it stopped at each depth.

    Definition: p(depth, pos) = softmax(unembed(norm(resid))): each state of the residual stream through the model's own
    final norm and unembedding (soft cap where it has one). Depth 0 is the embedding, depth d the output of block d-1;
    with include_mid, depth d + 0.5 is the state between attention and MLP of block d. Entropy, surprisal and KL are in
    nats; KL = sum p log(p / p_final), from the depth's distribution to the final one. The last depth is the model's own
    output.

    Limits: Early states live in other bases than the last one: nonsense at an early depth does not show that nothing is
    known there, and a token that appears is read out of a state, not shown to be used.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; statistics as in the tuned lens, arXiv 2303.08112.

    Returns: `top_token`, `top_text`, `top_prob` (depth, pos, rank); `target_prob`, `target_surprisal` (nats),
    `target_rank` (1 is the top), `entropy` (nats), `kl_to_final` (nats), `agrees` (depth, pos); `logit_difference`
    (depth, pos) with `against`. Coords `target_token`, `target_text` (pos) say what was followed: the next token of the
    prompt, and at the last position the model's own prediction, unless `target` names one.
    """

    positions: Annotated[
        str, Position(), "auto (all up to 32 tokens, else the last 16), all, last, or indices 0,3,-1"
    ] = "auto"
    top_k: Annotated[int, Range(1, 100), "tokens listed per cell"] = 10
    target: Annotated[str | None, "token to follow; default the next token of the prompt"] = None
    against: Annotated[str | None, "second token: why the target rather than this"] = None
    include_mid: Annotated[bool, "also between attention and MLP"] = False
    normalise: Annotated[bool, "through the final norm; false is the raw variant"] = True

    def needs(self, model: Model, tokens: Sequence[int] | Tokens) -> tuple[Need, ...]:
        """The residual stream at the chosen positions, at every depth."""
        if self.include_mid and (model.sizes.parallel or not model.sizes.d_mlp):
            why = "runs attention and MLP side by side" if model.sizes.parallel else "has no MLP"
            raise InputError(
                f"include_mid=True on {model.name}, which {why}",
                "blocks with a state between attention and MLP",
                "Set include_mid=False (in the shell leave --include-mid out)",
            )
        return _needs(chosen_positions(self.positions, len(tokens)), self.include_mid)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Every chosen state read out."""
        at = chosen_positions(self.positions, len(observation.tokens[0]))
        states, depths = _states(observation, at, self.include_mid)
        vocabulary = observation.vocabulary
        targets = _targets(observation, states[-1], at, self.target)
        other = None if self.against is None else need_one_token(vocabulary, self.against, _FOR)
        top_k = min(self.top_k, vocabulary.size)
        found = lens(observation.readout, states, targets, against=other, top_k=top_k, normalise=self.normalise)
        ids, places = found["top_token"].unique(return_inverse=True)
        names = {i: vocabulary.string(i) for i in ids.tolist()}
        top_text = np.array(list(names.values()))[places.numpy()]
        coords = {
            "depth": depths,
            "pos": list(at),
            "target_token": ("pos", targets.tolist()),
            "target_text": ("pos", [vocabulary.string(i) for i in targets.tolist()]),
        }
        said = _summary(found, names, depths, at) + _window(at, len(observation.tokens[0]))
        said += (
            ""
            if self.normalise
            else " Read out without the final norm, so that the last depth is no output of the model."
        )
        return dataset(observation, coords, **_variables(found, top_text)).assign_attrs(
            normalised=int(self.normalise),
            against="" if other is None else vocabulary.string(other),
            summary=" ".join([said, *self._notes(observation, states[-1, -1])]),
        )

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Its products with the unembedding beside the matrices of a pass, and a third more for their softmax."""
        try:
            read = len(chosen_positions(self.positions, n_tokens))
        except InputError:  # it will say why when it runs
            return 0.0
        heads = 2 * sizes.d_head * (sizes.n_heads + sizes.n_key_value_heads)
        block, unembedding = sizes.d_model * (heads + 3 * sizes.d_mlp), sizes.d_model * sizes.d_vocab
        states = (sizes.n_layers * (1 + self.include_mid) + 1) * read
        return 4 / 3 * states * unembedding / (n_tokens * (sizes.n_layers * block + unembedding))

    def _notes(self, observation: Observation, last: torch.Tensor) -> list[str]:
        """What is to be said of the target, at the last chosen position."""
        log_probs = observation.readout.logits(last).float().log_softmax(-1)
        asked = [text for text in (self.target, self.against) if text]
        return [note for text in asked if (note := likelier(observation.vocabulary, text, log_probs))]


def around(analysis: LogitLens, pos: int, n_tokens: int) -> LogitLens | None:
    """The lens whose window of 16 tokens holds `pos`; None where this one reads it, or says itself what it reads.

    The windows stand side by side from the first token on, so that those of two prompts are of the same positions; the
    last one reaches back to its 16.
    """
    if analysis.positions != "auto" or not 0 <= pos < n_tokens or pos in chosen_positions("auto", n_tokens):
        return None
    first = min(pos // _LAST * _LAST, n_tokens - _LAST)
    return analysis.replaced(positions=",".join(map(str, range(first, first + _LAST))))


def chosen_positions(positions: str, n_tokens: int) -> tuple[int, ...]:
    """Indices for "auto" (all up to 32 tokens, else the last 16), "all", "last", or "0, 3, -1".

    Raises InputError for indices outside the prompt.
    """
    named = {
        "auto": range(n_tokens) if n_tokens <= _ALL_UP_TO else range(n_tokens - _LAST, n_tokens),
        "all": range(n_tokens),
        "last": range(n_tokens - 1, n_tokens),
    }
    if positions in named:
        return tuple(named[positions])
    try:
        indices = [int(part) for part in positions.split(",")]
    except ValueError:
        raise InputError(
            f"positions={positions!r}", "auto, all, last, or indices such as 0,3,-1", "Correct the positions"
        ) from None
    return tuple(sorted({place(i, n_tokens) for i in indices}))


def _needs(positions: tuple[int, ...], include_mid: bool) -> tuple[Need, ...]:
    kept: dict[str, Any] = {"dims": "pos d_model", "params": {"positions": positions}}
    states = (Need((RESID_PRE,), keep, layers=(0,), **kept), Need((RESID_POST,), keep, **kept))
    return (*states, Need((RESID_MID,), keep, **kept)) if include_mid else states


def lens(
    readout: Readout,
    states: torch.Tensor,
    targets: torch.Tensor,
    *,
    against: int | None = None,
    top_k: int = 10,
    normalise: bool = True,
) -> dict[str, torch.Tensor]:
    """Read out states of the residual stream, a few positions at a time.

    states: `[depth, pos, d_model]`, the last depth being the model's last. targets: token ids `[pos]`. Returns tensors
    `[depth, pos]`, and `[depth, pos, rank]` for `top_token` and `top_prob`. At most a few hundred rows of logits exist
    at any time.
    """
    n_depth, n_pos, _ = states.shape
    targets = targets.to(states.device)
    step = max(1, _ROWS // n_depth)
    found: dict[str, torch.Tensor] = {}
    # One buffer for all blocks, and results written into place: fresh pages of this size for every block would cost as
    # much as the statistics, and small tensors kept between them would leave holes that are never filled again.
    buffer = states.new_empty(n_depth, min(step, n_pos), len(readout.W_U), dtype=torch.float32)
    for first in range(0, n_pos, step):
        here = slice(first, min(first + step, n_pos))
        block = states[:, here].contiguous()
        logits = readout.logits(block, normalise=normalise).float()
        final = logits[-1] if normalise else readout.logits(block[-1]).float()
        spare = buffer[:, : block.shape[1]]
        for name, values in _statistics(logits, final.log_softmax(-1), targets[here], against, top_k, spare).items():
            if name not in found:
                found[name] = values.new_empty(n_depth, n_pos, *values.shape[2:])
            found[name][:, here] = values
    return found


def _statistics(
    logits: torch.Tensor,
    final: torch.Tensor,
    targets: torch.Tensor,
    against: int | None,
    top_k: int,
    spare: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Statistics of logits `[depth, pos, d_vocab]`, which are overwritten, as is spare, of the same shape.

    final: log-probabilities `[pos, d_vocab]`.
    """
    top_logit, top_token = _top(logits, top_k)
    target = logits.gather(-1, targets.expand(len(logits), -1)[..., None])
    found = {"top_token": top_token}
    # Counts below 2**24 are exact in float32, and a comparison into floats is twice as fast as one into booleans.
    found["target_rank"] = torch.gt(logits, target, out=spare).sum(-1).to(torch.int32) + 1
    if against is not None:
        found["logit_difference"] = target[..., 0] - logits[..., against]
    largest = top_logit[..., :1]
    below = logits.sub_(largest)  # at most 0: sums of p log p lose no digits to a common offset
    probs = torch.softmax(below, dim=-1, out=spare)
    log_total = -probs.gather(-1, top_token[..., :1])[..., 0].log()  # the largest has exp(0) over the total
    mean = _dots(probs, below)
    cross = torch.stack([probs[:, i] @ row for i, row in enumerate(final)], dim=1)
    found["entropy"] = (log_total - mean).clamp_min_(0)
    found["kl_to_final"] = (mean - log_total - cross).clamp_min_(0)
    found["target_surprisal"] = (largest - target)[..., 0] + log_total
    found["target_prob"] = (-found["target_surprisal"]).exp()
    found["top_prob"] = (top_logit - largest - log_total[..., None]).exp()
    found["agrees"] = (top_token[..., 0] == final.argmax(-1)).to(torch.int32)
    return found


def _dots(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Sum over the last axis of the product, row by row: it makes no product of that size, and takes a third of the
    time."""
    rows = zip(one.flatten(0, -2), other.flatten(0, -2), strict=True)
    return torch.stack([x @ y for x, y in rows]).view(one.shape[:-1])


def _top(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest logits and their ids, highest first.

    Two levels, since a plain topk over a vocabulary is slow: the k best blocks by their largest entry hold the k best
    entries.
    """
    *lead, d_vocab = logits.shape
    if d_vocab % _BLOCK or d_vocab // _BLOCK <= k:
        return logits.topk(min(k, d_vocab), dim=-1)
    blocks = logits.view(*lead, d_vocab // _BLOCK, _BLOCK)
    best = blocks.amax(-1).topk(k, dim=-1).indices
    within = blocks.gather(-2, best[..., None].expand(*best.shape, _BLOCK)).flatten(-2)
    values, at = within.topk(k, dim=-1)
    return values, best.gather(-1, at // _BLOCK) * _BLOCK + at % _BLOCK


def _states(observation: Observation, at: tuple[int, ...], include_mid: bool) -> tuple[torch.Tensor, list[float]]:
    """States `[depth, pos, d_model]` of the one prompt, and their depths."""
    found = [observation[need][:, 0] for need in _needs(at, include_mid)]
    n = observation.sizes.n_layers
    if not include_mid:
        return torch.cat(found[:2]), list(range(n + 1))
    embedding, after, mid = found
    between = torch.stack([mid, after], dim=1).flatten(0, 1)
    return torch.cat([embedding, between]), [half / 2 for half in range(2 * n + 1)]


def _targets(observation: Observation, last: torch.Tensor, at: Sequence[int], target: str | None) -> torch.Tensor:
    """Token ids to follow, `[pos]`."""
    if target is not None:
        return torch.full((len(at),), need_one_token(observation.vocabulary, target, _FOR))
    ids = observation.tokens[0].ids
    return torch.tensor(
        [
            ids[p + 1] if p + 1 < len(ids) else int(observation.readout.logits(last[i]).argmax())
            for i, p in enumerate(at)
        ]
    )


def _variables(found: dict[str, torch.Tensor], top_text: np.ndarray) -> dict[str, Any]:
    cell, ranked = "depth pos", "depth pos rank"
    variables = {
        "top_token": (ranked, found["top_token"], "token id", (0, None)),
        "top_text": (ranked, top_text, "text", None),
        "top_prob": (ranked, found["top_prob"], "probability", (0, 1), "probability of the top tokens"),
        "target_prob": (cell, found["target_prob"], "probability", (0, 1), "probability of the target"),
        "target_surprisal": (cell, found["target_surprisal"], "nats", (0, None), "surprisal of the target"),
        "target_rank": (cell, found["target_rank"], "rank, 1 is the top", (1, None), "rank of the target"),
        "entropy": (cell, found["entropy"], "nats", (0, None)),
        "kl_to_final": (cell, found["kl_to_final"], "nats", (0, None), "KL to the final distribution"),
        "agrees": (cell, found["agrees"], "0 or 1", (0, 1), "top token is the final one"),
    }
    if "logit_difference" in found:
        variables["logit_difference"] = (cell, found["logit_difference"], "logits", None, "target minus against")
    return variables


def _summary(found: dict[str, torch.Tensor], names: dict[int, str], depths: list[float], at: Sequence[int]) -> str:
    """One sentence with its numbers for the last chosen position."""
    top = found["top_token"][:, -1, 0].tolist()
    since = len(top) - 1
    while since and top[since - 1] == top[-1]:
        since -= 1
    prob = float(found["top_prob"][-1, -1, 0])
    return (
        f"At position {at[-1]} the top token is {names[top[-1]]!r} (p = {prob:.2f}), from depth {depths[since]:g} on."
    )


def _window(at: Sequence[int], n_tokens: int) -> str:
    """What is said of positions that were left out."""
    return "" if len(at) == n_tokens else f" Read out at {len(at)} of {n_tokens} positions, {at[0]} to {at[-1]}."


@reads("logit-lens")
def lens_figure(result: xr.Dataset) -> "go.Figure":
    """Depth x position grid: the top token of every cell, coloured by its probability."""
    from workbench.figures import depth_pos_grid

    return depth_pos_grid(
        result.assign(top_one=result["top_prob"].isel(rank=0, drop=True).assign_attrs(result["top_prob"].attrs)),
        "top_one",
        title="Logit lens: top token at each depth",
        text="top_text",
        text_value="top_prob",
    )


def entropy_figure(result: xr.Dataset) -> "go.Figure":
    """Depth x position grid of the entropy."""
    from workbench.figures import depth_pos_grid

    return depth_pos_grid(result, "entropy", title="Entropy of the lens", text="top_text", text_value="top_prob")


def target_figure(result: xr.Dataset) -> "go.Figure":
    """Depth x position grid of the target's rank, on a log scale."""
    from workbench.figures import depth_pos_grid

    return depth_pos_grid(result, "target_rank", title="Rank of the target", scale="rank", text="top_text")


def top_tokens_figure(result: xr.Dataset, selection: dict[str, Any]) -> "go.Figure | None":
    """The full list of top tokens of the selected cell, with probabilities."""
    from workbench.figures import bars, show_token

    pos, depth = selection.get("pos"), selection.get("depth")
    depth = float(result["depth"][-1]) if depth is None else depth
    if pos not in result["pos"].values or depth not in result["depth"].values:
        return None  # never the tokens of another cell than the selected one; the sentence says what was read out
    cell = result.sel(pos=pos, depth=depth)
    labels = [f"{rank + 1} {show_token(str(text), html=False)}" for rank, text in enumerate(cell["top_text"].values)]
    at = f"depth {float(cell['depth']):g}, position {int(cell['pos'])}"
    return bars(cell.reset_coords(drop=True), "top_prob", "rank", labels=labels, title=f"Top tokens at {at}")


VIEW = View(
    LogitLens,
    question="What would the model say if it stopped at each depth?",
    asks=(
        Ask("target", "Follow", empty="the next token"),
        Ask("against", "rather than", empty="none"),
        Ask("positions", "at tokens"),
    ),
    figures=(lens_figure, target_figure, entropy_figure),
    details=(top_tokens_figure,),
    claims=(claims.state,),
    around=around,
)
