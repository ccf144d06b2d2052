"""The recipes that are known by name, and how a name says another one.

    toy:induction                       its last step, seed 0
    toy:induction,step=200,seed=1       another
    toy:bigram-backcopy,attention=relu  with a setting changed: any field of the task, the model, or the training

The configurations were measured on two cores; see `docs/pages/formation.md`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from workbench.errors import InputError
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.tasks.automata import Automata
from workbench.loading.toys.tasks.bigram_backcopy import BigramBackcopy
from workbench.loading.toys.tasks.exemplars import Exemplars
from workbench.loading.toys.tasks.gaussian_classes import GaussianClasses
from workbench.loading.toys.tasks.induction import Induction
from workbench.loading.toys.tasks.scan_snap import ScanSnap
from workbench.loading.toys.transformer import ToyConfig

__all__ = ["PREFIX", "RECIPES", "Asked", "asked", "is_toy", "name_of"]

PREFIX = "toy:"

RECIPES: Mapping[str, Recipe] = MappingProxyType({
    "bigram-backcopy": Recipe(
        BigramBackcopy(), ToyConfig(1, 1, 64, 64, d_mlp=256, norm="layer"),
        lr=3e-3, weight_decay=1e-4, steps=1000, every=50,
    ),
    "induction": Recipe(
        Induction(), ToyConfig(2, 1, 64, 64, norm="layer", positions="rotary"), lr=2e-3, steps=500, every=10
    ),
    "exemplars": Recipe(
        Exemplars(), ToyConfig(2, 1, 64, 64, norm="layer", positions="rotary"), lr=3e-4, steps=600, every=25
    ),
    "gaussian-classes": Recipe(
        GaussianClasses(), ToyConfig(2, 1, 64, 64, d_mlp=128, norm="layer", positions="rotary"),
        lr=1e-3, batch=64, steps=1500, every=50,
    ),
    "automata": Recipe(
        Automata(), ToyConfig(2, 2, 64, 32, d_mlp=128, norm="layer", positions="rotary"), lr=2e-3, steps=800, every=50
    ),
    "scan-snap": Recipe(
        ScanSnap(), ToyConfig(1, 1, 64, 64, positions="none"),
        optimiser="sgd", lr=0.1, momentum=0.0, steps=1000, every=50,
    ),
})  # fmt: skip


class Asked(NamedTuple):
    """What a name asks for: a recipe, and one of its steps (None: the last)."""

    recipe: Recipe
    step: int | None


def is_toy(name: str) -> bool:
    """Whether a name is meant to be that of a toy that is trained."""
    return name.startswith(PREFIX)


def asked(name: str, step: int | None = None, seed: int | None = None) -> Asked:
    """What a name such as `toy:induction,step=200,seed=1` stands for. step, seed: as in the name; they may not differ.

    InputError for an unknown task, setting or step, with those that there are.
    """
    task, *settings = (part.strip() for part in name.removeprefix(PREFIX).split(","))
    if not is_toy(name) or task not in RECIPES:
        known = ", ".join(PREFIX + task for task in RECIPES)
        raise InputError(f"the toy {name!r}", f"one of {known}", "Correct the name")
    given: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{setting!r} in {name!r}", "settings such as seed=1", "Correct it")
        if key.strip() in given:
            raise InputError(f"{name!r}, which says {key.strip()} twice", "each setting once", "Say it once")
        given[key.strip()] = value.strip()
    for key, number in (("step", step), ("seed", seed)):
        if number is not None:
            if given.get(key, str(number)) != str(number):
                raise InputError(f"{key}={number} of {name!r}", f"one {key}", "Say it once")
            given[key] = str(number)
    wanted = given.pop("step", None)
    if wanted is not None and not wanted.isdigit():
        raise InputError(f"step={wanted} of {name!r}", "a step of the training, from 0", "Correct it")
    recipe = RECIPES[task].with_settings(given)
    if wanted is not None and int(wanted) not in recipe.grid:
        kept = ", ".join(map(str, recipe.grid))
        raise InputError(f"step {wanted} of {name!r}", f"one whose weights are kept: {kept}", "Choose one of these")
    return Asked(recipe, None if wanted is None else int(wanted))


def name_of(recipe: Recipe, step: int | None = None) -> str:
    """The name that asks for a recipe: its task, and what differs from the known one."""
    now, usual = recipe.settings(), RECIPES[recipe.task.name].settings()
    changed = {name: value for name, value in now.items() if value != usual[name]}
    fitting = {name: value for name, value in changed.items() if name != "d_head"}
    if RECIPES[recipe.task.name].with_settings(fitting) == recipe:
        changed = fitting
    said = [f"{name}={value}" for name, value in changed.items()]
    return ",".join([PREFIX + recipe.task.name, *said, *([] if step is None else [f"step={step}"])])
