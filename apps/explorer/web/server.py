"""Starting the explorer: one process, waitress's threads for the page, one worker thread per model."""

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from dash import Dash
from flask import Response

from apps.explorer.callbacks import register
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.hosted import Load
from apps.explorer.engine.settings import Settings
from apps.explorer.page.constants import constants
from apps.explorer.page.layout import page
from apps.explorer.page.parsing import parse
from apps.explorer.page.state import Farewell
from apps.explorer.web.bundle import serve_bundle
from apps.explorer.web.compression import lighten
from apps.explorer.web.connections import OPTIONS, end, guard
from apps.explorer.web.proxies import behind_a_proxy
from apps.explorer.web.requests import answer_malformed, body
from apps.explorer.web.safety import new_token, protect
from apps.explorer.web.scripts import SCRIPTS, serve_scripts
from workbench.analysis.catalog import Catalog
from workbench.analysis.view import View
from workbench.errors import InputError, UnavailableError

__all__ = ["Running", "make_app", "serve", "start"]

_GIB = 1 << 30


def make_app(engine: Engine) -> Dash:
    """The Dash app over an engine."""
    settings = engine.settings
    assets = Path(__file__).parents[1] / "page" / "assets"
    app = Dash(
        __name__,
        title="Workbench",
        update_title=None,  # type: ignore[arg-type]  # Dash: None leaves the title as it is
        assets_folder=str(assets),
        assets_ignore=SCRIPTS,
        requests_pathname_prefix=settings.base_path,
        routes_pathname_prefix=settings.mounted,
        serve_locally=True,
        compress=False,  # see `lighten`
        suppress_callback_exceptions=True,  # parts of the page, and with them their ids, come and go
    )
    app.index_string = app.index_string.replace("<html>", f'<html lang="en" data-workbench="{escape(constants())}">')
    serve_scripts(app, assets, settings)
    serve_bundle(app, settings)
    app.layout = lambda: page(engine.standing, engine.views, settings.models, settings.any_model)
    register(app, engine)
    app.server.add_url_rule(f"{settings.mounted}alive", "alive", lambda: ("", 204))
    app.server.add_url_rule(f"{settings.mounted}leave", "leave", lambda: _leave(engine), methods=["POST"])
    report = f"{settings.mounted}batches/<name>/report.html"
    app.server.add_url_rule(report, "batch-report", lambda name: _report(engine, name))
    lighten(app.server)
    protect(app.server, settings, tuple(app.csp_hashes()))
    answer_malformed(app, f"{settings.mounted}_dash-update-component")
    behind_a_proxy(app.server, settings)
    return app


def _report(engine: Engine, name: str) -> Response:
    """The report of a batch, whose figures bring their own scripts: a page without this one's cookie and rights."""
    made = Response(engine.batches.report(name), mimetype="text/html")
    inline = "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
    rights = ("sandbox allow-scripts allow-downloads", "default-src 'none'", inline, "frame-ancestors 'none'")
    made.headers["Content-Security-Policy"] = "; ".join(rights)
    return made


def _leave(engine: Engine) -> Response:
    """A window says that it is being closed, and no longer counts among those that wait for something."""
    names: Farewell = parse(Farewell, body(force=True), "the farewell")
    engine.presence.left(names.session, names.window)
    return Response(status=204)


@dataclass
class Running:
    """A server that listens but does not answer yet: `run()` answers until `close()`."""

    server: Any
    engine: Engine
    address: str

    def run(self) -> None:
        """Answer requests until `close()` is called from another thread or the process is interrupted."""
        self.server.run()

    def close(self) -> None:
        """Stop listening and end the workers and threads."""
        end(self.server)
        self.engine.close()


def start(settings: Settings, catalog: Catalog | Sequence[View], load: Load | None = None) -> Running:
    """Bind the port, begin to load the first model, and return. UnavailableError where the port is taken."""
    from waitress import create_server

    _check_port(settings)
    engine = Engine(settings, catalog, load)
    app = make_app(engine)
    # It writes a line into the user's terminal for each request that finds all threads busy.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(
        app.server, host=settings.host, port=settings.port, threads=settings.threads, ident="workbench", **OPTIONS
    )
    guard(server, settings)
    engine.hosted(settings.models[0])
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    suffix = f"?token={settings.token}" if settings.token else ""
    return Running(server, engine, f"http://{host}:{server.effective_port}{settings.base_path}{suffix}")


def serve(
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8050,
    token: str | bool = True,
    catalog: Catalog | Sequence[View] | None = None,
    *,
    base_path: str = "/",
    hosts: Sequence[str] = (),
    models: Sequence[str] = (),
    dtype: str = "float32",
    device: str = "auto",
    any_model: bool = False,
    any_file: bool = False,
    allow_network: bool = False,
    check: bool = False,
    directory: Path | None = None,
    memory: float = 1.0,
    disk: float = 4.0,
    runs: Path | None = Path("runs"),
) -> None:
    """Start the explorer, print its address, and stay until it is interrupted.

    model: the one to begin with (default: the bundled one); models: more that the page offers, beside the toys.
    token: True makes one, False switches it off. base_path: where a proxy puts the page, such as /workbench/. hosts:
    other host names it is reached by. dtype, device: of the models, as `load()` takes them, the dtype by its name.
    any_model, any_file: let the browser name any model, or files of texts. check: make the self-check of a model again
    that has passed it. directory: where results are kept between restarts. memory, disk: GiB of results that are kept
    in memory and in that directory; the least recently used go first. runs: the folder of experiment batches that the
    page shows.

    Raises UnavailableError where the port is taken.
    """
    from workbench.loading.bundled import NAME, cache_dir
    from workbench.loading.pretrained import TOYS

    if catalog is None:
        from probes import CATALOG

        catalog = CATALOG.with_plugins()
    if not (base_path.startswith("/") and base_path.endswith("/")):
        raise InputError(f"the base path {base_path!r}", "one that begins and ends with a slash", "Correct it")
    settings = Settings(
        models=tuple(dict.fromkeys([model or NAME, *models, *TOYS])),
        host=host,
        port=port,
        token=new_token() if token is True else (token or ""),
        base_path=base_path,
        hosts=tuple(hosts),
        directory=directory or cache_dir() / "results",
        dtype=dtype,
        device=device,
        memory=int(memory * _GIB),
        disk=int(disk * _GIB),
        any_model=any_model,
        any_file=any_file,
        allow_network=allow_network,
        check=check,
        runs=runs,
    )
    running = start(settings, catalog)
    print(f"The explorer is at {running.address}\n{_room(settings)} Ctrl-C stops it.", flush=True)
    try:
        running.run()
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        running.close()


def _room(settings: Settings) -> str:
    """How much its results may take, for whoever starts it."""
    memory, disk = (f"{size / _GIB:.3g} GiB" for size in (settings.memory, settings.disk))
    return f"It keeps up to {memory} of results in memory (--memory) and {disk} in {settings.directory} (--disk)."


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise UnavailableError(
                f"{error.strerror} for {settings.host}:{settings.port}",
                "a free port on this machine",
                "Choose another one with --port",
            ) from error
