"""Head table: every head's scores side by side, from one pass."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.attention.induction.repeat_attention import AT_LAG
from probes.attention.induction.sentences import strongest
from probes.attention.sinks.measures import mean_known, median_after, received, sink_threshold, value_norm, windowed
from probes.attention.sinks.samples import natural_samples, random_samples
from probes.checks import claims
from probes.stimuli import LENGTH, repeated_tokens
from workbench.analysis.kinds import OnModel, Stimulus
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.figures import head_name
from workbench.models.hooks import PATTERN, V, Z
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PARTS, ROWS, VISIBLE
from workbench.observation import Need, Observation, Site
from workbench.observation.reducers import head_output_norm
from workbench.statistics import bootstrap_interval
from workbench.words import counted

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["VIEW", "HeadTable", "entropy_figure", "output_figure", "row_entropy", "sink_figure", "table"]

_SHARE = "share of attention"
_KINDS = {  # name: units, range, long name
    "induction_score": (_SHARE, (0, 1), "induction score"),
    "previous_token_score": (_SHARE, (0, 1), "previous-token score"),
    "duplicate_token_score": (_SHARE, (0, 1), "duplicate-token score"),
    "first_received": (_SHARE, (0, 1), "attention received by position 0 (alpha)"),
    "sink_rate": ("share of texts", (0, 1), "texts in which the head sinks"),
    "value_drain": ("times the median", (0, None), "norm of v W_O at position 0"),
    "entropy": ("share of uniform", (0, 1), "entropy of attention rows"),
    "output_norm": ("residual units", (0, None), "norm of the head's output"),
    "output_share": ("share of the layer", (0, 1), "output norm among the layer's heads"),
}


def row_entropy(pattern: torch.Tensor, site: Site) -> torch.Tensor:
    """Entropy of attention rows over that of uniform attention, mean over queries >= 1: (batch, head), 0 to 1."""
    pattern = pattern.float()
    if site.weights.sinks is not None:  # a learned sink leaves rows less than 1: of what the tokens get
        pattern = pattern / pattern.sum(-1, keepdim=True).clamp(min=1e-9)
    nats = torch.special.entr(pattern).sum(-1)[..., 1:]  # batch head query
    visible = torch.arange(2, pattern.shape[-2] + 1, device=pattern.device)
    queries = site.mask[:, None, 1:]
    return (nats / visible.log()).masked_fill(~queries, 0.0).sum(-1) / queries.sum(-1)


_RECEIVED = Need((PATTERN,), received, dims="head key", params={"first": 0})
_ENTROPY = Need((PATTERN,), row_entropy, dims="head")
_VALUES = Need((V,), value_norm, dims="head pos")
_OUTPUT = Need((Z,), head_output_norm, dims="head")
_ON_TEXTS = (_RECEIVED, _ENTROPY, _VALUES, _OUTPUT)


class HeadTable(OnModel, name="head-table", title="Table of all heads", requires=(ROWS, PARTS, VISIBLE)):
    """Every head's scores side by side: where it looks, whether it sinks, how much it adds.

    Definition: Induction, previous-token and duplicate-token score on repeated random tokens (the scores of
    induction-heads); on natural text alpha of position 0, share of texts that sink (by the rule of attention-sinks),
    value drain, entropy of rows over uniform ones, and norm of the output. Entropy: mean over queries q >= 1 of the
    entropy of row q over ln(q + 1): 0 looks at one token, 1 at all alike. Output norm: mean over positions >= 1 of the
    norm of z W_O; output share: that over the sum of its layer's heads.

    Limits: Two stimuli: scores of different columns are means over different tokens. No score says that a head matters:
    ablate it. A head that sinks everywhere with a small output may be idle; a small entropy may only be a sink.

    Source: arXiv 2209.11895 (Olsson et al. 2022), arXiv 2410.10781 (Gu et al. 2024), arXiv 2410.13835 (Guo et al.
    2024), arXiv 2303.06296 (Zhai et al. 2023: entropy of attention rows; dividing by that of uniform attention is ours)

    Returns: Nine scores (layer, head), each with the ends of a 95 % interval over 16 or more sequences or texts, `_low`
    and `_high`: `induction_score`, `previous_token_score`, `duplicate_token_score`, `first_received`, `sink_rate`,
    `value_drain`, `entropy`, `output_norm`, `output_share`.
    """

    n_sequences: Annotated[int, Range(2, 1024), "repeated sequences, and as many without a repeat"] = 16
    texts: Annotated[int, Range(2, 1024), "natural texts"] = 24
    epsilon: Annotated[float, Range(0.0, 1.0), "alpha above which a head sinks"] = 0.3
    seed: Annotated[int, Range(0, 2**31 - 1), "draws the stimulus and resamples"] = 0

    def stimulus(self, model: Model, progress: Progress | None = None) -> Stimulus:
        """The sequences of induction-heads, then natural texts of that length (random tokens without a tokenizer).

        fields: `period` and `lag` as there (a text has period 0 and a lag that is not used), `is_text`.
        """
        repeats = repeated_tokens(model, n_sequences=self.n_sequences, length=LENGTH, seed=self.seed)
        make = random_samples if model.tokenizer is None else natural_samples
        length = len(repeats.tokens[0])
        start = list(model.vocabulary.prefix)
        found = tuple(make(model, start, self.texts, length, "prose", np.random.default_rng(self.seed)))
        lag, period = repeats.fields["lag"], repeats.fields["period"]
        fields = {
            "lag": torch.cat([lag, lag.new_full((len(found),), length // 2)]),
            "period": torch.cat([period, period.new_zeros(len(found))]),
            "is_text": torch.arange(len(lag) + len(found)) >= len(lag),
        }
        return Stimulus((*repeats.tokens, *found), fields)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Its sequences and texts, and a third more for the intervals and tests."""
        return 1.3 * (2 * self.n_sequences + self.texts) * (1 + LENGTH) / SHORT

    def needs(self, model: Model, tokens: Sequence[Tokens]) -> tuple[Need, ...]:
        """The attention of induction-heads at its lags, alpha, entropy, and the norms of values and outputs."""
        return (AT_LAG, *_ON_TEXTS)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """All scores with their intervals."""
        is_text = observation.fields["is_text"].cpu().numpy()
        repeated = observation.fields["period"].cpu().numpy() > 0
        samples = _on_repeats(observation, repeated) | _on_texts(observation, is_text, self.epsilon)
        found: dict[str, Any] = {}
        for name, values in samples.items():  # prompt layer head
            units, bounds, title = _KINDS[name]
            units = observation.weights(0).written_units if name == "output_norm" else units
            low, high = bootstrap_interval(values, seed=self.seed, bounds=bounds)
            found |= {
                name: ("layer head", mean_known(values, 0), units, bounds, title),
                f"{name}_low": ("layer head", low, units, bounds, f"{title}, lower end"),
                f"{name}_high": ("layer head", high, units, bounds, f"{title}, upper end"),
            }
        length = max(len(t) for t, text in zip(observation.tokens, is_text, strict=True) if text)
        convention = (
            f"T = {length}, {'BOS counted' if observation.tokens[0].bos else 'no BOS'}, epsilon = {self.epsilon:g}"
            f", n = {int(is_text.sum())}"
        )
        result = dataset(observation, **found)
        texts = "texts" if observation.vocabulary.tokenizer is not None else "sequences of random tokens"
        on_texts = f"{int(is_text.sum())} {texts} of {length} tokens"
        summary = _summary(result, int(repeated.sum()), on_texts, _bar(length, self.epsilon))
        return result.assign_attrs(convention=convention, summary=summary)


def _on_repeats(observation: Observation, repeated: np.ndarray) -> dict[str, np.ndarray]:
    """The three scores of the repeated sequences, (prompt, layer, head)."""
    scores = observation[AT_LAG].cpu().numpy()[:, repeated]  # layer prompt head component
    names = ("induction_score", "previous_token_score", "duplicate_token_score")
    return {name: np.moveaxis(scores[..., slot], 1, 0) for slot, name in enumerate(names)}


def _on_texts(observation: Observation, is_text: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    """The other scores of the texts, (prompt, layer, head)."""
    seen = {need: observation[need].cpu().numpy()[:, is_text].swapaxes(0, 1) for need in _ON_TEXTS}
    length = max(len(t) for t, text in zip(observation.tokens, is_text, strict=True) if text)
    alpha = seen[_RECEIVED][..., 0].copy()  # prompt layer head
    entropy = seen[_ENTROPY].copy()
    blind = windowed(observation.sizes, length)
    alpha[:, blind], entropy[:, blind] = np.nan, np.nan  # rows there see fewer keys than the entropy is divided by
    norms = seen[_VALUES][..., :length]
    median, size = median_after(norms, 0), seen[_OUTPUT]
    total = size.sum(-1, keepdims=True)
    return {
        "first_received": alpha,
        "sink_rate": np.where(np.isnan(alpha), np.nan, alpha > sink_threshold(length, epsilon)),
        "value_drain": norms[..., 0] / np.where(median > 0, median, np.nan),
        "entropy": entropy,
        "output_norm": size,
        "output_share": size / np.where(total > 0, total, np.nan),
    }


def _bar(length: int, epsilon: float) -> str:
    """Above which alpha a head sinks on texts of that length: what was asked for, unless uniform attention is near."""
    least = sink_threshold(length, epsilon)
    return (
        f"alpha above {epsilon:g}" if least == epsilon else f"alpha above {least:.2g}, twice that of uniform attention"
    )


def _summary(result: xr.Dataset, n_sequences: int, on_texts: str, bar: str) -> str:
    """The largest of some columns, and on which stimulus; a column without a number is left out. bar: of a sink."""
    looks = (
        _extreme(result, "induction_score", "the largest induction score"),
        _extreme(result, "previous_token_score", "the largest previous-token score"),
        _extreme(result, "duplicate_token_score", "the largest duplicate-token score"),
    )
    sinks = result["sink_rate"].values
    known, most = int((~np.isnan(sinks)).sum()), int((sinks > 0.5).sum())
    texts = (
        f"{most} of {counted(known, 'head')} {'sinks' if most == 1 else 'sink'} in more than half ({bar})"
        if known
        else "",
        _extreme(result, "entropy", "the lowest entropy", lowest=True),
        _extreme(result, "output_norm", "the largest output"),
    )
    said = []
    for on, parts in ((f"{n_sequences} sequences of random tokens that repeat", looks), (on_texts, texts)):
        if any(parts):
            said.append(f"On {on}: {', '.join(filter(None, parts))}.")
    if hidden := sinks.size - known:
        why = "where a window is shorter than the texts, their first token is out of sight"
        said.append(f"Of {counted(hidden, 'head')} neither sink nor entropy is told: {why}.")
    return " ".join(said)


def _extreme(result: xr.Dataset, name: str, what: str, lowest: bool = False) -> str:
    """`the largest induction score is that of L2H1 (0.62)`; nothing where no head has one."""
    at = strongest(-result[name] if lowest else result[name])
    if at is None:
        return ""
    return f"{what} is that of {head_name(*at)} ({float(result[name].sel(layer=at[0], head=at[1])):.2g})"


@reads("head-table")
def table(result: xr.Dataset) -> "pd.DataFrame":
    """One row per head, by name (L18H6), one column per score: to sort, filter and export."""
    frame = result[list(_KINDS)].to_dataframe().reset_index()
    names = [f"L{layer}H{head}" for layer, head in zip(frame["layer"], frame["head"], strict=True)]
    return frame.set_axis(names, axis=0).rename_axis("name")


def output_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the output norm, on a log scale."""
    from workbench.figures import heads_grid

    return heads_grid(
        result, "output_norm", title=f"Norm of a head's output ({result.attrs['convention']})", scale="log"
    )


def entropy_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the entropy."""
    from workbench.figures import heads_grid

    return heads_grid(result, "entropy", title=f"How many tokens a head looks at ({result.attrs['convention']})")


def sink_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the share of texts in which a head sinks."""
    from workbench.figures import heads_grid

    return heads_grid(result, "sink_rate", title=f"Texts in which a head sinks ({result.attrs['convention']})")


VIEW = View(
    HeadTable,
    question="What does each head do: where does it look, does it sink, how much does it add?",
    asks=(
        Ask("n_sequences", "Score all heads on", unit="repeated sequences"),
        Ask("texts", "and on", unit="texts"),
    ),
    figures=(sink_figure, entropy_figure, output_figure),
    claims=(claims.head,),
    tables=(table,),
)
