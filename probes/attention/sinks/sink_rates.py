"""Sink rates: how many heads of a model sink, over natural text, random tokens and one repeated token."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.attention.sinks.measures import (
    MOST_UNIFORM,
    mean_known,
    own_attention,
    received,
    received_by_others,
    sink_threshold,
    windowed,
)  # fmt: skip
from probes.attention.sinks.samples import natural_samples, random_samples, repeated_samples
from probes.checks import claims
from workbench.analysis.kinds import OnModel, Stimulus
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, Claim, View, chosen, reads
from workbench.errors import InputError
from workbench.models.hooks import PATTERN
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import ROWS, VISIBLE
from workbench.observation import Need, Observation
from workbench.statistics import bootstrap_interval
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["CONDITIONS", "VIEW", "SinkRates", "heads_figure", "layers_figure", "rates_figure", "sink_claim"]

CONDITIONS = (
    "natural text after BOS", "natural text", "random tokens after BOS", "random tokens", "repeated token after BOS",
    "repeated token",
)  # fmt: skip
_MAKING = 0.2  # of the whole work: making the samples, most of it tokenising
_RECEIVED = Need((PATTERN,), received, dims="head key", params={"first": 0})
_OWN = Need((PATTERN,), own_attention, dims="head key", params={"first": 0})


class SinkRates(OnModel, name="sink-rates", title="Sink rates of the model", requires=(ROWS, VISIBLE)):
    """How many heads of the model sink, on which kind of text.

    Definition: Sink_k = mean over samples, layers and heads of 1[alpha_k > epsilon] (positions from 0 here: Sink_1 is k
    = 0; there alpha must also exceed twice H_T / T, what uniform attention gives), with alpha as in attention-sinks, on
    natural text, random tokens and one repeated token, samples of exactly T tokens each, with a BOS token in front,
    counted among them, and without. Intervals are bootstrap-t over samples, from 16 on. Keys other than the first count
    by the stricter rule of attention-sinks. Layers whose sliding window is shorter than T enter no mean.

    Limits: Falls with T and epsilon, which stand in every title: never compare across them. A share of heads, not of
    attention. Repeated tokens without BOS have identical states in a model with rotary positions, so nothing tells the
    first one apart and the sink disappears.

    Source: arXiv 2410.10781 (Gu et al. 2024: Sink_k, T = 64, epsilon = 0.3, 100 samples). Conditions with BOS differ
    from theirs for models whose tokenizer adds none.

    Returns: Sink_1 by condition with an interval over samples, by layer and by head; Sink_k for every key: `sink_rate`
    (group), `layer_sink_rate` (group, layer), `head_sink_rate` (group, layer, head), each with `_low` and `_high`;
    `first_received` (group, layer, head), the mean alpha of position 0; `sink_at` (group, key); `n_samples` (group).
    """

    samples: Annotated[int, Range(2, 1000), "samples of each condition (the paper: 100)"] = 32
    length: Annotated[int, Range(2, 4096), "T, tokens of a sample, BOS included"] = 64
    epsilon: Annotated[float, Range(0.0, 1.0), "alpha above which a head sinks"] = 0.3
    text: Annotated[str, Choice(("prose", "code")), "where natural text comes from"] = "prose"
    seed: Annotated[int, Range(0, 2**31 - 1), "draws samples and resamples"] = 0

    def stimulus(self, model: Model, progress: Progress | None = None) -> Stimulus:
        """`samples` prompts of `length` tokens for each condition that the model's tokenizer allows.

        Without a tokenizer there is neither text nor BOS. Documents shorter than that are skipped; the first prompt of
        a condition carries their names in its notes. fields: `condition`, an index into CONDITIONS.
        """
        if np.isnan(sink_threshold(self.length, self.epsilon)):
            got = f"length={self.length}, where uniform attention already gives position 0 more than {MOST_UNIFORM:g}"
            raise InputError(got, "a length that tells a sink from uniform attention", "Take longer samples")
        if self.length > model.sizes.n_ctx:
            raise InputError(f"length={self.length}", f"at most n_ctx = {model.sizes.n_ctx}", "Take shorter samples")
        random = np.random.default_rng(self.seed)
        front = list(model.vocabulary.front)
        prompts: list[Tokens] = []
        conditions: list[int] = []
        for kind, make in enumerate((natural_samples, random_samples, repeated_samples)):
            for start in (front, []) if front else ([],):
                drawn = np.random.default_rng(random.integers(2**31))
                found = list(make(model, start, self.samples, self.length, self.text, drawn))
                condition = 2 * kind + (not start)
                prompts += found
                conditions += [condition] * len(found)
                if progress is not None:
                    progress(_MAKING * ((condition + 1) / len(CONDITIONS)))
        return Stimulus(tuple(prompts), {"condition": torch.tensor(conditions)}, took=_MAKING)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """The samples of every condition."""
        return len(CONDITIONS) * self.samples * self.length / SHORT

    def needs(self, model: Model, tokens: Sequence[Tokens]) -> tuple[Need, ...]:
        """alpha of every key, with the query's own share beside it; equal to what attention-sinks asks for."""
        return (_RECEIVED, _OWN)

    def analyse(self, observation: Observation) -> xr.Dataset:
        """Sink_1 by condition, by layer and by head; Sink_k for every key."""
        alpha = observation[_RECEIVED].cpu().numpy().copy()  # layer prompt head key
        own = observation[_OWN].cpu().numpy()
        alpha[windowed(observation.sizes, self.length)] = np.nan
        at_first = _flags(alpha[..., 0], sink_threshold(self.length, self.epsilon))  # layer prompt head
        others = _flags(received_by_others(alpha, own), self.epsilon)
        condition = observation.fields["condition"].cpu().numpy()
        groups = sorted(set(condition.tolist()))
        parts = [_condition(at_first[:, condition == g], alpha[..., 0][:, condition == g], self.seed) for g in groups]
        at = np.stack([mean_known(others[:, condition == g], (0, 1, 2)) for g in groups])
        at[:, 0] = [part["sink_rate"] for part in parts]
        stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        counts = np.array([(condition == g).sum() for g in groups])
        result = dataset(
            observation,
            coords={"group": [CONDITIONS[g] for g in groups]},
            **{name: _spec(name, values) for name, values in stacked.items()},
            sink_at=("group key", at, "share of heads", (0, 1), "heads that sink on this key"),
            n_samples=("group", counts, "samples", (0, None), "samples"),
        )
        skipped = " ".join(note for tokens in observation.tokens for note in tokens.notes if "skipped" in note)
        textless = observation.vocabulary.tokenizer is not None and not {0, 1} & set(groups)
        if textless:
            skipped = f"No text of {self.text} has {self.length} tokens: natural text is left out."
        convention = f"T = {self.length}, BOS counted, epsilon = {self.epsilon:g}, n = {counts.min()} samples"
        return result.assign_attrs(
            convention=convention,
            skipped=skipped or "no text was too short",
            summary=f"{_summary(result)}{f' {skipped}' if textless else ''}",
        )


def _summary(result: xr.Dataset) -> str:
    """The rate of every condition with its interval."""
    rate, low, high = (result[f"sink_rate{end}"].values for end in ("", "_low", "_high"))
    unknown = int(np.isnan(result["layer_sink_rate"].values).all(0).sum())
    why = "where a window is shorter than the samples, position 0 is out of sight"
    if unknown == result.sizes["layer"]:
        return f"Of no layer it is told how many heads sink on position 0: {why}."
    said = [
        f"{value:.0%}{f' [{a:.0%}, {b:.0%}]' if np.isfinite(a) else ''} on {name}"
        for name, value, a, b in zip(result["group"].values, rate, low, high, strict=True)
    ]
    n = int(result["n_samples"].min())
    left = f" {counted(unknown, 'layer')} left out: {why}." if unknown else ""
    return f"Heads that sink on position 0, by condition of {n} or more samples: {', '.join(said)}.{left}"


def _flags(alpha: np.ndarray, epsilon: float) -> np.ndarray:
    return np.where(np.isnan(alpha), np.nan, alpha > epsilon)


def _condition(sink: np.ndarray, alpha: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Means over samples with intervals. sink, alpha: (layer, prompt, head)."""
    sink, alpha = np.moveaxis(sink, 1, 0), np.moveaxis(alpha, 1, 0)  # prompt layer head
    samples = {"sink_rate": mean_known(sink, (1, 2)), "layer_sink_rate": mean_known(sink, 2), "head_sink_rate": sink}
    found: dict[str, np.ndarray] = {}
    for name, values in samples.items():
        low, high = bootstrap_interval(values, seed=seed, bounds=(0, 1))
        found |= {name: mean_known(values, 0), f"{name}_low": low, f"{name}_high": high}
    return {**found, "first_received": mean_known(alpha, 0)}


def _spec(name: str, values: np.ndarray) -> tuple[Any, ...]:
    dims = ("group", "group layer", "group layer head")[values.ndim - 1]
    if name == "first_received":
        return (dims, values, "share of attention", (0, 1), "attention received by position 0 (alpha)")
    kind = "samples in which the head sinks" if name.startswith("head") else "heads that sink on position 0"
    ending = {"low": ", lower end", "high": ", upper end"}.get(name.rsplit("_", 1)[1], "")
    return (dims, values, "share of samples" if name.startswith("head") else "share of heads", (0, 1), kind + ending)


@reads("sink-rates")
def rates_figure(result: xr.Dataset) -> "go.Figure":
    """Sink_1 of every condition, with its interval."""
    from workbench.figures import bars

    return bars(result, "sink_rate", "group", title=f"Share of heads that sink ({result.attrs['convention']})")


def layers_figure(result: xr.Dataset) -> "go.Figure":
    """Share of heads that sink in each layer, one line for each condition."""
    from workbench.figures import series

    title = f"Share of heads that sink, by layer ({result.attrs['convention']})"
    return series(result, "layer_sink_rate", "layer", by="group", title=title)


def heads_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the share of samples in which a head sinks, in the first condition."""
    from workbench.figures import heads_grid

    condition = str(result["group"].values[0])
    title = f"Samples in which a head sinks: {condition} ({result.attrs['convention']})"
    return heads_grid(result.isel(group=0), "head_sink_rate", title=title)


def sink_claim(result: xr.Dataset, selection: Mapping[str, Any]) -> Claim | None:
    """Position 0 serves as a sink of the selected head: where it is hidden, the prediction becomes another."""
    at = chosen(result, selection, "layer", "head")
    if at is None or not float(result["head_sink_rate"].isel(group=0).sel(layer=at[0], head=at[1])) > 0.5:
        return None
    return claims.sink(result, selection, 0)


VIEW = View(
    SinkRates,
    question="How many of the model's heads dump their attention on the first token, and on which kind of text?",
    asks=(
        Ask("samples", "Take", unit="samples of each kind"),
        Ask("length", "of", unit="tokens"),
        Ask("text", "of"),
    ),
    figures=(rates_figure, layers_figure, heads_figure),
    claims=(sink_claim, claims.head),
)
