"""Which toy a model is: its recipe, by its name."""

from workbench.errors import RefusedError
from workbench.loading.toys.adapter import ToyAdapter
from workbench.loading.toys.recipe import Recipe
from workbench.loading.toys.recipes import asked, is_toy
from workbench.models.model import Model

__all__ = ["lacks_task", "recipe_of"]


def lacks_task(model: Model, *tasks: str) -> str | None:
    """What the model has not, where it is no trained toy (of one of these tasks); else None."""
    is_one = isinstance(model.adapter, ToyAdapter) and is_toy(model.name)
    if not is_one:
        return "is no toy that was trained, such as toy:induction"
    if tasks and asked(model.name).recipe.task.name not in tasks:
        return f"is no {' or '.join(f'toy:{task}' for task in tasks)}"
    return None


def recipe_of(model: Model) -> Recipe:
    """The recipe of a trained toy; RefusedError for another model."""
    lacks = lacks_task(model)
    if lacks is not None:
        raise RefusedError(f"{model.name}, which {lacks}", "a toy", "Load one: workbench load toy:induction")
    return asked(model.name).recipe
