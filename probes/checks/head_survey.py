"""All heads at once: which ones matter on a set of prompts, more than heads that are as loud, corrected for all."""

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import xarray as xr

from probes import stimuli
from probes.checks import claims
from probes.checks.hypothesis import gone_on, measured_of, metric_of
from probes.checks.matched_controls import CALIPER, FEWEST, HeadControls
from probes.checks.norms import output_norms
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Choice, Lines, Range
from workbench.analysis.progress import part
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.errors import InputError, RefusedError
from workbench.figures import head_name
from workbench.intervene import Ablate, Head
from workbench.models.hooks import Z
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens, tokenise
from workbench.models.selfcheck import PADDING, READOUT
from workbench.models.typed import typed
from workbench.observation.metrics import KINDS, Metric
from workbench.observation.recording import measure_means
from workbench.observation.sweeps import base_run, sweep
from workbench.statistics import max_statistic
from workbench.words import change, counted

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["FEWEST_PROMPTS", "VIEW", "HeadSurvey", "survey"]

FEWEST_PROMPTS = 6  # two-sided, n sign flips give no p below 2 / 2^n: 0.06 for five
SMALL = 0.05
TASKS = ("indirect object", "repeated tokens", "prompts")
_NAMED = 8  # heads that the sentence names
_LEFT = 3  # of those that are left out
_LENGTH = 24  # tokens of a sequence that repeats


class HeadSurvey(Study, name="head-survey", title="Which heads matter over prompts", requires=(READOUT, PADDING)):
    """Which heads matter on these prompts, more or less than heads that are as loud: all heads, one correction.

    Definition: Every head is removed on every prompt; effect = metric without it - metric with it. contrast = its
    effect minus the mean effect of its controls on the same prompt: up to 50 other heads within a factor 1.5 of its
    norm, nearest in depth, as in causal-check. p: two-sided, that the mean contrast over prompts is not zero, by
    flipping the signs of prompts, all heads at once, and the largest |t| over heads (both tails): so it is corrected
    for all heads. The interval holds all contrasts at once, whatever they are; p asks about zero alone, so an interval
    may reach over zero where p is just small enough. A head matters where p is at most 0.05; it does not matter where
    the interval lies within +- `smallest`; else n prompts cannot tell. A head with fewer than 19 controls, or
    whose contrast does not vary or is not finite, is undefined: left out of the largest, and counted.

    Limits: Prompts are what is drawn again: the answer holds for prompts like these, of these templates, not for
    others. n prompts have a smallest p of 2 / 2^n, so fewer than 6 different ones are refused. Flips take a contrast as
    symmetric about zero: one that is large on rare prompts and small on the rest passes too often, and what is shown is
    then what most prompts do (of 40 such heads, log-normal about zero, one or more passed in 77 of 100 surveys of 30
    prompts; of normal ones in 5). That a contrast is zero
    for all heads that are as loud is not expected: heads differ, and with enough prompts most will be told apart; the
    size says which matter. A head that another one stands in for when it is removed does not show.

    Source: largest t by sign flips as in Westfall and Young 1993, Nichols and Holmes 2002; controls as in causal-check.

    Returns: `effect`, `contrast` with `_low`, `_high`, `contrast_p`, `matters` (1, 0, NaN: cannot tell or undefined),
    `norm`, `n_controls`, `control_norm_low`, `control_norm_high` (layer, head); `effect_by_prompt` (prompt, layer,
    head), with `prompt_text` and `measured` (prompt); `n_tested`, `n_undefined`.
    """

    prompted: ClassVar[bool] = False

    on: Annotated[
        str,
        Choice(TASKS),
        "what it runs on: indirect objects (logit of the right name minus the other), random tokens that repeat, or "
        "`prompts`",
    ] = TASKS[0]
    prompts: Annotated[str, Lines(), "texts of your own, six or more, separated by |"] = ""
    metric: Annotated[str, Choice(KINDS), "what is measured on prompts"] = "log-probability"
    n_prompts: Annotated[int, Range(FEWEST_PROMPTS, 1000), "prompts of a task"] = 16
    method: Annotated[str, Choice(("zero", "mean")), "how a head is removed"] = "zero"
    caliper: Annotated[float, Range(1.05, 100.0), "factor of norm within which a control lies"] = CALIPER
    smallest: Annotated[float, Range(0.0, 1e6), "contrast that would matter, in units of the metric"] = 0.1
    seed: Annotated[int, Range(0, 2**31 - 1), "draws prompts and sign flips"] = 0

    def idle(self) -> dict[str, str]:
        """A task says what is measured; prompts of one's own are as many as they are."""
        return {"n_prompts": "a task"} if self.on == "prompts" else {"metric": "on='prompts'"}

    def partials(
        self,
        model: Model,
        tokens: Tokens | None = None,
        *,
        progress: Progress | None = None,
        allow_network: bool = False,
    ) -> Generator[xr.Dataset, None, None]:
        """The survey after every prompt from the sixth on. Raises RefusedError for fewer than six different ones."""
        prompts, metrics = self._prompts(model)
        yield from survey(
            model, prompts, metrics, method=self.method, caliper=self.caliper, smallest=self.smallest, seed=self.seed,
            progress=progress,
        )  # fmt: skip

    def _prompts(self, model: Model) -> tuple[list[Tokens], list[dict[str, str]]]:
        if self.prompts and self.on != "prompts":  # those of the task would be taken for one's own
            raise InputError(
                f"prompts of your own, and on={self.on!r}",
                "on='prompts' for them",
                "Choose it, or leave the prompts out",
            )
        if self.on == "repeated tokens":
            drawn = stimuli.repeated_tokens(model, n_sequences=self.n_prompts, length=_LENGTH, seed=self.seed + 1)
            repeated = list(drawn.tokens[: self.n_prompts])
            return repeated, [{"kind": "repetition"}] * len(repeated)
        if self.on == "prompts":
            texts = [text.strip() for text in self.prompts.split("|") if text.strip()]
            return [typed(model, text) for text in texts], [{"kind": self.metric}] * len(texts)
        found = stimuli.ioi_prompts(self.n_prompts, self.seed, names=stimuli.names_of(model))
        asked = [{"kind": "logit difference", "target": one["answer"], "against": one["wrong"]} for one in found]
        return [tokenise(model, one["task"]) for one in found], asked

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """Half a pass for every head of every prompt."""
        return 0.5 * self.n_prompts * sizes.n_layers * sizes.n_heads


def survey(
    model: Model,
    prompts: Sequence[Tokens],
    metrics: Sequence[dict[str, Any]],
    *,
    method: str = "zero",
    caliper: float = CALIPER,
    smallest: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[xr.Dataset]:
    """The survey of all heads on prompts, each measured by its options of `make_metric`; see `HeadSurvey`.

    A prompt that is given twice counts once. Yields what is known from the sixth prompt on.
    """
    once = {one.ids: (one, asked) for one, asked in zip(prompts, metrics, strict=True)}
    if len(once) < FEWEST_PROMPTS:
        raise RefusedError(
            f"{len(once)} different prompts, whose smallest p is {min(1.0, 2 / 2 ** len(once)):.2g}",
            f"at least {FEWEST_PROMPTS}: fewer cannot tell a head from its controls at 0.05",
            "Give more prompts",
        )
    tokens, asked = [one for one, _ in once.values()], [options for _, options in once.values()]
    means = measure_means(model, hooks=(Z,)) if method == "mean" else None
    heads = [Head(layer, head) for layer in range(model.sizes.n_layers) for head in range(model.sizes.n_heads)]
    cells = [[Ablate(head, method, means)] for head in heads]
    norms = output_norms(model, tokens, Head)
    controls = HeadControls.of(norms, caliper)
    effects = np.full((len(tokens), *norms.shape), np.nan)
    runs: list[Tokens] = []
    used: list[Metric] = []
    for index, (one, options) in enumerate(zip(tokens, asked, strict=True)):
        base = base_run(model, gone_on(model, one, options))
        metric = metric_of(model, base, options)
        values, own = np.full(len(cells), np.nan), base.value(model, metric)
        runs, used = [*runs, base.tokens], [*used, metric]
        share = part(progress, index / len(tokens), (index + 1) / len(tokens))
        for indices, found in sweep(model, base, cells, metric, progress=share):
            values[indices] = found.double().cpu().numpy() - own
        effects[index] = values.reshape(norms.shape)
        if index + 1 >= FEWEST_PROMPTS:
            known, kind = effects[: index + 1], asked[0]["kind"]
            result = _result(known, norms, controls, metric.units, kind, caliper, smallest, seed)
            coarse = next((one.coarse for one in used if one.coarse), "")
            said = f"{result.attrs['summary']} {coarse}".rstrip()
            yield result.merge(dataset(None, **measured_of(model.vocabulary, runs, used))).assign_attrs(summary=said)


def _result(
    effects: np.ndarray,
    norms: np.ndarray,
    controls: HeadControls,
    units: str,
    metric: str,
    caliper: float,
    smallest: float,
    seed: int,
) -> xr.Dataset:
    contrast = controls.contrast(effects)
    p, widest = max_statistic(contrast, seed=seed)
    defined = np.isfinite(p)
    mean = np.where(defined, contrast.mean(0), np.nan)
    half = widest * contrast.std(0, ddof=1) / np.sqrt(len(contrast))
    low, high = np.where(defined, mean - half, np.nan), np.where(defined, mean + half, np.nan)
    matters = np.where(p <= SMALL, 1.0, np.where((low > -smallest) & (high < smallest), 0.0, np.nan))
    cell, times = "layer head", "times the head's"
    result = dataset(
        None,
        effect=(cell, effects.mean(0), units, None, "effect of removing the head"),
        contrast=(cell, mean, units, None, "effect minus that of its controls"),
        contrast_low=(cell, low, units, None, f"contrast, lower end, all heads at once, {len(effects)} prompts"),
        contrast_high=(cell, high, units, None, f"contrast, upper end, all heads at once, {len(effects)} prompts"),
        contrast_p=(cell, p, "probability", (0, 1), "p corrected for all heads"),
        matters=(cell, matters, "flag", (0, 1), "matters (1), does not (0), cannot tell or undefined (NaN)"),
        norm=(cell, np.exp(norms), "residual units", (0, None), "norm of what the head writes"),
        n_controls=(cell, controls.number, "heads", (0, None), "heads within the caliper, at most 50"),
        control_norm_low=(cell, controls.low, times, (0, None), "smallest norm of a control"),
        control_norm_high=(cell, controls.high, times, (0, None), "largest norm of a control"),
        effect_by_prompt=(f"prompt {cell}", effects, units, None, "effect by prompt"),
        n_tested=("", int(defined.sum()), "heads", (0, None), "heads that are tested"),
        n_undefined=("", int((~defined).sum()), "heads", (0, None), "heads that are not"),
    )
    result.attrs.update(metric=metric, caliper=caliper, smallest=smallest, n_prompts=len(effects))
    return result.assign_attrs(summary=_summary(result))


def _summary(result: xr.Dataset) -> str:
    """How many matter and which, with their controls' norms; how many do not; how many cannot be told."""
    a, matters = result.attrs, result["matters"].values
    n, tested, undefined = a["n_prompts"], int(result["n_tested"]), int(result["n_undefined"])
    if not tested:
        few = f"fewer than {FEWEST} others are within a factor {a['caliper']:g} of its norm"
        return f"No head can be tested: of each, {few}, or its contrast does not vary or is not finite."
    left = ""
    if undefined:
        more, their = ("1 more is", "its") if undefined == 1 else (f"{undefined} more are", "their")
        left = f" {more} left out: fewer than {FEWEST} others are within a factor {a['caliper']:g} of "
        left += f"{their} norm, or {their} contrast does not vary or is not finite"
        loud = _largest(result["effect"].where(result["contrast_p"].isnull()).values, _LEFT)
        size = lambda at: change(float(result["effect"].sel(layer=at[0], head=at[1])))
        effects = [f"{head_name(*at)} ({size(at)})" for at in loud]
        largest = "the largest effects of these are those" if len(effects) > 1 else "the largest effect there is that"
        left += f"; {largest} of {', '.join(effects)}." if effects else "."
    n_matter, n_not = int((matters == 1).sum()), int((matters == 0).sum())
    unknown = tested - n_matter - n_not
    verb = "changes" if n_matter == 1 else "change"
    said = (
        f"Of {counted(tested, 'head')} tested on n = {n} prompts, {n_matter or 'none'} {verb} the {a['metric']} "
        f"otherwise than heads as loud (p at most {SMALL:g} after correction for all"
        f"{', largest first' if n_matter > 1 else ''})"
    )
    first = _largest(result["contrast"].where(result["matters"] == 1).values, _NAMED)
    named = [f"{head_name(*at)} {_of(result, at)}" for at in first]
    said += f": {', '.join(named)}{' ...' if n_matter > _NAMED else ''}." if named else "."
    units = result["contrast"].attrs["units"]
    if n_not:
        does = "does" if n_not == 1 else "do"
        said += f" {n_not} {does} not matter: the interval lies within {a['smallest']:g} {units} of zero."
    if unknown:
        said += f" Of {unknown} it cannot be told with n = {n}."
    return said + left


def _largest(values: np.ndarray, n: int) -> list[tuple[int, int]]:
    """Heads of the n largest sizes that are known and finite."""
    size = np.where(np.isfinite(values), np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[: min(n, int((size >= 0).sum()))]
    return [(int(layer), int(head)) for layer, head in zip(*np.unravel_index(order, values.shape), strict=True)]


def _of(result: xr.Dataset, at: tuple[int, int]) -> str:
    """`-2.90 (p = 0.0003; 40 controls of 0.70 to 1.40 times its norm)`."""
    here = result.sel(layer=at[0], head=at[1])
    low, high = float(here["control_norm_low"]), float(here["control_norm_high"])
    size, p = change(float(here["contrast"])), float(here["contrast_p"])
    return f"{size} (p = {p:.2g}; {int(here['n_controls'])} controls of {low:.2f} to {high:.2f} times its norm)"


def contrast_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the contrast; heads that matter after correction are ringed."""
    from workbench.figures import heads_grid

    marked = [(int(layer), int(head)) for layer, head in np.argwhere(result["matters"].values == 1)]
    title = f"Effect on the {result.attrs['metric']} beyond heads as loud, {result.attrs['n_prompts']} prompts"
    return heads_grid(result, "contrast", title=title, color_range="data", mark=marked, mark_name="matters")


def effect_figure(result: xr.Dataset) -> "go.Figure":
    """Layer x head grid of the effect itself."""
    from workbench.figures import heads_grid

    return heads_grid(result, "effect", title=f"Effect on the {result.attrs['metric']}", color_range="data")


def table(result: xr.Dataset) -> "pd.DataFrame":
    """One row per head, the smallest p first: contrast with its interval, p, effect, norm and that of its controls."""
    names = ["contrast", "contrast_low", "contrast_high", "contrast_p", "matters", "effect", "norm", "n_controls",
             "control_norm_low", "control_norm_high"]  # fmt: skip
    frame = result[names].to_dataframe().reset_index()
    labels = [head_name(layer, head) for layer, head in zip(frame["layer"], frame["head"], strict=True)]
    return frame.set_axis(labels, axis=0).rename_axis("name").sort_values("contrast_p", kind="stable")


VIEW = View(
    HeadSurvey,
    question="Which heads matter on a set of prompts, of all of them, more than heads that are as loud?",
    asks=(
        Ask("method", "Remove each head in turn by"),
        Ask("on", "on"),
        Ask("n_prompts", "with", unit="prompts"),
    ),
    figures=(contrast_figure, effect_figure),
    claims=(claims.head,),
    tables=(table,),
)
