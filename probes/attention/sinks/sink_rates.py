"""Sink rates: how many heads of a model sink, over natural text, random tokens and one repeated token.

    Sink_k = mean over samples, layers and heads of 1[alpha_k > epsilon]        (positions from 0 here: Sink_1 is k = 0)

with alpha as in `attention-sinks`, on samples of exactly T tokens, a BOS token in front counted among them, and once
more without it. The share falls with T and epsilon, which stand in every title. Repeated tokens without BOS have
identical states in a model with rotary positions, so nothing tells the first one apart and the sink disappears.

Intervals are percentile bootstraps over samples. Keys other than the first count by the stricter rule of
`attention-sinks`. Layers whose sliding window is shorter than T enter no mean.

Source: Gu et al. 2024, arXiv 2410.10781 (Sink_k, T = 64, epsilon = 0.3, 100 samples). Conditions with BOS differ from
theirs for models whose tokenizer adds none.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from probes.attention.sinks.attention_sinks import mean_known, own_attention, received, received_by_others, windowed
from probes.checks import claims
from workbench import PATTERN, Entry, InputError, Need, Observation, Param, Prompt, Readout, Stimulus, dataset, tokenise
from workbench.corpora import Document, python_domains
from workbench.statistics import bootstrap_interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.analysis.legacy import Claim
    from workbench.models.model import Model
    from workbench.models.prompt import Tokens

__all__ = [
    "CONDITIONS",
    "ENTRY",
    "heads_figure",
    "layers_figure",
    "natural_samples",
    "needs",
    "random_samples",
    "rates_figure",
    "repeated_samples",
    "sink_rates",
    "stimulus",
]

CONDITIONS = (
    "natural text after BOS", "natural text", "random tokens after BOS", "random tokens", "repeated token after BOS",
    "repeated token",
)  # fmt: skip
_RECEIVED = Need((PATTERN,), received, dims="head key", params={"first": 0})
_OWN = Need((PATTERN,), own_attention, dims="head key", params={"first": 0})


def stimulus(
    model: "Model",
    *,
    samples: int = 32,
    length: int = 64,
    epsilon: float = 0.3,
    text: str = "prose",
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Stimulus:
    """`samples` prompts of `length` tokens for each condition that the model's tokenizer allows.

    Without a tokenizer there is neither text nor BOS. Documents shorter than that are skipped; the first prompt of a
    condition carries their names in its notes. fields: `condition`, an index into CONDITIONS.
    """
    if length > model.sizes.n_ctx:
        raise InputError(f"length={length}", f"at most n_ctx = {model.sizes.n_ctx}", "Take shorter samples")
    random = np.random.default_rng(seed)
    bos = getattr(model.tokenizer, "bos_token_id", None)
    prompts: list[Tokens] = []
    conditions: list[int] = []
    for kind, make in enumerate((natural_samples, random_samples, repeated_samples)):
        for start in ([bos], []) if bos is not None else ([],):
            found = list(make(model, start, samples, length, text, np.random.default_rng(random.integers(2**31))))
            prompts += found
            conditions += [2 * kind + (not start)] * len(found)
            progress((2 * kind + (not start) + 1) / len(CONDITIONS))
    return Stimulus(tuple(prompts), {"condition": torch.tensor(conditions)})


def natural_samples(model, start: list[int], samples: int, length: int, text: str, random) -> "Iterator[Tokens]":
    """`start` and the first tokens of documents of a bundled domain, in a drawn order; `length` tokens each."""
    if model.tokenizer is None:
        return
    documents = python_domains()[text].documents
    kept: list[tuple[Document, list[int]]] = []
    skipped: list[str] = []
    for index in random.permutation(len(documents)):
        ids = model.tokenizer.encode(documents[index].text, add_special_tokens=False)[: length - len(start)]
        if len(ids) + len(start) < length:
            skipped.append(documents[index].name)
        elif len(kept) < samples:
            kept.append((documents[index], ids))
    note = f"{len(skipped)} texts shorter than {length} tokens were skipped: {', '.join(sorted(skipped))}"
    for row, (document, ids) in enumerate(kept):
        notes = (str(document), *((note,) if skipped and row == 0 else ()))
        yield replace(tokenise(model, Prompt.ids([*start, *ids])), notes=notes)


def random_samples(model, start: list[int], samples: int, length: int, text: str, random) -> "Iterator[Tokens]":
    """`start` and tokens drawn uniformly from all but special ones."""
    for row in random.choice(_ordinary(model), (samples, length - len(start))):
        yield tokenise(model, Prompt.ids([*start, *row.tolist()]))


def repeated_samples(model, start: list[int], samples: int, length: int, text: str, random) -> "Iterator[Tokens]":
    """`start` and one token over and over, another one in each sample."""
    for token in random.choice(_ordinary(model), samples):
        yield tokenise(model, Prompt.ids([*start, *[int(token)] * (length - len(start))]))


def _ordinary(model) -> np.ndarray:
    """Ids of all tokens but special ones."""
    special = set() if model.tokenizer is None else set(model.tokenizer.all_special_ids)
    n = model.sizes.d_vocab if model.tokenizer is None else min(model.sizes.d_vocab, len(model.tokenizer))
    return np.array([i for i in range(n) if i not in special])


def needs(model: "Model", tokens, **params) -> tuple[Need, ...]:
    """alpha of every key, with the query's own share beside it; equal to what `attention-sinks` asks for."""
    return (_RECEIVED, _OWN)


def sink_rates(
    observation: Observation,
    readout: Readout,
    *,
    samples: int = 32,
    length: int = 64,
    epsilon: float = 0.3,
    text: str = "prose",
    seed: int = 0,
) -> xr.Dataset:
    """Sink_1 by condition with an interval over samples, by layer and by head; Sink_k for every key."""
    alpha = observation[_RECEIVED].cpu().numpy().copy()  # layer prompt head key
    own = observation[_OWN].cpu().numpy()
    alpha[windowed(observation.sizes, length)] = np.nan
    at_first = _flags(alpha[..., 0], epsilon)  # layer prompt head
    others = _flags(received_by_others(alpha, own), epsilon)
    condition = observation.fields["condition"].cpu().numpy()
    groups = sorted(set(condition.tolist()))
    parts = [_condition(at_first[:, condition == g], alpha[..., 0][:, condition == g], seed) for g in groups]
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
    convention = f"T = {length}, BOS counted, epsilon = {epsilon:g}"
    return result.assign_attrs(
        convention=convention, skipped=skipped or "no text was too short", summary=_summary(result)
    )


def _summary(result: xr.Dataset) -> str:
    """The rate of every condition with its interval."""
    rate, low, high = (result[f"sink_rate{end}"].values for end in ("", "_low", "_high"))
    said = [
        f"{value:.0%} [{a:.0%}, {b:.0%}] on {name}"
        for name, value, a, b in zip(result["group"].values, rate, low, high, strict=True)
    ]
    return f"Heads that sink on position 0: {', '.join(said)}."


def _flags(alpha: np.ndarray, epsilon: float) -> np.ndarray:
    return np.where(np.isnan(alpha), np.nan, alpha > epsilon)


def _condition(sink: np.ndarray, alpha: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Means over samples with intervals. sink, alpha: (layer, prompt, head)."""
    sink, alpha = np.moveaxis(sink, 1, 0), np.moveaxis(alpha, 1, 0)  # prompt layer head
    samples = {"sink_rate": mean_known(sink, (1, 2)), "layer_sink_rate": mean_known(sink, 2), "head_sink_rate": sink}
    found = {}
    for name, values in samples.items():
        low, high = bootstrap_interval(values, seed=seed)
        found |= {name: mean_known(values, 0), f"{name}_low": low, f"{name}_high": high}
    return {**found, "first_received": mean_known(alpha, 0)}


def _spec(name: str, values: np.ndarray) -> tuple:
    dims = ("group", "group layer", "group layer head")[values.ndim - 1]
    if name == "first_received":
        return (dims, values, "share of attention", (0, 1), "attention received by position 0 (alpha)")
    kind = "samples in which the head sinks" if name.startswith("head") else "heads that sink on position 0"
    ending = {"low": ", lower end", "high": ", upper end"}.get(name.rsplit("_", 1)[1], "")
    return (dims, values, "share of samples" if name.startswith("head") else "share of heads", (0, 1), kind + ending)


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


def sink_claim(result: xr.Dataset, selection: dict) -> "Claim | None":
    """Position 0 serves as a sink of the selected head: where it is hidden, the prediction becomes another."""
    if not {"layer", "head"} <= set(selection):
        return None
    share = float(result["head_sink_rate"].isel(group=0).sel(layer=selection["layer"], head=selection["head"]))
    if not share > 0.5:
        return None
    return claims.sink(selection, 0)


ENTRY = Entry(
    name="sink-rates",
    title="Sink rates of the model",
    source="arXiv 2410.10781",
    definition=(
        "Sink_k = mean over samples, layers and heads of 1[alpha_k > epsilon] on natural text, random tokens and one "
        "repeated token, T tokens each, with and without a BOS token in front."
    ),
    limits="Falls with T and epsilon: never compare across them. A share of heads, not of attention.",
    scope="model",
    stimulus=stimulus,
    needs=needs,
    analyse=sink_rates,
    figures=(rates_figure, layers_figure, heads_figure),
    claims=(sink_claim, claims.head),
    params=(
        Param("samples", int, 32, "samples of each condition (the paper: 100)", low=2, high=1000),
        Param("length", int, 64, "T, tokens of a sample, BOS included", low=2, high=4096),
        Param("epsilon", float, 0.3, "alpha above which a key is a sink", low=0.0, high=1.0),
        Param("text", str, "prose", "where natural text comes from", choices=("prose", "code")),
        Param("seed", int, 0, "draws samples and resamples", low=0, high=2**31 - 1),
    ),
)
run = ENTRY.run
