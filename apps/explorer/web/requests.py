"""What may be asked of the page's callbacks: a request that none of them can take is answered with one sentence.

Dash trusts its own renderer to have made a request, and answers what it cannot read with HTTP 500. So every request is
held against the callbacks that there are before Dash sees it: known outputs, their inputs and state, ids of their
shape, and JSON whose depth and numbers are bounded. What the values mean is `page.state`'s business.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from dash import Dash
from dash.exceptions import DependencyException
from flask import Response, request
from werkzeug.exceptions import BadRequest, HTTPException, UnsupportedMediaType

from apps.explorer.page.parsing import Malformed
from workbench.errors import WorkbenchError

__all__ = ["answer_malformed", "body", "check_call"]

_DEEPEST = 200  # levels of lists and objects; a page of ours has about thirty
_LARGEST = 10**22  # as many digits as a browser writes
_MANY = 5000  # controls of one kind
_MANY_KINDS = ("ALL", "ALLSMALLER")


def answer_malformed(app: Dash, path: str) -> None:
    """Install the checks of callback requests (at `path`), and the sentence in place of Dash's HTTP 500."""

    @app.server.before_request
    def check() -> Response | None:
        if request.method != "POST" or request.path != path:
            return None
        try:
            check_call(body(), app.callback_map)
        except WorkbenchError as error:
            return refused(error)
        return None

    app.server.register_error_handler(WorkbenchError, refused)
    app.server.register_error_handler(DependencyException, lambda error: _nothing_here())


def _nothing_here() -> Response:
    return Response(
        "Got the name of a script that is not ours; expected one of the page's.", 404, mimetype="text/plain"
    )


def refused(error: WorkbenchError) -> Response:
    """One sentence, and HTTP 400."""
    return Response(str(error), 400, mimetype="text/plain")


def body(force: bool = False) -> Any:
    """The JSON of the request, of bounded depth and with numbers that are numbers. Malformed otherwise.

    force: whatever it says of its kind.
    """
    try:
        given = request.get_json(force=force)
    except (BadRequest, UnsupportedMediaType, RecursionError, ValueError) as error:
        if isinstance(error, HTTPException) and error.code not in (400, 415):
            raise  # such as one that is too large
        raise Malformed("a request that is no JSON", "one of this page", "Load the page again") from None
    for value in _flat(given):
        if isinstance(value, float) and not math.isfinite(value):
            raise Malformed("a number without bounds", "finite numbers", "Load the page again")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise Malformed("a number of too many digits", "at most 22", "Load the page again")
        if isinstance(value, str) and not _is_whole(value):
            raise Malformed("a text with half a character in it", "whole characters", "Type it again")
    return given


def _flat(given: Any) -> Iterator[Any]:
    """All values and keys of a JSON value. Malformed where it is too deep."""
    level, depth = [given], 0
    while level:
        if depth > _DEEPEST:
            raise Malformed("a request too deeply nested", f"at most {_DEEPEST} levels", "Load the page again")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
                yield from value
            elif isinstance(value, list):
                below += value
            else:
                yield value
        level, depth = below, depth + 1


def _is_whole(text: str) -> bool:
    """Whether a text can be written: no half of a pair of UTF-16."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def check_call(given: Any, callbacks: Mapping[str, Any]) -> None:
    """Malformed where a request names no callback of ours, or not what the callback takes and gives."""
    if not isinstance(given, dict) or not isinstance(given.get("output"), str):
        raise _wrong("a request of another kind", "a call of one of the page's callbacks")
    callback = callbacks.get(given["output"])
    if callback is None or "callback" not in callback:
        raise _wrong(f"a call of {given['output'][:80]!r}", "one of the page's callbacks")
    inputs, state = callback["inputs"], callback["state"]
    _check_values(given.get("inputs", []), inputs, "inputs")
    _check_values(given.get("state", []), state, "state")
    _check_outputs(given.get("outputs"), callback["output"])
    changed = given.get("changedPropIds", [])
    if not isinstance(changed, list) or len(changed) > _MANY:
        raise _wrong("changes of another kind", "a list of inputs")
    for name in changed:
        if not isinstance(name, str) or not any(_is_property_of(name, spec) for spec in inputs):
            raise _wrong(f"a change of {str(name)[:80]!r}", "one of the callback's inputs")


def _wrong(got: str, expected: str) -> Malformed:
    return Malformed(got, expected, "Load the page again")


def _check_values(given: Any, specs: list[dict[str, Any]], what: str) -> None:
    if not isinstance(given, list) or len(given) != len(specs):
        raise _wrong(f"{what} of another kind", f"{len(specs)} of them")
    for value, spec in zip(given, specs, strict=True):
        _check_slot(value, spec["id"], spec["property"], what)


def _check_outputs(given: Any, outputs: Any) -> None:
    if not isinstance(outputs, list | tuple):
        return _check_slot(given, outputs.component_id_str(), outputs.component_property, "the output")
    if not isinstance(given, list) or len(given) != len(outputs):
        raise _wrong("outputs of another kind", f"{len(outputs)} of them")
    for slot, output in zip(given, outputs, strict=True):
        _check_slot(slot, output.component_id_str(), output.component_property, "outputs")


def _check_slot(given: Any, spec_id: str, spec_property: str, what: str) -> None:
    """One place of a callback: a component's property, or a list of them where it stands for many."""
    pattern = _pattern(spec_id)
    is_many = isinstance(pattern, dict) and any(value in [[kind] for kind in _MANY_KINDS] for value in pattern.values())
    if isinstance(given, list) != is_many or (is_many and len(given) > _MANY):
        raise _wrong(f"{what} with {spec_id[:80]!r} of another kind", "what the callback has there")
    for one in given if is_many else [given]:
        is_ours = isinstance(one, dict) and _fits(one.get("id"), pattern) and isinstance(one.get("property"), str)
        if not is_ours or one["property"].partition("@")[0] != spec_property:
            raise _wrong(f"{what} with {spec_id[:80]!r} of another kind", "what the callback has there")


def _pattern(text: str) -> Any:
    """The id that a text stands for: itself, or a dict where it is one of many."""
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fits(given: Any, pattern: Any) -> bool:
    """Whether an id is the one of a pattern, or one of those that it stands for."""
    if not isinstance(pattern, dict):
        return isinstance(given, str) and given == pattern
    if not isinstance(given, dict) or set(given) != set(pattern):
        return False
    return all(
        isinstance(given[name], str | int) if isinstance(wanted, list) else given[name] == wanted
        for name, wanted in pattern.items()
    )


def _is_property_of(name: str, spec: Mapping[str, Any]) -> bool:
    """Whether a change, written as `id.property`, is one of an input."""
    text, dot, prop = name.rpartition(".")
    return bool(dot) and prop == spec["property"] and _fits(_pattern(text), _pattern(spec["id"]))
