"""How much of a prediction a graph carries: keep its attention edges, replace what all others bring, look again."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr
from einops import repeat

from probes.routes.extraction import DEFAULT_COVERAGE, Rule, rule_of
from probes.routes.flow_routes import FlowRoutes
from probes.routes.only_edges import BATCH_TOKENS, CleanPass, edge_masks
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Position, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.errors import InputError, RefusedError
from workbench.models.hooks import RESID_POST, V
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens, tokenise
from workbench.models.selfcheck import PARTS, RESIDUAL
from workbench.models.target import Target, likelier, target_of
from workbench.observation import Need, observe
from workbench.observation.recording import Means, measure_means
from workbench.observation.reducers import residual_norm
from workbench.words import hundredths

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "COVERAGES",
    "THRESHOLDS",
    "VIEW",
    "FlowRouteFaithfulness",
    "faithfulness_figure",
    "thresholds_figure",
]

COVERAGES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
THRESHOLDS = (0.001, 0.003, 0.01, 0.02, 0.04)
_SMALLEST_GAP = 0.1  # nats that all edges bring over none, below which there is nothing to carry a share of

_NORMS = Need((RESID_POST,), residual_norm, dims="pos")
_MASK_BYTES = 1_000_000_000
_TRIED = 3  # first layers; on the default model 1 was enough wherever 0 was not
_SINK_GROWTH = 10.0  # on the default model graphs stay below 2.5, and tokens that turned into sinks reach 300


class FlowRouteFaithfulness(
    Study,
    name="flow-route-faithfulness",
    title="How much of a prediction its routes carry",
    requires=(RESIDUAL, PARTS),
):
    """How much of a prediction a graph carries: keep its attention edges, replace what all others bring, look again.

    An edge is value flow, so attention patterns stay as they were on the prompt. From the bottom up, every removed edge
    (query, key, head) brings `pattern x mean value of the head` instead of its own value; the mean is taken over
    positions >= 1 of a named reference text, and key 0 keeps its own clean value, which no mean resembles. Kept edges
    bring the values of the changed stream. Residual steps, biases and MLPs stay, and MLPs are computed anew on the
    changed stream.

    Definition: F = (m(graph) - m(empty)) / (m(full) - m(empty)), m = log p(target) in nats. Attention patterns are
    those of the prompt; a removed edge brings its head's mean value over positions >= 1 of a reference text instead of
    its own (key 0: its own); everything else is computed anew on the changed stream. Beside it graphs with as many
    edges in every row, drawn in proportion to attention.

    full: every edge kept, which reproduces the model; empty: every edge removed. 1 means that the graph does as well as
    the whole, 0 no better than no edges; neither bounds F. It is not given where all edges make the target likelier by
    less than 0.1 nats than none do: there is nothing to carry then, or the edges speak against it. The random graphs
    are drawn without replacement.

    Limits: Value flow only: which edges made the patterns is not asked. Mean values are unlike anything the model has
    seen; where they make a token look like the first one, F falls to 0 for that reason alone (see `growth`).

    What can go wrong is shown: mean values in the first layer can make an ordinary function word look like the first
    token, so that it becomes an attention sink, its residual norm up to 300 times what it was, and F falls to 0 however
    many edges are kept. `growth` is the largest such ratio; `first_layer=1` keeps every edge of layer 0 and asks about
    the rest. Layers below first_layer keep every edge in "empty" and in random graphs too. Where none is given it is
    the lowest of 0, 1 and 2 at which the graph nearest coverage 0.8 has no growth of 10 and more, whatever its F; where
    there is none, 0. The result says which.

    Source: definition ours; graphs of arXiv 2403.00824; complement and mean replacement as in path patching

    Returns: over `row` (coords `rule`, `setting`): `faithfulness`, `kl` (nats, from the full distribution), `edges`
    (kept, a row's mean over layers and positions), `growth`; over (row, draw): `random_faithfulness`, `random_kl`, NaN
    until drawn; and `log_prob_full`, `log_prob_empty` (nats).
    """

    start: Annotated[int | None, Position(), "token whose prediction is explained; default the last"] = None
    target: Annotated[str | None, 'a token, or a set such as ["4", "5"]; default the model\'s own prediction'] = None
    first_layer: Annotated[
        int | None, Range(0), "layers below it keep every edge; default the lowest at which means make no sink"
    ] = None
    draws: Annotated[int, Range(1, 1000), "random graphs for each setting"] = 20
    seed: Annotated[int, Range(0, 2**31 - 1), "of the random graphs"] = 0

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A pass for every graph, found or drawn."""
        return (len(COVERAGES) + len(THRESHOLDS)) * (1.0 + self.draws) + 10

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The curve with the coverages and thresholds of the module."""
        yield from self.curve(model, tokens, progress=progress)

    def curve(
        self,
        model: Model,
        prompt: Any,
        *,
        coverages: Sequence[float] = COVERAGES,
        thresholds: Sequence[float] = THRESHOLDS,
        means: Means | None = None,
        progress: Progress | None = None,
    ) -> Iterator[xr.Dataset]:
        """The curve of F over coverage and threshold, and random graphs beside it; yields after every batch.

        means: of `measure_means(model, hooks=(V,))`, measured here if it is not given.
        """
        means = means or measure_means(model, hooks=(V,))
        run = _Run.of(model, tokenise(model, prompt), self.start, means, len(coverages) + len(thresholds))
        least, most = min(thresholds, default=0.001), max(coverages, default=0.95)
        result = run.routes(min(least, 0.001), max(most, 0.95))
        rules = [rule_of(result, c, None) for c in coverages] + [rule_of(result, None, t) for t in thresholds]
        graphs = edge_masks(result, rules, model.sizes.n_heads)
        ends = torch.stack([torch.ones_like(graphs[0]), torch.zeros_like(graphs[0])])  # full, empty
        masks, told = (
            torch.cat([ends, graphs]),
            len(ends) + _nearest_default([rule.coverage for rule in rules]),
        )
        first, log_probs, growth = run.without_sinks(masks, self.first_layer, told)
        asked = self.replaced(first_layer=first)
        own = Target.one(int(log_probs[0].argmax()))
        wanted = own if self.target is None else target_of(model.vocabulary, self.target)
        if wanted.length > 1:
            raise InputError(wanted.describe(model.vocabulary), "one token, or a set of single ones", "Mind the space")
        note = likelier(model.vocabulary, self.target, log_probs[0]) if self.target else ""
        drawn: list[torch.Tensor] = []
        generator = torch.Generator().manual_seed(self.seed)
        so_far = lambda: run.dataset(rules, graphs, log_probs, growth, drawn, asked, wanted, note)
        yield so_far()
        at_once = max(1, BATCH_TOKENS // (len(rules) * run.n_pos))
        while len(drawn) < self.draws:
            some = [run.random_graphs(graphs, generator) for _ in range(min(at_once, self.draws - len(drawn)))]
            drawn += run.outcomes(torch.cat(some), first)[0].split(len(rules))
            if progress is not None:
                progress(len(drawn) / self.draws)
            yield so_far()


@dataclass(frozen=True, eq=False)
class _Run:
    """One prompt whose prediction is looked at, run with edges removed."""

    clean: CleanPass
    start: int

    @property
    def n_pos(self) -> int:
        """Number of tokens."""
        return len(self.clean.tokens)

    @classmethod
    def of(cls, model: Model, tokens: Tokens, start: int | None, means: Means, n_rules: int) -> "_Run":
        """Run the prompt once; RefusedError where the masks of its graphs would not fit."""
        n, sizes = len(tokens), model.sizes
        at = n - 1 if start is None else start + n if start < 0 else start
        if not 0 <= at < n:
            raise InputError(f"start={start}", f"a position from 0 to {n - 1}", "Choose a token of the prompt")
        size = 10 * n_rules * sizes.n_layers * sizes.n_heads * n * n
        if size > _MASK_BYTES:
            raise RefusedError(
                f"faithfulness at {n} tokens, about {size / 1e9:.1f} GB of graphs",
                f"at most {_MASK_BYTES / 1e9:.0f} GB",
                "Shorten the prompt, or measure fewer settings",
            )
        return cls(CleanPass.of(model, tokens, means, _NORMS), at)

    def routes(self, min_share: float, min_coverage: float) -> xr.Dataset:
        """Shares of the prompt, kept as finely as the settings ask."""
        routes = FlowRoutes(min_share=min_share, min_coverage=min_coverage)
        model, tokens = self.clean.model, self.clean.tokens
        return routes.analyse(observe(model, tokens, routes.needs(model, tokens), positions="none"))

    def outcomes(self, masks: torch.Tensor, first_layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """With only the masked edges: log-probabilities at the start, `[row, d_vocab]`, and growth of norms,
        `[row]`."""
        masks = masks.clone()
        masks[:, :first_layer] = True
        found, growth = [], []
        for seen in self.clean.with_only(masks, _NORMS, positions=[self.start]):
            found.append(torch.stack([row[0] for row in seen.log_probs]))
            ratio = seen[_NORMS] / self.clean.seen[_NORMS]
            growth.append(ratio[..., 1:].amax((0, 2)) if self.n_pos > 1 else ratio.amax((0, 2)))
        return torch.cat(found), torch.cat(growth)

    def without_sinks(
        self, masks: torch.Tensor, first_layer: int | None, told: int
    ) -> tuple[int, torch.Tensor, torch.Tensor]:
        """The first layer whose edges are asked about, and what `outcomes` gives of it: the given one, or the lowest at
        which no token of the row `told` turns into a sink."""
        if first_layer is not None:
            return first_layer, *self.outcomes(masks, first_layer)
        tried = []
        for layer in range(min(_TRIED, self.clean.model.sizes.n_layers)):
            tried.append((layer, *self.outcomes(masks, layer)))
            if tried[-1][2][told] < _SINK_GROWTH:
                return tried[-1]
        return tried[0]

    def random_graphs(self, graphs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One random graph per graph, with as many edges in every row; the draws of one call are nested in each other.

        Gumbel noise on log attention and a sort: the first n are n drawn without replacement, in proportion to
        attention.
        """
        uniform = torch.rand(self.clean.patterns.shape, generator=generator, dtype=torch.float64)
        noisy = self.clean.patterns.double().cpu().log() - (-uniform.clamp(min=1e-300).log()).log()
        n_keys = noisy.shape[-1]
        by_row = noisy.permute(0, 2, 1, 3).flatten(2)  # layer query (head key)
        ranks = by_row.argsort(-1, descending=True).argsort(-1).unflatten(-1, (-1, n_keys)).permute(0, 2, 1, 3)
        counts = graphs.sum((2, 4))  # rule layer query
        return ranks < repeat(counts, "rule l q -> rule l h q k", h=noisy.shape[1], k=n_keys)

    def dataset(
        self,
        rules: Sequence[Rule],
        graphs: torch.Tensor,
        log_probs: torch.Tensor,
        growth: torch.Tensor,
        drawn: Sequence[torch.Tensor],
        asked: FlowRouteFaithfulness,
        target: Target,
        note: str,
    ) -> xr.Dataset:
        """What is known so far. note: what is to be said of the target."""
        ids = [member[0] for member in target.members]
        log_p = lambda found: found[..., ids].logsumexp(-1) if len(ids) > 1 else found[..., ids[0]]
        full, empty = (float(log_p(log_probs[i])) for i in (0, 1))
        gap = full - empty if full - empty >= _SMALLEST_GAP else float("nan")
        share = lambda found: (log_p(found) - empty) / gap
        kl = lambda found: (log_probs[0].exp() * (log_probs[0] - found)).sum(-1).clamp(min=0)
        missing = torch.full((len(rules), asked.draws - len(drawn)), torch.nan)
        random = [
            torch.cat([torch.stack([f(d) for d in drawn], -1), missing], -1) if drawn else missing for f in (share, kl)
        ]
        result = dataset(
            None,
            {
                "rule": ("row", ["coverage" if rule.threshold is None else "threshold" for rule in rules]),
                "setting": ("row", [rule.coverage if rule.threshold is None else rule.threshold for rule in rules]),
            },
            faithfulness=("row", share(log_probs[2:]), "share of the gap", None, "faithfulness of the graph"),
            random_faithfulness=("row draw", random[0], "share of the gap", None, "faithfulness of random graphs"),
            kl=("row", kl(log_probs[2:]), "nats", (0, None), "KL from the full distribution"),
            random_kl=("row draw", random[1], "nats", (0, None), "KL of random graphs"),
            edges=("row", graphs.float().sum((2, 4)).mean((1, 2)), "edges per row", (0, None)),
            growth=("row", growth[2:], "ratio", (0, None), "largest residual norm against the clean run's"),
            log_prob_full=("", full, "nats", (None, 0), "log-probability with all edges"),
            log_prob_empty=("", empty, "nats", (None, 0), "log-probability with no edges"),
        )
        name = target.label(self.clean.model.vocabulary)
        settings = {"start": self.start, "first_layer": asked.first_layer, "target": name, "target_ids": target.written}
        said = " ".join(filter(None, [_summary(result, name, asked.first_layer or 0), note]))
        return result.assign_attrs(settings, reference=str(self.clean.means), summary=said)


def _summary(result: xr.Dataset, target: str, first_layer: int) -> str:
    """One sentence: the coverage nearest the default, with its control."""
    if bool(result["faithfulness"].isnull().all()):
        against = float(result["log_prob_empty"] - result["log_prob_full"])
        if against >= _SMALLEST_GAP:
            found = f"Without any of these edges {target!r} is likelier by {against:.2f} nats: they do not carry it"
        else:
            found = f"All edges and none differ by less than {_SMALLEST_GAP} nats for {target!r}"
        return f"{found}, and no faithfulness is given."
    row = result.isel(row=_nearest_default(result["setting"].where(result["rule"] == "coverage").values))
    control = float(row["random_faithfulness"].mean())
    kept = f"{str(row['rule'].item()).capitalize()} {float(row['setting']):g}"
    beside = f", random graphs of equal size {hundredths(control)}" if np.isfinite(control) else ""  # none drawn yet
    said = f"{kept} carries {hundredths(float(row['faithfulness']))} of the prediction of {target!r}{beside}."
    return f"{said}{_below(first_layer)}{_warning(row, first_layer)}"


def _nearest_default(coverages: Any) -> int:
    """The row that is told of: the coverage nearest the default, or the first row where none is one (NaN)."""
    far = np.abs(np.asarray(coverages, dtype=float) - DEFAULT_COVERAGE)
    return int(np.argmin(np.nan_to_num(far, nan=np.inf)))


def _below(first_layer: int) -> str:
    if not first_layer:
        return ""
    layers = "layer 0 is" if first_layer == 1 else f"layers 0 to {first_layer - 1} is"
    return f" Every edge of {layers} kept in all of them."


def _warning(row: xr.Dataset, first_layer: int) -> str:
    growth = float(row["growth"])
    if growth < _SINK_GROWTH or float(row["faithfulness"]) > 0.5:
        return ""
    return (
        f" A token's residual norm is {growth:.0f} times what it was: mean values have made an attention sink of it, "
        f"and this F says little.{'' if first_layer else ' Try first_layer=1.'}"
    )


@reads("flow-route-faithfulness")
def faithfulness_figure(result: xr.Dataset, rule: str = "coverage") -> "go.Figure":
    """F over the settings of one rule, with the mean and the range of random graphs."""
    from workbench.figures import series

    one = result.isel(row=result["rule"].values == rule)
    if one.sizes["row"] == 0:
        one, rule = result, str(result["rule"].values[0])
    random = one["random_faithfulness"]
    data = xr.Dataset({"faithfulness": one["faithfulness"], "random": random.mean("draw", keep_attrs=True)})
    data = data.assign(random_low=random.min("draw"), random_high=random.max("draw"))
    data = data.drop_vars(["rule", "setting"], errors="ignore").rename(row="threshold")
    data = data.assign_coords(threshold=one["setting"].values).sortby("threshold")
    title = f"Faithfulness for {result.attrs['target']!r}"
    figure = series(data, ["faithfulness", "random"], "threshold", title=title, log_x=rule == "threshold")
    figure.update_xaxes(title_text=rule)
    return figure


def thresholds_figure(result: xr.Dataset) -> "go.Figure":
    """The same curve over the paper's thresholds."""
    return faithfulness_figure(result, "threshold")


VIEW = View(
    FlowRouteFaithfulness,
    question="How much of the prediction do its routes carry?",
    asks=(
        Ask("start", "Keep only the routes to", pick="pos", empty="the last token"),
        Ask("first_layer", "and every edge below layer", empty="the lowest without new sinks"),
        Ask("draws", "beside", unit="random graphs"),
    ),
    figures=(faithfulness_figure, thresholds_figure),
)
