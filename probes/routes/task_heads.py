"""Heads that a task needs: those that stand on its routes and not on the baseline's."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
import xarray as xr

from probes.checks import claims
from probes.routes.extraction import Rule
from probes.routes.heads import strengths
from probes.stimuli import ioi_prompts, names_of, need_english
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View, reads
from workbench.errors import InputError
from workbench.intervene import Ablate, Head
from workbench.models.hooks import Z
from workbench.models.model import Model, Sizes
from workbench.models.prompt import tokenise
from workbench.models.selfcheck import PARTS, RESIDUAL
from workbench.observation import observe
from workbench.observation.recording import Means, measure_means
from workbench.statistics import benjamini_hochberg, difference_interval, draws_for, monte_carlo_p, permutation_test
from workbench.words import hundredths

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "FlowRouteTaskHeads", "ablation", "ablation_figure", "contrast", "difference_figure"]


class FlowRouteTaskHeads(
    Study, name="flow-route-task-heads", title="Heads that a task puts on routes", requires=(RESIDUAL, PARTS)
):
    """Heads that a task needs: those that stand on its routes and not on the baseline's.

    Two sets of prompts that differ in the task only; a head's strength on the last token's route in one, minus the
    other (the paper's way of finding task heads). A difference of routes is no proof: the heads found are ablated, on
    as many new prompts, beside as many random ones. The prompts are indirect object identification: of two people one
    gives the other something, and the name that comes next is the other's; in the baseline a third person gives, so
    that nobody is singled out.

    Definition: Difference of a head's strength on the last token's route (sum of kept shares on reached rows), mean
    over prompts of indirect object identification minus mean over baseline prompts. Check: logit difference of answer
    and wrong name with the strongest heads ablated by their mean, beside as many random heads.

    Limits: Heads that both sets need cancel out, and heads that act through attention patterns alone are not on a value
    route. Four places, four things and three templates: a small world.

    Source: Ferrando & Voita 2024, arXiv 2403.00824, section 4.1; Wang et al. 2022, arXiv 2211.00593 (the task). The
    templates, the test and the control are ours.

    Returns: what `contrast` does, with `chosen` (layer, head), 0 or 1; then also what `ablation` of the chosen does.
    """

    prompted: ClassVar[bool] = False

    n_prompts: Annotated[int, Range(2, 1000), "pairs of prompts"] = 24
    top: Annotated[int, Range(1, 100), "heads that are ablated"] = 6
    threshold: Annotated[float, Range(0, 1), "keep parts above this share"] = 0.01
    draws: Annotated[int, Range(1, 1000), "sets of random heads"] = 20
    seed: Annotated[int, Range(0, 2**31 - 1), "of prompts and random heads"] = 0

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Prompts of about 15 tokens, the routes of all, and a pass of each for every set of heads."""
        return 2.0 * self.n_prompts * (2 + self.draws)

    def partials(
        self, model: Model, tokens: Any = None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """The contrast, then contrast and ablation together.

        Raises InputError for a model without a tokenizer, or whose tokenizer splits the names.
        """
        need_english(model)
        self.fits(model, tokens)
        prompts, fresh = self._prompts(names_of(model))
        task, baseline = ([one[kind] for one in prompts] for kind in ("task", "baseline"))
        found = contrast(model, task, baseline, threshold=self.threshold, seed=self.seed)
        order = np.argsort(-found["difference"].values, axis=None)[: self.top]
        layers, heads = np.unravel_index(order, found["difference"].shape)
        chosen = np.zeros(found["difference"].shape, np.int8)
        chosen[layers, heads] = 1
        marked = dataset(None, chosen=("layer head", chosen, "0 or 1", (0, 1), "among the strongest"))
        found["chosen"] = marked["chosen"]
        if progress is not None:
            progress(0.3)
        yield found.assign_attrs(summary="Strongest on the task: " + _names(layers, heads) + ".")
        strongest = list(zip(layers.tolist(), heads.tolist(), strict=True))
        effect = ablation(model, fresh, strongest, draws=self.draws, seed=self.seed)
        yield found.merge(effect).assign_attrs(effect.attrs)

    def fits(self, model: Model, tokens: Any) -> None:
        """As many other heads as are ablated: random ones are drawn of these."""
        most = model.sizes.n_layers * model.sizes.n_heads // 2
        if self.top > most:
            raise InputError(f"top={self.top}", f"at most {most}, half of the heads of {model.name}", "Take fewer")

    def _prompts(self, names: Sequence[str]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """Those that heads are found on, and others that they are tested on."""
        found_on = ioi_prompts(self.n_prompts, self.seed, names=names)
        return found_on, ioi_prompts(self.n_prompts, self.seed + 1, apart_from=found_on, names=names)


def contrast(model: Model, task: Sequence[Any], baseline: Sequence[Any], *, threshold: float, seed: int) -> xr.Dataset:
    """Strength of every head on the last token's route, one set of prompts against another.

    Returns over (layer, head): `difference` (mean over task prompts minus mean over baseline prompts) with `_low`,
    `_high`, and `q` (two-sided permutation test, Benjamini-Hochberg over all heads).
    """
    rule = Rule(threshold=threshold)
    read = lambda prompts: [tokenise(model, one) for one in prompts]
    last = lambda prompts: np.stack([strength[-1] for strength, _ in strengths(model, read(prompts), rule)])
    a, b = last(task), last(baseline)
    low, high = difference_interval(a, b, seed=seed)
    q = benjamini_hochberg(permutation_test(a, b, draws=draws_for(a[0].size), seed=seed))
    cell, unit = "layer head", "share, summed"
    return dataset(
        None,
        difference=(cell, a.mean(0) - b.mean(0), unit, None, "strength on the task minus the baseline"),
        difference_low=(cell, low, unit, None),
        difference_high=(cell, high, unit, None),
        q=(cell, q, "false discovery rate", (0, 1)),
    ).assign_attrs(rule=str(rule), n_task=len(a), n_baseline=len(b))


def ablation(
    model: Model,
    prompts: Sequence[dict[str, str]],
    heads: Sequence[tuple[int, int]],
    *,
    draws: int,
    seed: int,
    means: Means | None = None,
) -> xr.Dataset:
    """Logit difference between answer and wrong name with heads ablated by their mean, beside as many random heads.

    prompts: of `probes.stimuli.ioi_prompts`. Returns `clean`, `ablated` (mean over prompts, logits) and `random`
    (draw); random heads are drawn without the ones given.
    """
    means = means or measure_means(model, hooks=(Z,))
    names = model.vocabulary.token
    pairs = torch.tensor([[names(one["answer"]), names(one["wrong"])] for one in prompts])

    def difference(chosen: Sequence[tuple[int, int]]) -> float:
        edits = [Ablate(Head(layer, head), "mean", means) for layer, head in chosen]
        seen = observe(model, [one["task"] for one in prompts], interventions=edits)
        logits = torch.stack([row[0].float() for row in seen.logits])
        return float((logits.gather(1, pairs[:, :1]) - logits.gather(1, pairs[:, 1:])).mean())

    rng = np.random.default_rng(seed)
    every = [(layer, head) for layer in range(model.sizes.n_layers) for head in range(model.sizes.n_heads)]
    others = [head for head in every if head not in set(map(tuple, heads))]
    pick = lambda: [others[i] for i in rng.choice(len(others), len(heads), replace=False)]
    random = [difference(pick()) for _ in range(draws)]
    clean, ablated = difference(()), difference(heads)
    p = float(monte_carlo_p(ablated, random, side="less"))
    summary = (
        f"Without {', '.join(f'L{layer}H{head}' for layer, head in heads)} the logit difference is "
        f"{hundredths(ablated)} instead of {hundredths(clean)}; without as many random heads "
        f"{hundredths(float(np.mean(random)))}{f' on average of {draws} draws' if draws > 1 else ''} (p = {p:.2g})."
    )
    return dataset(
        None,
        clean=("", clean, "logits", None, "logit difference of the whole model"),
        ablated=("", ablated, "logits", None, "with the heads ablated"),
        random=("draw", random, "logits", None, "with as many random heads ablated"),
        p=("", p, "probability", (0, 1), "random heads that do as much"),
    ).assign_attrs(summary=summary, reference=str(means))


def _names(layers: np.ndarray, heads: np.ndarray) -> str:
    return ", ".join(f"L{layer}H{head}" for layer, head in zip(layers, heads, strict=True))


@reads("flow-route-task-heads")
def difference_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the contrast, the chosen heads ringed."""
    from workbench.figures import heads_grid

    marked = [(int(layer), int(head)) for layer, head in np.argwhere(result["chosen"].values)]
    title = "Strength on routes: task minus baseline"
    return heads_grid(result, "difference", title=title, color_range="data", mark=marked, mark_name="ablated")


@reads("flow-route-task-heads")
def ablation_figure(result: xr.Dataset) -> "go.Figure":
    """Logit difference of the whole model, without the heads, and without random ones."""
    from workbench.figures import bars

    names = ["whole model", "without these heads", *(["without random heads"] * result.sizes.get("draw", 0))]
    values = [float(result["clean"]), float(result["ablated"]), *result["random"].values.tolist()]
    table = xr.Dataset(
        {"difference": ("component", values, {**result["clean"].attrs, "long_name": "logit difference"})}
    )
    return bars(table, "difference", "component", labels=names, title="Answer minus wrong name")


VIEW = View(
    FlowRouteTaskHeads,
    question="Which heads does a task put on the routes, and does it need them?",
    asks=(
        Ask("n_prompts", "Compare routes on", unit="pairs of prompts"),
        Ask("top", "and take out the", unit="strongest heads"),
        Ask("draws", "beside", unit="sets of random heads"),
    ),
    figures=(difference_figure, ablation_figure),
    claims=(claims.head,),
)
