"""What every callback of the server is made with: arguments and answers by name, and nothing unread from a browser.

    answer = Answers(app, engine)

    @answer({"line": Output(...)}, inputs={"text": Input(...)}, state={"view": State(...)})
    def typed(text: Text, view: Seen) -> dict[str, Any]:
        return {"line": ...}

Arguments arrive as their annotations say (see `page.state`); what is not answered stays as it is on the page.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, get_type_hints

from dash import Dash, Input, Output, State, ctx, no_update
from pydantic import BaseModel

from apps.explorer.engine.engine import Engine
from apps.explorer.page.parsing import parser

__all__ = ["Answer", "Answers"]

Answer = Mapping[str, Any]  # by the names of the outputs
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Answers:
    """Registers the callbacks of an app over an engine."""

    def __init__(self, app: Dash, engine: Engine) -> None:
        self.app, self.engine = app, engine

    def __call__(
        self,
        output: Output | dict[str, Output],
        *,
        inputs: dict[str, Input],
        state: dict[str, State] | None = None,
        **options: Any,
    ) -> Callable[[_Function], _Function]:
        """Register a function; options: as of `Dash.callback`."""

        def register(function: _Function) -> _Function:
            kinds = get_type_hints(function, include_extras=True)
            readers = {name: parser(kinds[name], name, self.engine) for name in (*inputs, *(state or {}))}

            @wraps(function)
            def answered(**given: Any) -> Any:
                found = function(**{name: readers[name](value) for name, value in given.items()})
                return _complete(found, output) if isinstance(output, dict) else _stored(found)

            self.app.callback(output=output, inputs=inputs, state=state or {}, **options)(answered)
            return function

        return register

    @property
    def cause(self) -> str:
        """The id of what the running callback was called for; "" where it was for none, or for one of many."""
        return ctx.triggered_id if isinstance(ctx.triggered_id, str) else ""

    @property
    def causes(self) -> set[str]:
        """The ids of all that the running callback was called for, without those that stand for many."""
        return {str(one["prop_id"]).rpartition(".")[0] for one in ctx.triggered}


def _complete(answer: Any, output: Mapping[str, Output]) -> Any:
    """The answer with every output in it; `no_update` for those that it says nothing of."""
    if answer is no_update:
        return no_update
    unknown = set(answer) - set(output)
    if unknown:
        raise TypeError(f"no such outputs: {sorted(unknown)}")
    return {name: _stored(answer.get(name, no_update)) for name in output}


def _stored(value: Any) -> Any:
    """A value as a store holds it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return [_stored(part) for part in value]
    return value
