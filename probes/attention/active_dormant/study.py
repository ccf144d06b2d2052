"""The study: one pass over all texts, then the ablations, head by head."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from probes.attention.active_dormant.ablation import ablated_loss, base_pass
from probes.attention.active_dormant.activity import needs
from probes.attention.active_dormant.contrast import Activity, heads_to_ablate
from probes.attention.active_dormant.settings import BATCH_TOKENS, Settings
from probes.attention.active_dormant.table import HOWS, Ablations, table
from probes.attention.active_dormant.texts import Texts, chosen_texts
from probes.attention.active_dormant.verdict import summary
from probes.attention.sinks.measures import windowed
from workbench.analysis.results import provenance
from workbench.corpora import BUNDLED, Document, find_corpus
from workbench.errors import InputError
from workbench.intervene import Head
from workbench.models.hooks import Z
from workbench.observation import observe
from workbench.observation.recording import measure_means

if TYPE_CHECKING:
    from workbench.models.model import Model

__all__ = ["ablation_work", "active_dormant", "study"]

Progress = Callable[[float], None] | None


def study(
    model: "Model",
    tokens: Any = None,
    *,
    first: str = "prose",
    second: str = "code",
    allow_network: bool = False,
    progress: Progress = None,
    **params: Any,
) -> Iterator[xr.Dataset]:
    """The study over two domains, named as in `find_corpus`. The prompt is not used."""
    if first == second:
        raise InputError(f"the domain {first!r} twice", "two domains", "Name another one")
    corpora = {name: find_corpus(name, allow_network=allow_network).documents for name in (first, second)}
    short = [name if name in BUNDLED else PurePath(name).name for name in corpora]
    labels = short if short[0] != short[1] else corpora  # a folder's name says enough, unless both have the same
    yield from active_dormant(model, dict(zip(labels, corpora.values(), strict=True)), progress=progress, **params)


def active_dormant(
    model: "Model", domains: Mapping[str, Sequence[str | Document]], *, progress: Progress = None, **params: Any
) -> Iterator[xr.Dataset]:
    """Dormant shares, the contrast of the first two domains, and ablations; yields after the first pass and each head.

    domains: texts by name. params: see Settings. progress: called with the share done; it may raise to cancel, and what
    was yielded before stands. Raises as `chosen_texts` does.
    """
    settings, clock = Settings(**params), _Clock(progress)
    texts = chosen_texts(model, domains, settings)
    activity, origin = _first_pass(model, texts, settings, clock)
    ablations = Ablations(activity.norm.shape)
    yield _result(texts, activity, ablations, origin)
    heads = heads_to_ablate(model, activity)
    if heads:
        for _ in _ablate(model, texts, settings, heads, ablations, clock):
            yield _result(texts, activity, ablations, origin)


def _result(*known: Any) -> xr.Dataset:
    result = table(*known)
    return result.assign_attrs(summary=summary(result))


class _Clock:
    """Progress over several passes: the share done of the work planned so far."""

    def __init__(self, progress: Progress):
        self.progress, self.handed_out, self.planned = progress, 0.0, 1.0

    def plan(self, work: float) -> None:
        """How much work there will be in all, what is done included."""
        self.planned = work

    def of(self, work: float) -> Progress:
        """A callback for the next pass, which takes `work`."""
        begun, tell = self.handed_out, self.progress
        self.handed_out += work
        if tell is None:
            return None
        return lambda share: tell(min(1.0, (begun + share * work) / self.planned))


def ablation_work(settings: Settings) -> float:
    """A guess of the ablations' work in first passes, before the heads are known."""
    heads = {"none": 0.0, "all": 300.0}.get(settings.ablate, settings.random_heads + 2.0 * settings.leading + 4.0)
    return heads * min(1.0, settings.ablation_texts / settings.texts) * len(HOWS) * 0.6


def _first_pass(model: "Model", texts: Texts, settings: Settings, clock: _Clock) -> tuple[Activity, dict[str, Any]]:
    """Sink attention and output norm of every text, and where they come from."""
    n, wanted = len(texts.tokens), needs(settings.epsilon)
    clock.plan(n * (1 + ablation_work(settings)))
    options = {"positions": "none", "stop": model.sizes.n_layers, "batch_tokens": BATCH_TOKENS}
    seen = observe(model, texts.tokens, wanted, progress=clock.of(n), **options)
    attention, norm = (seen[need].permute(1, 0, 2).cpu().numpy().astype(np.float64) for need in wanted)
    attention[:, windowed(model.sizes, settings.length)] = np.nan
    return Activity(texts.spread(attention, range(n)), texts.spread(norm, range(n)), settings), provenance(seen)


def _ablate(
    model: "Model", texts: Texts, settings: Settings, heads: list[Head], ablations: Ablations, clock: _Clock
) -> Iterator[None]:
    """Batch by batch of texts: one full pass that keeps the heads' starting points, then every head from its layer."""
    means = measure_means(model, hooks=(Z,), piece=min(64, model.sizes.n_ctx))
    ablations.reference = str(means)
    rows = [row for row, (_, prompt) in enumerate(texts.place) if prompt < settings.ablation_texts]
    step, n_layers = max(2, BATCH_TOKENS // settings.length), model.sizes.n_layers
    work = {head: (n_layers - head.layer) / n_layers for head in heads}
    clock.plan(clock.handed_out + len(rows) * (1 + len(HOWS) * sum(work.values())))
    for begin in range(0, len(rows), step):
        batch = rows[begin : begin + step]
        tokens, places = [texts.tokens[row] for row in batch], tuple(np.array([texts.place[row] for row in batch]).T)
        base, states = base_pass(model, tokens, [head.layer for head in heads], clock.of(len(batch)))
        ablations.loss[places] = base
        for head in heads:
            for how, reference in zip(HOWS, (None, means), strict=True):
                tell = clock.of(len(batch) * work[head])
                changed = ablated_loss(model, tokens, head, states[head.layer], reference, tell)
                ablations.changes[how][(*places, head.layer, head.head)] = changed - base
            yield
