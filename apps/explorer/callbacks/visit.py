"""The notebook of a visit, taken as one page. The browser keeps it: see `page/assets/visit.js`."""

from dash import Dash, Input, Output, State, dcc

from apps.explorer.callbacks.answer import Answer, Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page.state import Session, Visit
from apps.explorer.page.visit import visit_page

__all__ = ["register"]


def register(app: Dash, engine: Engine) -> None:
    """The page to send."""
    answer = Answers(app, engine)

    @answer(
        {"download": Output("download", "data", allow_duplicate=True)},
        inputs={"visit": Input("visit-take", "data")},
        state={"session": State("session", "data")},
        prevent_initial_call=True,
    )
    def take(visit: Visit | None, session: Session) -> Answer:
        if not visit or not visit.steps:
            return {}
        return {"download": dcc.send_string(visit_page(engine, visit, session), "visit.html")}
