"""What a finding on toys is: models trained under several conditions with several seeds, measured at the last step."""

from collections.abc import Generator, Mapping
from typing import Annotated, Any, ClassVar

import xarray as xr

from probes.formation.findings.conditions import LOSS, runs, table
from probes.formation.toy_models import lacks_task, recipe_of
from workbench.analysis.kinds import Study
from workbench.analysis.parameters import Range
from workbench.analysis.run import Progress
from workbench.errors import InputError
from workbench.loading.toys.recipe import Recipe
from workbench.models.model import Model
from workbench.models.prompt import Tokens

__all__ = ["Finding", "named"]


class Finding(Study):
    """A study whose runs share one table; subclasses say what is trained, what is measured and how it reads.

    tasks: of the toys it is about. about: units, range and long name of each number. curves: of measures that are told
    along the steps.
    """

    prompted: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ()
    about: ClassVar[Mapping[str, tuple[str, Any, str]]] = {}
    curves: ClassVar[Mapping[str, tuple[str, Any, str]]] = LOSS

    seeds: Annotated[int, Range(1, 64), "seeds: 0, 1, ..."] = 3
    steps: Annotated[int, Range(0, 100_000), "of each run; 0: as the condition or its recipe says"] = 0

    @classmethod
    def inapplicable(cls, model: Model) -> str | None:
        """It is of its toys."""
        return lacks_task(model, *cls.tasks)

    def recipes(self, base: Recipe) -> dict[str, Recipe]:
        """What is trained, by the name of its condition. InputError for a condition that there is not."""
        raise NotImplementedError

    def measured(self, recipe: Recipe, model: Model, along: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
        """The numbers of `about` of a trained model. along: losses and measures by kept step."""
        raise NotImplementedError

    def said(self, result: xr.Dataset) -> str:
        """The numbers of each condition that there is so far, as a sentence."""
        raise NotImplementedError

    def beside(self, result: xr.Dataset, recipes: Mapping[str, Recipe]) -> xr.Dataset:
        """The table with what stands beside what was measured."""
        return result

    def run_cost(self, steps: int, each: float) -> float:
        """What training one model costs, in bare passes of it. steps: of its recipe, where none are asked for. each: of
        a step, as measured; many sequences at once and no bridge around them."""
        return each * (self.steps or steps)

    def settings(self, **condition: Any) -> dict[str, Any]:
        """The settings of a condition, with the steps that were asked for in place of its own."""
        return {**condition, **({"steps": self.steps} if self.steps else {})}

    def partials(
        self,
        model: Model,
        tokens: Tokens | None = None,
        *,
        progress: Progress | None = None,
        allow_network: bool = False,
    ) -> Generator[xr.Dataset, None, None]:
        """What there is after each run. InputError for an unknown condition."""
        recipes, seeds = self.recipes(recipe_of(model)), list(range(self.seeds))
        for found in runs(recipes, seeds, self.measured, model.interventions, progress):
            result = self.beside(table(found, list(recipes), seeds, self.about, self.curves), recipes)
            yield result.assign_attrs(summary=self.said(result))


def named(words: str, known: Mapping[str, Any], noun: str) -> list[str]:
    """Names between spaces or commas. InputError for one that is none of `known`."""
    names = words.replace(",", " ").split()
    for name in names:
        if name not in known:
            raise InputError(f"the {noun} {name!r}", f"one of {', '.join(known)}", "Correct it")
    return names
