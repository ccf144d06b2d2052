"""What an agent can ask: the tools, each with a JSON schema, what it costs beforehand, and strict arguments.

A misspelt argument is an error, never dropped. Every answer is strict JSON: a number that is none is null.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from apps.agents.descriptions import described_analysis
from apps.agents.desk import MOST_NUMBERS, SECONDS, Desk, numbers
from probes.checks.causal_check import CausalCheck
from probes.explain.explain import Explain
from probes.explain.sentences import unexplained
from workbench.analysis.compare import difference
from workbench.analysis.kinds import kind_of
from workbench.analysis.pace import length_for
from workbench.errors import InputError
from workbench.models.hooks import ALL_HOOKS
from workbench.observation import Need, keep, observe
from workbench.observation.watch import NotFired, NotShown
from workbench.storage.json_text import brief, strict

__all__ = ["TOOLS", "Tool", "answer"]

_LONGEST = 1e7  # seconds that anybody may ask for

Call = Callable[[Desk, Mapping[str, Any], threading.Event], dict[str, Any]]


@dataclass(frozen=True)
class Tool:
    """One tool. schema: properties by name; required: those that must be given."""

    name: str
    about: str
    properties: Mapping[str, Any]
    required: tuple[str, ...]
    call: Call

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments; no others are taken."""
        return {"type": "object", "properties": dict(self.properties), "required": list(self.required),
                "additionalProperties": False}  # fmt: skip


_TEXT, _IDS = {"type": "string"}, {"type": "array", "items": {"type": "integer"}}
_PROMPT = {"anyOf": [_TEXT, _IDS], "description": "raw text, taken as it is typed, or a list of token ids"}
_PARAMS = {"type": "object", "description": "parameters of the analysis, as describe_analysis lists them"}
_EDITS = {"type": "array", "items": _TEXT, "description": "changes in every pass, such as L18H6 (ablated by zero)"}
_LIMIT = {"type": "number", "description": f"seconds that it may be predicted to take; {SECONDS:g} if not given"}
_RESULT = {"type": "string", "description": "name of a kept result, as run_analysis gave it"}


def answer(desk: Desk, name: str, given: Mapping[str, Any] | None, cancelled: threading.Event) -> dict[str, Any]:
    """What a tool answers. InputError for an unknown tool, an argument that it does not take, lacks, or that is of
    another type."""
    tool = next((one for one in TOOLS if one.name == name), None)
    if tool is None:
        raise InputError(f"the tool {name!r}", f"one of {', '.join(one.name for one in TOOLS)}", "Correct the name")
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise InputError(f"arguments {given!r} of {name}", "an object of arguments by name", "Correct it")
    for argument in given:
        if argument not in tool.properties:
            known = ", ".join(tool.properties) or "none"
            raise InputError(f"the argument {argument!r} of {name}", f"one of {known}", "Correct the name")
    for argument in tool.required:
        if argument not in given:
            raise InputError(f"{name} without {argument}", f"{', '.join(tool.required)}", "Give it")
    for argument, value in given.items():
        if not _fits(value, tool.properties[argument]):
            expected = json.dumps({k: v for k, v in tool.properties[argument].items() if k != "description"})
            raise InputError(f"{argument}={value!r} of {name}", f"a value of {expected}", "Correct it")
    said: dict[str, Any] = strict(tool.call(desk, given, cancelled))
    return said


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is of the schema's type; the few kinds that are used here."""
    if "anyOf" in schema:
        return any(_fits(value, one) for one in schema["anyOf"])
    kind = schema["type"]
    if kind == "array":
        return isinstance(value, list) and all(_fits(one, schema["items"]) for one in value)
    kinds: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "object": dict, "boolean": bool}
    return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))


# --- the tools -------------------------------------------------------------------------------------------------------


def _list(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    views = [desk.catalog.view(name) for name in desk.catalog.names]
    found = [{"name": v.name, "title": v.title, "question": v.question, "kind": kind_of(v.analysis)} for v in views]
    return {"analyses": found}


def _describe(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    return described_analysis(desk.catalog.view(given["name"]))


def _predict(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    analysis = desk.catalog.get(given["name"]).of(given.get("params", {}))
    tokens, model = desk.prompt(given.get("prompt")), desk.model()
    whole = desk.seconds(analysis, tokens)
    found: dict[str, Any] = {"seconds": whole, "refused": type(analysis).refusal(model)}
    if isinstance(analysis, Explain):
        costs = analysis.steps(model.sizes, length_for(analysis, tokens))
        found["steps"] = {name: whole * cost / sum(costs.values()) for name, cost in costs.items()}
    return found


def _run(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    analysis = desk.catalog.get(given["name"]).of(given.get("params", {}))
    return _told(desk, analysis, given, cancelled)


def _told(desk: Desk, analysis: Any, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    limit = given.get("seconds", SECONDS)
    if not 0 <= limit <= _LONGEST:  # which a number that is none is not, either
        raise InputError(f"seconds={limit}", f"0 to {_LONGEST:g}", "Correct it")
    prompt = given.get("prompt")
    key, result = desk.run(analysis, prompt, given.get("interventions", ()), limit=float(limit), cancelled=cancelled)
    said = {"result": key, **brief(result), "notes": _notes(desk, analysis, prompt)}
    return said | ({"unexplained": unexplained(result)} if analysis.name == Explain.name else {})


def _notes(desk: Desk, analysis: Any, prompt: Any) -> list[str]:
    """What the command line says of a prompt beside the result: it was not used, or not read as one may think."""
    if prompt is not None and not analysis.reads_prompt():
        return [f"{analysis.name} makes its own stimulus; the prompt is not used."]
    tokens = desk.prompt(prompt)
    return [] if tokens is None else list(tokens.notes)


def _once(params: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of which some are arguments of their own; InputError where one is given as both."""
    for name in params:
        if name in named:
            raise InputError(f"{name} twice, beside and in params", "it once", "Leave it out of params")
    return {**named, **params}


def _values(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    result = desk.found(given["result"])
    if given["variable"] not in result.data_vars:
        known = ", ".join(map(str, result.data_vars))
        raise InputError(f"the variable {given['variable']!r}", f"one of {known}", "Correct the name")
    return numbers(result[given["variable"]], given.get("where", {}))


def _observe(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    model, tokens = desk.model(), desk.prompt(given["prompt"])
    assert tokens is not None, "the prompt is required"
    known = {hook.name: hook for hook in ALL_HOOKS if hook.layered}
    if given["hook"] not in known:
        raise InputError(f"the hook {given['hook']!r}", f"one of {', '.join(known)}", "Correct the name")
    layer = given["layer"]
    if not 0 <= layer < model.sizes.n_layers:
        raise InputError(f"layer {layer}", f"0 to {model.sizes.n_layers - 1}", "Choose one that it has")
    hook = known[given["hook"]]
    dims = " ".join(hook.dims[1:])
    need = Need((hook,), keep, dims=dims, layers=(layer,))
    try:
        seen = observe(model, tokens, [need], positions="none")
    except (NotShown, NotFired) as error:
        raise error.said_of("observe") from error
    kept = torch.as_tensor(seen[need])[0, 0]
    at: list[Any] = [slice(None)] * kept.ndim
    names = list(hook.dims[1:])
    for dim, index in given.get("where", {}).items():
        if dim not in names or not _fits(index, {"type": "integer"}) or not 0 <= index < kept.shape[names.index(dim)]:
            spans = ", ".join(f"{n} 0 to {size - 1}" for n, size in zip(names, kept.shape, strict=True))
            raise InputError(f"{dim}={index!r} of {hook.name}", spans, "Correct it")
        at[names.index(dim)] = index
    chosen = kept[tuple(at)]
    if chosen.numel() > MOST_NUMBERS:
        sizes = ", ".join(f"{n} {size}" for n, size in zip(names, kept.shape, strict=True))
        raise InputError(
            f"{chosen.numel()} numbers of {hook.name} ({sizes})", f"at most {MOST_NUMBERS}", "Narrow where"
        )
    left = [name for name, one in zip(names, at, strict=True) if one == slice(None)]
    return {"tokens": tokens.strings, "notes": tokens.notes, "dims": left, "values": chosen.tolist()}


def _check(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    return _told(desk, CausalCheck.of(_once(given.get("params", {}), {"units": given["units"]})), given, cancelled)


def _compare(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    change = difference(desk.found(given["before"]), desk.found(given["after"]))
    return {"result": desk.keep("difference", change), **brief(change)}


def _explain(desk: Desk, given: Mapping[str, Any], cancelled: threading.Event) -> dict[str, Any]:
    named = {"corrupt": "corrupt", "answer": "target", "wrong": "against", "task": "task"}
    asked = _once(given.get("params", {}), {to: given[name] for name, to in named.items() if name in given})
    return _told(desk, Explain.of(asked), given, cancelled)


TOOLS = (
    Tool("list_analyses", "All analyses: name, question, and what each runs on.", {}, (), _list),
    Tool("describe_analysis", "What an analysis computes, its limits, source, result and parameters.",
         {"name": _TEXT}, ("name",), _describe),
    Tool("predict_cost", "About how many seconds an analysis will take on this model, and why it would refuse.",
         {"name": _TEXT, "params": _PARAMS, "prompt": _PROMPT}, ("name",), _predict),
    Tool("run_analysis", "Run an analysis; answers its sentence, its numbers without axes, and the name it is kept by. "
         "Ask read_values for the rest.",
         {"name": _TEXT, "params": _PARAMS, "prompt": _PROMPT, "interventions": _EDITS, "seconds": _LIMIT},
         ("name",), _run),
    Tool("read_values", f"Values of one variable of a kept result, at most {MOST_NUMBERS}.",
         {"result": _RESULT, "variable": _TEXT,
          "where": {"type": "object", "description": "coordinates by dim, as {\"layer\": 18, \"head\": [6]}"}},
         ("result", "variable"), _values),
    Tool("observe", f"Activations of one layer in a pass over a prompt, at most {MOST_NUMBERS} numbers.",
         {"prompt": _PROMPT, "hook": _TEXT, "layer": {"type": "integer"},
          "where": {"type": "object", "description": "indices by dim, such as {\"head\": 6, \"query\": 4}"}},
         ("prompt", "hook", "layer"), _observe),
    Tool("check", "Causal check: does removing a unit matter more than removing its like?",
         {"units": {"type": "string", "description": "such as L18H6, L18H6:9<-3, L20N507, L3E5N12, L20 mlp"},
          "prompt": _PROMPT, "params": _PARAMS, "interventions": _EDITS, "seconds": _LIMIT},
         ("units", "prompt"), _check),
    Tool("compare", "Subtract one kept result from another of the same analysis.",
         {"before": _RESULT, "after": _RESULT}, ("before", "after"), _compare),
    Tool("explain", "From a prompt with a contrast, or a task, the whole way to a tested circuit: minutes. Says "
         "\"Nothing found\" where nothing holds.",
         {"prompt": _PROMPT, "corrupt": _TEXT, "answer": _TEXT, "wrong": _TEXT, "task": _TEXT, "params": _PARAMS,
          "interventions": _EDITS, "seconds": _LIMIT}, (), _explain),
)  # fmt: skip
