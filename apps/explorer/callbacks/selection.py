"""The selection on a run that is new, or whose results have come."""

from collections.abc import Mapping

import xarray as xr
from dash import Dash, Input, Output, State, no_update

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.callbacks.notices import with_notices
from apps.explorer.callbacks.places import forget
from apps.explorer.engine.engine import Engine
from apps.explorer.page.news import request_of
from apps.explorer.page.selection import settle, strongest_head
from apps.explorer.page.state import Display, Done, Notices, Params, Seen, Selection, Shown, Text
from workbench.errors import WorkbenchError

__all__ = ["first_head", "register"]


def register(app: Dash, engine: Engine) -> None:
    """What keeps the selection inside of what is shown."""
    answer = Answers(app, engine)

    @answer(
        {
            "selection": Output("selection", "data"),
            "settled": Output("settled", "data"),
            "display": Output("display", "data", allow_duplicate=True),
            "params": Output("params", "data", allow_duplicate=True),
            "notices": Output("notices", "data", allow_duplicate=True),
        },
        inputs={"shown": Input("shown", "data"), "done": Input("done", "data")},
        state={
            "selection": State("selection", "data"),
            "before": State("settled", "data"),
            "display": State("display", "data"),
            "params": State("params", "data"),
            "notices": State("notices", "data"),
            "view": State("view", "data"),
        },
        prevent_initial_call=True,
    )
    def choose(
        shown: Shown | None,
        done: Done | None,
        selection: Selection,
        before: Text | None,
        display: Display | None,
        params: Params | None,
        notices: Notices,
        view: Seen,
    ) -> Answer:
        if not shown:
            return {}
        own, drawn, said = params or {}, display or {}, ""
        if before is not None and before != shown.text:  # a position of another text means nothing here
            selection = {k: v for k, v in selection.items() if k not in ("pos", "query", "key")}
            own, drawn, said = forget(engine, own, drawn, view.name)
        head = None if "head" in selection else first_head(engine, shown, done or {})
        sizes = shown.sizes
        settled = settle(selection, len(shown.tokens), sizes.n_layers, sizes.n_heads, sizes.neurons, head=head)
        changed = settled != selection and (selection or "shown" in answer.causes or before != shown.text)
        return {
            "selection": settled if changed else no_update,
            "settled": shown.text,
            "display": drawn if drawn != (display or {}) else no_update,
            "params": own if own != (params or {}) else no_update,
            "notices": with_notices(notices, news=[said] if said else []),
        }


def first_head(engine: Engine, shown: Shown, done: Mapping[str, str]) -> tuple[int, int] | None:
    """The head to select before anybody chose one."""
    try:
        request = request_of(engine, shown)
    except WorkbenchError:
        return None
    found = [engine.found(request, name) for name, state in done.items() if state == "ok" and name in request.keys]
    return strongest_head([result for result in found if isinstance(result, xr.Dataset)])
