"""Surprisal: how unexpected each token of the prompt was, and what the model expected instead."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
import xarray as xr

from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import Ask, View, chosen
from workbench.models.hooks import LOGITS
from workbench.models.model import Model
from workbench.models.prompt import Tokens
from workbench.observation import Need, Observation, Site

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "Surprisal", "entropy_figure", "next_figure", "next_tokens", "surprisal_figure"]

_ROWS = 32  # positions whose distribution is held at a time


class Surprisal(OnPrompt, name="surprisal", title="Surprisal"):
    """How unexpected each token of the prompt was, and what the model expected instead.

    Definition: surprisal(pos) = -log p(token at pos | tokens before it), in nats; exp of its mean is the perplexity.
    Position 0 has nothing before it and no number. Beside it the tokens the model would put next, with their
    probabilities, and the entropy (nats) of that distribution.

    Limits: A low number says that the token was expected here, not why.

    Source: the model's own output

    Returns: `surprisal`, `entropy` (pos), nats; `next_prob`, `next_token`, `next_text` (pos, rank).
    """

    top_k: Annotated[int, Range(1, 100), "next tokens listed"] = 10

    def needs(self, model: Model, tokens: Tokens) -> tuple[Need, ...]:
        """The final logits, reduced inside the pass."""
        return (_need(min(self.top_k, model.sizes.d_vocab)),)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """What the pass found, with the tokens by name."""
        top_k = min(self.top_k, observation.sizes.d_vocab)
        found = observation[_need(top_k)][0]
        ids = found[:, 2 + top_k :].long()
        names = {int(i): observation.vocabulary.string(i) for i in ids.unique()}
        return dataset(
            observation,
            surprisal=("pos", found[:, 0], "nats", (0, None), "surprisal of the token"),
            entropy=("pos", found[:, 1], "nats", (0, None), "entropy of the next token"),
            next_prob=("pos rank", found[:, 2 : 2 + top_k], "probability", (0, 1), "probability of the next token"),
            next_token=("pos rank", ids, "token id", (0, None)),
            next_text=("pos rank", [[names[int(i)] for i in row] for row in ids], "text", None),
        ).assign_attrs(
            summary=_summary(found[:, 0], observation.tokens[0].strings, names[int(ids[-1, 0])], float(found[-1, 2]))
        )


def next_tokens(logits: torch.Tensor, site: Site, k: int) -> torch.Tensor:
    """Surprisal of each token, entropy after it, and the k most probable next tokens.

    logits: `[batch, pos, d_vocab]`. Returns `[batch, pos, 2 + 2 * k]`: surprisal and entropy (nats), k probabilities,
    k token ids (exact in float32 below 2**24).
    """
    n_pos = logits.shape[1]
    found = torch.full((*logits.shape[:2], 2 + 2 * k), torch.nan, dtype=torch.float32)
    for first in range(0, n_pos, _ROWS):
        rows = slice(first, min(first + _ROWS, n_pos))
        log_probs = logits[:, rows].float().log_softmax(-1)
        top = log_probs.topk(k, dim=-1)
        found[:, rows, 1] = torch.special.entr(log_probs.exp()).sum(-1).cpu()
        found[:, rows, 2 : 2 + k] = top.values.exp().cpu()
        found[:, rows, 2 + k :] = top.indices.float().cpu()
        following = slice(rows.start + 1, min(rows.stop + 1, n_pos))
        ids = site.tokens[:, following, None]
        found[:, following, 0] = -log_probs[:, : ids.shape[1]].gather(-1, ids)[..., 0].cpu()
    return found


def _need(k: int) -> Need:
    return Need((LOGITS,), next_tokens, dims="pos rank", params={"k": k})


def _summary(values: torch.Tensor, strings: Sequence[str], best: str, probability: float) -> str:
    told = f"Next: {best!r} (p = {probability:.2f})."
    if len(values) > 1:
        worst = int(values[1:].argmax()) + 1
        told += f" Most surprising: token {worst} {strings[worst]!r} ({float(values[worst]):.2f} nats)"
        mean = float(values[1:].sum()) / (len(values) - 1)
        told += f"; {mean:.2f} nats on average." if len(values) > 2 else "."
    return told


def surprisal_figure(result: xr.Dataset) -> "go.Figure":
    """One bar per token."""
    from workbench.figures import token_strip

    return token_strip(result, "surprisal", title="Surprisal of each token")


def entropy_figure(result: xr.Dataset) -> "go.Figure":
    """One bar per token."""
    from workbench.figures import token_strip

    return token_strip(result, "entropy", title="Entropy of the next token")


def next_figure(result: xr.Dataset, selection: Mapping[str, Any]) -> "go.Figure | None":
    """What the model expected after the selected token."""
    from workbench.figures import bars, show_token

    at = chosen(result, selection, "pos")
    if at is None:
        return None
    row = result.sel(pos=at[0]).reset_coords(drop=True)
    labels = [f"{rank + 1} {show_token(str(text), html=False)}" for rank, text in enumerate(row["next_text"].values)]
    return bars(row, "next_prob", "rank", labels=labels, title=f"Expected after token {at[0]}")


VIEW = View(
    Surprisal,
    question="Which tokens did the model not expect, and what did it expect instead?",
    asks=(Ask("top_k", "List the", unit="likeliest tokens"),),
    figures=(surprisal_figure, entropy_figure),
    details=(next_figure,),
)
