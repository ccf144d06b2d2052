"""Active-dormant heads: asleep on one kind of text, at work on another; and what removing one costs in each.

One pass over all texts, then the ablations, batch by batch of texts.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, ClassVar

import numpy as np
import xarray as xr

from probes.attention.active_dormant import figures
from probes.attention.active_dormant.ablation import BATCH_TOKENS, ablated_loss, base_pass
from probes.attention.active_dormant.activity import needs, uniform_sink
from probes.attention.active_dormant.contrast import Activity, heads_to_ablate
from probes.attention.active_dormant.table import HOWS, Ablations, table
from probes.attention.active_dormant.texts import MIN_TEXTS, Texts, chosen_texts
from probes.attention.active_dormant.verdict import summary
from probes.attention.sinks.measures import windowed
from probes.checks import claims
from workbench.analysis.kinds import Study
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.results import provenance
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.corpora import BUNDLED, Document, corpus_digest, find_corpus
from workbench.errors import InputError
from workbench.intervene import Head
from workbench.models.hooks import Z
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import ROWS, VISIBLE
from workbench.observation import observe
from workbench.observation.recording import measure_means

__all__ = ["VIEW", "ActiveDormant"]


class ActiveDormant(Study, name="active-dormant", title="Active-dormant heads", requires=(ROWS, VISIBLE)):
    """Dormant shares, the contrast of two domains of texts, and ablations.

    Definition: A head is dormant on a text when it sends its attention to sinks and so adds next to nothing. Per text
    and head, over the positions after the first: sink attention, the mean over q of the attention that goes to the sink
    set (position 0, and every other key that counts as a sink of this head by the rule of `attention-sinks`: alpha
    above epsilon without the own query); output norm, the mean over q of the norm of z W_O. Dormant: sink attention
    > 0.8 (uniform attention at 128 tokens sends 0.035 to position 0; texts so short that it sends half of that bar are
    refused), and output norm < 0.2 of the head's largest over all texts of all domains. Contrast: dormant share in one
    domain minus the other, with a permutation test over texts, a Benjamini-Hochberg q over all heads, and an interval;
    a head differs where q is below 0.05 and the difference is 0.1 or more.
    Ablation: loss without the head (by zero, or by its mean over a reference text, position 0 keeping its own) minus
    loss with it, nats per token, per domain, beside random heads and a control head from a nearby layer matched on
    output norm. Texts are cut to one length, BOS included; a text's loss is the mean over its predicted tokens.

    Limits: The contrast says that a head behaves differently, the ablation whether it matters. Domains differ in more
    than their kind: compare texts of one length, and trust the ablation over the contrast. Zero ablation also removes
    the head's constant output; mean ablation does not. A learned sink that is no token (GPT-OSS) is not counted: heads
    that sleep on it are missed. A head that sleeps in a domain can be removed there at no cost; where that is not so,
    it is said.

    Source: Guo et al. 2024, arXiv 2410.13835 (dormant heads, zero ablation per domain); the two thresholds on real
    models, the test, mean ablation and the matched controls are ours

    Returns: By text `sink_attention`, `output_norm`, `relative_output`, `text_ablation_dloss`,
    `text_mean_ablation_dloss` (domain, prompt, layer, head), `loss` and `document` (domain, prompt); by domain
    `dormant_share`, `mean_sink_attention`, `mean_relative_output`, `ablation_dloss`, `mean_ablation_dloss` (domain,
    layer, head), the last two with `_low` and `_high`, `n_texts`, `n_skipped` (domain); `contrast`, `sink_contrast`
    (layer, head) with `_low`, `_high` and `_q`; `candidate`, `control_layer`, `control_head` (layer, head). NaN where
    nothing is known yet.
    """

    prompted: ClassVar[bool] = False

    first: Annotated[str, Choice(BUNDLED, files=True), "a domain of texts"] = "prose"
    second: Annotated[str, Choice(BUNDLED, files=True), "the domain to compare with"] = "code"
    texts: Annotated[int, Range(MIN_TEXTS, 10_000), "texts of each domain"] = 50
    length: Annotated[int, Range(2, 4096), "T, tokens of a text, BOS included"] = 128
    epsilon: Annotated[float, Range(0.0, 1.0), "alpha above which another key is a sink"] = 0.3
    attention_above: Annotated[float, Range(0.0, 1.0), "attention to sinks above which a text may be dormant"] = 0.8
    output_below: Annotated[float, Range(0.0, 1.0), "share of the largest output below which it is"] = 0.2
    ablate: Annotated[str, "heads to ablate: candidates, all, none, or names such as L18H6"] = "candidates"
    ablation_texts: Annotated[int, Range(2, 10_000), "texts of each domain that ablations run on"] = 16
    leading: Annotated[int, Range(0, 1000), "heads whose sink attention differs most, to ablate as well"] = 3
    random_heads: Annotated[int, Range(0, 1000), "random heads to ablate beside the candidates"] = 20
    seed: Annotated[int, Range(0, 2**31 - 1), "draws texts, heads and resamples"] = 0

    def idle(self) -> dict[str, str]:
        """Which heads are ablated may be said without some of what chooses them."""
        of = {"leading": "ablate='candidates'"} if self.ablate != "candidates" else {}
        if self.ablate in ("all", "none"):
            of["random_heads"] = "ablate='candidates' or names of heads"
        return of | ({"ablation_texts": "ablations"} if self.ablate == "none" else {})

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Over the two domains, named as in `find_corpus`."""
        if self.first == self.second:
            raise InputError(f"the domain {self.first!r} twice", "two domains", "Name another one")
        asked = (self.first, self.second)
        corpora = {name: find_corpus(name, allow_network=allow_network).documents for name in asked}
        short = [name if name in BUNDLED else PurePath(name).name for name in corpora]
        labels = short if short[0] != short[1] else corpora  # a folder's name says enough, unless both have the same
        yield from self.over(model, dict(zip(labels, corpora.values(), strict=True)), progress=progress)

    def over(
        self, model: Model, domains: Mapping[str, Sequence[str | Document]], *, progress: Progress | None = None
    ) -> Iterator[xr.Dataset]:
        """Over texts by the name of their domain; yields after the first pass and each batch of ablations.

        The contrast is that of the first two domains. Raises as `chosen_texts` does.
        """
        uniform = uniform_sink(self.length)
        if 2 * uniform > self.attention_above:
            raise InputError(
                f"length={self.length}, where uniform attention already sends {uniform:.2f} to position 0",
                f"at most half of attention_above = {self.attention_above:g}",
                "Take longer texts",
            )
        clock, texts = _Clock(progress), chosen_texts(model, domains, self.texts, self.length, self.seed)
        activity, origin = self._first_pass(model, texts, clock)
        ablations = Ablations(activity.norm.shape)
        yield _result(texts, activity, ablations, self.epsilon, origin)
        heads = heads_to_ablate(model, activity, self.ablate, self.leading, self.random_heads)
        if heads:
            for _ in self._ablations(model, texts, heads, ablations, clock):
                yield _result(texts, activity, ablations, self.epsilon, origin)

    def artifact(self, model: Model) -> str | None:
        """What the texts are: with another Python, or another version of a user's files, it is another result."""
        return " ".join(map(corpus_digest, (self.first, self.second)))

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Its texts, roughly: what the ablations cost once their heads are known is not known before."""
        return 2 * self.texts * (1 + self._ablation_work()) * self.length / SHORT

    def _ablation_work(self) -> float:
        """A guess of the ablations' work in first passes, before the heads are known."""
        heads = {"none": 0.0, "all": 300.0}.get(self.ablate, self.random_heads + 2.0 * self.leading + 4.0)
        return heads * min(1.0, self.ablation_texts / self.texts) * len(HOWS) * 0.6

    def _first_pass(self, model: Model, texts: Texts, clock: "_Clock") -> tuple[Activity, dict[str, Any]]:
        """Sink attention and output norm of every text, and where they come from."""
        n, wanted = len(texts.tokens), needs(self.epsilon)
        clock.plan(n * (1 + self._ablation_work()))
        seen = observe(
            model,
            texts.tokens,
            wanted,
            positions="none",
            stop=model.sizes.n_layers,
            batch_tokens=BATCH_TOKENS,
            progress=clock.of(n),
        )
        attention, norm = (seen[need].permute(1, 0, 2).cpu().numpy().astype(np.float64) for need in wanted)
        attention[:, windowed(model.sizes, self.length)] = np.nan
        attention, norm = (texts.spread(values, range(n)) for values in (attention, norm))
        activity = Activity(
            attention, norm, self.attention_above, self.output_below, self.seed, model.weights(0).written_units
        )
        return activity, provenance(seen)

    def _ablations(
        self, model: Model, texts: Texts, heads: list[Head], ablations: Ablations, clock: "_Clock"
    ) -> Iterator[None]:
        """Batch by batch of texts: one full pass that keeps where heads start, then every head from its layer."""
        means = measure_means(model, hooks=(Z,), piece=min(64, model.sizes.n_ctx))
        ablations.reference = str(means)
        rows = [row for row, (_, prompt) in enumerate(texts.place) if prompt < self.ablation_texts]
        step, n_layers = max(2, BATCH_TOKENS // self.length), model.sizes.n_layers
        work = {head: (n_layers - head.layer) / n_layers for head in heads}
        clock.plan(clock.handed_out + len(rows) * (1 + len(HOWS) * sum(work.values())))
        for begin in range(0, len(rows), step):
            batch = rows[begin : begin + step]
            tokens = [texts.tokens[row] for row in batch]
            places = tuple(np.array([texts.place[row] for row in batch]).T)
            base, states = base_pass(model, tokens, [head.layer for head in heads], clock.of(len(batch)))
            ablations.loss[places] = base
            for head in heads:
                for how, reference in zip(HOWS, (None, means), strict=True):
                    tell = clock.of(len(batch) * work[head])
                    changed = ablated_loss(model, tokens, head, states[head.layer], reference, tell)
                    ablations.changes[how][(*places, head.layer, head.head)] = changed - base
                yield


def _result(*known: Any) -> xr.Dataset:
    result = table(*known)
    return result.assign_attrs(summary=summary(result))


class _Clock:
    """Progress over several passes: the share done of the work planned so far."""

    def __init__(self, progress: Progress | None):
        self.progress, self.handed_out, self.planned = progress, 0.0, 1.0

    def plan(self, work: float) -> None:
        """How much work there will be in all, what is done included."""
        self.planned = work

    def of(self, work: float) -> Progress | None:
        """A callback for the next pass, which takes `work`."""
        begun, tell = self.handed_out, self.progress
        self.handed_out += work
        if tell is None:
            return None
        return lambda share: tell(min(1.0, (begun + share * work) / self.planned))


VIEW = View(
    ActiveDormant,
    question="Which heads sleep on one kind of text and work on another?",
    asks=(
        Ask("first", "Compare heads on"),
        Ask("second", "and on"),
        Ask("texts", "with", unit="texts of each"),
    ),
    figures=(figures.contrast_figure, figures.dormant_figure, figures.attention_figure, figures.texts_figure),
    details=(figures.texts_detail, figures.output_detail, figures.ablation_detail),
    claims=(claims.head,),
)
