"""The page on a model that a notebook holds: in a cell, or in a tab of a browser."""

import json
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

from annotated_types import Ge

from apps.explorer.engine.request import phrases_of
from apps.explorer.engine.settings import Settings
from apps.explorer.web.server import Running, start
from workbench.analysis.view import View
from workbench.arguments import fitted, shown
from workbench.errors import InputError
from workbench.models.model import Model
from workbench.models.prompt import Tokens, tokenise

__all__ = ["Window", "show"]


class Window:
    """A page that is served as long as this process lives, or until `close()`. In a cell it shows itself.

    address: where a browser finds it; whoever has it may look. height: of the frame in a cell, in pixels.
    """

    def __init__(self, running: Running, address: str, height: int) -> None:
        self.address, self.height = address, height
        self._running, self._is_closed = running, False
        threading.Thread(target=running.run, name="explorer", daemon=True).start()

    @property
    def selection(self) -> dict[str, Any]:
        """What is selected on the page now: `pos`, `layer`, `head` and others, those that are; empty before any."""
        return dict(self._running.engine.presence.chosen[1])

    @property
    def prompt(self) -> str:
        """The text that the selection is of; "" before any."""
        return self._running.engine.presence.chosen[0]

    def open(self) -> bool:
        """Open it in a tab of this machine's browser; False where there is none. InputError once it is closed."""
        if self._is_closed:
            raise InputError("a page that was closed", "one that is served", "Call show(model) again")
        return webbrowser.open(self.address)

    def close(self) -> None:
        """End the page and its work; the model stays as it is."""
        self._is_closed = True
        self._running.close()

    def _repr_html_(self) -> str:
        if self._is_closed:  # a frame would show the browser's own error
            return escape(repr(self))
        style = f"width: 100%; height: {self.height}px; border: 0"
        return f'<iframe src="{escape(self.address)}" title="Workbench" style="{style}"></iframe>'

    def __repr__(self) -> str:
        if self._is_closed:
            return "<The explorer, closed; show(model) makes another>"
        return f"<The explorer at {self.address}; .open() shows it in a tab, .selection says what is selected>"


@fitted()
def show(
    model: Model,
    prompt: Any = None,
    *,
    interventions: Sequence[Any] = (),
    probes: Sequence[View] = (),
    base_path: str | None = None,
    port: Annotated[int, Ge(0)] = 0,
    height: Annotated[int, Ge(1)] = 800,
    memory: Annotated[float, Ge(0)] = 1.0,
    runs: str | Path | None = None,
    catalog: Any = None,
) -> Window:
    """The explorer on a model that you hold, without a second copy of it. In a notebook the cell shows the page.

    model: of `load()` or `wrap()`; what becomes of its weights is followed. prompt: what it begins with, as `run()`
    takes it: a text, ids, a chat of one message of a user. interventions: texts such as "L18H6 mean", which can be
    taken back on the page, or values, which every pass of the page carries out. probes: views of your own, beside
    those of the catalog. base_path: where a proxy puts a page of this machine, with `{port}` in it, such as
    "/user/ada/proxy/{port}/"; under JupyterHub that is known. port: 0 chooses a free one. memory: GiB of results that
    are kept; nothing is written to disk. runs: a folder of batches that the page shows.

    The address holds a secret, so that it needs no token and works in a frame. Raises InputError for what is no
    model, no view, an intervention or a prompt that does not fit, and a base path that does not begin and end with a
    slash.
    """
    held = model.edited([given for given in interventions if not isinstance(given, str)])
    fragment = _fragment(held, prompt, [given for given in interventions if isinstance(given, str)])
    port, before = port or _free_port(), _before(base_path)
    mounted = f"/{secrets.token_urlsafe(32)}/"
    path = before.replace("{port}", str(port))[:-1] + mounted
    settings = Settings(
        models=(model.name,), port=port, base_path=path, mounted=mounted, memory=int(memory * (1 << 30)),
        runs=None if runs is None else Path(runs), held=True,
    )  # fmt: skip
    running = start(settings, [*_views(catalog), *probes], load=lambda name, report: held)
    place = path if before != "/" else f"http://localhost:{port}{path}"  # a path: the notebook's page knows the host
    return Window(running, f"{place}#{fragment}" if fragment else place, height)


def _views(catalog: Any) -> Sequence[View]:
    if catalog is None:
        from probes import CATALOG

        catalog = CATALOG.with_plugins()
    if not hasattr(catalog, "views"):
        raise InputError(f"catalog={shown(catalog)}", "a catalog, such as probes.CATALOG", "Leave it out")
    return list(catalog.views)


def _before(base_path: str | None) -> str:
    """Where a proxy puts what listens on a port of this machine."""
    if base_path is None:
        hub = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "")
        base_path = f"{urlsplit(hub).path.rstrip('/')}/proxy/{{port}}/" if hub else "/"
    if not (base_path.startswith("/") and base_path.endswith("/")):
        raise InputError(f"the base path {base_path!r}", "one that begins and ends with a slash", "Correct it")
    return base_path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _fragment(model: Model, prompt: Any, edits: Sequence[str]) -> str:
    """The page's link to a prompt; "" for none."""
    if prompt is None:
        if edits:
            raise InputError("interventions without a prompt", "a prompt too", "Give one: the page begins with it")
        return ""
    tokens = tokenise(model, prompt)
    phrases_of(model, tokens, edits)
    text, chat = _written(model, tokens)
    given = {"model": model.name, "prompt": text}
    given |= {"chat": "true"} if chat else {}
    return urlencode(given | ({"edits": json.dumps(list(edits))} if edits else {}))


def _written(model: Model, tokens: Tokens) -> tuple[str, bool]:
    """What stands in the prompt field for these tokens, and whether it is a message of a user."""
    source = tokens.source
    if source.messages is not None and [role for role, _ in source.messages] == ["user"]:
        return source.messages[0][1], True
    if source.text is not None:
        return source.text, False
    as_ids = " ".join(f"#{token}" for token in tokens.ids)
    return (as_ids.replace("#", "") if model.tokenizer is None else as_ids), False
