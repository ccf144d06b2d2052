"""The training timeline: scores, losses and change points along the steps of a toy's training, or of checkpoints."""

from collections.abc import Generator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import xarray as xr

from probes.formation import real_checkpoints
from probes.formation.change_points import FEWEST, FLOOR, change_point
from probes.formation.figures import head_detail, heads_figure, losses_figure, scores_figure
from probes.formation.scrubbers import scrubbed, scrubbed_lens, scrubbed_routes
from probes.formation.series import joined, scores_of
from probes.formation.toy_models import lacks_task
from probes.formation.toy_runs import Part, checkpoint, trained
from probes.formation.watched import watched
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Range, Values
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.errors import InputError
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.recipes import asked
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens

__all__ = ["VIEW", "TrainingTimeline"]

_SCRUBBED = 48  # steps at which one sequence is kept
SHARES = ("accuracy", "mass", "validity", "distance")


class TrainingTimeline(Study, name="training-timeline", title="Training timeline"):
    """Scores, losses and change points along a training run: of a toy, or of a series of checkpoints.

    Definition: of a toy, its recipe is trained with several seeds and every kept step is looked at: the loss and the
    measures of the task on one fixed evaluation batch, and all scores of the named analyses, with the interventions of
    the run on every checkpoint. Of checkpoints, the named analyses run on each. A change point is the midpoint of the
    S-shaped curve that fits a score (of heads: the largest over heads) on the axis log10(1 + step), where there is one:
    nine tenths of the variance explained, from a tenth to nine tenths of the change within a third of the axis, both
    levels seen, and at least 0.1 apart. Over seeds: the range, and k of n seeds that have one.

    Limits: a score that rises says when a head begins to look somewhere, not that it is needed. Change points of
    different scores within one interval of checkpoints are not in any order. A range over a few seeds is no confidence
    interval. The largest over heads may be of another head at each step.

    Source: Olsson et al. 2022, arXiv 2209.11895 (scores along training); the change point and its criteria are ours.

    Returns: `loss` and the task's measures (seed, step); scores of analyses (seed, step, layer, head) or fewer dims;
    `change_step` (component, seed), NaN where nothing changes at once, with `change_low`, `change_high` (component),
    the range over seeds, and `n_changed` (component). `pattern` (step, layer, head, query, key) and `lens` (step,
    depth, pos), the probability of the right next token read out at each depth, on one sequence of the first seed;
    `route` (step, layer, head, query, key), `route_mlp`, `route_resid_attn`, `route_resid_mlp` (step, layer, pos): the
    shares of `flow-routes` on the graph behind its last token's prediction (coverage 0.8), 0 off it.
    """

    prompted: ClassVar[bool] = False

    entries: Annotated[str, "analyses by name, with spaces between; empty: task-attention, or induction-heads"] = ""
    seeds: Annotated[int, Range(1, 64), "seeds of a toy: 0, 1, ..."] = 3
    clamp: Annotated[str, "held through training, such as L0H0 previous-token; + between several"] = ""
    checkpoints: Annotated[
        str, "folders, .gguf files, or revisions as hub:NAME@step1000; ; between, STEP=PLACE where no number is in it"
    ] = ""
    floor: Annotated[float, Range(0.0, 1e6), "levels of a change differ by as much"] = FLOOR

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """About five hundred steps a seed, or a checkpoint's own passes."""
        return 40.0 * (1 + self.checkpoints.count(";")) if self.checkpoints else 18_000.0 * self.seeds

    def places(self) -> dict[str, str]:
        """Checkpoints are loaded from where they are."""
        return {"checkpoints": self.checkpoints} if real_checkpoints.on_disk(self.checkpoints) else {}

    def artifact(self, model: Model) -> str | None:
        """What the checkpoints are: a folder that is written anew is another series."""
        return real_checkpoints.state(self.checkpoints)

    def idle(self) -> dict[str, str]:
        """Checkpoints have been trained."""
        return dict.fromkeys(("seeds", "clamp"), "a toy that is trained here") if self.checkpoints.strip() else {}

    def fits(self, model: Model, tokens: Tokens | None) -> None:
        """A toy that was trained, or a series of checkpoints."""
        if not self.checkpoints.strip() and lacks_task(model) is not None:
            raise InputError(
                f"training-timeline of {model.name} without checkpoints",
                "a toy that was trained, or checkpoints= with a series of folders", "Name them",
            )  # fmt: skip

    def partials(
        self,
        model: Model,
        tokens: Tokens | None = None,
        *,
        progress: Progress | None = None,
        allow_network: bool = False,
    ) -> Generator[xr.Dataset, None, None]:
        """What there is, a few times a run. InputError for a model that is no toy and has no checkpoints named."""
        self.fits(model, tokens)
        if self.checkpoints.strip():
            yield self._real(model, progress, allow_network)
            return
        recipe = asked(model.name).recipe
        recipe = recipe.with_settings({"clamp": self.clamp}) if self.clamp else recipe
        entries = self.entries or "task-attention"
        for part in trained(recipe, range(self.seeds), named(entries), model.interventions, progress):
            shown = _watched(recipe, model.interventions, part) if part.complete else None
            begun = sorted(part.losses)  # a range over seeds that are still to come would be one of fewer
            yield self._result(part.losses, part.scores, begun, shown, model.name)

    def _real(self, model: Model, progress: Progress | None, network: bool) -> xr.Dataset:
        """Of a series of checkpoints; NaN where a score has no mean."""
        series = real_checkpoints.places(self.checkpoints)
        analyses = named(self.entries or "induction-heads")
        scores = {0: real_checkpoints.along(model, series, analyses, network, progress)}
        return self._result({}, scores, [0], None, "A series")

    def _result(
        self, losses: Any, scores: Any, seeds: list[int], shown: dict[str, Any] | None, name_of_run: str
    ) -> xr.Dataset:
        """One dataset of what is there. losses: by seed and step, measures; scores: by seed, step and analysis."""
        steps = sorted({step for runs in (losses, scores) for of in runs.values() for step in of})
        found: dict[str, Any] = {}
        for name in dict.fromkeys(n for of in losses.values() for record in of.values() for n in record):
            values = np.full((len(seeds), len(steps)), np.nan)
            for i, seed in enumerate(seeds):
                for step, record in losses.get(seed, {}).items():
                    values[i, steps.index(step)] = record[name]
            share = any(word in name for word in SHARES) and "loss" not in name
            units, bounds = ("share", (0, 1)) if share else ("nats", (0, None))
            found[name] = ("seed step", values, units, bounds, name.replace("_", " "))
        found |= _of_entries(scores, seeds, steps)
        there = [at for of in scores.values() for at in of.values()]
        bare = [n for n in _names(scores) if not any(scores_of(at[n]) for at in there if n in at)]
        coords = {"seed": seeds, "step": steps}
        found, coords = self._with_changes(found, coords, steps)
        if shown is not None:
            found |= shown["variables"]
            coords |= shown["coords"]
        result = dataset(None, coords, **found)
        clamp = "" if self.checkpoints.strip() else self.clamp
        result = result.assign_attrs(of=name_of_run, clamp=clamp, **({} if shown is None else shown["attrs"]))
        return result.assign_attrs(summary=" ".join(filter(None, (_summary(result), _without(bare)))))

    def _with_changes(self, found: dict[str, Any], coords: dict[str, Any], steps: list[int]) -> Any:
        names, rows = [], []
        for name, (dims, values, *_) in found.items():
            if not dims.startswith("seed step"):
                continue
            flat = np.asarray(values, float).reshape(*np.shape(values)[:2], -1)
            with np.errstate(all="ignore"):
                series = np.where(
                    np.isnan(flat).all(-1), np.nan, np.nanmax(np.where(np.isnan(flat), -np.inf, flat), -1)
                )
            changes = [change_point(np.array(steps, float), row, self.floor) for row in series]
            names.append(name)
            rows.append([np.nan if change is None else change.step for change in changes])
        if not names:
            return found, coords
        table = np.array(rows)
        there = ~np.isnan(table)
        low = np.where(there.any(1), np.where(there, table, np.inf).min(1), np.nan)
        high = np.where(there.any(1), np.where(there, table, -np.inf).max(1), np.nan)
        bounds = (0, None)
        found = found | {
            "change_step": ("component seed", table, "step", bounds, "step at which it changes"),
            "change_low": ("component", low, "step", bounds, "earliest over seeds"),
            "change_high": ("component", high, "step", bounds, "latest over seeds"),
            "n_changed": ("component", there.sum(1), "seeds", (0, table.shape[1]), "seeds with a change point"),
        }
        return found, coords | {"component": names}


def _watched(recipe: Recipe, interventions: Sequence[Any], part: Part) -> dict[str, Any]:
    """One sequence at some fifty of the steps, the first and the last among them."""
    grid = recipe.grid
    shown = sorted({grid[round(i * (len(grid) - 1) / (_SCRUBBED - 1))] for i in range(_SCRUBBED)})
    first = checkpoint(recipe, shown[0], interventions)
    models = [(step, checkpoint(recipe, step, interventions, first)) for step in shown]
    return watched(recipe, models, sorted({step for of in part.losses.values() for step in of}))


def named(text: str) -> list[Any]:
    """Analyses by their names, with defaults. InputError for an unknown one, and for this one."""
    from probes import CATALOG

    names = text.replace(",", " ").split()
    if "training-timeline" in names:
        raise InputError("training-timeline along itself", "other analyses", "Take it out")
    return [CATALOG.get(name)() for name in names]


def _of_entries(scores: Any, seeds: list[int], steps: list[int]) -> dict[str, Any]:
    """Scores of all analyses, (seed, step, ...); of two of one name, the second has its analysis in front."""
    found: dict[str, Any] = {}
    for entry in _names(scores):
        by_seed = {
            seed: joined({step: at[entry] for step, at in of.items() if entry in at})
            for seed, of in scores.items()
            if any(entry in at for at in of.values())
        }
        whole = xr.concat([by_seed[seed].reindex(step=steps) for seed in by_seed], "seed", join="outer")
        whole = whole.assign_coords(seed=list(by_seed)).reindex(seed=seeds)
        for name in scores_of(whole.isel(seed=0)):
            values = whole[name].transpose("seed", "step", ...)
            attrs = values.attrs
            key = name if name not in found else f"{entry.replace('-', '_')}_{name}"
            ends = (attrs["valid_min"], attrs["valid_max"])
            bounds = tuple(None if not np.isfinite(end) else float(end) for end in ends)
            found[key] = (" ".join(map(str, values.dims)), values.values, attrs["units"], bounds, attrs["long_name"])
    return found


def _names(scores: Any) -> list[str]:
    """Analyses that there is something of, in the order they were asked for."""
    return list(dict.fromkeys(name for of in scores.values() for at in of.values() for name in at))


def _without(bare: Sequence[str]) -> str:
    """What to say of analyses that ran and of which nothing can be followed; "" where there are none."""
    if not bare:
        return ""
    which = "its results" if len(bare) == 1 else "their results"
    return f"Of {', '.join(bare)} nothing is followed: {which} hold no number of a model, a layer or a head alone."


def _summary(result: xr.Dataset) -> str:
    """When what changes, and what does not."""
    n, steps = result.sizes.get("seed", 0), result["step"].values
    head = (
        f"{result.attrs['of']}, {len(steps)} checkpoints from step {steps[0]} to {steps[-1]}, {n} seed{'s' * (n != 1)}"
    )
    if "component" not in result.dims:
        return f"{head}."
    said, still = [], []
    for name in result["component"].values:
        one = result.sel(component=name)
        k = int(one["n_changed"])
        if k:
            low, high = (float(one[f"change_{end}"]) for end in ("low", "high"))
            where = f"step {low:.0f}" if round(low) == round(high) else f"steps {low:.0f} to {high:.0f}"
            said.append(f"{str(name).replace('_', ' ')} at {where} ({k} of {n})")
        else:
            still.append(str(name).replace("_", " "))
    changes = f"What changes at once, and in how many seeds: {'; '.join(said)}" if said else "Nothing changes at once"
    if len(steps) < FEWEST:
        changes = f"So few cannot tell what changes at once: {FEWEST} and more can"
    return f"{head}. {changes}." + (f" No change point: {', '.join(still)}." if said and still else "")


class Display(Values):
    """How the timeline is drawn."""

    log_steps: Annotated[bool, "steps on a logarithmic axis, from step 1 on"] = True


VIEW = View(
    TrainingTimeline,
    question="When does what form: which scores change at once along the training, and when does the loss?",
    asks=(
        Ask("entries", "Follow", empty="the toy's task, or induction heads"),
        Ask("checkpoints", "along", empty="the training of a toy"),
        Ask("seeds", "over", unit="seeds"),
        Ask("log_steps", "steps on a logarithmic axis"),
    ),
    figures=(scores_figure, heads_figure, losses_figure, scrubbed_lens, scrubbed_routes),
    details=(head_detail, scrubbed),
    display=Display,
)
