"""What was set beside one prompt and says nothing of the next: places from its start, and prompts paired with it."""

from collections.abc import Mapping
from typing import Any

from dash import set_props

from apps.explorer.engine.engine import Engine
from workbench.analysis.parameters import Parameter
from workbench.arguments import shown

__all__ = ["forget", "without_places"]

Values = Mapping[str, Mapping[str, Any]]


def forget(engine: Engine, params: Values, display: Values, view: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Parameters and display parameters that may stay, by view, and a sentence on those that do not ("" for none).

    The form of the open view shows them as they are then.
    """
    seen = {name: engine.standing[name] for name in {*params, *display} if name in engine.standing}
    own = {name: one.analysis.parameters() for name, one in seen.items()}
    drawn = {name: one.display_parameters for name, one in seen.items()}
    kept, gone = without_places(own, params)
    kept_drawn, gone_drawn = without_places(drawn, display)
    for param in gone.get(view, ()):
        set_props({"type": "param", "entry": view, "name": param.name}, {"value": _blank(param)})
    for param in gone_drawn.get(view, ()):
        set_props({"type": "display", "entry": view, "name": param.name, "control": "token"}, {"value": None})
    said = [
        f"{param.name.replace('_', ' ')} {shown(given[name][param.name])} ({seen[name].title})"
        for found, given in ((gone, params), (gone_drawn, display))
        for name, some in found.items()
        for param in some
    ]
    words = f"Of the prompt before, and not kept for this one: {', '.join(said)}." if said else ""
    return kept, kept_drawn, words


def without_places(
    known: Mapping[str, tuple[Parameter, ...]], given: Values
) -> tuple[dict[str, Any], dict[str, list[Parameter]]]:
    """Values by view without those that are of one prompt, and those parameters. known: the parameters of each view."""
    gone = {
        name: [
            param for param in known.get(name, ()) if param.name in values and param.is_of_prompt(values[param.name])
        ]
        for name, values in given.items()
    }
    names = {name: {param.name for param in some} for name, some in gone.items()}
    kept = {
        name: {key: value for key, value in values.items() if key not in names[name]} for name, values in given.items()
    }
    return kept, {name: some for name, some in gone.items() if some}


def _blank(param: Parameter) -> Any:
    """What its field holds where nobody has set it; a token to pick has no value for "the last"."""
    default = param.default
    return None if param.dim and default in (None, -1) else "" if default is None else default
