"""Which heads stand on routes over a corpus, by kind of token and by domain."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.routes.extraction import Rule
from probes.routes.flow_routes import FlowRoutes
from probes.routes.strength import head_strength
from workbench.analysis.kinds import Study
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Failure, Progress
from workbench.analysis.view import Ask, View, reads
from workbench.batch.walk import walked
from workbench.corpora import python_domains
from workbench.errors import InputError
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.models.selfcheck import PARTS, RESIDUAL
from workbench.statistics import bootstrap_interval
from workbench.words import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "KINDS",
    "VIEW",
    "FlowRouteHeads",
    "Texts",
    "corpus_texts",
    "frequency_figure",
    "groups_figure",
    "head_importance",
    "head_strength",
    "strength_figure",
    "strengths",
    "token_kind",
]

KINDS = ("word start", "word part", "punctuation", "digit", "code")


class FlowRouteHeads(
    Study, name="flow-route-heads", title="Heads on routes, over a corpus", requires=(RESIDUAL, PARTS)
):
    """Which heads stand on routes over a corpus, by kind of token and by domain.

    For every start token (all positions >= 1) the graph is walked down, and a head counts on a row that was reached.
    The contrast (`task_heads`) asks the same of the last token only, of two sets of prompts that differ in the task:
    heads that the task needs stand out (the paper's way). What they are worth is measured by ablating them.

    Definition: For every start token (positions >= 1): strength = sum of a head's kept shares over the rows that its
    graph reaches; frequency = share of start tokens with any. Means over start tokens, 95 % bootstrap over texts.

    Limits: Strength adds up local shares and says how much is written, not whether it matters: ablate before you claim.
    Heads of low layers are reached by almost every start.

    Source: Ferrando & Voita 2024, arXiv 2403.00824, section 4; the templates and the ablation against random heads are
    ours.

    Returns: `frequency` (share of start tokens with the head on their route) and `strength` (sum of kept shares over
    reached rows), each over (layer, head) with `_low` and `_high` (95 % bootstrap over texts); `strength_by_kind`
    (group, layer, head) by the kind of start token, NaN for kinds that did not occur, and `strength_by_domain` (domain,
    layer, head).
    """

    prompted: ClassVar[bool] = False

    n_texts: Annotated[int, Range(1, 1000), "texts of each domain"] = 16
    length: Annotated[int, Range(2, 1024), "tokens of each text; all of one that has fewer"] = 64
    coverage: Annotated[float | None, Range(0, 1), "keep this share of each row's attention"] = None
    threshold: Annotated[float | None, Range(0, 1), "keep parts above this share; default 0.01"] = None
    seed: Annotated[int, Range(0, 2**31 - 1), "of the choice of texts"] = 0

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Two domains of texts, and their routes."""
        return 2.5 * 2 * self.n_texts * self.length / SHORT

    def partials(
        self, model: Model, tokens: Any = None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Means so far; `head_importance` over the interpreter's documentation and source."""
        rule = _rule(self.coverage, self.threshold)
        yield from head_importance(model, corpus_texts(model, self.n_texts, self.length, self.seed), rule, progress)


@dataclass(frozen=True)
class Texts:
    """Tokenised texts of one domain."""

    domain: str
    tokens: tuple[Tokens, ...]


def token_kind(text: str, domain: str) -> str:
    """One of `KINDS`: every token of a code domain is code; otherwise by its characters."""
    if domain == "code":
        return "code"
    if any(character.isdigit() for character in text):
        return "digit"
    if not any(character.isalpha() for character in text):
        return "punctuation"
    return "word start" if text[0].isspace() else "word part"


def strengths(
    model: Model, prompts: Sequence[Tokens], rule: Rule, progress: Progress | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each prompt in turn: strength and on-route (start, layer, head). A prompt that fails raises its reason."""
    routes = FlowRoutes(min_share=min(rule.threshold or 0.001, 0.001), min_coverage=rule.coverage or 0.0)
    # One prompt a pass: the edges of a text are many, and its numbers do not hang on its neighbours
    found = walked(model, prompts, [[routes]] * len(prompts), batch_tokens=1, progress=progress)
    for _, outcome in found:
        if isinstance(outcome.result, Failure):
            raise outcome.result.error
        yield head_strength(outcome.result, rule)


def corpus_texts(model: Model, n_texts: int, length: int, seed: int) -> list[Texts]:
    """Pieces of the documentation and source of Python, `length` tokens each, behind BOS where the tokenizer adds it.

    A model without a tokenizer gets random ids in one domain.
    """
    if model.tokenizer is None:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(model.sizes.d_vocab, (n_texts, length), generator=generator)
        return [Texts("random ids", tuple(tokenise(model, Prompt.ids(row)) for row in ids))]
    found = []
    for domain, corpus in python_domains().items():
        order = np.random.default_rng(seed).permutation(len(corpus.documents))[:n_texts]
        pieces = []
        for index in order:
            text = model.tokenizer.encode(corpus.documents[index].text, add_special_tokens=False)
            piece = [*model.vocabulary.prefix, *text][:length]
            pieces.append(tokenise(model, Prompt.ids(piece)))
        found.append(Texts(domain, tuple(pieces)))
    return found


def head_importance(
    model: Model, texts: Sequence[Texts], rule: Rule, progress: Progress | None = None
) -> Iterator[xr.Dataset]:
    """Head importance over texts; yields after every eighth, so that it can be looked at and stopped.

    rule: wide coverage reaches every head. Returns what `FlowRouteHeads` does.
    """
    todo = _alternating(texts)
    if not todo:
        raise InputError("no texts of two tokens or more", "at least one", "Give longer texts")
    seen: list[tuple[str, list[str], np.ndarray, np.ndarray]] = []
    found = strengths(model, [each for _, each in todo], rule, progress)
    for index, ((domain, each), (strength, is_on)) in enumerate(zip(todo, found, strict=True)):
        kinds = [token_kind(each.spans.piece(pos), domain) for pos in range(1, len(each))]
        seen.append((domain, kinds, strength[1:], is_on[1:]))
        if (index + 1) % 8 == 0 or index + 1 == len(todo):
            yield _corpus_dataset(seen, [one.domain for one in texts], rule)


def _alternating(texts: Sequence[Texts]) -> list[tuple[str, Tokens]]:
    """Text by text, the domains in turn, so that a study that is stopped early has seen all of them."""
    turns = zip_longest(*([(one.domain, each) for each in one.tokens] for one in texts))
    return [pair for turn in turns for pair in turn if pair is not None and len(pair[1]) > 1]


def _rule(coverage: float | None, threshold: float | None) -> Rule:
    if coverage is not None and threshold is not None:
        raise InputError(f"coverage={coverage} and threshold={threshold}", "one of the two", "Leave one out")
    return Rule(coverage=coverage) if coverage is not None else Rule(threshold=0.01 if threshold is None else threshold)


def _corpus_dataset(seen: Sequence[tuple[Any, ...]], domains: Sequence[str], rule: Rule) -> xr.Dataset:
    """Means over start tokens, intervals over texts."""
    on = np.stack([is_on.mean(0) for *_, is_on in seen])
    strong = np.stack([strength.mean(0) for _, _, strength, _ in seen])
    kinds = np.concatenate([kinds for _, kinds, _, _ in seen])
    starts = np.concatenate([strength for _, _, strength, _ in seen])
    missing = np.full(starts.shape[1:], np.nan)
    by_kind = [starts[kinds == kind].mean(0) if (kinds == kind).any() else missing for kind in KINDS]
    of_domain = np.array([domain for domain, *_ in seen])
    by_domain = [strong[of_domain == d].mean(0) if (of_domain == d).any() else missing for d in domains]
    cell, share, unit = "layer head", "share of start tokens", "share, summed"
    (on_low, on_high), (low, high) = bootstrap_interval(on, bounds=(0, 1)), bootstrap_interval(strong, bounds=(0, None))
    result = dataset(
        None,
        {"group": list(KINDS), "domain": list(domains)},
        frequency=(cell, on.mean(0), share, (0, 1), "how often the head is on a route"),
        frequency_low=(cell, on_low, share, (0, 1)),
        frequency_high=(cell, on_high, share, (0, 1)),
        strength=(cell, strong.mean(0), unit, (0, None), "kept shares on reached rows"),
        strength_low=(cell, low, unit, (0, None)),
        strength_high=(cell, high, unit, (0, None)),
        strength_by_kind=(f"group {cell}", np.stack(by_kind), unit, (0, None), "strength by kind of start token"),
        strength_by_domain=(f"domain {cell}", np.stack(by_domain), unit, (0, None), "strength by domain"),
    )
    best = np.unravel_index(int(strong.mean(0).argmax()), strong.shape[1:])
    summary = f"Strongest over {counted(len(seen), 'text')}: L{best[0]}H{best[1]} ({strong.mean(0)[best]:.2f}); {rule}."
    return result.assign_attrs(summary=summary, n_texts=len(seen), n_starts=len(starts), rule=str(rule))


# --- figures ----------------------------------------------------------------------------------------------------------


def frequency_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of how often a head is on a route."""
    from workbench.figures import heads_grid

    return heads_grid(result, "frequency", title=f"How often a head is on a route ({result.attrs['rule']})")


def strength_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the strength."""
    from workbench.figures import heads_grid

    return heads_grid(result, "strength", title="Kept shares of a head on routes", color_range="data")


@reads("flow-route-heads")
def groups_figure(result: xr.Dataset) -> "go.Figure":
    """The ten strongest heads, by kind of start token."""
    from workbench.figures import series

    mean = result["strength"].values
    order = np.argsort(-mean, axis=None)[:10]
    layers, heads = np.unravel_index(order, mean.shape)
    values = result["strength_by_kind"].values[:, layers, heads]
    labels = [f"L{layer}H{head}" for layer, head in zip(layers, heads, strict=True)]
    table = xr.Dataset({"strength": (("group", "component"), values, result["strength"].attrs)})
    table = table.assign_coords(group=result["group"].values, component=labels)
    return series(table, "strength", "component", by="group", title="The strongest heads by kind of start token")


VIEW = View(
    FlowRouteHeads,
    question="Which heads stand on the routes of many tokens?",
    asks=(
        Ask("n_texts", "Follow the routes in", unit="texts of each domain"),
        Ask("length", "of", unit="tokens"),
    ),
    figures=(frequency_figure, strength_figure, groups_figure),
    claims=(claims.head,),
)
