"""A view as the spec of a batch: the same prompt, parameters and interventions, to be run over many prompts."""

import json
from typing import Any

from apps.explorer.engine.request import Request
from apps.explorer.engine.settings import Settings
from workbench.analysis.kinds import Analysis

__all__ = ["spec_text"]

_HEAD = """# A view of the workbench, as the spec of a batch. Beside this prompt, or in its place, name yours:
# `texts`, `file`, `corpus`, ...; then `workbench batch run` with this file.
"""


def spec_text(request: Request, analysis: Analysis, settings: Settings) -> str:
    """A TOML file that `workbench batch` reads. What its model's weights are is not in it: a name or folder is."""
    model = {"name": request.model, "dtype": request.dtype, "device": settings.device}
    plain = {"dtype": "float32", "device": "auto"}
    parts = ["[[models]]", *_fields({name: value for name, value in model.items() if plain.get(name) != value}), ""]
    if analysis.prompted:
        parts += ["[[prompts]]", *_fields({"group": "prompts", **_prompt(request)}), ""]
    defaults = {parameter.name: parameter.default for parameter in type(analysis).parameters()}
    chosen = {name: value for name, value in analysis.values().items() if value != defaults[name] and value is not None}
    parts += ["[[analyses]]", f"name = {_value(analysis.name)}"]
    parts += [f"params = {{ {', '.join(_fields(chosen))} }}"] if chosen else []
    head = {"name": analysis.name, "interventions": [str(edit) for edit in request.edits]}
    top = _fields({name: value for name, value in head.items() if value})
    return "\n".join([_HEAD + _left_out(request, settings), *top, "", *parts]) + "\n"


def _left_out(request: Request, settings: Settings) -> str:
    """What a spec cannot say of a model that is held: comments, each of which stands on its line."""
    if not settings.held:
        return ""
    also = [f"Every pass of the page carries out {', '.join(request.carried)} besides."] if request.carried else []
    lines = ["The page shows a model that is held; a batch loads the one of this name.", *also]
    return "".join(f"# {line}\n" for line in lines)


def _prompt(request: Request) -> dict[str, Any]:
    """The text; the ids where it is none, or stands in a chat's template."""
    if request.tokens.source.text is not None:
        return {"texts": [request.text]}
    return {"ids": [list(request.tokens.ids)]}


def _fields(values: dict[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items()]


def _value(value: Any) -> str:
    """As TOML writes it: as JSON does, but for DEL, which must be escaped, and lists of anything."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
