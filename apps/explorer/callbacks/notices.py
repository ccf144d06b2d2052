"""What went wrong, or is to be known: said until it is dismissed."""

import secrets
from collections.abc import Iterable
from typing import Any

from dash import Dash, Input, Output, State, no_update

from apps.explorer.callbacks.answer import Answers
from apps.explorer.engine.engine import Engine
from apps.explorer.page import components as parts
from apps.explorer.page.state import Dismissed, Notice, Notices

__all__ = ["notice", "register", "with_notices"]


def register(app: Dash, engine: Engine) -> None:
    """The list of notices and their buttons."""
    answer = Answers(app, engine)

    @answer(Output("notice-list", "children"), inputs={"notices": Input("notices", "data")}, prevent_initial_call=True)
    def show_notices(notices: Notices) -> Any:
        return parts.notice_list(notices)

    @answer(
        Output("notices", "data", allow_duplicate=True),
        inputs={"dismissed": Input("dismissed", "data")},
        state={"notices": State("notices", "data")},
        prevent_initial_call=True,
    )
    def dismiss(dismissed: Dismissed | None, notices: Notices) -> Any:
        return [n for n in notices if n.id != dismissed.dismiss] if dismissed else no_update


def notice(text: str, news: bool = False) -> Notice:
    """Something that went wrong, or news, to stay until it is dismissed."""
    return Notice(id=secrets.token_hex(6), text=text, news=news)


def with_notices(notices: Iterable[Notice], said: Iterable[str] = (), news: Iterable[str] = ()) -> Any:
    """The notices with more of them, of what went wrong and of what did not, each once; as they were where nothing is
    said."""
    more = [notice(text) for text in said] + [notice(text, news=True) for text in news]
    again = {one.text for one in more}
    return [*(one for one in notices if one.text not in again), *more] if more else no_update
