"""Experts that one kind of text uses more than another, and what happens without them."""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import xarray as xr

from probes.attention.active_dormant.ablation import BATCH_TOKENS, text_loss
from probes.attention.active_dormant.texts import Texts, chosen_texts
from probes.neurons.experts import need_experts, no_experts, use_need
from workbench.analysis.kinds import Progress, Study
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.results import dataset, provenance
from workbench.analysis.view import Ask, View
from workbench.corpora import BUNDLED, Document, corpus_digest, find_corpus
from workbench.errors import InputError, RefusedError
from workbench.intervene import Ablate, Expert, Force
from workbench.models.hooks import LOGITS
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING
from workbench.observation import Need, observe
from workbench.reach import smallest_split_p, too_few
from workbench.statistics import (
    benjamini_hochberg,
    bootstrap_interval,
    draws_for,
    monte_carlo_p,
    permutation_test,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "ExpertContrast", "contrast_figure", "effect_figure", "matched", "ranked"]

_LOSS = Need((LOGITS,), text_loss)
_NEAREST = 5  # experts of most equal use, among which a control is drawn
WAYS = ("off", "forced")


class ExpertContrast(Study, name="expert-contrast", title="Experts of one kind of text", requires=(PADDING,)):
    """Which experts one kind of text uses more than another, and what switching them off, or forcing them, does.

    Definition: How often each (layer, expert) is chosen at the tokens of a text, mean over texts of the first kind
    minus mean over texts of the second, ranks the experts. The top ones are switched off (their router score is minus
    infinity, and the router chooses among the others by its own rule) or forced (their score is raised above the
    token's highest). The effect is the loss so, minus the loss of the model as it is, in nats per token, on texts that
    the ranking has not seen. Beside it stand sets of as many random experts, each drawn among those of most equal use
    over both kinds. p: the share of random sets (and the set itself) whose effect is as extreme, two-sided.

    Limits: Experts need not specialise, and where none survives the correction that is said. A set's effect on the
    first kind alone may be mere damage: compare the second kind's. In few experts, matches by use are loose: their use
    is listed. What is forced takes the place of another expert in the choice.

    Source: Dahlke et al. 2025, arXiv 2502.11096 (the contrast of use, switching off and forcing); held-out texts,
    matched random sets and tests are ours.

    Returns: `use` (domain, layer, expert); `contrast` (layer, expert) with `contrast_q`; `changed` (layer, expert), 1
    for the experts that are changed; by domain `effect` (domain) with `effect_low`, `effect_high`, `effect_p` and the
    random sets' `random_effect` (draw, domain) with `effect_null`, their mean; `loss` (domain); `changed_use`,
    `random_use` (draw): mean use of the set. NaN where nothing is known yet.
    """

    prompted: ClassVar[bool] = False

    first: Annotated[str, Choice(BUNDLED, files=True), "the kind of text whose experts are sought"] = "code"
    second: Annotated[str, Choice(BUNDLED, files=True), "the kind of text to compare with"] = "prose"
    texts: Annotated[int, Range(10, 10_000), "texts of each kind; every other one is kept for the test"] = 32
    length: Annotated[int, Range(2, 4096), "tokens of a text"] = 64
    top: Annotated[int, Range(1, 1000), "experts that are changed"] = 2
    how: Annotated[str, Choice(WAYS), "what is done to them"] = "off"
    draws: Annotated[int, Range(0, 1000), "sets of random experts; 39 can give a two-sided p of 0.05"] = 39
    seed: Annotated[int, Range(0, 2**31 - 1), "draws texts and random sets"] = 0

    @classmethod
    def inapplicable(cls, model: Model) -> str | None:
        """A model without experts."""
        return no_experts(model)

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Over the two kinds, named as in `find_corpus`."""
        if self.first == self.second:
            raise InputError(f"the kind {self.first!r} twice", "two kinds of text", "Name another one")
        need_experts(model)
        asked = (self.first, self.second)
        corpora = {name: find_corpus(name, allow_network=allow_network).documents for name in asked}
        short = [name if name in BUNDLED else PurePath(name).name for name in corpora]
        labels = short if short[0] != short[1] else corpora
        yield from self.over(model, dict(zip(labels, corpora.values(), strict=True)), progress=progress)

    def over(
        self, model: Model, kinds: Mapping[str, Sequence[str | Document]], *, progress: Progress | None = None
    ) -> Generator[xr.Dataset, None, None]:
        """Over texts by the name of their kind, the first against the second; yields after every set of experts."""
        need_experts(model)
        texts = chosen_texts(model, kinds, self.texts, self.length, self.seed)
        held_out = [row for row, (_, prompt) in enumerate(texts.place) if prompt % 2]
        ranking = [row for row, (_, prompt) in enumerate(texts.place) if not prompt % 2]
        found = _Found.of(model, texts, ranking)
        contrast, use = found.contrast.copy(), found.use.mean(0)
        for place in self._gone(model):  # to switch it off again changes nothing: it is no other expert either
            contrast[place] = use[place] = np.nan
        sets = [ranked(contrast, self.top, model.sizes)]
        random = np.random.default_rng(self.seed)
        sets += [matched(use, sets[0], random) for _ in range(self.draws)]
        tokens = [texts.tokens[row] for row in held_out]

        def loss(experts: Sequence[tuple[int, int]]) -> np.ndarray:
            edits = [(Ablate if self.how == "off" else Force)(self._expert(model, place)) for place in experts]
            seen = observe(model, tokens, [_LOSS], positions="none", interventions=edits, batch_tokens=BATCH_TOKENS)
            return texts.spread(seen[_LOSS].cpu().numpy().astype(np.float64), held_out)

        base = loss(())
        effects: list[np.ndarray] = []
        for done, experts in enumerate(sets, start=1):
            effects.append(loss(experts) - base)  # domain prompt
            if progress is not None:
                progress(done / len(sets))
            yield self._result(model, texts, found, sets, base, effects)

    def _gone(self, model: Model) -> list[tuple[int, int]]:
        """Experts that interventions of the run have switched off everywhere, where switching off is what is done."""
        units = [one.unit for one in model.interventions if isinstance(one, Ablate) and one.positions is None]
        layers = list(model.sizes.experts)
        gone = [(layers.index(unit.layer), unit.expert) for unit in units if isinstance(unit, Expert)]
        return gone if self.how == "off" else []

    def _expert(self, model: Model, place: tuple[int, int]) -> Expert:
        return Expert(model.sizes.experts[place[0]], place[1])

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Its texts: all once, and half of them for every set."""
        return 2 * self.texts * (1 + 0.5 * (2 + self.draws)) * self.length / SHORT

    def artifact(self, model: Model) -> str | None:
        """What the texts are."""
        return " ".join(map(corpus_digest, (self.first, self.second)))

    def _result(
        self,
        model: Model,
        texts: Texts,
        found: "_Found",
        sets: list[list[tuple[int, int]]],
        base: np.ndarray,
        effects: list[np.ndarray],
    ) -> xr.Dataset:
        means = np.full((1 + self.draws, 2), np.nan)
        means[: len(effects)] = np.nanmean(np.stack(effects), -1)
        low, high = bootstrap_interval(effects[0], axis=1, seed=self.seed)
        changed = np.zeros(found.contrast.shape, dtype=np.int64)
        changed[tuple(np.array(sets[0]).T)] = 1
        of = [float(np.mean([found.use[:, layer, expert].mean() for layer, expert in one])) for one in sets]
        random = means[1:]
        known = random[~np.isnan(random[:, 0])]
        p = monte_carlo_p(means[0], random, side="two-sided") if len(known) else np.full(2, np.nan)
        null = known.mean(0) if len(known) else np.full(2, np.nan)
        nats, share = "nats per token", "share of tokens"
        names = [f"L{model.sizes.experts[layer]}E{expert}" for layer, expert in sets[0]]
        result = dataset(
            None,
            {"domain": list(texts.domains), "layer": list(model.sizes.experts)},
            use=("domain layer expert", found.use, share, (0, 1), "tokens that choose the expert"),
            contrast=(
                "layer expert",
                found.contrast,
                share,
                (-1, 1),
                f"use in {texts.domains[0]} minus {texts.domains[1]}",
            ),
            contrast_q=("layer expert", found.q, "q", (0, 1), "permutation test, over all experts"),
            changed=("layer expert", changed, "flag", (0, 1), self.how),
            loss=("domain", np.nanmean(base, -1), nats, (0, None), "loss of the model as it is"),
            effect=("domain", means[0], nats, None, "loss with the experts changed, minus loss"),
            effect_low=("domain", low, nats, None, "lower end"),
            effect_high=("domain", high, nats, None, "upper end"),
            effect_null=("domain", null, nats, None, "mean of random sets of equal use"),
            effect_p=("domain", p, "p", (0, 1), "random sets as extreme, two-sided"),
            random_effect=("draw domain", random, nats, None, "the same with random experts of equal use"),
            changed_use=("", of[0], share, (0, 1), "mean use of the changed experts"),
            random_use=("draw", np.array(of[1:]), share, (0, 1), "mean use of a random set"),
        )
        summary = " ".join(filter(None, [_summary(result, texts.domains, names, self.how), found.few]))
        return result.assign_attrs(summary=summary, changed_names=", ".join(names), provenance=found.provenance)


@dataclass(frozen=True)
class _Found:
    """What the ranking texts show. use (domain, layer, expert), contrast and q (layer, expert); few: what so few
    of them cannot say, "" where they are enough."""

    use: np.ndarray
    contrast: np.ndarray
    q: np.ndarray
    provenance: str
    few: str

    @classmethod
    def of(cls, model: Model, texts: Texts, rows: list[int]) -> "_Found":
        """One pass over these texts."""
        need = use_need(model.sizes)
        seen = observe(
            model, [texts.tokens[row] for row in rows], [need], positions="none", batch_tokens=BATCH_TOKENS,
            stop=model.sizes.n_layers,
        )  # fmt: skip
        by_text = texts.spread(seen[need].permute(1, 0, 2).cpu().numpy().astype(np.float64), rows)
        use = np.nanmean(by_text, 1)
        first, second = (kind[~np.isnan(kind[:, 0, 0])] for kind in by_text)
        q = benjamini_hochberg(permutation_test(first, second, draws=draws_for(use[0].size)))
        smallest = smallest_split_p(len(first), len(second), use[0].size)
        counts = f"{len(first)} and {len(second)} texts"
        few = too_few(smallest, use[0].size, counts, "expert", "Take more texts")
        return cls(use, use[0] - use[1], q, json.dumps(provenance(seen), sort_keys=True), few)


def ranked(contrast: np.ndarray, top: int, sizes: Sizes) -> list[tuple[int, int]]:
    """The (row of layer, expert) with the largest contrast, at most half of a layer's; none whose contrast is NaN.

    RefusedError where the model has too few for that and for as many others beside.
    """
    most = contrast.shape[1] // 2
    if top > most * contrast.shape[0]:
        raise RefusedError(
            f"top={top} of {contrast.size} experts",
            f"at most {most * contrast.shape[0]}, half of each layer's: others must be left to choose from",
            "Change fewer",
        )
    taken: list[tuple[int, int]] = []
    per_layer = np.zeros(contrast.shape[0], int)
    for place in np.argsort(-contrast, axis=None, kind="stable"):
        layer, expert = (int(i) for i in np.unravel_index(place, contrast.shape))
        if len(taken) < top and per_layer[layer] < most and np.isfinite(contrast[layer, expert]):
            taken.append((layer, expert))
            per_layer[layer] += 1
    return taken


def matched(use: np.ndarray, experts: Sequence[tuple[int, int]], random: np.random.Generator) -> list[tuple[int, int]]:
    """As many other experts, each drawn among the nearest in use of those that are left, at most half of a layer's.

    use: NaN of those that are none. RefusedError where too few are left.
    """
    left = [place for place in np.ndindex(*use.shape) if place not in experts and np.isfinite(use[place])]
    most = use.shape[1] // 2
    drawn: list[tuple[int, int]] = []
    for expert in experts:
        counts = [sum(place[0] == layer for place in drawn) for layer in range(use.shape[0])]
        allowed = [place for place in left if counts[place[0]] < most and place not in drawn]
        if not allowed:
            raise RefusedError(
                f"{len(experts)} experts to change beside {len(left)} others", "as many others", "Change fewer"
            )
        nearest = sorted(allowed, key=lambda place: abs(float(use[place] - use[expert])))[:_NEAREST]
        drawn.append(nearest[int(random.integers(len(nearest)))])
    return drawn


def _summary(result: xr.Dataset, kinds: tuple[str, ...], names: list[str], how: str) -> str:
    effect, p = result["effect"].values, result["effect_p"].values
    done = "switched off" if how == "off" else "forced"
    specialised = int((result["contrast_q"].values < 0.05).sum())
    verb = "differs" if specialised == 1 else "differ"
    said = (
        f"{specialised} of {result['contrast'].size} experts {verb} in use by kind of text (q < 0.05)."
        f" With {', '.join(names)} {done}, the loss changes by {effect[0]:+.3g} nats per token in {kinds[0]} and "
        f"{effect[1]:+.3g} in {kinds[1]}"
    )
    if np.isnan(p).any():
        return f"{said}."
    null, n = result["effect_null"].values, int(result["random_effect"].notnull().all("domain").sum())
    rare = [f"p = {x:.2g}{f', the smallest that {n} can give' if x <= min(1.0, 2 / (1 + n)) else ''}" for x in p]
    return f"{said}; random experts of equal use: {null[0]:+.3g} ({rare[0]}) and {null[1]:+.3g} ({rare[1]})."


def contrast_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x expert grid of the contrast; the changed ones are ringed."""
    from workbench.figures import heads_grid

    first, second = result["domain"].values
    return heads_grid(
        result, "contrast", title=f"Use in {first} minus use in {second}", unit="expert", mark="changed",
        mark_name=result["changed"].attrs["long_name"],
    )  # fmt: skip


def effect_figure(result: xr.Dataset) -> "go.Figure":
    """The change of loss by kind of text, beside the random sets' mean."""
    from workbench.figures import bars

    plain = result[["effect", "effect_low", "effect_high", "effect_null"]]
    return bars(plain, "effect", "domain", title=f"Change of loss with {result.attrs['changed_names']} changed")


VIEW = View(
    ExpertContrast,
    question="Which experts does one kind of text use more than another, and does it need them?",
    asks=(
        Ask("first", "Find the experts of"),
        Ask("second", "against"),
        Ask("top", "and change the", unit="strongest"),
    ),
    figures=(contrast_figure, effect_figure),
)
