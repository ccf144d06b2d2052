"""Active-dormant heads: asleep on one kind of text, at work on another.

A head is dormant on a text when it sends its attention to sinks and so adds next to nothing. Per text and head, over
the positions after the first:

    sink attention   mean over q of the attention that goes to the sink set: position 0, and every other key that counts
                     as a sink of this head by the rule of `attention-sinks` (alpha above epsilon without the own query)
    output norm      mean over q of the norm of z W_O
    dormant          sink attention > 0.8, and output norm < 0.2 of the head's largest over all texts of all domains

`contrast` is the difference between two domains in the share of dormant texts, with a permutation test over texts, a
Benjamini-Hochberg q over all heads, and an interval. It says that a head behaves differently. Whether it matters is a
question of causes: the head is ablated (by zero, and by its mean over a reference text, position 0 keeping its own) and
the change of the loss is measured per domain, beside random heads and a control head from a nearby layer matched on
output norm. A head that sleeps in a domain can be removed there at no cost; where that is not so, it is said.

Texts are cut to one length, BOS included. A text's loss is the mean over its predicted tokens, nats per token.

Source: Guo et al. 2024, arXiv 2410.13835 (dormant heads, zero ablation per domain). The two thresholds on real models,
the test, mean ablation and the matched controls are ours.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from einops import einsum
from torch.nn.functional import cross_entropy

from probes.attention_sinks import MIN_QUERIES, own_attention, received, windowed
from workbench import LOGITS, PATTERN, RESID_PRE, Entry, InputError, Need, Param, Prompt, RefusedError, Site, Z, dataset
from workbench.corpora import Document, python_domains, text_corpus
from workbench.intervene import Ablate, Head
from workbench.observation import keep, observe
from workbench.prompt import Tokens, tokenise
from workbench.recording import Means, measure_means
from workbench.results import provenance
from workbench.statistics import benjamini_hochberg, bootstrap_interval, difference_interval, permutation_test

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.models.model import Model

__all__ = [
    "ENTRY",
    "FALSE_DISCOVERY",
    "Settings",
    "ablated_loss",
    "ablation_detail",
    "active_dormant",
    "attention_figure",
    "base_pass",
    "contrast_figure",
    "domain_documents",
    "dormant_figure",
    "needs",
    "output_norm",
    "sink_attention",
    "study",
    "text_loss",
    "texts_detail",
    "verdict",
]

FALSE_DISCOVERY = 0.05
MIN_TEXTS = 10  # of a domain, for a contrast
_NEARBY = 3  # layers on either side in which a control head is looked for
_BATCH_TOKENS = 2048
_HOWS = ("zero", "mean")


@dataclass(frozen=True)
class Settings:
    """Params of the study. epsilon: of the sink set. attention_above, output_below: what counts as dormant.

    leading: heads whose attention to sinks differs most, to ablate even where no head passes the contrast.
    """

    texts: int = 50
    length: int = 128
    epsilon: float = 0.3
    attention_above: float = 0.8
    output_below: float = 0.2
    ablate: str = "candidates"
    ablation_texts: int = 16
    leading: int = 3
    random_heads: int = 20
    seed: int = 0


# --- reducers -------------------------------------------------------------------------------------------------------


def sink_attention(pattern: torch.Tensor, site: Site, epsilon: float = 0.3) -> torch.Tensor:
    """Attention that queries behind position 0 send to the head's sinks on this text, (batch, head), 0 to 1.

    pattern: (batch, head, query, key).
    """
    pattern = pattern.float()
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    queries = (site.lengths[:, None] - keys)[:, None]  # batch 1 key
    total = received(pattern, site) * queries.clamp(min=1)
    others = (total - own_attention(pattern, site)) / (queries - 1).clamp(min=1)
    is_sink = (others > epsilon) & (queries - 1 >= MIN_QUERIES)
    is_sink[..., 0] = True
    mass = torch.matmul(pattern, is_sink.float().unsqueeze(-1)).squeeze(-1)  # batch head query
    return _mean_behind_first(mass, site)


def output_norm(z: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean norm of z W_O over positions behind the first, (batch, head), >= 0, in units of the residual stream.

    z: (batch, pos, head, d_head). By way of W_O W_O^T, and before a post-norm where there is one.
    """
    W_O = site.weights.W_O.float()
    gram = einsum(W_O, W_O, "head e d, head f d -> head e f")
    z = z.float().transpose(1, 2)  # batch head pos d_head
    return _mean_behind_first(((z @ gram) * z).sum(-1).clamp(min=0).sqrt(), site)


def _mean_behind_first(values: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean of (batch, head, pos) over real positions >= 1; NaN for one token."""
    counted = site.mask[:, None].clone()
    counted[..., 0] = False
    return values.masked_fill(~counted, 0.0).sum(-1) / counted.sum(-1)


def text_loss(logits: torch.Tensor, site: Site) -> torch.Tensor:
    """Mean surprisal of a text's tokens behind the first, (batch,), nats per token. logits: (batch, pos, d_vocab)."""
    losses = []
    for row, tokens, length in zip(logits, site.tokens, site.lengths.tolist(), strict=True):  # a row at a time: memory
        losses.append(cross_entropy(row[: length - 1].float(), tokens[1:length]))
    return torch.stack(losses)


LOSS = Need((LOGITS,), text_loss)


def needs(epsilon: float = 0.3) -> tuple[Need, Need]:
    """What the first pass reduces: sink attention and output norm, (layer, prompt, head)."""
    return (
        Need((PATTERN,), sink_attention, dims="head", params={"epsilon": epsilon}),
        Need((Z,), output_norm, dims="head"),
    )


# --- ablation -------------------------------------------------------------------------------------------------------


def base_pass(
    model: "Model", tokens: Sequence[Tokens], layers: Sequence[int], progress: Callable[[float], None] | None = None
) -> tuple[np.ndarray, dict[int, torch.Tensor]]:
    """Loss of every text, (prompt,), and resid_pre of the layers that ablations will start from."""
    state = Need((RESID_PRE,), keep, dims="pos d_model", layers=tuple(sorted(set(layers))))
    seen = observe(model, tokens, [LOSS, state], positions="none", progress=progress, batch_tokens=_BATCH_TOKENS)
    states = seen[state]
    for row, text in enumerate(
        tokens
    ):  # padding is NaN there, and a restart would carry it into the attention of others
        states[:, row, len(text) :] = 0.0
    return seen[LOSS].cpu().numpy().astype(np.float64), dict(zip(state.layers, states, strict=True))


def ablated_loss(
    model: "Model",
    tokens: Sequence[Tokens],
    head: Head,
    state: torch.Tensor | None,
    means: Means | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Loss of every text with a head ablated, (prompt,), nats per token: by zero, or by `means` where given.

    state: resid_pre of the head's layer from `base_pass`; the pass starts there. None runs all of it.
    """
    ablation = Ablate(head, "zero") if means is None else Ablate(head, "mean", means)
    start = None if state is None else (head.layer, state)
    seen = observe(
        model,
        tokens,
        [LOSS],
        positions="none",
        interventions=[ablation],
        start=start,
        progress=progress,
        batch_tokens=_BATCH_TOKENS,
    )
    return seen[LOSS].cpu().numpy().astype(np.float64)


# --- the study ------------------------------------------------------------------------------------------------------


def study(
    model: "Model",
    tokens: Any = None,
    *,
    first: str = "prose",
    second: str = "code",
    progress: Callable[[float], None] | None = None,
    **params: Any,
) -> Iterator[xr.Dataset]:
    """The study over two domains by name: "prose", "code" (bundled), or a file or folder. The prompt is not used."""
    if first == second:
        raise InputError(f"the domain {first!r} twice", "two domains", "Name another one")
    bundled = python_domains() if {first, second} & {"prose", "code"} else {}
    domains = {name: domain_documents(name, bundled) for name in (first, second)}
    yield from active_dormant(model, domains, progress=progress, **params)


def domain_documents(name: str, bundled: Mapping[str, Any] | None = None) -> tuple[Document, ...]:
    """Documents of a bundled domain, or of a file or folder."""
    bundled = python_domains() if bundled is None else bundled
    return bundled[name].documents if name in bundled else text_corpus([name], name).documents


def active_dormant(
    model: "Model",
    domains: Mapping[str, Sequence[str | Document]],
    *,
    progress: Callable[[float], None] | None = None,
    **params: Any,
) -> Iterator[xr.Dataset]:
    """Dormant shares, the contrast of the first two domains, and ablations; yields after the first pass and each head.

    domains: texts by name. params: see Settings. progress: called with the share done; it may raise to cancel, and what
    was yielded before stands. Raises RefusedError for a domain with fewer than 10 texts of the length asked.
    """
    settings = Settings(**params)
    if len(domains) < 2:
        raise InputError(f"{len(domains)} domains", "at least two", "Name another one")
    if model.tokenizer is None:
        raise RefusedError(f"{model.name}, which has no tokenizer", "a model that reads text", "Use another model")
    chosen = {name: _tokenised(model, name, texts, settings) for name, texts in domains.items()}
    clock = _Clock(progress)
    texts = _Texts.mixed(chosen)
    table = _Table(model, texts, *_first_pass(model, texts, settings, clock), settings)
    yield table.result()
    heads = table.heads_to_ablate()
    if heads:
        yield from _ablations(model, table, heads, clock)


def _tokenised(model: "Model", name: str, texts: Sequence[str | Document], settings: Settings):
    """The first `length` tokens of up to `texts` texts in a drawn order, and the names of those that are too short."""
    if settings.length > model.sizes.n_ctx:
        raise InputError(f"length={settings.length}", f"at most n_ctx = {model.sizes.n_ctx}", "Take shorter texts")
    kept: list[tuple[str, Tokens]] = []
    skipped: list[str] = []
    order = np.random.default_rng(settings.seed).permutation(len(texts))
    bos = model.tokenizer.bos_token_id
    front = [] if bos is None else [bos]
    for index in order.tolist():
        text = texts[index] if isinstance(texts[index], Document) else Document(f"{name}-{index}", texts[index])
        ids = model.tokenizer.encode(text.text, add_special_tokens=False)[: settings.length - len(front)]
        if len(ids) + len(front) < settings.length:
            skipped.append(text.name)
        elif len(kept) < settings.texts:
            kept.append((text.name, tokenise(model, Prompt.ids([*front, *ids]))))
    if len(kept) < MIN_TEXTS:
        raise RefusedError(
            f"{len(kept)} texts of {settings.length} tokens in {name} ({len(skipped)} were shorter)",
            f"at least {MIN_TEXTS} for a contrast",
            "Add texts, or take a smaller length",
        )
    return kept, sorted(skipped)


@dataclass(frozen=True)
class _Texts:
    """All texts in the order they are run: the domains take turns, so that what is done early is balanced."""

    tokens: list[Tokens]
    names: list[str]
    place: list[tuple[int, int]]  # domain, prompt
    domains: tuple[str, ...]
    skipped: dict[str, list[str]]

    @classmethod
    def mixed(cls, chosen: Mapping[str, tuple[list[tuple[str, Tokens]], list[str]]]) -> "_Texts":
        longest = max(len(kept) for kept, _ in chosen.values())
        rows = [
            (kept[i][1], kept[i][0], (d, i))
            for i in range(longest)
            for d, (kept, _) in enumerate(chosen.values())
            if i < len(kept)
        ]
        tokens, names, place = (list(column) for column in zip(*rows, strict=True))
        return cls(tokens, names, place, tuple(chosen), {name: skipped for name, (_, skipped) in chosen.items()})

    def spread(self, values: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """Values (row, ...) of some rows as (domain, prompt, ...), NaN elsewhere."""
        shape = (len(self.domains), 1 + max(i for _, i in self.place), *values.shape[1:])
        out = np.full(shape, np.nan)
        for value, row in zip(values, rows, strict=True):
            out[self.place[row]] = value
        return out


class _Clock:
    """Progress over several passes: the share done of the work planned so far."""

    def __init__(self, progress: Callable[[float], None] | None):
        self.progress, self.handed_out, self.planned = progress, 0.0, 1.0

    def plan(self, work: float) -> None:
        """How much work there will be in all, what is done included."""
        self.planned = work

    def of(self, work: float) -> Callable[[float], None] | None:
        """A callback for the next pass, which takes `work`."""
        begun, tell = self.handed_out, self.progress
        self.handed_out += work
        if tell is None:
            return None
        return lambda share: tell(min(1.0, (begun + share * work) / self.planned))


def _first_pass(
    model: "Model", texts: _Texts, settings: Settings, clock: _Clock
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Sink attention and output norm, (domain, prompt, layer, head), and where they come from."""
    n = len(texts.tokens)
    clock.plan(n * (1 + _ablation_work(settings)))
    wanted = needs(settings.epsilon)
    seen = observe(
        model,
        texts.tokens,
        wanted,
        positions="none",
        stop=model.sizes.n_layers,
        progress=clock.of(n),
        batch_tokens=_BATCH_TOKENS,
    )
    attention, norms = (seen[need].permute(1, 0, 2).cpu().numpy().astype(np.float64) for need in wanted)
    attention[:, windowed(model.sizes, settings.length)] = np.nan
    measured = {"attention": texts.spread(attention, range(n)), "norm": texts.spread(norms, range(n))}
    return measured, {**provenance(seen), "texts": texts.names, "skipped": texts.skipped}


def _ablation_work(settings: Settings) -> float:
    """A guess of the ablations' work in first passes, before the heads are known."""
    share = min(1.0, settings.ablation_texts / settings.texts)
    return (
        {"none": 0.0, "all": 300.0}.get(settings.ablate, settings.random_heads + 2.0 * settings.leading + 4.0)
        * share
        * len(_HOWS)
        * 0.6
    )


@dataclass
class _Table:
    """What is known so far; `result()` is a Dataset of it at any time."""

    model: "Model"
    texts: _Texts
    measured: dict[str, np.ndarray]
    origin: dict[str, Any]
    settings: Settings
    reference: str = "not measured"
    loss: np.ndarray | None = None  # (domain, prompt)
    changes: dict[str, np.ndarray] = field(default_factory=dict)  # by how: (domain, prompt, layer, head)

    def __post_init__(self):
        attention, norms = self.measured["attention"], self.measured["norm"]
        relative = norms / np.maximum(np.nanmax(norms, axis=(0, 1)), 1e-30)
        settings = self.settings
        dormant = (attention > settings.attention_above) & (relative < settings.output_below)
        self.dormant = np.where(np.isnan(attention), np.nan, dormant)
        self.relative = relative
        self.contrasts = {
            "contrast": self._contrast(self.dormant),
            "sink_contrast": self._contrast(attention),
        }
        q = self.contrasts["contrast"][3]
        self.candidate = np.nan_to_num(q, nan=1.0) < FALSE_DISCOVERY
        self.control = self._controls()

    def _contrast(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Difference of the first two domains' means with interval and q, each (layer, head)."""
        a, b = values[0], values[1]
        low, high = difference_interval(a, b, seed=self.settings.seed)
        q = benjamini_hochberg(permutation_test(a, b, seed=self.settings.seed))
        return _mean(a) - _mean(b), low, high, q

    def _controls(self) -> np.ndarray:
        """For every head the one nearby, no candidate itself, whose output norm is nearest: (2, layer, head), -1."""
        size = np.log(np.maximum(np.nanmean(self.measured["norm"], axis=(0, 1)), 1e-30))
        found = np.full((2, *size.shape), -1)
        layers = np.arange(size.shape[0])[:, None]
        for layer, head in np.ndindex(size.shape):
            gap = np.abs(size - size[layer, head])
            gap[(np.abs(layers - layer) > _NEARBY) | self.candidate] = np.inf
            gap[layer, head] = np.inf
            if np.isfinite(gap).any():
                found[:, layer, head] = np.unravel_index(gap.argmin(), gap.shape)
        return found

    def heads_to_ablate(self) -> list[Head]:
        """Candidates and leading heads with their controls, and random heads; all; none; or those named."""
        shape, asked = self.candidate.shape, self.settings.ablate
        if asked == "none":
            return []
        if asked == "all":
            return [Head(layer, head) for layer, head in np.ndindex(shape)]
        if asked == "candidates":
            named = [Head(int(layer), int(head)) for layer, head in np.argwhere(self.candidate)] + self._leading()
        else:
            named = [_head(name, self.model) for name in asked.replace(",", " ").split()]
        controls = [Head(*map(int, self.control[:, h.layer, h.head])) for h in named]
        chosen = dict.fromkeys([*named, *(control for control in controls if control.layer >= 0)])
        others = [Head(layer, head) for layer, head in np.ndindex(shape) if Head(layer, head) not in chosen]
        random = np.random.default_rng(self.settings.seed).permutation(len(others))[: self.settings.random_heads]
        return [*chosen, *(others[i] for i in sorted(random.tolist()))]

    def _leading(self) -> list[Head]:
        """Heads with the largest difference in attention to sinks, among those that pass for it."""
        value, _, _, q = self.contrasts["sink_contrast"]
        size = np.where(np.nan_to_num(q, nan=1.0) < FALSE_DISCOVERY, np.abs(value), 0.0)
        order = np.argsort(-size, axis=None, kind="stable")[: self.settings.leading]
        return [Head(*map(int, np.unravel_index(i, size.shape))) for i in order if size.flat[i] > 0]

    def result(self) -> xr.Dataset:
        """Everything known so far as a Dataset."""
        s, names = self.settings, np.full(self.measured["norm"].shape[:2], "", dtype=object)
        for name, place in zip(self.texts.names, self.texts.place, strict=True):
            names[place] = name
        result = dataset(
            coords={"domain": list(self.texts.domains)},
            **self._activity(),
            **self._contrast_variables(),
            **self._ablation_variables(),
            document=("domain prompt", names, "name", None, "text"),
        )
        convention = (
            f"T = {s.length}, {'BOS counted' if self.texts.tokens[0].bos else 'no BOS'}, epsilon = {s.epsilon:g}, "
            f"dormant: sink attention > {s.attention_above:g} and output < {s.output_below:g} of the largest"
        )
        return result.assign_attrs(
            convention=convention,
            reference=self.reference,
            skipped=json.dumps(self.texts.skipped),
            provenance=json.dumps(self.origin, sort_keys=True),
        )

    def _activity(self) -> dict[str, tuple]:
        attention, norms = self.measured["attention"], self.measured["norm"]
        share, count = "share of attention", (~np.isnan(norms[:, :, 0, 0])).sum(1)
        return {
            "sink_attention": ("domain prompt layer head", attention, share, (0, 1), "attention to the sink set"),
            "output_norm": (
                "domain prompt layer head",
                norms,
                "residual units",
                (0, None),
                "norm of the head's output",
            ),
            "dormant_share": ("domain layer head", _mean(self.dormant, 1), "share of texts", (0, 1), "dormant texts"),
            "mean_sink_attention": (
                "domain layer head",
                _mean(attention, 1),
                share,
                (0, 1),
                "attention to the sink set",
            ),
            "mean_relative_output": (
                "domain layer head",
                _mean(self.relative, 1),
                "share of the largest",
                (0, 1),
                "output norm, of the head's largest",
            ),
            "n_texts": ("domain", count, "texts", (0, None), "texts"),
            "n_skipped": ("domain", [len(v) for v in self.texts.skipped.values()], "texts", (0, None), "too short"),
        }

    def _contrast_variables(self) -> dict[str, tuple]:
        first, second = self.texts.domains[:2]
        found: dict[str, tuple] = {}
        for name, unit in (("contrast", "share of texts"), ("sink_contrast", "share of attention")):
            what = "dormant texts" if name == "contrast" else "attention to the sink set"
            value, low, high, q = self.contrasts[name]
            found |= {
                name: ("layer head", value, unit, (-1, 1), f"{what}: {first} minus {second}"),
                f"{name}_low": ("layer head", low, unit, (-1, 1), f"{what}: lower end"),
                f"{name}_high": ("layer head", high, unit, (-1, 1), f"{what}: upper end"),
                f"{name}_q": ("layer head", q, "q", (0, 1), f"{what}: false discovery rate over all heads"),
            }
        flags = self.candidate.astype(np.float64)
        return {
            **found,
            "candidate": ("layer head", flags, "flag", (0, 1), f"contrast with q < {FALSE_DISCOVERY:g}"),
            "control_layer": ("layer head", self.control[0], "layer", (-1, None), "layer of the matched control head"),
            "control_head": ("layer head", self.control[1], "head", (-1, None), "matched control head"),
        }

    def _ablation_variables(self) -> dict[str, tuple]:
        shape = self.measured["norm"].shape
        loss = np.full(shape[:2], np.nan) if self.loss is None else self.loss
        found = {"loss": ("domain prompt", loss, "nats per token", (0, None), "loss with all heads")}
        for how, name in zip(_HOWS, ("ablation_dloss", "mean_ablation_dloss"), strict=True):
            texts = self.changes.get(how, np.full(shape, np.nan))
            low, high = (np.full((shape[0], *shape[2:]), np.nan) for _ in range(2))
            for d in range(shape[0]):
                low[d], high[d] = bootstrap_interval(texts[d], seed=self.settings.seed)
            what = f"change of loss by {how} ablation"
            found |= {
                name: ("domain layer head", _mean(texts, 1), "nats per token", None, what),
                f"{name}_low": ("domain layer head", low, "nats per token", None, f"{what}: lower end"),
                f"{name}_high": ("domain layer head", high, "nats per token", None, f"{what}: upper end"),
                f"text_{name}": ("domain prompt layer head", texts, "nats per token", None, f"{what}, by text"),
            }
        return found


def _mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    count = (~np.isnan(values)).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)


def _head(name: str, model: "Model") -> Head:
    found = re.fullmatch(r"L(\d+)H(\d+)", name)
    if not found:
        raise InputError(f"ablate={name!r}", "candidates, all, none, or heads such as L18H6", "Correct the value")
    head = Head(int(found[1]), int(found[2]))
    head.check(model)
    return head


def _ablations(model: "Model", table: _Table, heads: list[Head], clock: _Clock) -> Iterator[xr.Dataset]:
    """Batch by batch of texts: one full pass that keeps the heads' starting points, then every head from its layer."""
    settings, texts = table.settings, table.texts
    means = measure_means(model, hooks=(Z,), piece=min(64, model.sizes.n_ctx))
    table.reference = str(means)
    rows = [row for row, (_, prompt) in enumerate(texts.place) if prompt < settings.ablation_texts]
    step, n_layers = max(2, _BATCH_TOKENS // settings.length), model.sizes.n_layers
    work = {head: (n_layers - head.layer) / n_layers for head in heads}
    clock.plan(clock.handed_out + len(rows) * (1 + len(_HOWS) * sum(work.values())))
    shape = table.measured["norm"].shape
    table.loss, table.changes = np.full(shape[:2], np.nan), {how: np.full(shape, np.nan) for how in _HOWS}
    for begin in range(0, len(rows), step):
        batch = rows[begin : begin + step]
        tokens, places = [texts.tokens[row] for row in batch], tuple(np.array([texts.place[row] for row in batch]).T)
        base, states = base_pass(model, tokens, [head.layer for head in heads], clock.of(len(batch)))
        table.loss[places] = base
        for head in heads:
            for how, reference in zip(_HOWS, (None, means), strict=True):
                tell = clock.of(len(batch) * work[head])
                changed = ablated_loss(model, tokens, head, states[head.layer], reference, tell)
                table.changes[how][(*places, head.layer, head.head)] = changed - base
            yield table.result()


# --- reading the result ---------------------------------------------------------------------------------------------


def verdict(result: xr.Dataset, layer: int, head: int) -> str:
    """What the data say about one head, in sentences; also when they do not support that it is active-dormant."""
    name, domains = Head(layer, head), [str(d) for d in result["domain"].values[:2]]
    at = result.sel(layer=layer, head=head)
    shares = at["dormant_share"].values[:2]
    sinks = at["mean_sink_attention"].values[:2]
    asleep, awake = (0, 1) if (shares[0], sinks[0]) >= (shares[1], sinks[1]) else (1, 0)
    contrast = _interval(at, "contrast")
    said = [
        f"{name}: dormant on {shares[0]:.0%} of {domains[0]} and {shares[1]:.0%} of {domains[1]} texts "
        f"(difference {contrast}, q = {float(at['contrast_q']):.2g}).",
        "It passes correction over all heads." if float(at["candidate"]) else "It does not pass correction.",
        f"Attention to sinks: {sinks[0]:.2f} and {sinks[1]:.2f} (difference {_interval(at, 'sink_contrast')}, "
        f"q = {float(at['sink_contrast_q']):.2g}).",
    ]
    if np.isnan(at["ablation_dloss"].values[:2]).any():
        return " ".join([*said, "It was not ablated."])
    for variable, how in (("ablation_dloss", "Zero"), ("mean_ablation_dloss", "Mean")):
        parts = [f"{_interval(at.isel(domain=d), variable)} nats per token on {domains[d]}" for d in (asleep, awake)]
        said.append(f"{how} ablation changes the loss by {parts[0]} and {parts[1]}.")
    return " ".join([*said, *_comparison(result, layer, head, asleep, awake, domains), _conclusion(at, asleep, awake)])


def _comparison(result: xr.Dataset, layer: int, head: int, asleep: int, awake: int, domains: list[str]) -> list[str]:
    """Beside the matched control and the other ablated heads."""
    changes, said = result["ablation_dloss"].values, []
    control = int(result["control_layer"][layer, head]), int(result["control_head"][layer, head])
    if control[0] >= 0 and not np.isnan(changes[awake][control]):
        said.append(
            f"Its control {Head(*control)}: {changes[asleep][control]:+.4f} on {domains[asleep]}, "
            f"{changes[awake][control]:+.4f} on {domains[awake]}."
        )
    others = (changes[awake] - changes[asleep])[(~np.isnan(changes[awake])) & (result["candidate"].values == 0)]
    if others.size:
        mine = changes[awake][layer, head] - changes[asleep][layer, head]
        said.append(
            f"The difference between the domains, {mine:+.4f}, is larger than that of {int((others < mine).sum())} of "
            f"{others.size} other heads."
        )
    return said


def _conclusion(at: xr.Dataset, asleep: int, awake: int) -> str:
    low, high = at["ablation_dloss_low"].values, at["ablation_dloss_high"].values
    if not float(at["candidate"]):
        return "The data do not support that it is active-dormant."
    if low[awake] > high[asleep]:
        return "The data support that it is active-dormant: it matters more where it is awake."
    return "The data do not support that its work depends on the domain: the intervals of the two changes overlap."


def _interval(part: xr.Dataset, variable: str) -> str:
    value, low, high = (float(part[f"{variable}{ending}"]) for ending in ("", "_low", "_high"))
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _marked(result: xr.Dataset) -> list[tuple[int, int]]:
    return [(int(layer), int(head)) for layer, head in np.argwhere(result["candidate"].values == 1)]


def contrast_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the contrast; heads that pass correction are ringed."""
    from workbench.figures import heads_grid

    first, second = result["domain"].values[:2]
    title = f"Dormant texts, {first} minus {second} ({result.attrs['convention']})"
    name = f"q < {FALSE_DISCOVERY:g}"
    return heads_grid(result, "contrast", title=title, mark=_marked(result), mark_name=name)


def dormant_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the share of dormant texts, in whichever of the domains it is larger."""
    from workbench.figures import heads_grid

    largest = result["dormant_share"].max("domain", skipna=True).assign_attrs(result["dormant_share"].attrs)
    title = f"Dormant texts in the sleepier domain ({result.attrs['convention']})"
    return heads_grid(result.assign(dormant_share=largest), "dormant_share", title=title, mark=_marked(result))


def attention_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the difference in attention to the sink set."""
    from workbench.figures import heads_grid

    first, second = result["domain"].values[:2]
    title = f"Attention to sinks, {first} minus {second} ({result.attrs['convention']})"
    return heads_grid(result, "sink_contrast", title=title, mark=_marked(result))


def _selected(result: xr.Dataset, selection: dict) -> tuple[int, int]:
    """The selected head, or the one with the largest contrast."""
    if selection.get("layer") is not None and selection.get("head") is not None:
        return int(selection["layer"]), int(selection["head"])
    size = np.nan_to_num(np.abs(result["contrast"].values))
    return tuple(int(i) for i in np.unravel_index(size.argmax(), size.shape))


def texts_detail(result: xr.Dataset, selection: dict) -> "go.Figure":
    """Of the selected head: attention to the sink set, one point per text and domain."""
    from workbench.figures import head_name, strip

    layer, head = _selected(result, selection)
    part = result[["sink_attention"]].sel(layer=layer, head=head, drop=True)
    title = f"{head_name(layer, head)}: attention to sinks, by text ({result.attrs['convention']})"
    return strip(part, "sink_attention", "domain", title=title)


def ablation_detail(result: xr.Dataset, selection: dict) -> "go.Figure":
    """Of the selected head: the change of each text's loss when it is ablated by zero; the verdict in the title."""
    from workbench.figures import head_name, strip

    layer, head = _selected(result, selection)
    names = ["text_ablation_dloss", "ablation_dloss_low", "ablation_dloss_high"]
    part = result[names].sel(layer=layer, head=head, drop=True)
    part = part.rename(ablation_dloss_low="text_ablation_dloss_low", ablation_dloss_high="text_ablation_dloss_high")
    done = int((~np.isnan(part["text_ablation_dloss"].values)).sum())
    said = "zero ablation" if done else "not ablated yet"
    return strip(
        part,
        "text_ablation_dloss",
        "domain",
        title=f"{head_name(layer, head)}: {said} ({result.attrs['convention']})",
    )


def _cost(sizes: Any, n_tokens: int = 0, **params: Any) -> float:
    """Bare passes of one text, roughly: what the ablations cost once their heads are known is not known before."""
    settings = Settings(**{k: v for k, v in params.items() if k in Settings.__dataclass_fields__})
    return 2 * settings.texts * (1 + _ablation_work(settings))


ENTRY = Entry(
    name="active-dormant",
    title="Active-dormant heads",
    source="arXiv 2410.13835",
    definition=(
        "A head is dormant on a text when its attention to the sink set exceeds 0.8 and its output norm is below 0.2 "
        "of its largest over all texts. Contrast: dormant share in one domain minus the other. Ablation: loss without "
        "the head minus loss with it, nats per token."
    ),
    limits=(
        "Domains differ in more than their kind: compare texts of one length, and trust the ablation over the "
        "contrast. Zero ablation also removes the head's constant output; mean ablation does not."
    ),
    scope="study",
    study=study,
    figures=(contrast_figure, dormant_figure, attention_figure),
    details=(texts_detail, ablation_detail),
    params=(
        Param("first", str, "prose", "a domain: prose, code, or a file or folder of texts"),
        Param("second", str, "code", "the domain to compare with"),
        Param("texts", int, 50, "texts of each domain", low=MIN_TEXTS, high=10_000),
        Param("length", int, 128, "T, tokens of a text, BOS included", low=2, high=4096),
        Param("epsilon", float, 0.3, "alpha above which another key is a sink", low=0.0, high=1.0),
        Param("attention_above", float, 0.8, "attention to sinks above which a text may be dormant", low=0.0, high=1.0),
        Param("output_below", float, 0.2, "share of the largest output below which it is", low=0.0, high=1.0),
        Param("ablate", str, "candidates", "heads to ablate: candidates, all, none, or names such as L18H6"),
        Param("ablation_texts", int, 16, "texts of each domain that ablations run on", low=2, high=10_000),
        Param("leading", int, 3, "heads whose sink attention differs most, to ablate as well", low=0, high=1000),
        Param("random_heads", int, 20, "random heads to ablate beside the candidates", low=0, high=1000),
        Param("seed", int, 0, "draws texts, heads and resamples", low=0, high=2**31 - 1),
    ),
    cost=_cost,
)
run = ENTRY.run
